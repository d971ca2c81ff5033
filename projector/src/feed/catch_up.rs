//! Applies what the log has past a generation's checkpoint: for a generation that is not live, and for the live one.

use domain::StoredEvent;
use event_store::TailReader;
use sqlx::PgConnection;

use super::applier::{Applier, Outcome};
use super::limits::{BATCH_EVENTS_MAX, READ_BYTES, events_within};
use crate::checkpoint::{self, Checkpoint};
use crate::feed_position::FeedPosition;

/// How far a shard is read once so many of the events after a checkpoint are applied.
pub(super) fn position_after(
    shard: i16,
    checkpoint: Checkpoint,
    events: &[&StoredEvent],
    applied: usize,
) -> FeedPosition {
    FeedPosition::Checkpoint {
        shard,
        known: checkpoint,
        position: checkpoint.after(applied).position,
        recorded_at: events.get(..applied).and_then(<[_]>::last).map(|event| event.recorded_at),
    }
}

/// The log has no gaps; one that has is damaged, and applying what comes after a gap would hide that. Keeps what comes
/// before it, and fails at it.
pub(super) fn up_to_a_gap(shard: i16, position: i64, events: &mut Vec<StoredEvent>) -> Result<(), sqlx::Error> {
    let expected = |at: usize| i64::try_from(at).map_or(i64::MAX, |at| position + 1 + at);
    match events.iter().enumerate().position(|(at, event)| event.position != expected(at)) {
        None => Ok(()),
        Some(0) => Err(sqlx::Error::Protocol(format!(
            "the log has a hole: shard {shard} has no event at position {}, but some after it",
            position + 1
        ))),
        Some(gap) => {
            events.truncate(gap);
            Ok(())
        }
    }
}

/// Applies what the log has past the checkpoint of a generation that only this process writes, up to `until`.
pub(crate) async fn catch_up(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    shard: i16,
    until: i64,
) -> Result<(), sqlx::Error> {
    let mut applier = Applier::of_a_rebuild();
    let mut checkpoint = checkpoint::load(connection, generation, shard).await?;
    let mut read_events_max = BATCH_EVENTS_MAX / 4;
    while checkpoint.position < until {
        let events_max = applier.events_max().min(read_events_max).min(until - checkpoint.position);
        let mut events = tail.read_after(shard, checkpoint.position, events_max).await?;
        up_to_a_gap(shard, checkpoint.position, &mut events)?;
        read_events_max = events_within(READ_BYTES, &events).min(BATCH_EVENTS_MAX);
        if events.is_empty() {
            let position = checkpoint.position;
            return Err(sqlx::Error::Protocol(format!("the log ends at {position} in shard {shard}, before {until}")));
        }
        let events: Vec<&StoredEvent> = events.iter().collect();
        let position = |applied| position_after(shard, checkpoint, &events, applied);
        match applier.apply(connection, generation, &events, position).await? {
            // The event that fails is tried again.
            Outcome::Applied(0, _) => {}
            Outcome::Applied(applied, _) => checkpoint = checkpoint.after(applied),
            Outcome::Fenced => {
                return Err(sqlx::Error::Protocol(format!(
                    "another process moved the checkpoint of generation {generation}"
                )));
            }
        }
    }
    Ok(())
}
