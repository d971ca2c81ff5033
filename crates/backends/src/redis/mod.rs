//! Redis as a cache: a handle whose calls are short or fail at once, and never say more than "not available".
//!
//! - Each call takes at most [`CALL_MS_MAX`].
//! - The circuit breaker is the connection itself. It is dropped when it breaks, when calls fail one after the other, or
//!   when the server says that it is not the one to ask (it became a replica, it is loading its data, …); then all calls
//!   fail at once, while a task of its own opens another one by name, probes it, and lets calls through again once it
//!   answers in time. No caller ever waits for a connection or pays for a probe.
//! - A connection has a greatest age: an address that leads to another server is noticed also where nothing fails. The
//!   younger one is open for [`OVERLAP_MS`] before it takes over, so that nobody is without Redis meanwhile.
//! - A cache may lose what it holds; that is a miss. It must not bring back what it held before: who depends on that
//!   reads with [`Redis::settled_values`], which answers only while the same Redis, with the same generation key, has
//!   been there for long enough. A Redis that was restarted, restored from a backup or wiped is told by that.
//!
//! A server by its address, or the primary that Sentinels name ([`Address`]). No cluster: a script may touch several
//! keys, which a cluster would keep apart.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{counter, gauge, histogram};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::watch;
use tokio::time::timeout;

/// One connection.
mod link;

/// Where a Redis is: a server, or the primary that Sentinels name.
mod address;

/// Keeps a connection open.
mod keeper;

pub use address::{Address, BadUrl};
pub use keeper::OVERLAP_MS;
pub use link::{CALL_MS_MAX, GENERATION_KEY};

use keeper::{CONNECTION_MS_MAX, Keeper};
use link::{Link, in_words};

/// Calls that fail one after the other before the connection is dropped.
const FAILURES_MAX: u32 = 3;
/// Error replies of a server that is used all the same are logged this often at most.
const ERRORS_SAID_ONCE_IN_MS: u64 = 60_000;

/// A Redis that may or may not be there. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    link: Arc<watch::Sender<Option<Arc<Link>>>>,
    /// When an error reply was logged last.
    said: Mutex<Option<Instant>>,
}

/// There is no answer from Redis: it is away, slow, or was replaced a moment ago. Do without.
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
        let link = Arc::new(watch::Sender::new(None));
        gauge!("redis_up").set(0.0);
        let keeper = Keeper { address, connection_ms_max, link: Arc::downgrade(&link) };
        tokio::spawn(keeper.keep_open(link.subscribe()));
        Self(Arc::new(Inner { link, said: Mutex::new(None) }))
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
            self.disconnect(&link, &"its generation key is gone or another one: it was wiped or replaced");
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
                    self.disconnect(link, &in_words(&error));
                } else {
                    self.say(call, &error);
                }
                Err(NotAvailable)
            }
            Ok(Err(error)) => {
                count(call, "error");
                let broken = error.is_io_error() || error.is_unrecoverable_error();
                if link.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX || broken {
                    self.disconnect(link, &error);
                }
                Err(NotAvailable)
            }
            Err(_) => {
                count(call, "timeout");
                if link.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.disconnect(link, &format_args!("{FAILURES_MAX} calls without an answer in {CALL_MS_MAX} ms"));
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
    fn disconnect(&self, link: &Arc<Link>, why: &dyn std::fmt::Display) {
        let dropped = self.0.link.send_if_modified(|current| {
            let is_this = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
            if is_this {
                *current = None;
            }
            is_this
        });
        if dropped {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_by_which_a_connection_is_dropped() {
        for (reply, dropped) in [
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
            assert_eq!(is_of_no_use(&error), dropped, "{reply}");
        }
    }
}
