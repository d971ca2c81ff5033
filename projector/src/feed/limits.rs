//! How much is read and applied at once.

use domain::StoredEvent;

/// The most events that one transaction applies.
pub(crate) const BATCH_EVENTS_MAX: i64 = 2_000;
/// About as many bytes of events are read at once, once it is known how long they are.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// How many events like these make so many bytes.
pub(crate) fn events_within(bytes_max: usize, events: &[StoredEvent]) -> i64 {
    const EVENTS_MIN: usize = 50;
    // data, correlation id, trace and the like
    let bytes: usize = events.iter().map(|event| event.data.len() + 300).sum();
    let each = (bytes / events.len().max(1)).max(1);
    i64::try_from((bytes_max / each).max(EVENTS_MIN)).unwrap_or(i64::MAX)
}
