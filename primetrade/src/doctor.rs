//! `primetrade doctor`: whether what must always hold does, on a live database, in plain words.
//!
//! 2: a shard's positions and a stream's versions have no gap and no repeat. 3: a command id has at most one effect.
//! 4: the read models equal the fold of the log. And whether something lies in the future, or a job is left half done. Each look is one statement over a bounded range (but for one that
//! groups by command id inside of Postgres), so no snapshot is held open for long and no memory grows with the log.

use backends::database::Pool;
use chrono::TimeDelta;
use domain::{Time, format_time};
use event_store::TailReader;
use process::clock;
use projector::rebuild::{self, RebuildError};
use uuid::Uuid;

use crate::database::Databases;
use crate::output::Progress;

const RANGE_POSITIONS: i64 = 100_000;
const PAGE_ROWS: i64 = 20_000;
/// Clocks of several machines differ by less: the same as commands are allowed.
const FUTURE_GRACE: TimeDelta = TimeDelta::minutes(1);
/// A job whose lease has ended is taken over within seconds where any copy runs.
const JOB_LEFT_S: f64 = 600.0;
/// Of each kind so many findings are told one by one; the rest is counted.
const TOLD_MAX: u64 = 20;

/// Why the checks could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The database.
    #[error("the database could not be read: {0}")]
    Database(#[from] sqlx::Error),
    /// The comparison of the read models.
    #[error("the read models could not be checked: {0}")]
    ReadModels(#[from] RebuildError),
}

/// What is wrong, in plain words. None: all is well.
pub type Findings = Vec<String>;

/// One kind of finding: tells some, counts all.
struct Kind {
    told: Findings,
    total: u64,
}

impl Kind {
    fn new() -> Self {
        Self { told: Vec::new(), total: 0 }
    }

    fn found(&mut self, finding: impl FnOnce() -> String) {
        self.total += 1;
        if self.total <= TOLD_MAX {
            self.told.push(finding());
        }
    }

    fn into_findings(mut self, what: &str) -> Findings {
        if self.total > TOLD_MAX {
            self.told.push(format!("… and {} more {what}", self.total - TOLD_MAX));
        }
        self.told
    }
}

/// Looks at everything.
///
/// # Errors
/// A look could not be taken. What is wrong with the data is no error but a finding.
pub async fn run(databases: &Databases, progress: &Progress) -> Result<Findings, DoctorError> {
    let (write, pages) = (&databases.write, &databases.in_index_order());
    let tail = TailReader::new(pages.clone(), None);
    let heads = tail.heads().await?;
    let events: i64 = heads.iter().map(|(_, position)| position).sum();
    let mut findings = constraints(write).await?;
    // Positions, versions, commands, and the fold: each goes through the log once.
    progress.set_total(4 * events.unsigned_abs());
    let mut done = 0;
    findings.extend(future(write, clock::now()).await?);
    findings.extend(heads_and_ends(write).await?);
    findings.extend(jobs_left(write).await?);
    for (shard, head) in &heads {
        findings.extend(
            positions(pages, *shard, *head, &mut |range| {
                done += range;
                progress.set(done, "positions");
            })
            .await?,
        );
    }
    let from = events.unsigned_abs();
    findings.extend(versions(pages, |rows| progress.set(from + rows, "versions")).await?);
    progress.set(2 * from, "command ids");
    findings.extend(effects(write).await?);
    findings.extend(command_rows(pages).await?);
    let show = |made: &rebuild::Progress| {
        progress.set(3 * from + made.events_done.unsigned_abs(), &format!("read models: {}", made.phase.as_str()));
    };
    let report = rebuild::verify(&databases.read, &tail, show).await?;
    let total = report.differences.total;
    let told = report.differences.examples.len() as i64;
    for difference in &report.differences.examples {
        findings.push(format!("the read models differ from the fold of the log: {difference}"));
    }
    if total > told {
        findings
            .push(format!("… and {} more differences of the read models; primetrade rebuild mends them", total - told));
    }
    Ok(findings)
}

/// Whether Postgres itself still watches over what it is trusted with.
async fn constraints(write: &Pool) -> Result<Findings, DoctorError> {
    let missing = sqlx::query_scalar!(
        r#"
        select wanted.name as "name!"
        from unnest(array['event_position', 'event_stream_version', 'command_id']) wanted (name)
        where not exists (
            select from pg_constraint c
            join pg_namespace n on n.oid = c.connamespace
            join pg_index i on i.indexrelid = c.conindid
            where n.nspname = 'event_store' and c.conname = wanted.name and i.indisvalid and i.indisunique)
        "#
    );
    let missing = missing.fetch_all(write).await?;
    Ok(missing.iter().map(|name| format!("the constraint {name} of the event store is missing or not valid")).collect())
}

/// What was written while a clock ran ahead: it is not to be mended, the log does not change, but to be known of.
async fn future(write: &Pool, now: Time) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    let rows = sqlx::query!(
        r#"
        select owner_id, count(*) as "events!", min(occurred_at) as "first!: Time", max(occurred_at) as "last!: Time",
            count(*) over () as "owners!"
        from event_store.event
        where occurred_at > $1
        group by owner_id
        order by count(*) desc, owner_id
        limit $2
        "#,
        now + FUTURE_GRACE,
        TOLD_MAX as i64,
    )
    .fetch_all(write)
    .await?;
    for row in &rows {
        let (first, last) = (format_time(row.first), format_time(row.last));
        kind.found(|| {
            format!(
                "{} events of owner {} lie in the future, from {first} to {last}: was a clock ahead, or is this one behind? Reads \
                 by now show them; elsewhere they are taken by primetrade import --history",
                row.events, row.owner_id
            )
        });
    }
    kind.total = rows.first().map_or(0, |row| row.owners.unsigned_abs());
    Ok(kind.into_findings("owners with events in the future"))
}

