//! How far the publication is behind the log, and whether anybody publishes at all: seen in the database, by every copy,
//! whoever leads. A leader whose broker has frozen does not know yet that it publishes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use event_store::Publication;
use event_store::publication::Unpublished;
use process::health::Check;
use process::periodic::Periodic;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const LOOK_MS: u64 = 500;
/// Where there is something to publish, and the cursor has not moved for so long, nobody publishes.
const STALLED_MS: u64 = 3_000;

/// How far the publication is behind the log, and whether this process leads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelayLag {
    /// Events that are not on the brokers yet, or of which that is not known yet; over all shards.
    pub events: i64,
    /// How long ago the oldest of them was stored, in seconds.
    pub seconds: f64,
    /// Whether this process publishes.
    pub is_leader: bool,
    /// For how long nobody, at whatever copy, has published anything though there is something to publish; `None`: it
    /// goes on, or that is not known yet.
    pub stalled: Option<Duration>,
    /// Why this process, which should publish, does not at the moment.
    pub trouble: Option<String>,
}

impl RelayLag {
    /// For `/readyz`. Commands go on while nobody publishes, at this copy as at any other: that is no reason to send them
    /// elsewhere.
    #[must_use]
    pub fn check(&self) -> Check {
        let RelayLag { events, is_leader, stalled, trouble, .. } = self;
        let why = trouble.as_deref().unwrap_or(match (is_leader, stalled) {
            (true, None) => "publishes",
            (false, None) => "standby",
            (true, Some(_)) => "this copy leads, and Kafka acknowledges nothing",
            (false, Some(_)) => "another copy leads, or none",
        });
        match stalled {
            Some(stalled) => {
                let seconds = stalled.as_secs();
                Check::degraded(format!(
                    "nobody has published anything for {seconds} s, and {events} events wait: {why}"
                ))
            }
            None if trouble.is_some() => Check::degraded(why),
            None => Check::ok(why),
        }
    }
}

/// Says whether this process leads, and what keeps it from publishing.
pub(crate) fn report(status: &watch::Sender<RelayLag>, is_leader: bool, trouble: Option<String>) {
    metrics::gauge!("relay_is_leader").set(if is_leader { 1.0 } else { 0.0 });
    status.send_modify(|lag| {
        lag.is_leader = is_leader;
        lag.trouble = trouble;
    });
}

/// Looks until `stop`, whoever leads.
pub(crate) async fn watch(publication: Publication, status: watch::Sender<RelayLag>, stop: CancellationToken) {
    let mut looking = Periodic::every(Duration::from_millis(LOOK_MS), "reading the lag of the relay", stop);
    let mut progress = Progress::default();
    while looking.due().await {
        if let Some(shards) = looking.seen(publication.unpublished().await) {
            let events = shards.iter().map(|shard| shard.events).sum();
            let seconds = shards.iter().map(|shard| shard.seconds).fold(0.0, f64::max);
            let stalled = progress.stalled_for(&shards, Instant::now());
            let was_stalled = status.borrow().stalled.is_some();
            match stalled {
                Some(stalled) if !was_stalled => warn!(
                    events,
                    stalled_ms = stalled.as_millis(),
                    "nobody publishes, at any copy: events wait, and the relay's cursor does not move. Does Kafka answer?"
                ),
                None if was_stalled => info!(events, "the log is published again"),
                _ => {}
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            metrics::gauge!("relay_lag_events").set(events as f64);
            metrics::gauge!("relay_lag_seconds").set(seconds);
            metrics::gauge!("relay_stalled_seconds").set(stalled.unwrap_or_default().as_secs_f64());
            status.send_modify(|lag| {
                lag.events = events;
                lag.seconds = seconds;
                lag.stalled = stalled;
            });
        }
    }
}

/// Where each shard's cursor stands, and since when it has stood there though there is something to publish.
#[derive(Default)]
struct Progress(BTreeMap<i16, (i64, Instant)>);

impl Progress {
    /// How long the shard that stands still longest has done so, if that is too long.
    fn stalled_for(&mut self, shards: &[Unpublished], now: Instant) -> Option<Duration> {
        let still = shards.iter().map(|shard| {
            let (cursor, since) = self.0.entry(shard.shard).or_insert((shard.cursor, now));
            if *cursor != shard.cursor || shard.events == 0 {
                (*cursor, *since) = (shard.cursor, now);
            }
            now.duration_since(*since)
        });
        still.max().filter(|still| *still >= Duration::from_millis(STALLED_MS))
    }
}

#[cfg(test)]
mod tests {
    use process::health::CheckState::{self, Degraded, Ok};

    use super::*;

    #[test]
    fn nobody_publishes_where_the_cursor_stands_still_before_events() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut at = |ms, cursor, events| {
            let shards = [Unpublished { shard: 0, cursor, events, seconds: 0.0 }];
            progress.stalled_for(&shards, start + Duration::from_millis(ms)).map(|stalled| stalled.as_millis())
        };
        // nothing to do is no standstill, however long
        assert_eq!((at(0, 5, 0), at(60_000, 5, 0)), (None, None));
        // a long queue that moves is none either
        assert_eq!((at(61_000, 5, 100), at(62_900, 6, 500), at(65_800, 7, 900)), (None, None, None));
        assert_eq!((at(68_799, 7, 950), at(68_800, 7, 950), at(70_000, 7, 990)), (None, Some(3_000), Some(4_200)));
        assert_eq!(at(70_500, 8, 990), None);
    }

    #[test]
    fn the_relay_says_that_nobody_publishes_whoever_leads() {
        let stalled = Some(Duration::from_millis(4_200));
        let trouble = || Some("Kafka: no answer".to_owned());
        let table: [(_, _, _, CheckState, &str); 6] = [
            (true, None, None, Ok, "publishes"),
            (false, None, None, Ok, "standby"),
            (false, None, trouble(), Degraded, "Kafka: no answer"),
            (
                true,
                stalled,
                None,
                Degraded,
                "nobody has published anything for 4 s, and 7 events wait: this copy leads",
            ),
            (false, stalled, None, Degraded, "nobody has published anything for 4 s, and 7 events wait: another copy"),
            (false, stalled, trouble(), Degraded, "and 7 events wait: Kafka: no answer"),
        ];
        for (is_leader, stalled, trouble, state, said) in table {
            let lag = RelayLag { events: 7, seconds: 5.0, is_leader, stalled, trouble };
            let check = lag.check();
            assert_eq!(check.state, state, "{lag:?}");
            assert!(check.detail.contains(said), "{check:?}");
        }
    }
}
