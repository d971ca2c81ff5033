//! Redis as a cache: a handle whose calls are short or fail at once, and never say more than "not available".
//!
//! - Each call takes at most [`CALL_MS_MAX`].
//! - The circuit breaker is the connection itself. It is given up when it breaks, when calls fail one after the other, or
//!   when the server says that it is not the one to ask (it became a replica, it is loading its data, …); then all calls
//!   fail at once, while a task of its own opens another one by name, probes it, and lets calls through again once it
//!   answers in time. No caller ever waits for a connection or pays for a probe.
//! - A connection has a greatest age: an address that leads to another server is noticed also where nothing fails. The
//!   younger one is open for [`EXCHANGE_MS`] before it takes over, so that nobody is without Redis meanwhile.
//! - A cache may lose what it holds; that is a miss. It must not bring back what it held before: who depends on that
//!   reads with [`Redis::settled_values`], which answers only while the same Redis, with the same generation key, has
//!   been there for long enough. A Redis that was restarted, restored from a backup or wiped is told by that.
//!
//! A server by its address, or the primary that Sentinels name ([`Address`]). No cluster: a script may touch several
//! keys, which a cluster would keep apart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{counter, gauge, histogram};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, Value};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

mod address;

pub use address::{Address, BadUrl};

/// The longest that a call takes, in milliseconds.
pub const CALL_MS_MAX: u64 = 50;
/// Holds a random id, made by whoever finds none: a Redis without it, or with another one, is not the one before.
pub const GENERATION_KEY: &str = "primetrade:generation";

/// A connection that takes the place of an older one is open for so long before: whoever asks for settled values of a
/// shorter time has them without a break.
pub const EXCHANGE_MS: u64 = 5_000;

/// A connection older than this is exchanged for a younger one.
const CONNECTION_MS_MAX: u64 = 30_000;
/// Calls that fail one after the other before the connection is given up.
const FAILURES_MAX: u32 = 3;
/// How long opening a connection may take.
const OPEN_MS_MAX: u64 = 1_000;
/// Between two attempts to open one; doubled with each that fails.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;
/// What a server that is gone without a word may leave unanswered: so long is nothing heard of an idle connection, so
/// often is it asked again, and so long may it leave without confirmation what was sent.
const KEEPALIVE_IDLE_MS: u64 = 10_000;
const KEEPALIVE_INTERVAL_MS: u64 = 3_000;
const KEEPALIVE_PROBES_MAX: u32 = 3;
#[cfg(target_os = "linux")]
const UNCONFIRMED_MS_MAX: u64 = 10_000;
/// Error replies of a server that is used all the same are logged this often at most.
const ERRORS_SAID_ONCE_IN_MS: u64 = 60_000;
/// Reasons that are logged while there is no connection, each once.
const REASONS_MAX: usize = 10;
/// Calls that may wait to be written to the connection.
const QUEUE_CALLS_MAX: usize = 1_024;

/// A Redis that may or may not be there. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: watch::Sender<Option<Arc<Link>>>,
    /// When an error reply was logged last.
    said: Mutex<Option<Instant>>,
}

/// A connection that answered when it was opened.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    generation: Bytes,
    since: Instant,
    /// Failed calls since the last one that did not.
    failures: AtomicU32,
}

/// There is no answer from Redis: it is away, slow, or was exchanged a moment ago. Do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis is not available")]
pub struct NotAvailable;

/// A value to keep for a time.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Under which key.
    pub key: String,
    /// The value, in parts that are put together.
    pub value: Vec<u8>,
    /// For how long, milliseconds; at least 1.
    pub ttl_ms: u64,
}

impl Redis {
    /// The same by an address without more settings.
    ///
    /// # Errors
    /// It is not the URL of a Redis.
    pub fn connect(url: &str) -> Result<Self, BadUrl> {
        Address::parse(url).map(Self::at)
    }

