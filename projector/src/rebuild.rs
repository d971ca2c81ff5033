//! A new generation of the read models, made from the log beside the live one, compared with it, and switched to.
//!
//! Fill in bulk ([`crate::bulk`]) → count and index → attach → catch up by the same code that follows the log → compare
//! in one snapshot ([`crate::compare`]) → switch in one transaction. It can be stopped anywhere and goes on when it is
//! run again. The generation before is kept, to go back to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backends::database::Pool;
use event_store::TailReader;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use crate::bulk::fold_id;
use crate::compare::compare;
use crate::differences::Differences;
use crate::feed::{catch_up, create_checkpoint};
use crate::{bulk, connection};

/// The advisory lock that a rebuild holds: "prtr", "ebld".
pub(crate) const LOCK: (i32, i32) = (0x7072_7472, 0x6562_6c64);
/// The lock of a run that was just stopped is waited for, 200 ms at a time.
const LOCK_ATTEMPTS_MAX: u32 = 5;
/// Shards that are filled at the same time.
const SHARDS_AT_ONCE: usize = 2;
/// So far behind the live generation, the switch catches up while it holds the live projector back.
const SWITCH_GAP_EVENTS_MAX: i64 = 4_000;
/// Rounds of catching up before a switch gives up.
const SWITCH_ROUNDS_MAX: u32 = 1_000;
/// DDL on tables that are in use waits for them this often, 200 ms each, so that nobody waits for it for long.
const DDL_ATTEMPTS_MAX: u32 = 50;

/// Why there is no new generation.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database does not answer, or refuses.
    #[error("the rebuild cannot go on: {0}")]
    Database(#[from] sqlx::Error),
    /// Another rebuild, check or return is under way.
    #[error("another rebuild (or a check by doctor) is running on this database")]
    Running,
    /// There is no generation to go back to.
    #[error("no earlier generation of the read models is kept")]
    NothingKept,
    /// The tables stayed locked by others, such as a dump.
    #[error("the tables of the read models stay locked by others; run it again and it goes on from here")]
    Locked,
    /// Events come faster than they are applied.
    #[error("the new generation does not catch up with the live one; run it again and it goes on from here")]
    Behind,
}

/// How a rebuild is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Where the new generation differs from the live one, it is not switched to.
    pub expect_same: bool,
}

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the log, folding, writing rows.
    Fill,
    /// Counting, building indexes.
    Index,
    /// Applying what came meanwhile.
    CatchUp,
    /// Comparing with the live generation.
    Compare,
    /// Switching to it.
    Switch,
}

impl Phase {
    /// In a word or two.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Index => "index",
            Self::CatchUp => "catch up",
            Self::Compare => "compare",
            Self::Switch => "switch",
        }
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The generation that is being made.
    pub generation: i32,
    /// What is being done.
    pub phase: Phase,
    /// Events in it, of those that the log had when it began.
    pub events_done: i64,
    /// Events that the log had when it began.
    pub events_total: i64,
    /// Of the filling, since this run began.
    pub events_per_second: i64,
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

/// Counts events, and tells of them.
pub(crate) struct Meter<'a> {
    generation: i32,
    total: i64,
    done: AtomicI64,
    /// Done in this run.
    run: AtomicI64,
    started: Instant,
    phase: Mutex<Phase>,
    tell: &'a (dyn Fn(&Progress) + Send + Sync),
}

impl Meter<'_> {
    pub(crate) fn advance(&self, events: i64) {
        self.done.fetch_add(events, Ordering::Relaxed);
        self.run.fetch_add(events, Ordering::Relaxed);
        self.tell();
    }

    /// Events a second of this run, with these.
    pub(crate) fn rate_with(&self, events: i64) -> i64 {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX).max(1);
        (self.run.load(Ordering::Relaxed) + events).saturating_mul(1_000) / ms
    }

    fn enter(&self, phase: Phase) {
        if let Ok(mut current) = self.phase.lock() {
            *current = phase;
        }
        self.tell();
    }

    fn tell(&self) {
        (self.tell)(&Progress {
            generation: self.generation,
            phase: self.phase.lock().map_or(Phase::Fill, |phase| *phase),
            events_done: self.done.load(Ordering::Relaxed),
            events_total: self.total,
            events_per_second: self.rate_with(0),
        });
    }
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

