//! `primetrade import`: a file of any length, in bounded memory, onto the log.
//!
//! One thread reads and parses; a few workers carry out. All commands to one task go to one worker, so that their order
//! is kept. What was done once is not done twice: each line has a command id.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commands::{Caller, ExecuteError, Executor};
use domain::{Actor, ActorType, OwnerId};
use process::context::RequestContext;
use serde::Serialize;
use task_files::{Format, LineError, ParsedLine, ReadError, Reader, StoreAway, carry_out};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::output::Progress;
use crate::reason;

/// Workers that carry out side by side: while one decides, another's events are being committed.
const WORKERS: usize = 3;
/// How many lines a worker takes at a time.
const CHUNK_LINES_MAX: usize = 2_000;
/// How much text a worker takes at a time, in bytes, but for one line that has more by itself.
const CHUNK_BYTES_MAX: usize = 2 << 20;
/// How many chunks wait for a worker.
const QUEUE_CHUNKS_MAX: usize = 2;

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Lines that hold something.
    pub lines: u64,
    /// Lines whose command took effect, now or before.
    pub succeeded: u64,
    /// Lines that were rejected.
    pub failed: u64,
    /// Events appended now.
    pub events: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was stopped before the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// Why an import ended early.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store.
    #[error("{0} ({reason})", reason = reason::of_error(.0.source.clone()))]
    Store(#[from] StoreAway),
    /// The store, before the first line.
    #[error("nothing was imported: {reason}", reason = reason::of_error(.0.clone()))]
    NotBegun(ExecuteError),
    /// A thread died.
    #[error("the import broke down: {0}")]
    Broken(String),
}

/// On whose tasks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    /// Whose tasks.
    pub owner: OwnerId,
    /// The owner's shard.
    pub shard: i16,
    /// Form of the file.
    pub format: Format,
    /// Whether what happened in the future is taken as it is.
    pub history: bool,
}

type Chunk = Vec<ParsedLine>;

/// Shared by reader, workers and the one who shows progress.
struct Tally {
    bytes: AtomicU64,
    lines: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    progress: Progress,
}

impl Tally {
    fn succeed(&self, events: u32) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(u64::from(events), Ordering::Relaxed);
    }

    fn reject(&self, line: u64, error: LineError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.progress.say(&format!("line {line}: {}", reason::of_line_error(error)));
    }

    fn summary(&self, began: Instant, interrupted: bool) -> Summary {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (succeeded, failed, events) = (of(&self.succeeded), of(&self.failed), of(&self.events));
        Summary {
            lines: succeeded + failed,
            succeeded,
            failed,
            events,
            seconds: began.elapsed().as_secs_f64(),
            interrupted,
        }
    }

    fn show(&self) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let message = format!("{} lines, {} events, {} rejected", of(&self.lines), of(&self.events), of(&self.failed));
        self.progress.set(of(&self.bytes), &message);
    }
}

impl Import {
    /// Reads to the end, or until `stop`; with an executor the commands are carried out, without one only checked.
    ///
    /// # Errors
    /// The file cannot be read any further, or the store stays away.
    pub async fn run(
        self,
        input: impl BufRead + Send + 'static,
        executor: Option<Executor>,
        progress: Progress,
        stop: CancellationToken,
    ) -> Result<Summary, ImportError> {
        let began = Instant::now();
        let tally = Arc::new(Tally {
            bytes: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            events: AtomicU64::new(0),
            progress,
        });
        // Ends workers and reader when one of them fails.
        let ended = stop.child_token();
        let mut workers = tokio::task::JoinSet::new();
        let mut senders = Vec::new();
        let caller = self.caller();
        if let Some(executor) = &executor {
            for _ in 0..WORKERS {
                let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS_MAX);
                senders.push(sender);
                let worker = Worker {
                    executor: executor.clone(),
                    caller: caller.clone(),
                    tally: tally.clone(),
                    ended: ended.clone(),
                };
                workers.spawn(worker.run(receiver));
            }
        }
        let line_reader = LineReader { import: self, senders, tally: tally.clone(), ended: ended.clone() };
        let shown = tally.clone();
        let show = async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                shown.show();
            }
        };
        let work = async {
            let (read_sender, read) = tokio::sync::oneshot::channel();
            // Not a task of the runtime: a read from a terminal or pipe cannot be interrupted, and must not hold up the end.
            std::thread::spawn(move || read_sender.send(line_reader.run(input)));
            let mut failure = None;
            while let Some(joined) = workers.join_next().await {
                let outcome = joined.unwrap_or_else(|error| Err(ImportError::Broken(error.to_string())));
                if let Err(error) = outcome {
                    ended.cancel();
                    failure.get_or_insert(error);
                }
            }
            let read = tokio::select! {
                read = read => read.unwrap_or_else(|_| Err(ImportError::Broken("the reader ended unexpectedly".to_owned()))),
                () = ended.cancelled() => Ok(()),
            };
            failure.map_or(read, Err)
        };
        let work = async {
            tokio::select! {
                outcome = work => outcome,
                () = show => Ok(()),
            }
        };
        let outcome = match &executor {
            // It may take hours: until its end nobody undoes what is there of it.
            Some(executor) => executor.make_change(&caller, work).await.map_err(ImportError::NotBegun)?,
            None => work.await,
        };
        outcome.map(|()| tally.summary(began, stop.is_cancelled()))
    }

    /// On whose behalf the commands run: all of one change.
    fn caller(&self) -> Caller {
        let context = RequestContext::fresh();
        Caller {
            owner: self.owner,
            shard: self.shard,
            actor: Actor { actor_type: ActorType::System, id: None },
            correlation_id: format!("import-{}", context.request_id()).into(),
            traceparent: context.traceparent().into(),
            change_id: process::clock::new_id(),
            history: self.history,
        }
    }
}

