//! `query-api`: reads and the live stream, from the read models. As many copies as there is need for.

use std::process::ExitCode;

use query_api::{QueryApi, Replica, Sources};

use access::installation::Log;
use access::token::Sealer;
use backends::database::{self, Address, Use, await_schema};
use process::health::Check;
use service::{Built, DEPENDENCY_WAIT, StartError, Starting};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PORT: u16 = 8082;
const QUERY_CONNECTIONS_MAX: u32 = 16;
/// Only ended sessions are looked for there, and checks made.
const READ_CONNECTIONS_MAX: u32 = 2;

fn main() -> ExitCode {
    service::run("query-api", PORT, async |starting| build(starting).await)
}

async fn build(starting: &mut Starting) -> Result<Built, StartError> {
    let urls = starting.databases.clone();
    let primary =
        starting.connect("PRIMETRADE_READ_DATABASE_URL", urls.read.as_ref(), Use::Read, READ_CONNECTIONS_MAX).await?;
    await_schema(&primary, "read_model", &read_model::migrator(), DEPENDENCY_WAIT).await?;
    let queries = |name, address: Address| {
        let queries = query_api::connect(address, QUERY_CONNECTIONS_MAX);
        queries.show_as(name);
        queries
    };
    // Nothing waits for the replica, not even the start.
    let replica = match &urls.replica {
        Some(url) => {
            let address = database::address("PRIMETRADE_READ_REPLICA_URL", url, Use::Read)?;
            Some(Replica::new(queries("queries-replica", address)))
        }
        None => None,
    };
    if let Some(replica) = replica.clone() {
        starting.health.register("replica", move || {
            let detail = if replica.is_there() { "answers" } else { "is away or slow: done without" };
            std::future::ready(Check::ok(detail))
        });
    }
    let sources =
        Sources { primary: queries("queries", primary.address().clone()), replica, redis: starting.redis.clone() };

    let verifier = starting.remote_verifier(&primary, Log::OfReadModels(primary.clone())).await?;
    // Asked of those connections that reads go over.
    let reads = sources.primary.clone();
    starting.health.register("read_models", move || database::check(reads.clone()));
    let sealer = Sealer::new(&starting.secret);
    let api = query_api::router(QueryApi::new(sources, sealer, None, starting.closing.clone()));
    Ok(Built { api: api.into(), verifier })
}
