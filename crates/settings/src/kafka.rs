//! The forms of Kafka's settings, which every program checks, whether it has a use for Kafka or not.

use http::uri::Authority;

use crate::error::{ConfigError, invalid};
use crate::source::Source;

/// The greatest `PRIMETRADE_KAFKA_PARTITIONS`.
pub const PARTITIONS_MAX: i32 = 1_000;
/// The greatest `PRIMETRADE_KAFKA_REPLICATION` and `PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS`.
pub const REPLICATION_MAX: i32 = i16::MAX as i32;

/// Checks their forms.
///
/// # Errors
/// Names the first one that is not as it should be.
pub fn check_forms(source: &Source) -> Result<(), ConfigError> {
    const BROKERS: &str = "PRIMETRADE_KAFKA_BROKERS";
    if let Some(index) = source.list::<String>(BROKERS)?.iter().position(|broker| !is_host_and_port(broker)) {
        return Err(invalid(BROKERS, &format!("number {} of its list is not host:port", index + 1)));
    }
    for (name, max) in [
        ("PRIMETRADE_KAFKA_PARTITIONS", PARTITIONS_MAX),
        ("PRIMETRADE_KAFKA_REPLICATION", REPLICATION_MAX),
        ("PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS", REPLICATION_MAX),
    ] {
        source.count(name, 1, max)?;
    }
    const COMPRESSION: &str = "PRIMETRADE_KAFKA_COMPRESSION";
    if !matches!(source.text(COMPRESSION)?.as_deref(), None | Some("zstd" | "lz4")) {
        return Err(invalid(COMPRESSION, &"it is either zstd or lz4"));
    }
    for (name, taken) in [
        ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"][..]),
        ("PRIMETRADE_KAFKA_SASL_MECHANISM", &["plain", "scram-sha-256", "scram-sha-512"]),
    ] {
        if let Some(value) = source.text(name)?
            && !taken.contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(invalid(name, &format!("it is one of {}", taken.join(", "))));
        }
    }
    Ok(())
}

fn is_host_and_port(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| {
        authority.port_u16().is_some_and(|port| port > 0) && !authority.host().is_empty() && !text.contains('@')
    })
}
