//! `query-api`: reads and the live stream, from the read models. As many copies as there is need for.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use http_api::Api;
use query_api::{QueryApi, Sources};

use access::installation::Log;
use access::token::Sealer;
use backends::database::{self, Use};
use process::health::Check;
use service::{Built, DEPENDENCY_WAIT, StartError, Starting};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8082;
/// Only ended sessions are looked for there, and checks made.
const READ_CONNECTIONS_MAX: u32 = 2;

fn main() -> ExitCode {
    service::run("query-api", PORT, async |starting| build(starting).await)
}

async fn build(starting: &mut Starting) -> Result<Built, StartError> {
    let urls = starting.databases.clone();
    let primary =
        starting.connect("PRIMETRADE_READ_DATABASE_URL", urls.read.as_ref(), Use::Read, READ_CONNECTIONS_MAX).await?;
    read_model::schema().wait(&primary, DEPENDENCY_WAIT).await?;
    let replica = urls.replica.as_ref().map(|given| database::address(given, Use::Read)).transpose()?;
    let sources = Sources::connect(primary.address().clone(), replica, starting.redis.clone());
    if let Some(replica) = sources.replica.clone() {
        starting.health.register("replica", move || {
            let detail = if replica.is_there() { "answers" } else { "is away or slow: done without" };
            std::future::ready(Check::ok(detail))
        });
    }

    let verifier = starting.remote_verifier(&primary, Log::OfReadModels(primary.clone())).await?;
    // Asked of those connections that reads go over.
    let reads = sources.primary.clone();
    starting.health.register("read_models", move || database::check(reads.clone()));
    let sealer = Sealer::new(&starting.secret);
    let api = Api::from(query_api::router(QueryApi::new(sources, sealer, None, starting.closing.clone())))
        .merge(query_api::dashboard::router());
    Ok(Built { api, verifier })
}
