//! What librdkafka says, thinned out: while no broker answers, each of its clients says the same several times a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use tracing::{debug, error, info, warn};

/// Of one kind something is said once in so many seconds; the rest only where debug lines are asked for.
const SAID_ONCE_IN_S: u64 = 10;
/// Kinds that are told apart. (librdkafka has some dozens.)
const KINDS_MAX: usize = 100;

/// For clients of which nothing else has to be known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Thinned;

impl ClientContext for Thinned {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, message: &str) {
        log(level, kind, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

/// What a client says of itself as a whole.
pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    log(RDKafkaLogLevel::Error, &error.to_string(), reason);
}

/// What is no news: a setting that [`crate::producer::Producer`] knows to be called experimental, and a session too short
/// for these brokers, after which [`messaging::Session::Long`] is tried.
fn is_expected(kind: &str, message: &str) -> bool {
    kind == "CONFWARN" && message.contains("enable.gapless.guarantee") || kind.contains("InvalidSessionTimeout")
}

/// What a client says, unless something of that kind was said a moment ago, by whichever client of the process.
pub(crate) fn log(level: RDKafkaLogLevel, kind: &str, message: &str) {
    if is_expected(kind, message) {
        debug!(target: "librdkafka", kind, "{message}");
        return;
    }
    static SAID: Mutex<Option<Said>> = Mutex::new(None);
    let left_out = {
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_or_insert_default().left_out(kind, Instant::now())
    };
    let Some(left_out) = left_out else {
        debug!(target: "librdkafka", kind, "{message}");
        return;
    };
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            error!(target: "librdkafka", kind, left_out, "{message}");
        }
        RDKafkaLogLevel::Warning => warn!(target: "librdkafka", kind, left_out, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "librdkafka", kind, left_out, "{message}"),
        RDKafkaLogLevel::Debug => debug!(target: "librdkafka", kind, "{message}"),
    }
}

/// When something was said, by its kind, and how much was left out since.
#[derive(Debug, Default)]
struct Said(HashMap<String, (Instant, u64)>);

impl Said {
    /// Whether something of this kind is to be said now, and how much of it was left out before.
    fn left_out(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if let Some((at, left_out)) = self.0.get_mut(kind) {
            if now.duration_since(*at) < Duration::from_secs(SAID_ONCE_IN_S) {
                *left_out += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(left_out));
        }
        if self.0.len() >= KINDS_MAX {
            self.0.clear();
        }
        self.0.insert(kind.to_owned(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_of_librdkafka_is_no_news() {
        let experimental = "Configuration property enable.gapless.guarantee is experimental: …";
        for (kind, message, expected) in [
            ("CONFWARN", experimental, true),
            ("CONFWARN", "Configuration property session.timeout.ms is a consumer property", false),
            ("FAIL", experimental, false),
            ("Global error: InvalidSessionTimeout (Broker: Invalid session timeout)", "JoinGroup failed", true),
            ("Global error: AllBrokersDown (Local: All broker connections are down)", "1/1 brokers are down", false),
        ] {
            assert_eq!(is_expected(kind, message), expected, "{kind} {message}");
        }
    }

    #[test]
    fn each_kind_is_said_once_in_a_while_with_how_much_was_left_out() {
        let (mut said, start) = (Said::default(), Instant::now());
        let mut at = |ms, kind: &str| said.left_out(kind, start + Duration::from_millis(ms));
        assert_eq!(at(0, "FAIL"), Some(0));
        assert_eq!((at(1, "FAIL"), at(2, "ERROR"), at(9_999, "FAIL")), (None, Some(0), None));
        assert_eq!((at(10_000, "FAIL"), at(10_001, "FAIL")), (Some(2), None));
        assert_eq!(at(30_000, "FAIL"), Some(1));
        for number in 0..1_000 {
            at(30_001, &number.to_string());
        }
        assert!(said.0.len() <= KINDS_MAX);
    }
}
