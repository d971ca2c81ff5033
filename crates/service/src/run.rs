//! The whole life of a service.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use access::token::RootSecret;
use backends::database::DatabaseUrls;
use clap::Parser;
use http_api::edge::EdgeSettings;
use http_server::Tls;
use process::background::{Background, Died};
use process::health::Health;
use process::interrupt::Interrupt;
use process::logs::{self, LogSettings};
use process::{arguments, prometheus, stderr, traces};
use settings::{ConfigError, Source, exposure};
use tokio_util::sync::CancellationToken;

use crate::forms::check_forms;
use crate::listeners::{Listen, ListenError, Listeners};
use crate::serving::{Built, Ending, Serving};
use crate::starting::{StartError, Starting};

const ENDING: Ending = Ending {
    // longer than the second for which the gateway keeps an idle connection
    drain_time: Duration::from_millis(1_500),
    background_time_max: Duration::from_millis(2_000),
};
/// What is left on the runtime's threads is not waited for longer.
const RUNTIME_STOP_MS_MAX: u64 = 500;
/// From SIGTERM to the end, on a machine that has time for it.
const STOP_MS_MAX: u128 = 10_000;
const _: () = assert!(
    STOP_MS_MAX
        > ENDING.drain_time.as_millis()
            + http_server::DRAIN_TIME_MAX.as_millis()
            + ENDING.background_time_max.as_millis()
            + traces::LAST_TIME_MAX.as_millis()
            + RUNTIME_STOP_MS_MAX as u128
            + stderr::LAST_TIME_MAX.as_millis()
);

/// Exit status of what could not run.
const COULD_NOT_RUN: u8 = 2;
/// Exit status of what ended though it should not have.
const DIED: u8 = 1;

/// The flags of a service; they win over the file and variables.
#[derive(Debug, Parser)]
#[command(version, about = "A service of PrimeTrade. Everything else is set by variables or a file: see .env.example.")]
struct Flags {
    /// File of settings, NAME=value (PRIMETRADE_CONFIG_FILE)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port of the API (PRIMETRADE_LISTEN)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and port of livez, readyz and metrics (PRIMETRADE_OPS_LISTEN)
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Died(#[from] Died),
    #[error("the server failed: {0}")]
    Server(#[from] std::io::Error),
}

/// The whole life of a service called `name`, which listens on `port` unless it is told otherwise. `build` is asked once,
/// with the configuration read and logs set up.
pub fn run<B>(name: &'static str, port: u16, build: B) -> ExitCode
where
    B: AsyncFnOnce(&mut Starting) -> Result<Built, StartError>,
{
    let flags = match arguments::read::<Flags>() {
        Ok(flags) => flags,
        Err(status) => return status,
    };
    stderr::wait_for_nobody();
    let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = ended.map_err(|error| Failure::Start(error.into())).and_then(|runtime| {
        let ended = runtime.block_on(live(name, port, flags, build));
        runtime.shutdown_timeout(Duration::from_millis(RUNTIME_STOP_MS_MAX));
        ended
    });
    let status = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr::say(&format!("error: {failure}"));
            ExitCode::from(if matches!(failure, Failure::Died(_)) { DIED } else { COULD_NOT_RUN })
        }
    };
    stderr::flush();
    status
}

async fn live<B>(name: &'static str, port: u16, flags: Flags, build: B) -> Result<(), Failure>
where
    B: AsyncFnOnce(&mut Starting) -> Result<Built, StartError>,
{
    let (mut starting, listen) = read(port, flags)?;
    let interrupt = Interrupt::listen().map_err(|error| Failure::Start(error.into()))?;
    let metrics = prometheus::recorder().map_err(|error| Failure::Start(error.into()))?;
    let _traces = traces::from(&starting.source, name).map_err(|error| Failure::Start(error.into()))?;
    let edge = EdgeSettings::read(&starting.source).map_err(|error| Failure::Start(error.into()))?;
    let tls = Tls::read(&starting.source).map_err(|error| Failure::Start(error.into()))?;
    listen.try_ports()?;
    starting.redis = starting.open_redis()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{name} starts");
    let built = tokio::select! {
        built = build(&mut starting) => built?,
        () = interrupt.soft.cancelled() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    let Starting { health, background, closing, redis, secret, .. } = starting;
    let listeners = Listeners::bind(&listen, tls).await?;
    let serving = Serving { edge, secret, redis, health, metrics, background, closing };
    let outcome = tokio::select! {
        outcome = serving.answer(listeners, built, &interrupt.soft, ENDING, std::future::pending()) => outcome,
        () = interrupt.hard.cancelled() => std::process::exit(COULD_NOT_RUN.into()),
    };
    tracing::info!("{name} has stopped");
    outcome
}

/// The configuration, once, and the logs as it has them.
fn read(port: u16, flags: Flags) -> Result<(Starting, Listen), Failure> {
    let starting = || -> Result<_, StartError> {
        let mut source = Source::from_env();
        source.add_file(flags.config.as_deref())?;
        source.check_names(&[])?;
        check_forms(&source)?;
        for (name, flag) in [("PRIMETRADE_LISTEN", flags.listen), ("PRIMETRADE_OPS_LISTEN", flags.ops_listen)] {
            if let Some(value) = flag {
                source.set(name, value);
            }
        }
        logs::init(&LogSettings::read(&source)?)?;
        let listen = Listen::read_or(&source, port)?;
        exposure::check(&source, listen.address)?;
        let needed_for = "all copies of all services need the same one; a single process makes its own";
        let secret = RootSecret::read(&source)?
            .ok_or_else(|| ConfigError::Missing { name: "PRIMETRADE_SECRET".to_owned(), needed_for })?;
        let starting = Starting {
            databases: DatabaseUrls::read(&source)?,
            source,
            secret,
            redis: None,
            health: Health::new(),
            background: Background::default(),
            closing: CancellationToken::new(),
        };
        Ok((starting, listen))
    };
    Ok(starting()?)
}
