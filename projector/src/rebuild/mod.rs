//! A new generation of the read models, made from the log beside the live one, compared with it, and switched to.
//!
//! Fill in bulk ([`fill`]) → count and index → attach → catch up by the same code that follows the log → compare
//! in one snapshot ([`compare`]) → switch in one transaction. It can be stopped anywhere and goes on when it is
//! run again. The generation before is kept, to go back to. Only what the disk has no room for is not left behind.

mod compare;
mod error;
mod fill;
mod fold_id;
mod generation;
mod lock;
mod progress;
mod room;
mod switch;

use backends::database::Pool;
use event_store::TailReader;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;
use tracing::info;

use self::compare::compare;
use self::fill::fill;
use self::generation::{attach, drop_generation, drop_superfluous, index, prepare, set_phase};
use self::lock::{lock, unlock};
use self::progress::Meter;
use self::room::nothing_left_where_full;
use self::switch::{catch_up_with_live, switch, switch_to_kept};
use crate::differences::Differences;
use crate::{checkpoint, connection};

pub use self::error::RebuildError;
pub use self::progress::{Phase, Progress};
pub use self::room::{bytes_min, discard};

pub(crate) use self::lock::LOCK;

/// Shards that are filled at the same time.
const SHARDS_AT_ONCE: usize = 2;

/// How a rebuild is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Where the new generation differs from the live one, it is not switched to.
    pub expect_same: bool,
}

/// What came of a rebuild.
#[derive(Debug, Clone)]
pub struct RebuildReport {
    /// The generation that was made.
    pub generation: i32,
    /// It is the live one now.
    pub switched: bool,
    /// It went on with what an earlier run had left.
    pub resumed: bool,
    /// Events in the log when it began: all of them are in the new generation.
    pub events: i64,
    /// Events filled by this run (fewer than `events` if it resumed).
    pub events_filled: i64,
    /// Read, folded and written a second while filling; indexes and comparison apart.
    pub events_per_second: f64,
    /// The whole run, in seconds.
    pub seconds: f64,
    /// Reading, folding, COPY.
    pub fill_seconds: f64,
    /// Counters, indexes, statistics.
    pub index_seconds: f64,
    /// Applying what came meanwhile.
    pub catch_up_seconds: f64,
    /// Comparing with the live generation.
    pub compare_seconds: f64,
    /// Events of the new generation that are parked.
    pub parked: i64,
    /// Where the new generation differs from the live one.
    pub differences: Differences,
}

/// Makes a new generation and switches to it. Dropped half-way, it can be run again and goes on.
///
/// # Errors
/// See [`RebuildError`]. The live generation is as it was.
pub async fn run(
    read_pool: &Pool,
    tail: &TailReader,
    options: Options,
    progress: impl Fn(&Progress) + Send + Sync,
) -> Result<RebuildReport, RebuildError> {
    let mut guard = lock(read_pool).await?;
    let report = build(read_pool, tail, Purpose::Switch(options), &mut guard, &progress).await;
    let report = nothing_left_where_full(report, &mut guard).await;
    unlock(guard).await;
    report
}

/// Makes a generation, compares it with the live one, and drops it again.
///
/// # Errors
/// See [`RebuildError`].
pub async fn verify(
    read_pool: &Pool,
    tail: &TailReader,
    progress: impl Fn(&Progress) + Send + Sync,
) -> Result<RebuildReport, RebuildError> {
    let mut guard = lock(read_pool).await?;
    let report = build(read_pool, tail, Purpose::Verify, &mut guard, &progress).await;
    let report = nothing_left_where_full(report, &mut guard).await;
    unlock(guard).await;
    report
}

/// Makes the generation before the live one live again, once it has caught up. Returns its number.
///
/// # Errors
/// Nothing is kept; or see [`RebuildError`].
pub async fn go_back(read_pool: &Pool, tail: &TailReader) -> Result<i32, RebuildError> {
    let guard = lock(read_pool).await?;
    let kept = switch_to_kept(read_pool, tail).await;
    unlock(guard).await;
    kept
}

