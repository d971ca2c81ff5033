//! Redis as a cache: a handle whose calls are short or fail at once, and never say more than "not available".
//!
//! - Each call takes at most [`CALL_MS_MAX`].
//! - The circuit breaker is the connection itself. It is given up when it breaks, or when calls fail one after the
//!   other; then all calls fail at once, while a task of its own opens another one, probes it, and lets calls through
//!   again once it answers in time. No caller ever waits for a connection or pays for a probe.
//! - A cache may lose what it holds; that is a miss. It must not bring back what it held before: who depends on that
//!   reads with [`Redis::settled_values`], which answers only while the same Redis, with the same generation key, has
//!   been there for long enough. A Redis that was restarted, restored from a backup or wiped is told by that.
//!
//! Standalone servers only: a script may touch several keys, which a cluster would keep apart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{counter, gauge, histogram};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, Pipeline, RedisError, TlsCertificates, Value};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::{ConfigError, Source, invalid};

/// The longest that a call takes, in milliseconds.
pub const CALL_MS_MAX: u64 = 50;
/// Holds a random id, made by whoever finds none: a Redis without it, or with another one, is not the one before.
pub const GENERATION_KEY: &str = "primetrade:generation";

/// Calls that fail one after the other before the connection is given up.
const FAILURES_MAX: u32 = 3;
/// How long opening a connection may take.
const OPEN_MS_MAX: u64 = 1_000;
/// Between two attempts to open one; doubled with each that fails.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 2_000;
/// Calls that may wait to be written to the connection.
const QUEUE_CALLS_MAX: usize = 1_024;

/// A Redis that may or may not be there. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: watch::Sender<Option<Arc<Link>>>,
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

/// The URL is not one of a Redis. (What it says is not repeated: it may hold a password.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the URL of a Redis, as redis://host:6379/0, or rediss://host:6379/0 for TLS")]
pub struct BadUrl;

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

/// Where a Redis is, and how to reach it.
#[derive(Clone)]
pub struct Address(Client);

impl Address {
    /// `PRIMETRADE_REDIS_URL`, where it is set, and `PRIMETRADE_REDIS_CA_FILE`.
    ///
    /// # Errors
    /// The URL is none of a Redis; the file has no certificates, or is of no use.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        const URL: &str = "PRIMETRADE_REDIS_URL";
        const CA: &str = "PRIMETRADE_REDIS_CA_FILE";
        let Some(url) = source.secret(URL)? else { return Ok(None) };
        let address = Self::parse(url.expose_secret()).map_err(|error| invalid(URL, &error))?;
        let Some(path) = source.text(CA)? else { return Ok(Some(address)) };
        if !matches!(address.0.get_connection_info().addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(invalid(CA, &format!("it is of use only where {URL} begins with rediss://")));
        }
        let pem = std::fs::read(&path).map_err(|error| invalid(CA, &format!("cannot read {path}: {error}")))?;
        let none = || invalid(CA, &"it is to be certificates (PEM)");
        address.certified_by(pem).ok_or_else(none).map(Some)
    }

    /// One whose certificate, if it needs any, is by an authority that the machine knows.
    ///
    /// # Errors
    /// It is not the URL of a Redis.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let client = Client::open(url).map_err(|_| BadUrl)?;
        match client.get_connection_info().addr() {
            // `#insecure`: without a look at the certificate
            ConnectionAddr::TcpTls { insecure: true, .. } => Err(BadUrl),
            _ => Ok(Self(client)),
        }
    }

    /// By one of these authorities instead; none where there are none.
    fn certified_by(&self, pem: Vec<u8>) -> Option<Self> {
        CertificateDer::pem_slice_iter(&pem).next()?.ok()?;
        let authorities = TlsCertificates { client_tls: None, root_cert: Some(pem) };
        Client::build_with_tls(self.0.get_connection_info().clone(), authorities).ok().map(Self)
    }
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
    pub fn at(Address(client): Address) -> Self {
        let inner = Arc::new(Inner { link: watch::Sender::new(None) });
        gauge!("redis_up").set(0.0);
        tokio::spawn(keep_open(client, Arc::downgrade(&inner), inner.link.subscribe()));
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
        let calling = async { connection.send_packed_commands(&pipeline, 0, entries.len()).await };
        self.outcome(&link, "set", calling).await.map(drop)
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
        self.outcome(link, call, async { connection.send_packed_command(command).await }).await
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

/// Opens a connection whenever there is none, as long as anybody holds a handle.
async fn keep_open(client: Client, inner: Weak<Inner>, mut link: watch::Receiver<Option<Arc<Link>>>) {
    let mut failed = 0_u32;
    loop {
        match timeout(Duration::from_millis(OPEN_MS_MAX), open(&client)).await {
            Ok(Ok(opened)) => {
                let Some(inner) = inner.upgrade() else { return };
                failed = 0;
                gauge!("redis_up").set(1.0);
                tracing::info!("Redis answers");
                inner.link.send_replace(Some(Arc::new(opened)));
                drop(inner);
                if link.wait_for(Option::is_none).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) if failed == 0 => tracing::warn!(%error, "Redis cannot be reached; trying again"),
            Err(_) if failed == 0 => tracing::warn!(limit_ms = OPEN_MS_MAX, "Redis does not answer; trying again"),
            Ok(Err(_)) | Err(_) => {}
        }
        let pause = Duration::from_millis((PAUSE_MS_MIN << failed.min(8)).min(PAUSE_MS_MAX));
        failed = failed.saturating_add(1);
        tokio::time::sleep(pause).await;
        if inner.strong_count() == 0 {
            return;
        }
    }
}

/// A new connection, and a probe that it has to answer as quickly as any call.
async fn open(client: &Client) -> Result<Link, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE_CALLS_MAX);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut probe = Pipeline::with_capacity(2);
    probe.cmd("SET").arg(GENERATION_KEY).arg(Uuid::new_v4().simple().to_string()).arg("NX").ignore();
    probe.cmd("GET").arg(GENERATION_KEY);
    // Before the probe: what is there was written before, or after.
    let since = Instant::now();
    let probing = probe.query_async::<(Vec<u8>,)>(&mut connection);
    let limit = Duration::from_millis(CALL_MS_MAX);
    let timed_out = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let (generation,) = timeout(limit, probing).await.map_err(|_| timed_out())??;
    Ok(Link { connection, generation: Bytes::from(generation), since, failures: AtomicU32::new(0) })
}
