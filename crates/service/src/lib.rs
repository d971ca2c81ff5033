//! A service as a process: read the configuration, wait for what it needs, serve, drain. [`run`] is what the three
//! `main.rs` share; [`Listeners`] and [`check_forms`] also serve `primetrade serve`.
//!
//! ```text
//! service::run("query-api", 8082, async |starting| {
//!     let pool = …;                                          // waits for the database, with patience
//!     let verifier = starting.remote_verifier(&pool).await?; // waits for the keys
//!     Ok(Built { api: query_api::router(…), verifier })
//! })
//! ```
//!
//! The end, at SIGTERM: `/readyz` says 503 and each answer closes its connection, while everything is still answered, so
//! that whoever sends requests here sends them elsewhere; then no connection is accepted any more and what is being
//! answered is waited for; then the background tasks end. It takes at most 10 s. A second signal ends it at once.

/// The forms of all settings.
mod forms;

/// The ports of a process, and how it answers there until its end.
mod listeners;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use access::installation::{Installation, Log};
use access::jwks::{self, Jwks};
use access::token::RootSecret;
use access::{Verifier, ended_sessions};
use backends::database::{self, DatabaseUrls, Pool, Use};
use backends::redis::{Address, Redis};
use clap::Parser;
use http_api::Api;
use http_api::edge::EdgeSettings;
use http_server::Tls;
use process::background::Background;
use process::health::{Check, Health};
use process::interrupt::Interrupt;
use process::logs::{self, LogSettings};
use process::{arguments, prometheus, stderr, traces};
use settings::{ConfigError, Source, exposure};
use tokio_util::sync::CancellationToken;

pub use forms::check_forms;
pub use listeners::{Answers, Listen, ListenError, Listeners};

/// How long a service waits for each thing that it needs before it gives up.
pub const DEPENDENCY_WAIT: Duration = Duration::from_secs(60);
/// For so long after SIGTERM everything is still answered, while `/readyz` says otherwise. Longer than the second for
/// which the gateway keeps an idle connection.
const LAME_DUCK_MS: u64 = 1_500;
/// How long background tasks may take to write what is under way, once nobody asks any more.
const BACKGROUND_STOP_MS_MAX: u64 = 2_000;
/// What is left on the runtime's threads is not waited for longer.
const RUNTIME_STOP_MS_MAX: u64 = 500;
/// From SIGTERM to the end, on a machine that has time for it.
const STOP_MS_MAX: u128 = 10_000;
const _: () = assert!(
    STOP_MS_MAX
        > LAME_DUCK_MS as u128
            + http_server::DRAIN_TIME_MAX.as_millis()
            + BACKGROUND_STOP_MS_MAX as u128
            + traces::LAST_TIME_MAX.as_millis()
            + RUNTIME_STOP_MS_MAX as u128
            + stderr::LAST_TIME_MAX.as_millis()
);

/// Exit status of what could not run.
const COULD_NOT_RUN: u8 = 2;
/// Exit status of what ended though it should not have.
const DIED: u8 = 1;

/// Whatever keeps a service from starting; each kind says in its own words what to do.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

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

/// What a service is built with.
pub struct Starting {
    /// All settings.
    pub source: Source,
    /// `PRIMETRADE_DATABASE_URL` and those that default to it.
    pub databases: DatabaseUrls,
    /// `PRIMETRADE_SECRET`, the same for all copies of all services.
    pub secret: RootSecret,
    /// `PRIMETRADE_REDIS_URL`, where it is set. It is shown in `/readyz`, but nothing waits for it and nobody needs it.
    pub redis: Option<Redis>,
    /// For checks of one's own.
    pub health: Health,
    /// For tasks that run as long as the process.
    pub background: Background,
    /// Cancelled when no connection is accepted any more: live streams end then.
    pub closing: CancellationToken,
}

/// What a service has become.
pub struct Built {
    /// Its routes, without those of operations.
    pub api: Api,
    /// Who may use them.
    pub verifier: Verifier,
}