#[derive(Clone, Copy)]
enum Purpose {
    Switch(Options),
    Verify,
}

fn build<'a>(
    pool: &'a Pool,
    tail: &'a TailReader,
    purpose: Purpose,
    guard: &'a mut PgConnection,
    report: &'a (dyn Fn(&Progress) + Send + Sync),
) -> BoxFuture<'a, Result<RebuildReport, RebuildError>> {
    Box::pin(async move {
        let started = Instant::now();
        let mut connection = connection::for_rebuild(pool).await?;
        let log_id = tail.log_id().await?;
        let building = prepare(&mut connection, tail, log_id, matches!(purpose, Purpose::Verify)).await?;
        let generation = building.generation;
        let meter = Meter::new(generation, building.events_done, building.events_total, report);

        let shards =
            sqlx::query!("select shard from read_model.checkpoint where generation = $1 order by shard", generation)
                .fetch_all(&mut connection)
                .await?;
        let fill_started = Instant::now();
        let fills: Vec<_> = shards.iter().map(|row| fill(pool, tail, generation, row.shard, &meter)).collect();
        stream::iter(fills).buffer_unordered(SHARDS_AT_ONCE).try_collect::<()>().await?;
        let fill_seconds = fill_started.elapsed().as_secs_f64();
        let events_filled = meter.filled();

        meter.enter(Phase::Index);
        let index_started = Instant::now();
        if !building.attached {
            if !building.indexed {
                index(&mut connection, generation).await?;
            }
            attach(&mut connection, generation).await?;
        }
        let index_seconds = index_started.elapsed().as_secs_f64();

        meter.enter(Phase::CatchUp);
        let catch_up_started = Instant::now();
        let mut batches = connection::for_batches(pool).await?;
        let live = sqlx::query!("select live_generation, log_id from read_model.projection")
            .fetch_one(&mut connection)
            .await?;
        for row in &shards {
            // One that no projector has run for yet is at 0.
            checkpoint::create(&mut connection, live.live_generation, row.shard).await?;
        }
        catch_up_with_live(&mut batches, tail, generation).await?;
        let catch_up_seconds = catch_up_started.elapsed().as_secs_f64();

        meter.enter(Phase::Compare);
        set_phase(&mut connection, generation, Phase::Compare).await?;
        let compare_started = Instant::now();
        let differences = compare(&mut connection, live.live_generation, generation).await?;
        let compare_seconds = compare_started.elapsed().as_secs_f64();
        for difference in &differences.examples {
            info!(%difference, "the new generation differs");
        }
        let parked = sqlx::query_scalar!(
            r#"select count(*) as "count!" from read_model.parked where generation = $1"#,
            generation,
        )
        .fetch_one(&mut connection)
        .await?;

        let switched = match purpose {
            Purpose::Switch(Options { expect_same }) if !expect_same || differences.total == 0 => {
                meter.enter(Phase::Switch);
                // Its lock is held as long as it answers.
                guard.ping().await?;
                switch(&mut batches, tail, generation, log_id).await?;
                drop_superfluous(&mut connection, live.live_generation).await?;
                true
            }
            Purpose::Switch(_) => {
                drop_generation(&mut connection, generation).await?;
                false
            }
            Purpose::Verify => {
                if building.throwaway {
                    drop_generation(&mut connection, generation).await?;
                }
                false
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let events_per_second = events_filled as f64 / fill_seconds.max(0.001);
        Ok(RebuildReport {
            generation,
            switched,
            resumed: building.resumed,
            events: building.events_total,
            events_filled,
            events_per_second,
            seconds: started.elapsed().as_secs_f64(),
            fill_seconds,
            index_seconds,
            catch_up_seconds,
            compare_seconds,
            parked,
            differences,
        })
    })
}
