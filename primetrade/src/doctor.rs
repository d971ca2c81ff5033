//! `primetrade doctor`: whether what must always hold does, on a live database, in plain words.
//!
//! 2: a shard's positions and a stream's versions have no gap and no repeat. 3: a command id has at most one effect, of the
//! change that was answered. 4: the read models equal the fold of the log; the intervals in which a task's versions held
//! have no gap and no overlap, and each change is what its events make it. And whether something lies in the future, a
//! deleted task is not purged, or a job is left half done or nobody's. Who owns the tables looks ([`event_store::checks`],
//! [`jobs::checks`], [`rebuild::verify`]); what was found is told here.

use backends::database::Pool;
use chrono::TimeDelta;
use domain::{RESTORABLE_DAYS, Time, format_time};
use event_store::TailReader;
use event_store::checks::{self, Found, WrongCommand, WrongHead, WrongPositions};
use process::clock;
use projector::rebuild::{self, RebuildError};

use crate::database::Databases;
use crate::output::Progress;
use crate::room::while_there_is_room;

/// Clocks of several machines differ by less: the same as commands are allowed.
const FUTURE_GRACE: TimeDelta = TimeDelta::minutes(1);
/// A job whose lease has ended is taken over within seconds where any copy runs.
const JOB_LEFT_S: f64 = 600.0;
/// A deletion is dealt with within an hour of its 30 days where any copy runs.
const PURGE_GRACE: TimeDelta = TimeDelta::days(1);

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

/// Tells what was found of a kind, and how much more there is.
fn told<T>(found: Found<T>, what: &str, tell: impl FnMut(T) -> String) -> Findings {
    let more = found.total.saturating_sub(found.shown.len() as u64);
    let mut told: Findings = found.shown.into_iter().map(tell).collect();
    if more > 0 {
        told.push(format!("… and {more} more {what}"));
    }
    told
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
    findings.extend(jobs_waiting(write).await?);
    findings.extend(jobs_of_nobody(write).await?);
    findings.extend(unpurged(write, clock::now()).await?);
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
    let report = match while_there_is_room(databases, rebuild::verify(&databases.read, &tail, show)).await {
        Err(RebuildError::NoRoom(reason)) => {
            findings.push(format!(
                "the read models were not compared with the fold of the log, for which another one of them is made: {reason}"
            ));
            return Ok(findings);
        }
        report => report?,
    };
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
    let missing = checks::missing_constraints(write).await?;
    Ok(missing.iter().map(|name| format!("the constraint {name} of the event store is missing or not valid")).collect())
}

/// What was written while a clock ran ahead: it is not to be mended, the log does not change, but to be known of.
async fn future(write: &Pool, now: Time) -> Result<Findings, DoctorError> {
    let found = checks::later_events(write, now + FUTURE_GRACE).await?;
    Ok(told(found, "owners with events in the future", |later| {
        format!(
            "{} events of owner {} lie in the future, from {} to {}: was a clock ahead, or is this one behind? Reads \
             by now show them; elsewhere they are taken by primetrade import --history",
            later.events,
            later.owner_id,
            format_time(later.first),
            format_time(later.last)
        )
    }))
}

/// Jobs that nobody goes on with.
async fn jobs_left(write: &Pool) -> Result<Findings, DoctorError> {
    let found = jobs::checks::left(write, JOB_LEFT_S).await?;
    Ok(told(found, "jobs that nobody goes on with", |job| {
        format!("job {} of owner {} was begun, and for {} s nobody goes on with it", job.id, job.owner_id, job.seconds)
    }))
}

/// Jobs that nobody takes, though their accounts have room for them.
async fn jobs_waiting(write: &Pool) -> Result<Findings, DoctorError> {
    let found = jobs::checks::waiting(write, JOB_LEFT_S).await?;
    Ok(told(found, "jobs that nobody takes", |job| {
        format!(
            "job {} of owner {} waits for {} s, and nobody takes it: does a copy run that has an object store?",
            job.id, job.owner_id, job.seconds
        )
    }))
}