    /// A handle; the connection is made in the background, and made again whenever it is lost. Needs a Tokio runtime.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self::with_connections_of(address, CONNECTION_MS_MAX)
    }

    /// The same with another greatest age of its connections.
    #[must_use]
    pub fn with_connections_of(address: Address, connection_ms_max: u64) -> Self {
        let inner = Arc::new(Inner { link: watch::Sender::new(None), said: Mutex::new(None) });
        gauge!("redis_up").set(0.0);
        let keeper = Keeper { address, connection_ms_max, inner: Arc::downgrade(&inner) };
        tokio::spawn(keeper.keep_open(inner.link.subscribe()));
        Self(inner)
    }

    /// Whether calls are let through.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.link.borrow().is_some()
    }

    /// Waits until calls are let through; for who starts, and for tests.
    pub async fn up(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.0.link.subscribe().wait_for(Option::is_some).await;
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`NotAvailable`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, NotAvailable> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        bytes(self.call("get", &command).await?)
    }

    /// The values of keys, from a Redis that has been there, without being restarted or wiped, for at least
    /// `settled_ms`: whatever lives no longer than that was written since.
    ///
    /// # Errors
    /// See [`NotAvailable`].
    pub async fn settled_values(&self, keys: &[String], settled_ms: u64) -> Result<Vec<Option<Bytes>>, NotAvailable> {
        let link = self.link("settled_values")?;
        if link.since.elapsed() < Duration::from_millis(settled_ms) {
            count("settled_values", "unsettled");
            return Err(NotAvailable);
        }
        let mut command = redis::cmd("MGET");
        command.arg(GENERATION_KEY).arg(keys);
        let Value::Array(values) = self.call_on(&link, "settled_values", &command).await? else {
            return Err(NotAvailable);
        };
        let mut values = values.into_iter().map(bytes);
        if values.next().transpose()?.flatten().as_ref() != Some(&link.generation) {
            self.give_up(&link, &"its generation key is gone or another one: it was wiped or exchanged");
            return Err(NotAvailable);
        }
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if values.len() == keys.len() { Ok(values) } else { Err(NotAvailable) }
    }

    /// Keeps values, in one round trip.
    ///
    /// # Errors
    /// See [`NotAvailable`]; some may have been kept.
    pub async fn set(&self, entries: Vec<Entry>) -> Result<(), NotAvailable> {
        let link = self.link("set")?;
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in &entries {
            pipeline.cmd("SET").arg(&entry.key).arg(&entry.value).arg("PX").arg(entry.ttl_ms.max(1)).ignore();
        }
        let mut connection = link.connection.clone();
        let calling = async {
            let answers = connection.send_packed_commands(&pipeline, 0, entries.len()).await?;
            answers.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
        };
        self.outcome(&link, "set", calling).await
    }

    /// Runs a script. What it does must be harmless if it is done late, or twice.
    ///
    /// # Errors
    /// See [`NotAvailable`]; it may have run, or run yet.
    pub async fn run_script(
        &self,
        script: &str,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Option<i64>, NotAvailable> {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        match self.call("script", &command).await? {
            Value::Int(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    /// Runs a script that answers with a number for each key.
    ///
    /// # Errors
    /// See [`NotAvailable`]; it may have run, or run yet.
    pub async fn run_script_on_all(
        &self,
        script: &str,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Vec<i64>, NotAvailable> {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        let Value::Array(answers) = self.call("script", &command).await? else { return Err(NotAvailable) };
        let number = |answer| if let Value::Int(number) = answer { Ok(number) } else { Err(NotAvailable) };
        let numbers = answers.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
        if numbers.len() == keys.len() { Ok(numbers) } else { Err(NotAvailable) }
    }

    async fn call(&self, call: &'static str, command: &Cmd) -> Result<Value, NotAvailable> {
        let link = self.link(call)?;
        self.call_on(&link, call, command).await
    }

    async fn call_on(&self, link: &Arc<Link>, call: &'static str, command: &Cmd) -> Result<Value, NotAvailable> {
        let mut connection = link.connection.clone();
        // an error that the server replies with is a value to the library
        self.outcome(link, call, async { connection.send_packed_command(command).await?.extract_error() }).await
    }

    async fn outcome<T>(
        &self,
        link: &Arc<Link>,
        call: &'static str,
        calling: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, NotAvailable> {
        let began = Instant::now();
        let answered = timeout(Duration::from_millis(CALL_MS_MAX), calling).await;
        histogram!("redis_call_duration_seconds", "call" => call).record(began.elapsed().as_secs_f64());
        match answered {
            Ok(Ok(answer)) => {
                link.failures.store(0, Ordering::Relaxed);
                count(call, "ok");
                Ok(answer)
            }
            Ok(Err(error)) if error.code().is_some() => {
                count(call, "error");
                link.failures.store(0, Ordering::Relaxed);
                if is_of_no_use(&error) {
                    self.give_up(link, &in_words(&error));
                } else {
                    self.say(call, &error);
                }
                Err(NotAvailable)
            }
            Ok(Err(error)) => {
                count(call, "error");
                let broken = error.is_io_error() || error.is_unrecoverable_error();
                if link.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX || broken {
                    self.give_up(link, &error);
                }
                Err(NotAvailable)
            }
            Err(_) => {
                count(call, "timeout");
                if link.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.give_up(link, &format_args!("{FAILURES_MAX} calls without an answer in {CALL_MS_MAX} ms"));
                }
                Err(NotAvailable)
            }
        }
    }

    fn link(&self, call: &'static str) -> Result<Arc<Link>, NotAvailable> {
        let link = self.0.link.borrow().clone();
        link.ok_or_else(|| {
            count(call, "unavailable");
            NotAvailable
        })
    }

    /// Opens the breaker, unless somebody has already.
    fn give_up(&self, link: &Arc<Link>, why: &dyn std::fmt::Display) {
        let given_up = self.0.link.send_if_modified(|current| {
            let is_this = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
            if is_this {
                *current = None;
            }
            is_this
        });
        if given_up {
            gauge!("redis_up").set(0.0);
            tracing::warn!(%why, "doing without Redis; trying to reach it again");
        }
    }

    /// Tells of an error reply, now and then.
    fn say(&self, call: &'static str, error: &RedisError) {
        let now = Instant::now();
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| now.duration_since(at) >= Duration::from_millis(ERRORS_SAID_ONCE_IN_MS)) {
            *said = Some(now);
            tracing::warn!(call, error = in_words(error), "Redis refuses a call; it is done without");
        }
    }
}

/// Replies by which a server says that it is not the one to ask, or not now.
const OF_NO_USE: [&str; 6] = ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "NOREPLICAS", "MOVED"];

/// Whether the error says so; older servers pack what a script met into an error of their own.
fn is_of_no_use(error: &RedisError) -> bool {
    let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
    OF_NO_USE.iter().any(|of_no_use| code == *of_no_use || detail.contains(&format!("-{of_no_use} ")))
}

fn count(call: &'static str, outcome: &'static str) {
    counter!("redis_calls_total", "call" => call, "outcome" => outcome).increment(1);
}

fn bytes(value: Value) -> Result<Option<Bytes>, NotAvailable> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
        _ => Err(NotAvailable),
    }
}

