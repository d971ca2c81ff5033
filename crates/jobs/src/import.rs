//! The lines of a file, carried out as many at a time as a step has. A step that was carried out and not written down is
//! carried out again, without effect.

use std::collections::BTreeMap;
use std::io::BufRead;

use commands::ExecuteError;
use task_files::{Format, LineError, ParsedLine, ReadError, Reader, carry_out};
use tokio::sync::mpsc;
use tokio_util::io::SyncIoBridge;

use crate::failure::Failure;
use crate::files::FileOf;
use crate::progress::{Ended, Left, Progress};
use crate::worker::Worker;

/// How many lines are carried out at a time.
pub(crate) const STEP_LINES_MAX: usize = 2_000;
/// How much text they have, in bytes, but for one line that has more by itself.
const STEP_BYTES_MAX: usize = 2 << 20;

/// Lines of a file, in order.
#[derive(Default)]
pub(crate) struct Lines {
    pub parsed: Vec<ParsedLine>,
    pub wrong: Vec<(u64, LineError)>,
    /// Not to be carried out.
    refused: Vec<(ParsedLine, ExecuteError)>,
    bytes: usize,
}

impl Lines {
    fn is_full(&self) -> bool {
        self.parsed.len() + self.wrong.len() >= STEP_LINES_MAX || self.bytes >= STEP_BYTES_MAX
    }
}

/// Carries out what is left of an import.
pub(crate) async fn import(worker: &Worker, progress: &mut Progress, format: Format) -> Result<Ended, Left> {
    let file = FileOf::Import(progress.lease.id);
    if progress.lease.total.is_none() {
        match count(worker, file, format).await? {
            Ok(total) => progress.set_total(total).await?,
            Err(failure) => return Ok(Ended::Failed(failure)),
        }
    }
    let after = progress.lease.line.unsigned_abs();
    let mut reading = match read(worker, progress, format, after).await? {
        Ok(reading) => reading,
        Err(failure) => return Ok(Ended::Failed(failure)),
    };
    let caller = progress.caller();
    // Of the first step, where somebody may have carried it out before.
    let mut is_repeated = progress.lease.epoch > 1;
    while let Some(mut lines) = reading.next().await? {
        if progress.cancelled.is_cancelled() {
            return Ok(Ended::Cancelled);
        }
        if std::mem::take(&mut is_repeated) {
            take_out_refused(worker, progress, &mut lines).await?;
        }
        let carried = {
            let _permit = worker.permits.take(caller.owner, 1).await;
            carry_out(&worker.executor, &caller, lines.parsed).await?
        };
        let carried = carried.into_iter().map(|carried| {
            let task_id = carried.line.request.task_id.0;
            (carried.line.number, Some(task_id), carried.outcome)
        });
        let wrong = lines.wrong.into_iter().map(|(line, error)| (line, None, Err(error)));
        let refused = lines.refused.into_iter().map(|(line, error)| {
            let task_id = line.request.task_id.0;
            (line.number, Some(task_id), Err(error.into()))
        });
        let mut outcomes: Vec<_> = carried.chain(wrong).chain(refused).collect();
        outcomes.sort_by_key(|(line, ..)| *line);
        for (line, task_id, outcome) in outcomes {
            match outcome {
                Ok((events, revision)) => progress.succeeded(line as i64, events, Some(revision)),
                Err(error) => progress.failed(line as i64, task_id, error),
            }
        }
        progress.write().await?;
    }
    Ok(Ended::Succeeded)
}

/// Lines that were refused before are not tried again: by now they might be taken.
async fn take_out_refused(worker: &Worker, progress: &Progress, lines: &mut Lines) -> Result<(), Left> {
    let requests: Vec<_> = lines.parsed.iter().map(|line| &line.request).collect();
    let refused = worker.executor.refused_before(&progress.caller(), &requests).await?;
    let mut refused: BTreeMap<usize, ExecuteError> = refused.into_iter().collect();
    for (index, line) in std::mem::take(&mut lines.parsed).into_iter().enumerate() {
        match refused.remove(&index) {
            Some(error) => lines.refused.push((line, error)),
            None => lines.parsed.push(line),
        }
    }
    Ok(())
}

/// The file's lines past this one, read and parsed by a thread of its own.
pub(crate) struct Reading {
    lines: mpsc::Receiver<Lines>,
    thread: Option<tokio::task::JoinHandle<Result<(), ReadError>>>,
}

impl Reading {
    /// The next ones; none at the end.
    pub async fn next(&mut self) -> Result<Option<Lines>, Left> {
        match (self.lines.recv().await, self.thread.take()) {
            (Some(lines), thread) => {
                self.thread = thread;
                Ok(Some(lines))
            }
            (None, Some(thread)) => {
                thread.await??;
                Ok(None)
            }
            (None, None) => Ok(None),
        }
    }
}

/// Begins to read a file past a line.
pub(crate) async fn read(
    worker: &Worker,
    progress: &Progress,
    format: Format,
    after: u64,
) -> Result<Result<Reading, Failure>, Left> {
    let input = match worker.files.reader(FileOf::Import(progress.lease.id)).await {
        Ok(input) => SyncIoBridge::new(input),
        Err(object_store::Error::NotFound { .. }) => return Ok(Err(Failure::FileGone)),
        Err(error) => return Err(error.into()),
    };
    let owner = progress.lease.owner;
    let (sender, lines) = mpsc::channel(1);
    let thread = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(input, format, owner, false)?;
        reader.skip_to(after)?;
        deal(reader, &sender)
    });
    Ok(Ok(Reading { lines, thread: Some(thread) }))
}

fn deal(mut reader: Reader<impl BufRead>, sender: &mpsc::Sender<Lines>) -> Result<(), ReadError> {
    let mut lines = Lines::default();
    while let Some((number, line)) = reader.next_line()? {
        match line {
            Ok(line) => {
                lines.bytes += line.bytes;
                lines.parsed.push(line);
            }
            Err(error) => lines.wrong.push((number, error)),
        }
        if lines.is_full() && sender.blocking_send(std::mem::take(&mut lines)).is_err() {
            return Ok(());
        }
    }
    if !lines.parsed.is_empty() || !lines.wrong.is_empty() {
        // Who does not listen any more has ended.
        let _ = sender.blocking_send(lines);
    }
    Ok(())
}

/// How many lines a file has, and whether it can be read at all.
async fn count(worker: &Worker, file: FileOf, format: Format) -> Result<Result<i64, Failure>, Left> {
    let input = match worker.files.reader(file).await {
        Ok(input) => SyncIoBridge::new(input),
        Err(object_store::Error::NotFound { .. }) => return Ok(Err(Failure::FileGone)),
        Err(error) => return Err(error.into()),
    };
    match tokio::task::spawn_blocking(move || task_files::count_lines(input, format)).await? {
        Ok(lines) => Ok(Ok(lines as i64)),
        Err(ReadError::Header(error)) => Ok(Err(error.into())),
        Err(error) => Err(error.into()),
    }
}
