//! `primetrade import`: a file of any length, in bounded memory, onto the log.
//!
//! One thread reads and parses; a few workers carry out. All commands to one task go to one worker, so that their order
//! is kept. What was done once is not done twice: each line has a command id.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use commands::{Caller, CommandRequest, ExecuteError, Executor, line};
use domain::{Actor, ActorType, CommandId, OwnerId};
use process::clock;
use process::context::RequestContext;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::Format;
use crate::csv_row::{Columns, HeaderError};
use crate::lines::{Cut, Pieces};
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
/// How long a store that is away or busy is tried again, in milliseconds.
const RETRY_MS_MAX: u64 = 60_000;

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
    #[error("cannot read the file after line {line}: {source}")]
    Read {
        /// The last line that could be read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The first line of a CSV file.
    #[error("{0}. Nothing was imported")]
    Header(#[from] HeaderError),
    /// The store.
    #[error("the event store did not take line {line} for {} s ({reason}); the lines before were done. Start the same import again: nothing is done twice", RETRY_MS_MAX / 1000)]
    Store {
        /// The first line that is not known to be done.
        line: u64,
        /// What it said.
        reason: String,
    },
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

/// A line that was parsed.
struct Parsed {
    line: u64,
    request: CommandRequest,
    /// The id that an earlier version of this program would have given the line.
    earlier: Option<CommandId>,
}

type Chunk = Vec<Parsed>;

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
    fn reject(&self, line: u64, reason: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.progress.say(&format!("line {line}: {reason}"));
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
        if let Some(executor) = executor {
            let context = RequestContext::fresh();
            let caller = Caller {
                owner: self.owner,
                shard: self.shard,
                actor: Actor { actor_type: ActorType::System, id: None },
                correlation_id: format!("import-{}", context.request_id()).into(),
                traceparent: context.traceparent().into(),
                history: self.history,
            };
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
        let reader = Reader { import: self, senders, tally: tally.clone(), ended: ended.clone() };
        let (read_sender, read) = tokio::sync::oneshot::channel();
        // Not a task of the runtime: a read from a terminal or pipe cannot be interrupted, and must not hold up the end.
        std::thread::spawn(move || read_sender.send(reader.run(input)));
        let shown = tally.clone();
        let show = async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                shown.show();
            }
        };
        let work = async {
            let mut failure = None;
            while let Some(joined) = workers.join_next().await {
                let outcome = joined.unwrap_or_else(|error| Err(ImportError::Broken(error.to_string())));
                if let Err(error) = outcome {
                    ended.cancel();
                    failure.get_or_insert(error);
                }
            }
            let read = tokio::select! {
                read = read => read.unwrap_or_else(|_| Err(ImportError::Broken("the reader ended without a word".to_owned()))),
                () = ended.cancelled() => Ok(()),
            };
            failure.map_or(read, Err)
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = show => Ok(()),
        };
        outcome.map(|()| tally.summary(began, stop.is_cancelled()))
    }
}

/// Reads, parses, and deals out to the workers.
struct Reader {
    import: Import,
    senders: Vec<mpsc::Sender<Chunk>>,
    tally: Arc<Tally>,
    ended: CancellationToken,
}

