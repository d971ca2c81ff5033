//! How far the publication is behind the log.

use std::time::Duration;

use event_store::Publication;
use service_kit::outage::Outage;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::RelayLag;

const LOOK_MS: u64 = 1_000;

/// Looks every second, whoever leads.
pub(super) async fn watch(publication: Publication, status: watch::Sender<RelayLag>, stop: CancellationToken) {
    let mut outage = Outage::of("reading the lag of the relay");
    while !stop.is_cancelled() {
        if let Some(shards) = outage.seen(publication.unpublished().await) {
            let events = shards.iter().map(|shard| shard.events).sum();
            let seconds = shards.iter().map(|shard| shard.seconds).fold(0.0, f64::max);
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            metrics::gauge!("relay_lag_events").set(events as f64);
            metrics::gauge!("relay_lag_seconds").set(seconds);
            status.send_modify(|lag| {
                lag.events = events;
                lag.seconds = seconds;
            });
        }
        tokio::select! {
            () = sleep(Duration::from_millis(LOOK_MS)) => {}
            () = stop.cancelled() => {}
        }
    }
}