/// A reply as the server gave it; any other error as the library has it.
fn in_words(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => error.to_string(),
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum NotOpened {
    #[error("{}", in_words(.0))]
    Redis(#[from] RedisError),
    #[error("no answer within {OPEN_MS_MAX} ms")]
    NoAnswer,
    #[error("it answers, but not within {CALL_MS_MAX} ms")]
    Slow,
    #[error("no Sentinel answers: {}", in_words(.0))]
    NoSentinel(RedisError),
    #[error("the Sentinels know no primary by the name {0} (PRIMETRADE_REDIS_URL has it after the addresses)")]
    UnknownName(String),
    #[error("it is a replica: PRIMETRADE_REDIS_URL has to lead to the primary, or name its Sentinels")]
    Replica,
    #[error("it is a node of a Redis Cluster: PRIMETRADE_REDIS_URL has to name a server that is none")]
    Cluster,
    #[error("it wants another name or password than PRIMETRADE_REDIS_URL has ({})", in_words(.0))]
    Password(RedisError),
}

/// Keeps a connection open as long as anybody holds a handle.
struct Keeper {
    address: Address,
    connection_ms_max: u64,
    inner: Weak<Inner>,
}

impl Keeper {
    async fn keep_open(self, mut link: watch::Receiver<Option<Arc<Link>>>) {
        while let Some(opened) = self.reach().await {
            if !self.let_through(opened) {
                return;
            }
            tracing::info!("Redis answers");
            if self.exchange(&mut link).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(PAUSE_MS_MIN)).await;
        }
    }

    /// A connection as soon as there is one to be had; `None`: nobody holds a handle any more.
    async fn reach(&self) -> Option<Link> {
        let mut failed = 0_u32;
        let mut said: Vec<String> = Vec::new();
        loop {
            let why = match self.open().await {
                Ok(opened) => return Some(opened),
                Err(why) => why.to_string(),
            };
            // another reason is news
            if said.len() < REASONS_MAX && !said.contains(&why) {
                tracing::warn!(%why, "Redis cannot be used; trying again");
                said.push(why);
            }
            let pause = Duration::from_millis((PAUSE_MS_MIN << failed.min(8)).min(PAUSE_MS_MAX));
            failed = failed.saturating_add(1);
            tokio::time::sleep(pause).await;
            if self.inner.strong_count() == 0 {
                return None;
            }
        }
    }

    /// Whether there is anybody to use it.
    fn let_through(&self, opened: Link) -> bool {
        let Some(inner) = self.inner.upgrade() else { return false };
        gauge!("redis_up").set(1.0);
        inner.link.send_replace(Some(Arc::new(opened)));
        true
    }

    /// Exchanges the connection for a younger one whenever it is old, until it is given up.
    ///
    /// # Errors
    /// Nobody holds a handle any more.
    async fn exchange(&self, link: &mut watch::Receiver<Option<Arc<Link>>>) -> Result<(), watch::error::RecvError> {
        let mut failing = false;
        loop {
            tokio::select! {
                given_up = link.wait_for(Option::is_none) => return given_up.map(drop),
                () = tokio::time::sleep(Duration::from_millis(self.connection_ms_max)) => {}
            }
            match self.open().await {
                Ok(younger) => {
                    failing = false;
                    // Where the older one is given up meanwhile, this one is there already.
                    tokio::select! {
                        given_up = link.wait_for(Option::is_none) => drop(given_up?),
                        () = tokio::time::sleep(Duration::from_millis(EXCHANGE_MS)) => {}
                    }
                    if !self.let_through(younger) {
                        return Ok(());
                    }
                }
                Err(why) if !failing => {
                    failing = true;
                    tracing::warn!(%why, "a new connection to Redis cannot be had; the one that is open goes on");
                }
                Err(_) => {}
            }
        }
    }

    async fn open(&self) -> Result<Link, NotOpened> {
        let opening = async {
            let client = self.address.server().await?;
            Link::open(&client).await
        };
        timeout(Duration::from_millis(OPEN_MS_MAX), opening).await.unwrap_or(Err(NotOpened::NoAnswer))
    }
}

/// Of all connections, to servers and Sentinels.
fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE_CALLS_MAX)
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_millis(KEEPALIVE_IDLE_MS))
        .with_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .with_retries(KEEPALIVE_PROBES_MAX);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_millis(UNCONFIRMED_MS_MAX));
    settings
}