async fn switch_to_kept(read_pool: &Pool, tail: &TailReader) -> Result<i32, RebuildError> {
    let mut connection = connection::for_batches(read_pool).await?;
    let log_id = tail.log_id().await?;
    let kept = sqlx::query_scalar!(
        r#"
        select generation from read_model.generation
        where state = 'kept' and coalesce(log_id, $1) = $1
        order by finished_at desc limit 1
        "#,
        log_id,
    )
    .fetch_optional(&mut connection)
    .await?
    .ok_or(RebuildError::NothingKept)?;
    switch(&mut connection, tail, kept, log_id).await?;
    Ok(kept)
}

/// Holds the lock as long as the connection lives.
async fn lock(pool: &Pool) -> Result<PgConnection, RebuildError> {
    let mut connection = connection::for_rebuild(pool).await?;
    for attempt in 0..LOCK_ATTEMPTS_MAX {
        if attempt > 0 {
            sleep(Duration::from_millis(200)).await;
        }
        let locked = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1, $2) as "locked!""#, LOCK.0, LOCK.1)
            .fetch_one(&mut connection)
            .await?;
        if locked {
            return Ok(connection);
        }
    }
    Err(RebuildError::Running)
}

/// Gives the lock back at once; a connection that just closes gives it back a little later.
async fn unlock(mut connection: PgConnection) {
    let unlocked = sqlx::query!("select pg_advisory_unlock($1, $2)", LOCK.0, LOCK.1).fetch_one(&mut connection).await;
    if let Err(error) = unlocked {
        warn!(%error, "the rebuild's connection was lost");
    }
}

#[derive(Clone, Copy)]
enum Purpose {
    Switch(Options),
    Verify,
}

/// A generation that is being made.
struct Building {
    generation: i32,
    attached: bool,
    indexed: bool,
    resumed: bool,
    /// Made by `verify`: not to be left behind.
    throwaway: bool,
    events_done: i64,
    events_total: i64,
}

