//! Messages that are missing in a partition: how that is noticed, what is said of it, and when it is over.
//!
//! They are noticed when a message comes that follows on them ([`stop_at`]). Where none comes, the broker of a partition
//! that has not everything that the relay says is published there is asked where it ends ([`ask_for_ends`]); all that was
//! published before and is not here then is not in the partition ([`judge_end`]). A broker that is away says nothing, and
//! nothing is concluded.

use std::time::Duration;

use messaging::Consumer;
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{error, info};

use super::assignment::{Assignment, State};
use super::chain::Gap;
use crate::checkpoint;
use crate::feed::follower::Follower;
use crate::lag;

/// A partition that lacks messages is looked at again this often.
const MEND_MS: u64 = 2_000;

/// Messages of a partition are missing before the next one. If they are published again already, it goes on to there; else
/// nothing more is read of it for a while.
pub(super) async fn stop_at(
    assignment: &mut Assignment,
    follower: &Follower,
    generation: i32,
    connection: &mut PgConnection,
    consumer: &Consumer,
    (number, gap): (i32, Gap),
) -> Result<(), sqlx::Error> {
    let published = follower.tail.published().await?;
    let published = published.into_iter().find(|of| of.shard == gap.shard && *of.topic == *assignment.topic);
    if let Some(again) = published.filter(|of| of.publication > gap.publication)
        && let Some(partition) = assignment.partitions.get_mut(&number)
    {
        partition.chain.awaited.insert(gap.shard, again.publication);
        return Ok(());
    }
    stop(assignment, consumer, number);
    report(assignment, follower, generation, connection, number, gap).await
}

/// Reads nothing more of a partition for a while.
pub(super) fn stop(assignment: &mut Assignment, consumer: &Consumer, number: i32) {
    consumer.pause(number);
    assignment.drop_pending(&[number]);
    if let Some(partition) = assignment.partitions.get_mut(&number) {
        partition.state = State::Stopped(Instant::now() + Duration::from_millis(MEND_MS));
    }
}

/// Asks where partitions end that are read to their ends, as far as anybody knows, and lack something that is published.
pub(super) async fn ask_for_ends(
    assignment: &mut Assignment,
    follower: &Follower,
    connection: &mut PgConnection,
    consumer: &Consumer,
) -> Result<(), sqlx::Error> {
    let published = follower.tail.published().await?;
    let Assignment { topic, partitions, pending, base, .. } = assignment;
    let mut mended = Vec::new();
    for (number, partition) in partitions {
        if partition.state != State::Reading || pending.iter().any(|pending| pending.partition == *number) {
            continue;
        }
        partition.asked = published.iter().filter(|of| *of.topic == **topic).find_map(|of| {
            let (_, missing) = *of.last_positions.iter().find(|(partition, _)| partition == number)?;
            let after = partition.complete_until(of.shard, base);
            let gap = Gap { shard: of.shard, after, missing, publication: of.publication };
            (missing > after).then_some(gap)
        });
        if partition.asked.is_some() {
            consumer.ask_for_end(*number);
        } else if partition.gap.take().is_some() {
            mended.push((*number, partition.fence));
        }
    }
    for (number, fence) in mended {
        info!(topic = %assignment.topic, partition = number, "the partition is mended");
        sqlx::query!(
            "update read_model.kafka_partition set trouble = null
                where topic = $1 and partition = $2 and turn = $3",
            &*assignment.topic,
            number,
            fence,
        )
        .execute(&mut *connection)
        .await?;
    }
    assignment.report_troubles();
    Ok(())
}

/// A broker has said where a partition ends.
pub(super) async fn judge_end(
    assignment: &mut Assignment,
    follower: &Follower,
    generation: i32,
    connection: &mut PgConnection,
    (number, end): (i32, i64),
) -> Result<(), sqlx::Error> {
    let is_pending = assignment.has_pending(number);
    let Assignment { partitions, base, .. } = assignment;
    let Some(partition) = partitions.get_mut(&number) else { return Ok(()) };
    let Some(asked) = partition.asked.take() else { return Ok(()) };
    let after = partition.complete_until(asked.shard, base);
    let is_at_end = !is_pending && partition.next_offset.unwrap_or(0) >= end;
    if partition.state == State::Reading && is_at_end && after < asked.missing {
        report(assignment, follower, generation, connection, number, Gap { after, ..asked }).await?;
    }
    Ok(())
}

/// Says what is missing, and what mends it.
async fn report(
    assignment: &mut Assignment,
    follower: &Follower,
    generation: i32,
    connection: &mut PgConnection,
    number: i32,
    gap: Gap,
) -> Result<(), sqlx::Error> {
    // What all partitions have: a mend from there on suits every one of them.
    lag::advance_checkpoints(&follower.pool, &follower.tail).await?;
    let all_until = checkpoint::load(connection, generation, gap.shard).await?.position;
    let Some(partition) = assignment.partitions.get_mut(&number) else { return Ok(()) };
    let Gap { shard, after, missing, .. } = gap;
    let trouble = format!(
        "partition {number} of {} lacks messages: of shard {shard} it has nothing between position {after} and the one \
             after {missing}; `primetrade republish --shard {shard} --from {}` mends it",
        assignment.topic,
        all_until.min(after) + 1
    );
    if partition.gap.replace(gap) != Some(gap) {
        error!(partition = number, shard, after, missing, "{trouble}");
    }
    sqlx::query!(
        "update read_model.kafka_partition set trouble = $4 where topic = $1 and partition = $2 and turn = $3",
        &*assignment.topic,
        number,
        partition.fence,
        trouble,
    )
    .execute(connection)
    .await?;
    assignment.report_trouble(number, trouble);
    Ok(())
}
