//! One connection to a Redis, which answered when it was opened.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, ErrorKind, Pipeline, RedisError, Value};
use tokio::time::timeout;
use uuid::Uuid;

/// The longest that a call takes, in milliseconds.
pub const CALL_MS_MAX: u64 = 50;
/// Holds a random id, made by whoever finds none: a Redis without it, or with another one, is not the one before.
pub const GENERATION_KEY: &str = "primetrade:generation";

/// How long opening a connection may take.
pub(super) const OPEN_MS_MAX: u64 = 1_000;
/// What a server that is silently gone may leave unanswered: so long is nothing heard of an idle connection, so
/// often is it asked again, and so long may it leave without confirmation what was sent.
const KEEPALIVE_IDLE_MS: u64 = 10_000;
const KEEPALIVE_INTERVAL_MS: u64 = 3_000;
const KEEPALIVE_PROBES_MAX: u32 = 3;
#[cfg(target_os = "linux")]
const UNCONFIRMED_MS_MAX: u64 = 10_000;
/// Calls that may wait to be written to the connection.
const QUEUE_CALLS_MAX: usize = 1_024;

/// A connection that answered when it was opened.
#[derive(Debug)]
pub(super) struct Link {
    pub connection: MultiplexedConnection,
    pub generation: Bytes,
    pub since: Instant,
    /// Failed calls since the last one that did not.
    pub failures: AtomicU32,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
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

impl Link {
    /// A new connection, and a probe that it has to answer as quickly as any call, as who can be written to.
    pub async fn open(client: &Client) -> Result<Self, NotOpened> {
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

/// Of all connections, to servers and Sentinels.
pub(super) fn connection_config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE_CALLS_MAX)
}

pub(super) fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_millis(KEEPALIVE_IDLE_MS))
        .with_interval(Duration::from_millis(KEEPALIVE_INTERVAL_MS))
        .with_retries(KEEPALIVE_PROBES_MAX);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_millis(UNCONFIRMED_MS_MAX));
    settings
}

/// A reply as the server gave it; any other error as the library has it.
pub(super) fn in_words(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => error.to_string(),
    }
}
