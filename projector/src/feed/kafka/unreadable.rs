//! Messages that cannot be read. If one says its position and the log has an event there, that event is parked; else the
//! message itself is, by its offset in the topic.

use messaging::{Unreadable, partition_of};
use read_model::OwnerRow;
use sqlx::{Connection, PgConnection};
use tracing::{error, info};
use uuid::Uuid;

use super::assignment::{Assignment, Pending};
use super::chain::{Gap, Next, link_of};
use super::plan::{Plan, Step, Then};
use crate::batch::{self, Batch};
use crate::feed::applier::{Applier, Outcome};
use crate::feed::follower::Follower;
use crate::feed_position::PartitionPosition;

/// Of a message that nobody can read, so much is kept.
const PAYLOAD_CHARACTERS_MAX: usize = 10_000;
/// So many of them are tried again at once.
const RETRY_MESSAGES_MAX: i64 = 50;

/// What has become of a message that cannot be read.
pub(super) enum Parked {
    /// It is parked, and stored as read.
    Yes(Vec<PartitionPosition>, Vec<OwnerRow>),
    /// There is none.
    Nothing,
    /// Another process has raised the fence.
    Fenced,
    /// Messages of its partition are missing before it.
    Gap(i32, Gap),
}

/// Parks the first pending message.
pub(super) async fn park(
    assignment: &Assignment,
    follower: &Follower,
    applier: &mut Applier,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<Parked, sqlx::Error> {
    let Some(Pending { partition: number, offset, message: Err(unreadable) }) = assignment.pending.front() else {
        return Ok(Parked::Nothing);
    };
    let Some(partition) = assignment.partitions.get(number) else { return Ok(Parked::Nothing) };
    let mut chain = partition.chain.clone();
    let mut event = None;
    let mut step = Step {
        partition: *number,
        fence: partition.fence,
        next_offset: offset + 1,
        publication: chain.publication,
        position: None,
        is_event: false,
        foreign: None,
    };
    if let Some(link) = link_of(unreadable, follower.log_id) {
        match chain.next(&link, &assignment.base) {
            Next::Gap(gap) => return Ok(Parked::Gap(*number, gap)),
            // whether it is of another log cannot be said of what cannot be read
            Next::Duplicate | Next::Skips => {}
            Next::New => {
                let found = follower.tail.read_after(link.shard, link.position - 1, 1).await?;
                let found = found.into_iter().find(|event| event.position == link.position);
                event = found.filter(|event| partition_of(event.owner_id, assignment.topic_partitions) == *number);
                if event.is_some() {
                    step.publication = chain.publication;
                    step.position = Some((link.shard, link.position));
                    step.is_event = true;
                }
            }
        }
    }
    let plan = Plan {
        topic: assignment.topic.clone(),
        steps: vec![step],
        events: event.iter().collect(),
        again: Vec::new(),
        then: Then::More,
    };
    let outcome = match &event {
        Some(event) => {
            let reason =
                format!("its message (partition {number}, offset {offset}) cannot be read: {}", unreadable.reason);
            applier.park(connection, generation, event, plan.position_after(1), reason).await?
        }
        None => park_message(connection, generation, &plan, *offset, unreadable).await?,
    };
    Ok(match outcome {
        Outcome::Applied(_, owners) => Parked::Yes(plan.positions_after(1), owners),
        Outcome::Fenced => Parked::Fenced,
    })
}

/// Parks a message that belongs to nothing that is known.
async fn park_message(
    connection: &mut PgConnection,
    generation: i32,
    plan: &Plan<'_>,
    offset: i64,
    unreadable: &Unreadable,
) -> Result<Outcome, sqlx::Error> {
    let Some(step) = plan.steps.first() else { return Ok(Outcome::Fenced) };
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
    let name = format!("message {generation} {} {} {offset}", plan.topic, step.partition);
    let payload: String = unreadable.payload.chars().take(PAYLOAD_CHARACTERS_MAX).collect();
    sqlx::query!(
        r#"
        insert into read_model.parked (id, generation, topic, partition, message_offset, owner_id, task_id, version, type,
            reason, parked_at, event)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now(), $11)
        on conflict do nothing
        "#,
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        generation,
        &*plan.topic,
        step.partition,
        offset,
        unreadable.owner_id.map(|owner| owner.0),
        unreadable.task_id.map(|task| task.0),
        unreadable.version,
        unreadable.event_type,
        format!("this message cannot be read: {}", unreadable.reason),
        payload,
    )
    .execute(&mut *transaction)
    .await?;
    let position = plan.position_after(0);
    let Some(owners) = batch::write(&mut transaction, generation, Batch::default(), &position).await? else {
        return Ok(Outcome::Fenced);
    };
    transaction.commit().await?;
    metrics::counter!("projector_unreadable_messages_total").increment(1);
    error!(partition = step.partition, offset, reason = unreadable.reason, "a message cannot be read; it is parked");
    Ok(Outcome::Applied(0, owners))
}

/// Tries parked messages again, where an administrator has asked for it: one is forgotten once everything that was published
/// into its partition is applied. Whatever it was, nothing is missing.
pub(super) async fn retry(
    assignment: &Assignment,
    follower: &Follower,
    generation: i32,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let ours: Vec<i32> = assignment.partitions.keys().copied().collect();
    let due = sqlx::query!(
        r#"
            select id, partition as "partition!", message_offset as "offset!"
            from read_model.parked
            where generation = $1 and topic = $2 and partition = any ($3) and retry_at is not null
            limit $4
            "#,
        generation,
        &*assignment.topic,
        &ours,
        RETRY_MESSAGES_MAX,
    )
    .fetch_all(&mut *connection)
    .await?;
    if due.is_empty() {
        return Ok(());
    }
    let published = follower.tail.published().await?;
    for message in due {
        let Some(partition) = assignment.partitions.get(&message.partition) else { continue };
        let is_complete = published.iter().filter(|of| *of.topic == *assignment.topic).all(|of| {
            let last = of.last_positions.iter().find(|(number, _)| *number == message.partition);
            last.is_none_or(|(_, last)| *last <= partition.complete_until(of.shard, &assignment.base))
        });
        if is_complete {
            sqlx::query!("delete from read_model.parked where id = $1", message.id).execute(&mut *connection).await?;
            info!(
                partition = message.partition,
                offset = message.offset,
                "a message that cannot be read is forgotten: nothing is missing in its partition"
            );
        }
    }
    Ok(())
}
