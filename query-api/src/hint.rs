//! The hint that something was applied.

use std::time::Duration;

use process::context;
use tokio::sync::watch;

/// Waits for the hint, or for `poll` where it does not come.
pub(crate) async fn hint_or_poll(applied: &mut Option<watch::Receiver<u64>>, poll: Duration) {
    match applied {
        // A sender that is gone gives no hints: then the time counts.
        Some(hint) => match context::without_permit(tokio::time::timeout(poll, hint.changed())).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => *applied = None,
        },
        None => context::without_permit(tokio::time::sleep(poll)).await,
    }
}
