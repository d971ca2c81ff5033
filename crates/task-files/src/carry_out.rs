//! Lines are carried out many at a time, those to one task in order. Each has one effect at most, by its id; what the log
//! has already is a success without effect.

use std::time::Duration;

use commands::{Caller, ExecuteError, Executor};
use domain::CommandId;
use tokio::time::{Instant, sleep};

use crate::line_error::LineError;
use crate::reader::ParsedLine;

/// How long a store that is away or busy is tried again, in milliseconds.
const RETRY_MS_MAX: u64 = 60_000;
const PAUSE_MS_MAX: u64 = 1_000;

/// The store did not take these lines.
#[derive(Debug, thiserror::Error)]
#[error(
    "the event store did not take line {line} for {} s; the lines before were done. Start the same import again: nothing is done twice",
    RETRY_MS_MAX / 1000
)]
pub struct StoreAway {
    /// The first line that is not known to be done.
    pub line: u64,
    /// What it said.
    pub source: ExecuteError,
}

/// What came of a line.
#[derive(Debug)]
pub struct Carried {
    /// The line.
    pub line: ParsedLine,
    /// How many events it appended now, and the position of the last event that it stands for.
    pub outcome: Result<(u32, i64), LineError>,
}

/// Carries out lines in order. What the store could not take is tried again, in order, for a minute. A task's later
/// commands were refused with the first that was, so none overtakes another.
///
/// # Errors
/// The store stays away.
pub async fn carry_out(
    executor: &Executor,
    caller: &Caller,
    lines: Vec<ParsedLine>,
) -> Result<Vec<Carried>, StoreAway> {
    let began = Instant::now();
    let mut pause_ms = 10;
    let mut carried = Vec::with_capacity(lines.len());
    let mut lines = lines;
    loop {
        let (mut again, mut last) = (Vec::new(), None);
        match without_earlier(executor, caller, lines, &mut carried).await {
            Err((error, unchanged)) => (again, last) = (unchanged, Some(error)),
            Ok(left) => {
                let mut rejected = Vec::new();
                let requests = left.iter().map(|line| line.request.clone()).collect();
                let outcomes = executor.execute_all(caller, requests).await;
                for (line, outcome) in left.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(accepted) => {
                            carried.push(Carried { line, outcome: Ok((accepted.events, accepted.revision)) });
                        }
                        Err(error) if error.is_transient() => {
                            last.get_or_insert(error);
                            again.push(line);
                        }
                        Err(error) => rejected.push((line, error)),
                    }
                }
                let requests: Vec<_> = rejected.iter().map(|(line, _)| &line.request).collect();
                let happened = executor.happened(caller, &requests).await;
                for (happened, (line, error)) in happened.into_iter().zip(rejected) {
                    match happened {
                        Ok(Some(position)) => carried.push(Carried { line, outcome: Ok((0, position)) }),
                        Ok(None) => carried.push(Carried { line, outcome: Err(error.into()) }),
                        Err(unavailable) => {
                            last.get_or_insert(unavailable);
                            again.push(line);
                        }
                    }
                }
            }
        }
        again.sort_by_key(|line| line.number);
        let Some((line, source)) = again.first().map(|line| line.number).zip(last) else {
            carried.sort_by_key(|carried| carried.line.number);
            return Ok(carried);
        };
        if began.elapsed() > Duration::from_millis(RETRY_MS_MAX) {
            return Err(StoreAway { line, source });
        }
        lines = again;
        sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Without the lines that an earlier version of this program imported under the ids that it made.
async fn without_earlier(
    executor: &Executor,
    caller: &Caller,
    lines: Vec<ParsedLine>,
    carried: &mut Vec<Carried>,
) -> Result<Vec<ParsedLine>, (ExecuteError, Vec<ParsedLine>)> {
    let earlier: Vec<CommandId> = lines.iter().filter_map(|line| line.earlier_id).collect();
    if earlier.is_empty() {
        return Ok(lines);
    }
    let known = match executor.known(caller, earlier).await {
        Ok(known) => known,
        Err(error) => return Err((error, lines)),
    };
    let mut left = Vec::with_capacity(lines.len());
    for line in lines {
        match line.earlier_id.and_then(|id| known.get(&id)) {
            Some(revision) => carried.push(Carried { line, outcome: Ok((0, *revision)) }),
            None => left.push(line),
        }
    }
    Ok(left)
}