/// Jobs that nobody goes on with: no copy runs that has an object store, or none gets to its end.
async fn jobs_left(write: &Pool) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    let rows = sqlx::query!(
        r#"
        select id, owner_id, extract(epoch from clock_timestamp() - lease_expires_at)::bigint as "seconds!",
            count(*) over () as "jobs!"
        from jobs.job
        where state = 'running' and lease_expires_at between '2000-01-01' and clock_timestamp() - make_interval(secs => $1)
        order by lease_expires_at, id
        limit $2
        "#,
        JOB_LEFT_S,
        TOLD_MAX as i64,
    )
    .fetch_all(write)
    .await?;
    for row in &rows {
        let told = || {
            format!(
                "job {} of owner {} was begun, and for {} s nobody goes on with it",
                row.id, row.owner_id, row.seconds
            )
        };
        kind.found(told);
    }
    kind.total = rows.first().map_or(0, |row| row.jobs.unsigned_abs());
    Ok(kind.into_findings("jobs that nobody goes on with"))
}

/// Head and last event of each shard, in one snapshot: a live log moves on between two statements.
async fn heads_and_ends(write: &Pool) -> Result<Findings, DoctorError> {
    let rows = sqlx::query!(
        r#"
        select shard as "shard!", head.position as head,
            (select max(position) from event_store.event e where e.shard = shards.shard) as last
        from (select shard from event_store.head union select distinct shard from event_store.event) shards
        left join event_store.head using (shard)
        order by shard
        "#
    )
    .fetch_all(write)
    .await?;
    let mut findings = Vec::new();
    for row in rows {
        let last = row.last.unwrap_or(0);
        match row.head {
            None => findings.push(format!("shard {} has events but no head", row.shard)),
            Some(head) if head != last => {
                findings.push(format!("shard {}: the head says {head}, but the last event is at {last}", row.shard));
            }
            Some(_) => {}
        }
    }
    Ok(findings)
}

/// Every position from 1 to the head once.
async fn positions(
    write: &Pool,
    shard: i16,
    head: i64,
    advance: &mut (dyn FnMut(u64) + Send),
) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    let before = sqlx::query_scalar!(
        r#"select count(*) as "count!" from event_store.event where shard = $1 and position < 1"#,
        shard
    );
    let before = before.fetch_one(write).await?;
    if before > 0 {
        kind.found(|| format!("shard {shard} has {before} events at positions below 1"));
    }
    let mut from = 0;
    while from < head {
        let until = (from + RANGE_POSITIONS).min(head);
        let counted = sqlx::query!(
            r#"
            select count(*) as "count!", count(distinct position) as "positions!"
            from event_store.event where shard = $1 and position > $2 and position <= $3
            "#,
            shard,
            from,
            until,
        )
        .fetch_one(write)
        .await?;
        if counted.count != counted.positions || counted.count != until - from {
            tell_positions(write, shard, from, until, &mut kind).await?;
        }
        advance((until - from).unsigned_abs());
        from = until;
    }
    Ok(kind.into_findings("gaps or repeats of positions"))
}

