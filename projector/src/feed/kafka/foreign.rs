//! Messages of other logs in the topic. They are passed over, and that is told: another installation has the same topic,
//! or the log was restored from a backup and got another id.

use std::collections::BTreeMap;
use std::time::Duration;

use process::health::Check;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

/// Of one log it is said once in so long.
const SAID_ONCE_IN_MS: u64 = 600_000;
/// Logs that are told apart.
const LOGS_MAX: usize = 10;

/// What was passed over, by log.
#[derive(Debug, Clone, Default)]
pub struct Foreign(BTreeMap<Uuid, PassedOver>);

/// Messages of one log.
#[derive(Debug, Clone)]
struct PassedOver {
    messages: u64,
    last: Instant,
    /// When it was said, and how many messages there were then.
    said: Instant,
}

impl Foreign {
    /// These messages, each of another log than `ours`, were passed over.
    pub(super) fn passed_over(&mut self, messages: &[Uuid], ours: Uuid, topic: &str, now: Instant) {
        for log_id in messages {
            metrics::counter!("projector_foreign_messages_total").increment(1);
            if !self.0.contains_key(log_id) && self.0.len() >= LOGS_MAX {
                continue;
            }
            let is_new = !self.0.contains_key(log_id);
            let of = self.0.entry(*log_id).or_insert(PassedOver { messages: 0, last: now, said: now });
            of.messages += 1;
            of.last = now;
            if is_new || now.duration_since(of.said) >= Duration::from_millis(SAID_ONCE_IN_MS) {
                of.said = now;
                warn!(
                    topic, %log_id, %ours, messages = of.messages,
                    "messages of another log are passed over: another installation has the same topic \
                     (PRIMETRADE_KAFKA_TOPIC), or the log was restored and these are from before"
                );
            }
        }
    }

    /// For `/readyz`: the read models lack nothing for it, but it is reported while it goes on.
    #[must_use]
    pub fn check(&self, topic: &str) -> Check {
        if self.0.is_empty() {
            return Check::ok(format!("{topic}, no messages of another log"));
        }
        let said = self.0.iter().map(|(log_id, PassedOver { messages, last, .. })| {
            format!(
                "{messages} messages of another log ({log_id}) passed over, the last {} s ago",
                last.elapsed().as_secs()
            )
        });
        let said: Vec<String> = said.collect();
        let said = format!(
            "{topic}: {}. Another installation has the same topic (PRIMETRADE_KAFKA_TOPIC), or the log was restored",
            said.join("; ")
        );
        let is_over = self.0.values().all(|of| of.last.elapsed() >= Duration::from_millis(SAID_ONCE_IN_MS));
        if is_over { Check::ok(said) } else { Check::degraded(said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_other_log_is_told_with_how_many_messages_it_has() {
        let (mut foreign, now) = (Foreign::default(), Instant::now());
        let [ours, one, other] = [1, 2, 3].map(Uuid::from_u128);
        assert!(foreign.check("t").detail.contains("no messages"));
        foreign.passed_over(&[one, other, one], ours, "t", now);
        let said = foreign.check("t").detail;
        assert!(said.contains(&format!("2 messages of another log ({one})")), "{said}");
        assert!(said.contains(&format!("1 messages of another log ({other})")), "{said}");
        for log_id in 10..1_000 {
            foreign.passed_over(&[Uuid::from_u128(log_id)], ours, "t", now);
        }
        assert!(foreign.0.len() <= LOGS_MAX);
    }
}