/// Reads and parses lines, and assigns them to the workers.
struct LineReader {
    import: Import,
    senders: Vec<mpsc::Sender<Chunk>>,
    tally: Arc<Tally>,
    ended: CancellationToken,
}

impl LineReader {
    fn run(self, input: impl BufRead) -> Result<(), ImportError> {
        let Import { owner, format, history, .. } = self.import;
        let mut reader = Reader::new(input, format, owner, history)?;
        let mut chunks: Vec<(Chunk, usize)> = self.senders.iter().map(|_| Default::default()).collect();
        while !self.ended.is_cancelled()
            && let Some((number, line)) = reader.next_line()?
        {
            self.tally.lines.fetch_add(1, Ordering::Relaxed);
            match line {
                Err(error) => self.tally.reject(number, error),
                Ok(line) => {
                    if !self.assign(line, &mut chunks) {
                        return Ok(());
                    }
                }
            }
            self.tally.bytes.store(reader.bytes_read(), Ordering::Relaxed);
        }
        for (sender, (chunk, _)) in self.senders.iter().zip(chunks) {
            if !chunk.is_empty() && sender.blocking_send(chunk).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False: the workers have ended.
    fn assign(&self, line: ParsedLine, chunks: &mut [(Chunk, usize)]) -> bool {
        if chunks.is_empty() {
            self.tally.succeed(0);
            return true;
        }
        let mut hasher = DefaultHasher::new();
        line.request.task_id.hash(&mut hasher);
        let worker = (hasher.finish() % chunks.len() as u64) as usize;
        let (chunk, chunk_bytes) = &mut chunks[worker];
        *chunk_bytes += line.bytes;
        chunk.push(line);
        if chunk.len() < CHUNK_LINES_MAX && *chunk_bytes < CHUNK_BYTES_MAX {
            return true;
        }
        *chunk_bytes = 0;
        self.senders[worker].blocking_send(std::mem::take(chunk)).is_ok()
    }
}

/// Carries out chunks, one after the other.
struct Worker {
    executor: Executor,
    caller: Caller,
    tally: Arc<Tally>,
    ended: CancellationToken,
}

impl Worker {
    async fn run(self, mut chunks: mpsc::Receiver<Chunk>) -> Result<(), ImportError> {
        loop {
            let chunk = tokio::select! {
                biased;
                () = self.ended.cancelled() => return Ok(()),
                chunk = chunks.recv() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            for carried in carry_out(&self.executor, &self.caller, chunk).await? {
                match carried.outcome {
                    Ok((events, _)) => self.tally.succeed(events),
                    Err(error) => self.tally.reject(carried.line.number, error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn import(format: Format) -> Import {
        Import { owner: OwnerId(Uuid::nil()), shard: 0, format, history: false }
    }

    async fn check(format: Format, text: impl Into<Vec<u8>>) -> Summary {
        let progress = Progress::new(None, crate::output::Unit::Bytes);
        import(format).run(std::io::Cursor::new(text.into()), None, progress, CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn a_dry_run_counts_what_is_right_and_wrong() {
        let id = Uuid::new_v4();
        let text = format!(
            "{{\"type\":\"CreateTask\",\"task_id\":\"{id}\",\"title\":\"a\"}}\n\n\
             {{\"type\":\"StartTask\",\"task_id\":\"{id}\",\"occurred_at\":\"9000-01-01T00:00:00Z\"}}\n\
             {{\"type\":\"CompleteTask\",\"task_id\":\"{id}\"}}\r\n\
             nonsense\n\
             {{\"type\":\"RenameTask\",\"task_id\":\"{id}\",\"title\":\"a\\u0000b\"}}\n"
        );
        let mut text = text.into_bytes();
        text.extend(b"{\"type\":\"DeleteTask\",\"task_id\":\"\xff\"}");
        let summary = check(Format::Ndjson, text).await;
        assert_eq!((summary.lines, summary.succeeded, summary.failed, summary.events), (6, 2, 4, 0));
    }

    #[tokio::test]
    async fn rows_are_tasks() {
        let summary = check(Format::Csv, "title,tags\na,\"x,y\"\n\"two\nlines\",\n,z\nb,c,d\n'=1,\n").await;
        assert_eq!((summary.lines, summary.succeeded, summary.failed), (5, 2, 3));
    }

    #[tokio::test]
    async fn an_import_that_is_stopped_says_so() {
        let stop = CancellationToken::new();
        stop.cancel();
        let progress = Progress::new(None, crate::output::Unit::Bytes);
        let summary = import(Format::Ndjson).run(&b"{}\n"[..], None, progress, stop).await.unwrap();
        assert!(summary.interrupted && summary.lines == 0);
    }
}
