//! The forms of Kafka's settings. Every program checks them, whether it has a use for Kafka or not; `messaging` adds what
//! they mean together.

use http::uri::Authority;

use crate::error::{ConfigError, invalid};
use crate::source::Source;

/// The greatest `PRIMETRADE_KAFKA_PARTITIONS`.
pub const PARTITIONS_MAX: i32 = 1_000;
/// The greatest `PRIMETRADE_KAFKA_REPLICATION` and `PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS`.
pub const REPLICATION_MAX: i32 = i16::MAX as i32;

/// Values of the right form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// `host:port`, with commas between.
    pub brokers: Option<String>,
    /// From 1 to [`PARTITIONS_MAX`].
    pub partitions: i32,
    /// From 1 to [`REPLICATION_MAX`].
    pub replication: i32,
    /// From 1 to [`REPLICATION_MAX`].
    pub min_insync_replicas: i32,
    /// `zstd` or `lz4`.
    pub compression: &'static str,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: &'static str,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<&'static str>,
}

impl Forms {
    /// Reads the settings.
    ///
    /// # Errors
    /// Names the first one that is not as it should be.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        const BROKERS: &str = "PRIMETRADE_KAFKA_BROKERS";
        const COMPRESSION: &str = "PRIMETRADE_KAFKA_COMPRESSION";
        const PROTOCOL: &str = "PRIMETRADE_KAFKA_SECURITY_PROTOCOL";
        const MECHANISM: &str = "PRIMETRADE_KAFKA_SASL_MECHANISM";
        if let Some(index) = source.list::<String>(BROKERS)?.iter().position(|broker| !is_host_and_port(broker)) {
            return Err(invalid(BROKERS, &format!("number {} of its list is not host:port", index + 1)));
        }
        let protocols = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
        let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        Ok(Self {
            brokers: source.text(BROKERS)?,
            partitions: source.count("PRIMETRADE_KAFKA_PARTITIONS", 12, PARTITIONS_MAX)?,
            replication: source.count("PRIMETRADE_KAFKA_REPLICATION", 1, REPLICATION_MAX)?,
            min_insync_replicas: source.count("PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS", 1, REPLICATION_MAX)?,
            compression: one_of(source, COMPRESSION, &["zstd", "lz4"], str::eq)?.unwrap_or("zstd"),
            security_protocol: one_of(source, PROTOCOL, &protocols, str::eq_ignore_ascii_case)?.unwrap_or("plaintext"),
            sasl_mechanism: one_of(source, MECHANISM, &mechanisms, str::eq_ignore_ascii_case)?,
        })
    }
}

fn one_of(
    source: &Source,
    name: &str,
    taken: &[&'static str],
    equal: fn(&str, &str) -> bool,
) -> Result<Option<&'static str>, ConfigError> {
    let Some(value) = source.text(name)? else { return Ok(None) };
    let found = taken.iter().copied().find(|known| equal(known, &value));
    found.map(Some).ok_or_else(|| invalid(name, &format!("it is one of {}", taken.join(", "))))
}

fn is_host_and_port(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| {
        authority.port_u16().is_some_and(|port| port > 0) && !authority.host().is_empty() && !text.contains('@')
    })
}