async fn tell_positions(write: &Pool, shard: i16, from: i64, until: i64, kind: &mut Kind) -> Result<(), DoctorError> {
    let rows = sqlx::query!(
        r#"
        select position as "position!", previous as "previous!" from (
            select position, lag(position, 1, $2) over (order by position) as previous
            from (
                select position from event_store.event where shard = $1 and position > $2 and position <= $3
                union all select $3 + 1
            ) known
        ) pairs
        where position <> previous + 1
        order by position
        "#,
        shard,
        from,
        until,
    )
    .fetch_all(write)
    .await?;
    for row in rows {
        let (first, last) = (row.previous + 1, row.position - 1);
        kind.found(|| match (last - first).signum() {
            -1 => format!("shard {shard} has position {} twice", row.position),
            0 => format!("shard {shard} has no event at position {first}"),
            _ => format!("shard {shard} has no events at positions {first} to {last}"),
        });
    }
    Ok(())
}

/// Every stream's versions from 1 on, once each: in the order of the streams, page by page.
async fn versions(write: &Pool, mut advance: impl FnMut(u64)) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    let mut after = (Uuid::nil(), Uuid::nil(), i64::MIN);
    let mut rows_seen = 0;
    loop {
        let page = sqlx::query!(
            r#"
            select owner_id, task_id, version from event_store.event
            where (owner_id, task_id, version) > ($1, $2, $3)
            order by owner_id, task_id, version
            limit $4
            "#,
            after.0,
            after.1,
            after.2,
            PAGE_ROWS,
        )
        .fetch_all(write)
        .await?;
        let Some(last) = page.last() else { return Ok(kind.into_findings("gaps or repeats of versions")) };
        let next = (last.owner_id, last.task_id, last.version);
        rows_seen += page.len() as u64;
        for row in page {
            let same_stream = (row.owner_id, row.task_id) == (after.0, after.1) && after.2 != i64::MIN;
            let expected = if same_stream { after.2 + 1 } else { 1 };
            if row.version != expected {
                kind.found(|| {
                    format!(
                        "task {} of owner {} has version {} where {expected} was to come",
                        row.task_id, row.owner_id, row.version
                    )
                });
            }
            after = (row.owner_id, row.task_id, row.version);
        }
        after = next;
        advance(rows_seen);
    }
}

/// The events of one command id are one effect: on one task, one after the other.
async fn effects(write: &Pool) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    let rows = sqlx::query!(
        r#"
        select owner_id, command_id, count(*) as "events!", count(*) over () as "total!"
        from event_store.event
        group by owner_id, command_id
        having count(*) > 1 and (
            count(distinct task_id) > 1
            or max(version) - min(version) + 1 <> count(*)
            or max(position) - min(position) + 1 <> count(*))
        limit $1
        "#,
        TOLD_MAX as i64,
    )
    .fetch_all(write)
    .await?;
    for row in &rows {
        kind.found(|| {
            format!(
                "command {} of owner {} had more than one effect: its {} events do not belong together",
                row.command_id, row.owner_id, row.events
            )
        });
    }
    kind.total = rows.first().map_or(0, |row| row.total.unsigned_abs());
    Ok(kind.into_findings("commands with more than one effect"))
}

/// Each remembered command stands for an event that is there, at the position that was answered. (One without a version
/// binds the key of a batch: no command's.)
async fn command_rows(write: &Pool) -> Result<Findings, DoctorError> {
    let mut kind = Kind::new();
    // No owner has the nil id.
    let mut after = (Uuid::nil(), Uuid::nil());
    loop {
        let page = sqlx::query!(
            r#"
            select c.owner_id, c.command_id, c.task_id, c.version, c.revision, e.position as "position?"
            from (
                select * from event_store.command
                where (owner_id, command_id) > ($1, $2) and version > 0
                order by owner_id, command_id
                limit $3
            ) c
            left join event_store.event e using (owner_id, task_id, version)
            order by c.owner_id, c.command_id
            "#,
            after.0,
            after.1,
            PAGE_ROWS,
        )
        .fetch_all(write)
        .await?;
        let Some(last) = page.last() else {
            return Ok(kind.into_findings("commands that do not agree with the events"));
        };
        after = (last.owner_id, last.command_id);
        for row in page {
            match row.position {
                Some(position) if position == row.revision => {}
                Some(position) => kind.found(|| {
                    format!(
                        "command {} of owner {} was answered with revision {}, but version {} of task {} is at {position}",
                        row.command_id, row.owner_id, row.revision, row.version, row.task_id
                    )
                }),
                None => kind.found(|| {
                    format!(
                        "command {} of owner {} was answered, but version {} of task {} is not in the log",
                        row.command_id, row.owner_id, row.version, row.task_id
                    )
                }),
            }
        }
    }
}
