//! Archives: everything that an account has, as of one revision, in one file. Who takes one over writes the same file from
//! the beginning.

use std::collections::HashSet;

use domain::{OwnerId, StoredEvent, TaskId, format_time, standing_undos};
use event_store::change::ChangeRecord;
use object_store::buffered::BufWriter;
use serde_json::json;
use task_files::{ExportError, TaskRecord};
use uuid::Uuid;

use crate::export::abort;
use crate::files::FileOf;
use crate::progress::{Ended, Left, Progress};
use crate::tar::{Lines, Tar};
use crate::worker::Worker;

/// How many events are read together.
const PAGE_EVENTS_MAX: i64 = 2_000;
/// How many ids of changes are held. For so many, all events of the account are looked at.
const CHANGE_IDS_MAX: i64 = 500_000;
/// How many changes are read together.
const PAGE_CHANGES_MAX: usize = 5_000;

/// What there is to write.
#[derive(Default)]
struct Found {
    tasks: i64,
    revision: i64,
    /// Of these nothing is told.
    purged: HashSet<TaskId>,
}

/// Writes an archive.
pub(crate) async fn archive(worker: &Worker, progress: &mut Progress, until: i64) -> Result<Ended, Left> {
    let owner = progress.lease.owner;
    let found = find(worker, owner, until).await?;
    progress.restart(found.tasks, found.revision).await?;
    let file = FileOf::Result(progress.lease.id);
    let mut out = worker.files.writer(file);
    let mut tar = Tar::new(&mut out, progress.lease.created_at);
    let left = match write(worker, progress, until, &found, &mut tar).await {
        Ok(true) => {
            tar.end().await?;
            return Ok(Ended::Written(worker.files.length(file).await? as i64));
        }
        Ok(false) => None,
        Err(left) => Some(left),
    };
    drop(tar);
    abort(out, left).await
}

async fn find(worker: &Worker, owner: OwnerId, until: i64) -> Result<Found, Left> {
    let (mut found, mut pages) = (Found::default(), Pages::new(worker, owner, until));
    while let Some(events) = pages.next().await? {
        for event in events {
            found.tasks += i64::from(event.version == 1);
            found.revision = found.revision.max(event.position);
            if event.event_type == "TaskPurged" {
                found.purged.insert(event.task_id);
            }
        }
    }
    found.tasks -= found.purged.len() as i64;
    Ok(found)
}

/// Writes all of it; to end the archive is left to the caller. False: the job was cancelled.
async fn write(
    worker: &Worker,
    progress: &mut Progress,
    until: i64,
    found: &Found,
    tar: &mut Tar<&mut BufWriter>,
) -> Result<bool, Left> {
    let owner = progress.lease.owner;
    let profile = (worker.account.profile)(owner).await.map_err(Left::Account)?;
    tar.add("profile.json", profile.as_bytes()).await?;

    let (mut tasks, mut history) = (Lines::new("tasks"), Lines::new("history"));
    let (mut pages, mut done) = (Pages::new(worker, owner, until), 0);
    let mut current: Option<(TaskId, TaskRecord)> = None;
    while let Some(events) = pages.next().await? {
        if progress.cancelled.is_cancelled() {
            return Ok(false);
        }
        worker.files.check_room()?;
        for event in events.iter().filter(|event| !found.purged.contains(&event.task_id)) {
            if let Some((_, ended)) = current.take_if(|(task_id, _)| *task_id != event.task_id) {
                end_task(ended, &mut tasks, tar, progress, &mut done).await?;
            }
            let (_, record) = current.get_or_insert_with(|| (event.task_id, TaskRecord::default()));
            history.push(&record.take(event)?, tar).await?;
        }
        progress.write().await?;
    }
    if let Some((_, ended)) = current {
        end_task(ended, &mut tasks, tar, progress, &mut done).await?;
        progress.write().await?;
    }
    tasks.end(tar).await?;
    history.end(tar).await?;

    let store = worker.executor.store();
    let undone_by = standing_undos(store.undos_of(owner, until).await?);
    let (mut changes, mut after) = (Lines::new("changes"), 0);
    loop {
        let ids = store.change_ids_after(owner, after, until, CHANGE_IDS_MAX).await?;
        let Some((_, last)) = ids.last() else { break };
        after = *last;
        for page in ids.chunks(PAGE_CHANGES_MAX) {
            if progress.cancelled.is_cancelled() {
                return Ok(false);
            }
            worker.files.check_room()?;
            let page: Vec<Uuid> = page.iter().map(|(id, _)| *id).collect();
            for change in &store.changes(owner, &page, until).await? {
                changes.push(&shown(change, undone_by.get(&change.id))?, tar).await?;
            }
        }
    }
    changes.end(tar).await?;

    let (mut audit, mut before) = (Lines::new("audit"), None);
    loop {
        let page = (worker.account.audit)(owner, before).await.map_err(Left::Account)?;
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        for (_, event) in &page {
            audit.push(event, tar).await?;
        }
    }
    audit.end(tar).await?;
    Ok(true)
}

fn shown(change: &ChangeRecord, undone_by: Option<&Uuid>) -> Result<String, std::io::Error> {
    let types: serde_json::Value = serde_json::from_str(&change.types)?;
    let line = json!({
        "id": change.id,
        "occurred_at": format_time(change.occurred_at),
        "recorded_at": format_time(change.recorded_at),
        "actor": {"type": change.actor_type, "id": change.actor_id},
        "types": types,
        "tasks": change.tasks,
        "events": change.events,
        "undoes": change.undoes,
        "undone_by": undone_by,
    });
    Ok(line.to_string())
}

async fn end_task(
    ended: TaskRecord,
    tasks: &mut Lines,
    tar: &mut Tar<&mut BufWriter>,
    progress: &mut Progress,
    done: &mut i64,
) -> Result<(), Left> {
    if let Some(line) = ended.end() {
        tasks.push(&line, tar).await?;
    }
    *done += 1;
    progress.succeeded(*done, 0, None);
    Ok(())
}

/// The owner's events, stream by stream.
struct Pages<'a> {
    worker: &'a Worker,
    owner: OwnerId,
    until: i64,
    after: Option<(TaskId, i64)>,
}

impl<'a> Pages<'a> {
    fn new(worker: &'a Worker, owner: OwnerId, until: i64) -> Self {
        Self { worker, owner, until, after: None }
    }

    async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, ExportError> {
        let Self { worker, owner, until, after } = self;
        let events = worker.reads.read_owner_streams_after(*owner, *after, *until, PAGE_EVENTS_MAX).await?;
        let Some(last) = events.last() else { return Ok(None) };
        *after = Some((last.task_id, last.version));
        Ok(Some(events))
    }
}