async fn build(
    pool: &Pool,
    tail: &TailReader,
    purpose: Purpose,
    guard: &mut PgConnection,
    tell: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<RebuildReport, RebuildError> {
    let started = Instant::now();
    let mut connection = connection::for_rebuild(pool).await?;
    let log_id = tail.log_id().await?;
    let building = prepare(&mut connection, tail, log_id, matches!(purpose, Purpose::Verify)).await?;
    let generation = building.generation;
    let meter = Meter {
        generation,
        total: building.events_total,
        done: AtomicI64::new(building.events_done),
        run: AtomicI64::new(0),
        started: Instant::now(),
        phase: Mutex::new(Phase::Fill),
        tell,
    };
    meter.tell();

    let shards =
        sqlx::query!("select shard from read_model.checkpoint where generation = $1 order by shard", generation)
            .fetch_all(&mut connection)
            .await?;
    let fills: Vec<_> = shards.iter().map(|row| bulk::fill(pool, tail, generation, row.shard, &meter)).collect();
    stream::iter(fills).buffer_unordered(SHARDS_AT_ONCE).try_collect::<()>().await?;
    let fill_seconds = meter.started.elapsed().as_secs_f64();
    let events_filled = meter.run.load(Ordering::Relaxed);

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
    let live =
        sqlx::query!("select live_generation, log_id from read_model.projection").fetch_one(&mut connection).await?;
    for row in &shards {
        // One that no projector has run for yet stands at 0.
        create_checkpoint(&mut connection, live.live_generation, row.shard).await?;
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
    let parked =
        sqlx::query_scalar!(r#"select count(*) as "count!" from read_model.parked where generation = $1"#, generation,)
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
}

/// Finds what an earlier run left, if this one can go on with it; else makes the tables of a new generation.
async fn prepare(
    connection: &mut PgConnection,
    tail: &TailReader,
    log_id: Uuid,
    throwaway: bool,
) -> Result<Building, RebuildError> {
    let fold_id = fold_id();
    let left = sqlx::query!(
        r#"
        select generation, attached, log_id, fold_id, throwaway, phase, events_done, events_total
        from read_model.generation where state = 'building' order by generation
        "#,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut going_on = None;
    for row in left {
        if going_on.is_none() && row.log_id == Some(log_id) && row.fold_id == Some(fold_id) {
            info!(
                generation = row.generation,
                events_done = row.events_done,
                "goes on with the rebuild that was stopped"
            );
            going_on = Some(Building {
                generation: row.generation,
                attached: row.attached,
                indexed: row.phase == "attach",
                resumed: true,
                throwaway: row.throwaway && throwaway,
                events_done: row.events_done,
                events_total: row.events_total,
            });
        } else {
            drop_generation(connection, row.generation).await?;
        }
    }
    if let Some(building) = going_on {
        sqlx::query!(
            "update read_model.generation set throwaway = $2 where generation = $1",
            building.generation,
            building.throwaway,
        )
        .execute(connection)
        .await?;
        return Ok(building);
    }

    let heads = tail.heads().await?;
    let events_total: i64 = heads.iter().map(|(_, position)| position).sum();
    let mut transaction = connection.begin().await?;
    let generation = sqlx::query_scalar!(r#"select nextval('read_model.generation_number')::int as "number!""#)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query!(
        r#"
        insert into read_model.generation (generation, state, attached, log_id, fold_id, throwaway, phase, events_total)
        values ($1, 'building', false, $2, $3, $4, 'fill', $5)
        "#,
        generation,
        log_id,
        fold_id,
        throwaway,
        events_total,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!("select read_model.create_building($1)", generation).execute(&mut *transaction).await?;
    for (shard, position) in heads {
        sqlx::query!(
            "insert into read_model.checkpoint (generation, shard, position, bulk_until) values ($1, $2, $3, $3)",
            generation,
            shard,
            position,
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    info!(generation, events_total, "a new generation of the read models is made");
    Ok(Building {
        generation,
        attached: false,
        indexed: false,
        resumed: false,
        throwaway,
        events_done: 0,
        events_total,
    })
}

async fn index(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    set_phase(connection, generation, Phase::Index).await?;
    let mut transaction = connection.begin().await?;
    sqlx::query!("set local maintenance_work_mem = '128MB'").execute(&mut *transaction).await?;
    sqlx::query!("set local work_mem = '64MB'").execute(&mut *transaction).await?;
    sqlx::query!("select read_model.count_building($1)", generation).execute(&mut *transaction).await?;
    sqlx::query!("select read_model.index_tables('_building')").execute(&mut *transaction).await?;
    sqlx::query!("select read_model.analyze_building()").execute(&mut *transaction).await?;
    sqlx::query!("update read_model.generation set phase = 'attach' where generation = $1", generation)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// Makes the tables of the generation partitions of the read models.
async fn attach(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    for _ in 0..DDL_ATTEMPTS_MAX {
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local lock_timeout = '200ms'").execute(&mut *transaction).await?;
        match sqlx::query!("select read_model.attach_building($1)", generation).execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                return set_phase(connection, generation, Phase::CatchUp).await;
            }
            Err(error) if is_lock_timeout(&error) => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(RebuildError::Locked)
}

async fn set_phase(connection: &mut PgConnection, generation: i32, phase: Phase) -> Result<(), RebuildError> {
    sqlx::query!("update read_model.generation set phase = $2 where generation = $1", generation, phase.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Applies what the log has, shard by shard, until all are at its head or within one switch of it.
async fn catch_up_with_live(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
) -> Result<(), RebuildError> {
    for _ in 0..SWITCH_ROUNDS_MAX {
        let mut gap = 0;
        for (shard, head) in tail.heads().await? {
            create_checkpoint(connection, generation, shard).await?;
            let from = sqlx::query_scalar!(
                "select position from read_model.checkpoint where generation = $1 and shard = $2",
                generation,
                shard,
            )
            .fetch_one(&mut *connection)
            .await?;
            gap = gap.max(head - from);
            catch_up(connection, tail, generation, shard, head).await?;
        }
        if gap <= SWITCH_GAP_EVENTS_MAX {
            return Ok(());
        }
    }
    Err(RebuildError::Behind)
}

/// Makes a generation the live one, in one transaction that holds the live projector back and in which the new one is
/// brought to where the old one is, or past it.
async fn switch(
    connection: &mut PgConnection,
    tail: &TailReader,
    generation: i32,
    log_id: Uuid,
) -> Result<(), RebuildError> {
    for _ in 0..SWITCH_ROUNDS_MAX {
        catch_up_with_live(connection, tail, generation).await?;
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local synchronous_commit = on").execute(&mut *transaction).await?;
        let projection = sqlx::query!("select live_generation, log_id from read_model.projection for update")
            .fetch_one(&mut *transaction)
            .await?;
        let live = projection.live_generation;
        let held = hold(&mut transaction, live).await?;
        // A read model of another log has positions that mean nothing in this one.
        let same_log = projection.log_id.is_none_or(|live_log_id| live_log_id == log_id);
        let mut caught_up = true;
        for (shard, until) in held.into_iter().filter(|_| same_log) {
            create_checkpoint(&mut transaction, generation, shard).await?;
            let position = sqlx::query_scalar!(
                "select position from read_model.checkpoint where generation = $1 and shard = $2",
                generation,
                shard,
            )
            .fetch_one(&mut *transaction)
            .await?;
            if until - position > SWITCH_GAP_EVENTS_MAX {
                caught_up = false;
                break;
            }
            catch_up(&mut transaction, tail, generation, shard, until).await?;
        }
        if !caught_up {
            transaction.rollback().await?;
            continue;
        }
        // Whoever folds for the old one right now loses the race, and finds the new one.
        sqlx::query!("update read_model.checkpoint set turn = turn + 1 where generation = $1", live)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("update read_model.kafka_partition set turn = turn + 1").execute(&mut *transaction).await?;
        if !same_log {
            // The other log's publications have numbers of their own, and some of its messages were passed over.
            sqlx::query!("update read_model.kafka_partition set next_offset = null, publication = 0")
                .execute(&mut *transaction)
                .await?;
            sqlx::query!("delete from read_model.kafka_position").execute(&mut *transaction).await?;
        }
        sqlx::query!(
            "update read_model.generation set state = 'kept', finished_at = now() where generation = $1",
            live
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "update read_model.generation set state = 'live', phase = '', finished_at = now() where generation = $1",
            generation,
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("update read_model.projection set live_generation = $1, log_id = $2", generation, log_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        info!(from = live, to = generation, "the read models were switched");
        return Ok(());
    }
    Err(RebuildError::Behind)
}

/// Holds back whoever folds for the live generation, until the transaction ends. Returns, for each shard, a position up
/// to which it may have events: the new one must not have fewer.
async fn hold(connection: &mut PgConnection, live: i32) -> Result<Vec<(i16, i64)>, sqlx::Error> {
    sqlx::query!("select shard from read_model.checkpoint where generation = $1 order by shard for update", live)
        .fetch_all(&mut *connection)
        .await?;
    sqlx::query!("select partition from read_model.kafka_partition order by topic, partition for update")
        .fetch_all(&mut *connection)
        .await?;
    let rows = sqlx::query!(
        r#"
        select shard as "shard!", max(position) as "position!"
        from (
            select shard, position from read_model.checkpoint where generation = $1
            union all
            select shard, position from read_model.kafka_position
        ) as p
        group by shard
        order by shard
        "#,
        live,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.shard, row.position)).collect())
}

/// Drops all generations that are kept, but for one. Where they stay locked the next rebuild drops them.
async fn drop_superfluous(connection: &mut PgConnection, keep: i32) -> Result<(), RebuildError> {
    let rows =
        sqlx::query!("select generation from read_model.generation where state = 'kept' and generation <> $1", keep)
            .fetch_all(&mut *connection)
            .await?;
    for row in rows {
        match drop_generation(connection, row.generation).await {
            Ok(()) => {}
            Err(RebuildError::Locked) => {
                warn!(generation = row.generation, "an old generation is in use; the next rebuild drops it");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn drop_generation(connection: &mut PgConnection, generation: i32) -> Result<(), RebuildError> {
    for _ in 0..DDL_ATTEMPTS_MAX {
        let mut transaction = connection.begin().await?;
        sqlx::query!("set local lock_timeout = '200ms'").execute(&mut *transaction).await?;
        match sqlx::query!("select read_model.drop_generation($1)", generation).execute(&mut *transaction).await {
            Ok(_) => {
                transaction.commit().await?;
                return Ok(());
            }
            Err(error) if is_lock_timeout(&error) => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(RebuildError::Locked)
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    // lock_not_available, deadlock_detected
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03" || code == "40P01")
}