impl Link {
    /// A new connection, and a probe that it has to answer as quickly as any call, as who can be written to.
    async fn open(client: &Client) -> Result<Self, NotOpened> {
        let config = connection_config();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| match error.kind() {
            ErrorKind::AuthenticationFailed => NotOpened::Password(error),
            _ => error.into(),
        })?;
        let mut probe = Pipeline::with_capacity(4);
        probe.cmd("CLUSTER").arg("INFO").cmd("ROLE");
        probe.cmd("SET").arg(GENERATION_KEY).arg(Uuid::new_v4().simple().to_string()).arg("NX");
        probe.cmd("GET").arg(GENERATION_KEY);
        // Before the probe: what is there was written before, or after.
        let since = Instant::now();
        let probing = connection.send_packed_commands(&probe, 0, 4);
        let answers = timeout(Duration::from_millis(CALL_MS_MAX), probing).await.map_err(|_| NotOpened::Slow)??;
        let [cluster, role, set, generation] = <[Value; 4]>::try_from(answers)
            .map_err(|_| RedisError::from((ErrorKind::UnexpectedReturnType, "not four answers to four commands")))?;
        // Servers that do not know the first two, or do not say, are taken as they are.
        if text_of(&cluster).is_some_and(|text| text.contains("cluster_state:")) {
            return Err(NotOpened::Cluster);
        }
        if matches!(&role, Value::Array(role) if role.first().and_then(text_of).as_deref() == Some("slave")) {
            return Err(NotOpened::Replica);
        }
        for answer in [set, generation.clone()] {
            answer.extract_error().map_err(|error| match error.code() {
                Some("NOAUTH" | "NOPERM") => NotOpened::Password(error),
                Some("READONLY") => NotOpened::Replica,
                _ => error.into(),
            })?;
        }
        let Value::BulkString(generation) = generation else {
            return Err(
                RedisError::from((ErrorKind::UnexpectedReturnType, "no generation key where one was set")).into()
            );
        };
        Ok(Self { connection, generation: Bytes::from(generation), since, failures: AtomicU32::new(0) })
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_by_which_a_connection_is_given_up() {
        for (reply, given_up) in [
            ("READONLY You can't write against a read only replica.", true),
            ("READONLY You can't write against a read only replica. script: 5, on @user_script:1.", true),
            // 6.2, out of a script
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write \
                 against a read only replica.",
                true,
            ),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", true),
            ("LOADING Redis is loading the dataset in memory", true),
            ("NOAUTH Authentication required.", true),
            ("NOREPLICAS Not enough good replicas to write.", true),
            ("MOVED 3999 127.0.0.1:6381", true),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
            ("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.", false),
            ("BUSY Redis is busy running a script.", false),
            ("ERR unknown command", false),
        ] {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).expect("a reply");
            let error = value.extract_error().expect_err("an error");
            assert!(error.code().is_some(), "{reply}");
            assert_eq!(is_of_no_use(&error), given_up, "{reply}");
        }
    }
}
