//! What `primetrade salvage --from-kafka` runs: appends the events that the topic has beyond the log's head. Prints one JSON
//! object.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use backends::database::{self, DatabaseError, DatabaseUrls, Pool, Use};
use clap::Parser;
use domain::StoredEvent;
use event_store::TailReader;
use event_store::salvage::{self, Head, SalvageError};
use kafka::KafkaSettings;
use kafka::tail::{PositionRange, TailError};
use process::{arguments, stderr};
use serde_json::json;
use settings::{ConfigError, Source};
use uuid::Uuid;

/// So many events are held in memory at once, and about so many bytes of them.
const RANGE_EVENTS: i64 = 200_000;
const RANGE_BYTES: usize = 128 << 20;
/// So many are appended in one transaction.
const APPEND_EVENTS: usize = 2_000;
const DATABASE_WAIT: Duration = Duration::from_secs(15);
const COULD_NOT_RUN: u8 = 2;

#[derive(Debug, Parser)]
#[command(version, about = "Appends the events that the topic has beyond the log's head. Run by primetrade salvage.")]
struct Flags {
    /// File of settings, NAME=value (PRIMETRADE_CONFIG_FILE)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Append nothing; say what would be.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the event store: {0}")]
    EventStore(#[from] sqlx::Error),
    #[error(transparent)]
    Append(#[from] SalvageError),
    #[error(transparent)]
    Topic(#[from] TailError),
    #[error(
        "the log has the event {here} at position {position} of shard {shard}, the topic {there}: the log was written since \
         the disk was lost"
    )]
    Differ { shard: i16, position: i64, here: Uuid, there: Uuid },
    #[error("the program could not be set up: {0}")]
    Setup(std::io::Error),
    #[error("the result could not be written to standard output: {0}")]
    NotTold(std::io::Error),
}

fn main() -> ExitCode {
    let flags = match arguments::read::<Flags>() {
        Ok(flags) => flags,
        Err(status) => return status,
    };
    let done = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Setup);
    let status = match done.and_then(|runtime| runtime.block_on(run(&flags))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr::say(&format!("error: {failure}"));
            ExitCode::from(COULD_NOT_RUN)
        }
    };
    stderr::flush();
    status
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    let mut source = Source::from_env();
    source.add_file(flags.config.as_deref())?;
    // what primetrade has made of all settings and flags is over them
    if let Ok(url) = std::env::var("PRIMETRADE_DATABASE_URL") {
        source.set("PRIMETRADE_DATABASE_URL", url);
    }
    let missing =
        |name: &str| ConfigError::Missing { name: name.to_owned(), needed_for: "events are taken from there" };
    let kafka = KafkaSettings::read(&source)?.ok_or_else(|| missing("PRIMETRADE_KAFKA_BROKERS"))?;
    let given = DatabaseUrls::read(&source)?.write.ok_or_else(|| missing("PRIMETRADE_DATABASE_URL"))?;
    let pool = database::connect(&given, 1, Use::Write, DATABASE_WAIT).await?;
    let log_id = TailReader::new(pool.clone(), None).log_id().await?;
    let (mut events, mut left) = (0, 0);
    let (mut is_there, mut other_log_id) = (false, None);
    for head in salvage::heads(&pool).await? {
        let salvaged = salvage_shard(&pool, &kafka, log_id, head, flags.dry_run).await?;
        events += salvaged.events;
        left += salvaged.left;
        is_there |= salvaged.is_there;
        other_log_id = other_log_id.or(salvaged.other_log_id);
    }
    let said = json!({
        "log_id": log_id,
        "events": events,
        "left": left,
        "dry_run": flags.dry_run,
        "other_log_id": other_log_id.filter(|_| !is_there),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{said}").and_then(|()| out.flush()).map_err(Failure::NotTold)
}

struct Salvaged {
    events: i64,
    /// Positions behind the first that the topic lacks, up to the last that it has.
    left: i64,
    /// Whether the topic has messages of this log, from the head on.
    is_there: bool,
    /// Another log that it has messages of.
    other_log_id: Option<Uuid>,
}

async fn salvage_shard(
    pool: &Pool,
    kafka: &KafkaSettings,
    log_id: Uuid,
    head: Head,
    dry_run: bool,
) -> Result<Salvaged, Failure> {
    let shard = head.shard;
    let (mut at, mut last) = (head.position, head.last);
    loop {
        let since = last.map(|(_, recorded_at)| recorded_at);
        let range = PositionRange { log_id, shard, from: at, since, length: RANGE_EVENTS, bytes_max: RANGE_BYTES };
        let mut found = kafka::tail::read(kafka.clone(), range).await?;
        if let Some(publication) = found.publication.filter(|_| !dry_run) {
            salvage::publish_at_least_under(pool, publication).await?;
        }
        if let (Some((here, _)), Some(there)) = (last, found.events.remove(&at))
            && here != there.event_id
        {
            return Err(Failure::Differ { shard, position: at, here, there: there.event_id });
        }
        let mut next = at;
        let follow = found.events.into_values().take_while(|event| {
            next += 1;
            event.position == next
        });
        let follow: Vec<StoredEvent> = follow.collect();
        if let Some(event) = follow.last() {
            for part in follow.chunks(APPEND_EVENTS).filter(|_| !dry_run) {
                salvage::append(pool, shard, part).await?;
            }
            at = event.position;
            last = Some((event.event_id, event.recorded_at));
            stderr::say(&format!("shard {shard}: up to position {at}"));
        }
        if at + 1 < found.until {
            let left = (found.last_position.unwrap_or_default() - at).max(0);
            let (is_there, other_log_id) = (found.publication.is_some(), found.other_log_id);
            return Ok(Salvaged { events: at - head.position, left, is_there, other_log_id });
        }
    }
}