impl Starting {
    /// A pool, once the database answers; `url` comes from `variable`, or from the one that stands for it.
    ///
    /// # Errors
    /// It is not set, or does not answer in time.
    pub async fn connect(
        &self,
        variable: &'static str,
        url: Option<&secrecy::SecretString>,
        for_use: Use,
        connections_max: u32,
    ) -> Result<Pool, StartError> {
        let needed_for = "this service keeps its data there";
        let url = url.ok_or_else(|| ConfigError::Missing { name: variable.to_owned(), needed_for })?;
        let given = if self.source.secret(variable)?.is_some() { variable } else { "PRIMETRADE_DATABASE_URL" };
        let pool = database::connect(given, connections_max, url, for_use, DEPENDENCY_WAIT).await?;
        pool.show_as(pool_name(variable));
        Ok(pool)
    }

    fn open_redis(&self) -> Result<Option<Redis>, StartError> {
        let Some(address) = Address::read(&self.source)? else { return Ok(None) };
        let redis = Redis::at(address);
        let shown = redis.clone();
        self.health.register("redis", move || {
            let detail = if shown.is_up() { "answers" } else { "is away or slow: done without" };
            std::future::ready(Check::ok(detail))
        });
        Ok(Some(redis))
    }

    /// Verifies tokens without the identity database: by the keys of `PRIMETRADE_JWKS_URL`, which have to be of this
    /// installation and log, and by the sessions that the read database knows to have ended.
    ///
    /// # Errors
    /// The variable is not set or wrong, or there are no keys to be had in time.
    pub async fn remote_verifier(&mut self, read_pool: &Pool, log: Log) -> Result<Verifier, StartError> {
        let needed_for = "tokens are verified by the keys that command-api shows at /.well-known/jwks.json";
        let missing = || ConfigError::Missing { name: jwks::JWKS_URL.to_owned(), needed_for };
        let url = jwks::url(&self.source)?.ok_or_else(missing)?;
        let stop = &self.background.stop;
        let jwks = Jwks::new(&url, Installation::of(&self.secret), log)?;
        let (keys, fetching) = jwks.follow(DEPENDENCY_WAIT, stop.clone()).await?;
        let (revoked, looking) = ended_sessions::follow(read_pool.clone(), stop.clone()).await?;
        self.background.spawn("fetching of keys", fetching);
        self.background.spawn("look-out for ended sessions", looking);
        let (fetched, known) = (keys.fetched.clone(), keys.keys.clone());
        self.health.register("keys", move || std::future::ready(jwks::check(&fetched, &known)));
        Ok(Verifier::new(keys.keys, revoked).asking(keys.refetch))
    }
}

/// As metrics have it.
fn pool_name(variable: &str) -> &'static str {
    match variable {
        "PRIMETRADE_DATABASE_URL" => "write",
        _ => "read",
    }
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the {0} ended, which it should not; see the log. The process ends, so that it can be started again")]
    Died(&'static str),
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
    starting.redis = starting.open_redis()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{name} starts");
    let built = tokio::select! {
        built = build(&mut starting) => built?,
        () = interrupt.soft.cancelled() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    let Starting { health, mut background, closing, redis, secret, .. } = starting;
    let edge = edge.edge(built.verifier, &secret, health.draining());
    if let Some(redis) = redis {
        let sharing = edge.limits.share(redis, &Installation::of(&secret), background.stop.clone());
        background.spawn("sharing of rate limits", sharing);
    }
    let listeners = Listeners::bind(&listen, tls).await?;
    let answers = Answers { api: built.api, edge, health, metrics, closing };
    let answered_and_stopped = async {
        let died = async { Failure::Died(background.first_to_die().await) };
        let outcome = listeners.answer(answers, &interrupt.soft, Duration::from_millis(LAME_DUCK_MS), died).await;
        background.stop(Duration::from_millis(BACKGROUND_STOP_MS_MAX)).await;
        outcome
    };
    let outcome = tokio::select! {
        outcome = answered_and_stopped => outcome,
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