impl Reader {
    fn run(self, input: impl BufRead) -> Result<(), ImportError> {
        let cut = match self.import.format {
            Format::Ndjson => Cut::Lines,
            Format::Csv => Cut::Records,
        };
        let mut line = 0;
        let failed = |line| move |source| ImportError::Read { line, source };
        let mut pieces = Pieces::new(input, cut).map_err(failed(line))?;
        let columns = match self.import.format {
            Format::Ndjson => None,
            Format::Csv => {
                let first = pieces.next().map_err(failed(line))?.ok_or(HeaderError::Empty)?;
                let header = first.content.map_err(HeaderError::Cut)?;
                Some(Columns::of_header(header)?)
            }
        };
        let mut chunks: Vec<(Chunk, usize)> = self.senders.iter().map(|_| Default::default()).collect();
        while !self.ended.is_cancelled()
            && let Some(piece) = pieces.next().map_err(failed(line))?
        {
            line = piece.line;
            let parsed = match piece.content {
                Err(error) => Err(error.to_string()),
                Ok(content) => self.parse(line, content, columns.as_ref()).map(|parsed| (parsed, content.len())),
            };
            self.tally.lines.fetch_add(1, Ordering::Relaxed);
            match parsed {
                Err(reason) => self.tally.reject(line, &reason),
                Ok((parsed, bytes)) => {
                    if !self.deal(parsed, bytes, &mut chunks) {
                        return Ok(());
                    }
                }
            }
            self.tally.bytes.store(pieces.bytes_read(), Ordering::Relaxed);
        }
        for (sender, (chunk, _)) in self.senders.iter().zip(chunks) {
            if !chunk.is_empty() && sender.blocking_send(chunk).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn parse(&self, line: u64, content: &[u8], columns: Option<&Columns>) -> Result<Parsed, String> {
        let owner = self.import.owner;
        let (parsed, made) = match columns {
            None => {
                let parsed = line::parse(content).map_err(reason::of_parse_error)?;
                let made = made_command_id(owner, line, parsed.fingerprint.as_bytes());
                (parsed, made)
            }
            Some(columns) => columns.command(content, |content| made_command_id(owner, line, content))?,
        };
        let earlier = parsed.command_id.is_none().then(|| made_command_id(owner, line, content));
        if !self.import.history {
            // The one rule about time that can be told without the task; the others are told when it is carried out.
            domain::occurred_at(parsed.occurred_at, clock::now(), None)
                .map_err(|refusal| reason::of_error(refusal.into()))?;
        }
        Ok(Parsed { line, request: parsed.request(Some(made)), earlier })
    }

    /// False: the workers have ended.
    fn deal(&self, parsed: Parsed, bytes: usize, chunks: &mut [(Chunk, usize)]) -> bool {
        if chunks.is_empty() {
            self.tally.succeeded.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let mut hasher = DefaultHasher::new();
        parsed.request.task_id.hash(&mut hasher);
        let worker = (hasher.finish() % chunks.len() as u64) as usize;
        let (chunk, chunk_bytes) = &mut chunks[worker];
        chunk.push(parsed);
        *chunk_bytes += bytes;
        if chunk.len() < CHUNK_LINES_MAX && *chunk_bytes < CHUNK_BYTES_MAX {
            return true;
        }
        *chunk_bytes = 0;
        self.senders[worker].blocking_send(std::mem::take(chunk)).is_ok()
    }
}

/// The id of a line without one: a UUID version 8 (RFC 9562) of the line's number (48 bits) and, for the rest, of
/// SHA-256 over owner, number and content. The same file again gives the same, and lines one after the other stand beside
/// each other in the index of ids, where random ids would touch a page each. Never to be changed.
///
/// The content is what the line says, whatever the order of its members or columns. Until 0.1 it was the line's bytes: an
/// import that was begun then is recognised by those ([`Parsed::earlier`]).
pub fn made_command_id(owner: OwnerId, line: u64, content: &[u8]) -> CommandId {
    let digest = Sha256::new().chain_update(owner.0).chain_update(line.to_be_bytes()).chain_update(content).finalize();
    let mut id = [0; 16];
    id[..6].copy_from_slice(&line.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&digest[..10]);
    CommandId(uuid::Builder::from_custom_bytes(id).into_uuid())
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
            match chunk {
                Some(chunk) => self.carry_out(chunk).await?,
                None => return Ok(()),
            }
        }
    }

    /// What the store could not take is tried again, in order, for a while. A task's later commands were refused with
    /// the first that was, so none overtakes another.
    async fn carry_out(&self, mut chunk: Chunk) -> Result<(), ImportError> {
        let began = Instant::now();
        let mut pause_ms = 10;
        loop {
            let mut again = Vec::new();
            let mut last = None;
            let mut rejected = Vec::new();
            match self.without_earlier(&mut chunk).await {
                Err(error) => {
                    again = chunk;
                    last = Some(error);
                }
                Ok(()) => {
                    let requests = chunk.iter().map(|parsed| parsed.request.clone()).collect();
                    let outcomes = self.executor.execute_all(&self.caller, requests).await;
                    for (parsed, outcome) in chunk.into_iter().zip(outcomes) {
                        match outcome {
                            Ok(accepted) => self.succeeded(accepted.events),
                            Err(error) if error.is_transient() => {
                                last.get_or_insert(error);
                                again.push(parsed);
                            }
                            Err(error) => rejected.push((parsed, error)),
                        }
                    }
                }
            }
            for (there, parsed, error) in self.looked_for(rejected).await {
                match there {
                    Ok(true) => self.succeeded(0),
                    Ok(false) => self.tally.reject(parsed.line, &reason::of_error(error)),
                    Err(unavailable) => {
                        last.get_or_insert(unavailable);
                        again.push(parsed);
                    }
                }
            }
            again.sort_by_key(|parsed| parsed.line);
            let Some((first, error)) = again.first().map(|parsed| parsed.line).zip(last) else { return Ok(()) };
            if began.elapsed() > Duration::from_millis(RETRY_MS_MAX) {
                return Err(ImportError::Store { line: first, reason: reason::of_error(error) });
            }
            chunk = again;
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(1_000);
        }
    }

    fn succeeded(&self, events: u32) {
        self.tally.succeeded.fetch_add(1, Ordering::Relaxed);
        self.tally.events.fetch_add(u64::from(events), Ordering::Relaxed);
    }

    /// Takes out the lines that an earlier version of this program imported under the ids that it made.
    async fn without_earlier(&self, chunk: &mut Chunk) -> Result<(), ExecuteError> {
        let earlier: Vec<CommandId> = chunk.iter().filter_map(|parsed| parsed.earlier).collect();
        if earlier.is_empty() {
            return Ok(());
        }
        let known = self.executor.known(&self.caller, earlier).await?;
        chunk.retain(|parsed| {
            let is_known = parsed.earlier.is_some_and(|earlier| known.contains(&earlier));
            if is_known {
                self.succeeded(0);
            }
            !is_known
        });
        Ok(())
    }

    /// Of lines that were rejected: whether what they say is in the log already, at the version that they say.
    async fn looked_for(
        &self,
        rejected: Vec<(Parsed, ExecuteError)>,
    ) -> Vec<(Result<bool, ExecuteError>, Parsed, ExecuteError)> {
        let requests: Vec<&CommandRequest> = rejected.iter().map(|(parsed, _)| &parsed.request).collect();
        let there = self.executor.happened(&self.caller, &requests).await;
        there.into_iter().zip(rejected).map(|(there, (parsed, error))| (there, parsed, error)).collect()
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
        import(format).run(io::Cursor::new(text.into()), None, progress, CancellationToken::new()).await.unwrap()
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

    #[test]
    fn ids_of_lines_hang_on_owner_line_and_content() {
        let (a, b) = (OwnerId(Uuid::nil()), OwnerId(Uuid::max()));
        assert_eq!(made_command_id(a, 1, b"x"), made_command_id(a, 1, b"x"));
        let different = [
            made_command_id(a, 1, b"x"),
            made_command_id(b, 1, b"x"),
            made_command_id(a, 2, b"x"),
            made_command_id(a, 1, b"y"),
        ];
        assert_eq!(different.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        // A promise to files that were imported half-way by an earlier version.
        assert_eq!(made_command_id(a, 1, b"x").to_string(), "00000000-0001-8e82-9835-d002b0db18e6");
    }
}