/// Jobs of accounts that are not there.
async fn jobs_of_nobody(write: &Pool) -> Result<Findings, DoctorError> {
    let found = jobs::checks::of_nobody(write).await?;
    Ok(told(found, "jobs of nobody", |job| {
        format!("job {} is of owner {}, and there is no such account", job.id, job.owner_id)
    }))
}

/// Tasks that were deleted more than 30 days ago, and are not purged.
async fn unpurged(write: &Pool, now: Time) -> Result<Findings, DoctorError> {
    let found = checks::unpurged(write, now - TimeDelta::days(RESTORABLE_DAYS) - PURGE_GRACE).await?;
    Ok(told(found, "tasks that are not purged", |task| {
        format!(
            "task {} of owner {} was deleted at {} and is not purged: does a copy run that takes commands?",
            task.task_id,
            task.owner_id,
            format_time(task.recorded_at)
        )
    }))
}

/// Whether the head of each shard is at its last event.
async fn heads_and_ends(write: &Pool) -> Result<Findings, DoctorError> {
    let wrong = checks::wrong_heads(write).await?;
    let tell = |WrongHead { shard, head, last }| match head {
        None => format!("shard {shard} has events but no head"),
        Some(head) => format!("shard {shard}: the head says {head}, but the last event is at {last}"),
    };
    Ok(wrong.into_iter().map(tell).collect())
}

/// Every position from 1 to the head once.
async fn positions(
    write: &Pool,
    shard: i16,
    head: i64,
    advance: &mut (dyn FnMut(u64) + Send),
) -> Result<Findings, DoctorError> {
    let found = checks::positions(write, shard, head, advance).await?;
    Ok(told(found, "gaps or repeats of positions", |wrong| match wrong {
        WrongPositions::BeforeFirst(events) => format!("shard {shard} has {events} events at positions below 1"),
        WrongPositions::Repeated(position) => format!("shard {shard} has position {position} twice"),
        WrongPositions::Missing(first, last) if first == last => {
            format!("shard {shard} has no event at position {first}")
        }
        WrongPositions::Missing(first, last) => format!("shard {shard} has no events at positions {first} to {last}"),
    }))
}

/// Every stream's versions from 1 on, once each.
async fn versions(write: &Pool, advance: impl FnMut(u64)) -> Result<Findings, DoctorError> {
    let found = checks::versions(write, advance).await?;
    Ok(told(found, "gaps or repeats of versions", |wrong| {
        format!(
            "task {} of owner {} has version {} where {} was to come",
            wrong.task_id, wrong.owner_id, wrong.version, wrong.expected
        )
    }))
}

/// The events of one command id are one effect.
async fn effects(write: &Pool) -> Result<Findings, DoctorError> {
    let found = checks::effects(write).await?;
    Ok(told(found, "commands with more than one effect", |command| {
        format!(
            "command {} of owner {} had more than one effect: its {} events do not belong together",
            command.command_id, command.owner_id, command.events
        )
    }))
}

/// Each remembered command stands for an event that is there, at the position that was answered, and of the change that was.
async fn command_rows(write: &Pool) -> Result<Findings, DoctorError> {
    let found = checks::commands(write).await?;
    Ok(told(found, "commands that do not agree with the events", |command| {
        let WrongCommand { owner_id, command_id, task_id, version, revision, change_id, position, .. } = command;
        match position {
            None => format!(
                "command {command_id} of owner {owner_id} was answered, but version {version} of task {task_id} is not in the log"
            ),
            Some(position) if position != revision => format!(
                "command {command_id} of owner {owner_id} was answered with revision {revision}, but version {version} of task \
                 {task_id} is at {position}"
            ),
            Some(_) => format!(
                "command {command_id} of owner {owner_id} was answered with change {}, but version {version} of task {task_id} is \
                 of another",
                change_id.unwrap_or_default()
            ),
        }
    }))
}
