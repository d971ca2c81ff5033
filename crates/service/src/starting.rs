//! What a service is built with: the configuration, and what it waits for.

use std::time::Duration;

use access::installation::{Installation, Log};
use access::jwks::{self, Jwks};
use access::token::RootSecret;
use access::{Verifier, ended_sessions};
use backends::database::{self, DatabaseUrl, DatabaseUrls, Pool, Use};
use backends::redis::{Address, Redis};
use process::background::Background;
use process::health::{Check, Health};
use settings::{ConfigError, Source};
use tokio_util::sync::CancellationToken;

/// How long a service waits for each thing that it needs before it gives up.
pub const DEPENDENCY_WAIT: Duration = Duration::from_secs(60);
/// Whatever keeps a service from starting; each kind says in its own words what to do.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

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

impl Starting {
    /// A pool, once the database answers; `variable` says where it is, or another one in its place.
    ///
    /// # Errors
    /// It is not set, or does not answer in time.
    pub async fn connect(
        &self,
        variable: &'static str,
        given: Option<&DatabaseUrl>,
        for_use: Use,
        connections_max: u32,
    ) -> Result<Pool, StartError> {
        let needed_for = "this service keeps its data there";
        let given = given.ok_or_else(|| ConfigError::Missing { name: variable.to_owned(), needed_for })?;
        let pool = database::connect(given, connections_max, for_use, DEPENDENCY_WAIT).await?;
        pool.show_as(pool_name(variable));
        Ok(pool)
    }

    pub(crate) fn open_redis(&self) -> Result<Option<Redis>, StartError> {
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
