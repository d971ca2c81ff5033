//! Imports that change nothing. Each line is decided on the tasks as those before it would have left them, so the tasks of
//! a whole file would be in memory; where they are too many, they are divided by a hash of their ids, and the file is read
//! again for each part. Nothing is written down before the end: who takes it over begins anew.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use commands::{CommandRequest, Simulation};
use domain::TaskId;
use task_files::{Format, LineError};
use uuid::Uuid;

use crate::import::read;
use crate::progress::{Ended, FAILURES_MAX, Left, Progress};
use crate::worker::Worker;

/// How much memory the tasks of one part may take, in bytes.
const PART_BYTES_MAX: u64 = 32 << 20;

/// The tasks whose hash has this remainder.
#[derive(Clone, Copy)]
struct Part {
    remainder: u64,
    parts: u64,
}

impl Part {
    fn has(self, task_id: TaskId) -> bool {
        let mut hasher = DefaultHasher::new();
        task_id.hash(&mut hasher);
        hasher.finish() % self.parts == self.remainder
    }

    fn halves(self) -> [Self; 2] {
        let Self { remainder, parts } = self;
        [Self { remainder, parts: 2 * parts }, Self { remainder: remainder + parts, parts: 2 * parts }]
    }
}

/// What came of lines.
#[derive(Default)]
struct Tally {
    last_line: i64,
    succeeded: i64,
    failed: i64,
    /// The first ones, by line.
    failures: BTreeMap<i64, (Option<Uuid>, LineError)>,
}

impl Tally {
    fn fail(&mut self, line: u64, task_id: Option<Uuid>, error: LineError) {
        self.failed += 1;
        self.failures.insert(line as i64, (task_id, error));
        if self.failures.len() as i64 > FAILURES_MAX {
            self.failures.pop_last();
        }
    }
}

/// Tries a whole import out.
pub(crate) async fn dry_run(worker: &Worker, progress: &mut Progress, format: Format) -> Result<Ended, Left> {
    let mut tally = Tally::default();
    let mut parts = vec![Part { remainder: 0, parts: 1 }];
    while let Some(part) = parts.pop() {
        match try_out(worker, progress, format, part).await? {
            Outcome::Ended(ended) => return Ok(ended),
            Outcome::TooMany => parts.extend(part.halves()),
            Outcome::Done(done) => {
                tally.last_line = done.last_line;
                tally.succeeded += done.succeeded;
                tally.failed += done.failed;
                tally.failures.extend(done.failures);
                while tally.failures.len() as i64 > FAILURES_MAX {
                    tally.failures.pop_last();
                }
            }
        }
    }
    progress.tried_out(tally.last_line, tally.succeeded, tally.failed, tally.failures);
    progress.write().await?;
    Ok(Ended::Succeeded)
}

enum Outcome {
    Done(Tally),
    TooMany,
    Ended(Ended),
}

async fn try_out(worker: &Worker, progress: &Progress, format: Format, part: Part) -> Result<Outcome, Left> {
    let mut reading = match read(worker, progress, format, 0).await? {
        Ok(reading) => reading,
        Err(failure) => return Ok(Outcome::Ended(Ended::Failed(failure))),
    };
    let caller = progress.caller();
    let (mut simulation, mut tally) = (Simulation::default(), Tally::default());
    while let Some(lines) = reading.next().await? {
        if progress.cancelled.is_cancelled() {
            return Ok(Outcome::Ended(Ended::Cancelled));
        }
        let last_lines = [lines.parsed.last().map(|line| line.number), lines.wrong.last().map(|(line, _)| *line)];
        tally.last_line = last_lines.into_iter().flatten().max().unwrap_or_default() as i64;
        if part.remainder == 0 {
            // Of no task: once, in whichever part it is.
            lines.wrong.into_iter().for_each(|(line, error)| tally.fail(line, None, error));
        }
        let (numbers, requests): (Vec<u64>, Vec<CommandRequest>) = lines
            .parsed
            .into_iter()
            .filter(|line| part.has(line.request.task_id))
            .map(|line| (line.number, line.request))
            .unzip();
        let outcomes = {
            let _permit = worker.permits.take(caller.owner, 1).await;
            simulation.decide(&worker.executor, &caller, &requests).await?
        };
        for ((line, request), outcome) in numbers.into_iter().zip(requests).zip(outcomes) {
            match outcome {
                Ok(()) => tally.succeeded += 1,
                Err(error) => tally.fail(line, Some(request.task_id.0), error.into()),
            }
        }
        if simulation.bytes() > PART_BYTES_MAX {
            return Ok(Outcome::TooMany);
        }
    }
    Ok(Outcome::Done(tally))
}
