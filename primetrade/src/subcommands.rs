//! Commands that need no file of their own: each does its work on the databases that were opened for it, and gives a report.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use access::token::RootSecret;
use backends::database::{Granted, Plan};
use commands::Executor;
use event_store::{EventStore, Publication, TailReader};
use process::stderr;
use projector::rebuild;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Format};
use crate::database::Databases;
use crate::doctor;
use crate::failure::Failure;
use crate::import::Import;
use crate::output::{Progress, Report, Unit};
use crate::privileges::FILE_ON_STDIN;
use crate::room::while_there_is_room;
use crate::settings::Settings;
use crate::users::{accounts, find};
use crate::written_file::{AtOnce, WrittenFile};

const FILE_BUFFER_BYTES: usize = 256 << 10;

/// `primetrade config`
///
/// # Errors
/// A file of a secret cannot be read.
pub fn config(settings: &Settings) -> Result<Report, Failure> {
    let shown = settings.shown()?;
    let width = shown.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
    let lines: Vec<String> = shown
        .iter()
        .map(|setting| {
            let value = setting.value.as_deref().unwrap_or("-");
            let origin = if setting.value.is_some() { setting.origin } else { "" };
            format!("{:width$}  {value:30}  {origin:8}  {}", setting.name, setting.about)
        })
        .collect();
    let mut object: serde_json::Map<String, Value> =
        shown.iter().map(|setting| (setting.name.to_owned(), json!(setting.value))).collect();
    let origins: serde_json::Map<String, Value> =
        shown.iter().map(|setting| (setting.name.to_owned(), json!(setting.origin))).collect();
    object.insert("origins".to_owned(), Value::Object(origins));
    Ok(Report::good(lines.join("\n"), Value::Object(object)))
}

/// `primetrade migrate`
///
/// # Errors
/// The schemas are not for this program any more; the database.
pub async fn migrate(databases: &Databases, dry_run: bool) -> Result<Report, Failure> {
    let plans = databases.plan().await?;
    let mut granted = Vec::new();
    if !dry_run {
        databases.migrate().await?;
        granted = databases.grant().await?;
    }
    let breaks = plans.iter().any(Plan::breaks_programs);
    let lines: Vec<String> =
        plans.iter().map(|plan| line_of_plan(plan, dry_run)).chain(granted.iter().map(line_of_roles)).collect();
    let schemas: Vec<Value> = plans
        .iter()
        .map(|plan| {
            json!({
                "schema": plan.schema,
                "applied": plan.applied,
                "pending": plan.pending,
                "compatible_since": plan.compatible_since,
                "breaks_programs": plan.breaks_programs(),
            })
        })
        .collect();
    let roles: Vec<Value> = granted
        .iter()
        .map(|granted| json!({ "schema": granted.schema, "roles": granted.roles, "left": granted.left }))
        .collect();
    let good = !(dry_run && breaks);
    Ok(Report {
        good,
        text: lines.join("\n"),
        json: Some(json!({ "ok": good, "dry_run": dry_run, "schemas": schemas, "roles": roles })),
    })
}

fn line_of_plan(plan: &Plan, dry_run: bool) -> String {
    let Plan { schema, applied, pending, compatible_since } = plan;
    let versions = pending.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let done = match (pending.is_empty(), dry_run) {
        (true, _) => format!("{schema}: is as this program has it, or newer"),
        (false, true) => format!("{schema}: would be brought from migration {applied} on by {versions}"),
        (false, false) => format!("{schema}: was brought from migration {applied} on by {versions}"),
    };
    let programs = format!("is for programs that know migration {compatible_since} or a later one");
    if plan.breaks_programs() {
        format!("{done}; it {programs}: older ones cannot be started any more, and go on only as long as they run")
    } else {
        format!("{done}; it {programs}")
    }
}

fn line_of_roles(granted: &Granted) -> String {
    let Granted { schema, roles, left } = granted;
    let roles = roles.join(", ");
    match left {
        None => format!("{schema}: the roles {roles} have the rights that they need"),
        Some(left) => format!("{schema}: the roles {roles}: {left}"),
    }
}

/// `primetrade keys rotate`
///
/// # Errors
/// The database.
pub async fn rotate_keys(databases: &Databases, secret: &RootSecret) -> Result<Report, Failure> {
    let kid = identity::keys::rotate(&databases.write, secret).await?;
    Ok(Report::good(
        format!(
            "A new signing key was made: {kid}. It takes over in {} s; the old one is shown until its last tokens have expired.",
            identity::keys::OVERLAP_S
        ),
        json!({ "kid": kid }),
    ))
}

/// `primetrade import`
///
/// # Errors
/// No such account or file; the store stays away.
pub async fn import(databases: &Databases, args: cli::Import, stop: CancellationToken) -> Result<Report, Failure> {
    let account = find(&accounts(databases).await?, &args.owner).await?;
    let (input, bytes) = open_input(&args.file)?;
    let (executor, tasks) = if args.dry_run {
        (None, None)
    } else {
        crate::serve::settle(databases).await?;
        let started = EventStore::start(databases.write.clone()).await.map_err(crate::serve::ServeError::EventStore)?;
        (Some(Executor::new(started.0)), Some(started.1))
    };
    let disk_space = executor.as_ref().map(|executor| executor.store().disk_space());
    let import = Import { owner: account.id, shard: account.shard, format: args.format.into(), history: args.history };
    let importing = import.run(input, executor, Progress::new(bytes, Unit::Bytes), stop);
    let summary = match databases.managed().zip(disk_space) {
        Some((managed, disk_space)) => {
            managed.look_at_disk(&disk_space).await;
            tokio::select! {
                summary = importing => summary?,
                never = managed.watch_disk(&disk_space) => match never {},
            }
        }
        None => importing.await?,
    };
    drop(tasks);
    let what = if args.dry_run { "would be taken" } else { "succeeded" };
    let rate = if summary.seconds > 0.0 { summary.events as f64 / summary.seconds } else { 0.0 };
    let mut text = format!(
        "{} lines: {} {what}, {} rejected; {} events in {:.1} s ({rate:.0}/s)",
        summary.lines, summary.succeeded, summary.failed, summary.events, summary.seconds
    );
    if summary.interrupted {
        text.push_str("\nStopped before the end. The same import again goes on: nothing is done twice.");
    }
    Ok(Report { good: summary.failed == 0 && !summary.interrupted, text, json: Some(json!(summary)) })
}

/// The file, or standard input; its length where it has one.
fn open_input(path: &Path) -> Result<(Box<dyn io::BufRead + Send>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::with_capacity(FILE_BUFFER_BYTES, io::stdin())), None));
    }
    let opened = if std::env::var_os(FILE_ON_STDIN).is_some() { opened_by_root() } else { File::open(path) };
    let file = opened.map_err(|error| Failure::File(path.display().to_string(), error))?;
    let meta = file.metadata().map_err(|error| Failure::File(path.display().to_string(), error))?;
    if meta.is_dir() {
        return Err(Failure::File(path.display().to_string(), io::ErrorKind::IsADirectory.into()));
    }
    let bytes = meta.is_file().then_some(meta.len());
    Ok((Box::new(BufReader::with_capacity(FILE_BUFFER_BYTES, file)), bytes))
}

/// What root opened before it handed its privileges down.
fn opened_by_root() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// `primetrade export`
///
/// # Errors
/// No such account, the file cannot be written, an event cannot be read.
pub async fn export(databases: &Databases, args: cli::Export) -> Result<Report, Failure> {
    let began = Instant::now();
    if args.excel && args.format != cli::Format::Csv {
        return Err(Failure::ExcelIsCsv);
    }
    let account = find(&accounts(databases).await?, &args.owner).await?;
    let to_stdout = args.file == Path::new("-");
    let failed = |error| Failure::File(args.file.display().to_string(), error);
    let written = if to_stdout {
        None
    } else if std::env::var_os(FILE_ON_STDIN).is_some() {
        // Root puts it into its place.
        Some(WrittenFile::Direct(opened_by_root().map_err(failed)?))
    } else {
        Some(WrittenFile::begin(&args.file).map_err(failed)?)
    };
    let out: Box<dyn Write + Send> = match &written {
        Some(written) => Box::new(written.file().try_clone().map_err(failed)?),
        None => Box::new(io::stdout()),
    };
    let mut out = AtOnce(BufWriter::with_capacity(FILE_BUFFER_BYTES, out));
    let tail = TailReader::new(databases.in_index_order(), None);
    let progress = Progress::new(Some(0), Unit::Things("tasks"));
    let told = |written: task_files::Summary, tasks: usize| {
        progress.set_total(tasks as u64);
        progress.set(written.tasks as u64, &format!("{} lines", written.lines));
    };
    let format = args.format.into();
    let summary = task_files::export(&tail, account.id, account.shard, format, args.excel, &mut out, told).await?;
    drop(progress);
    if let Some(written) = written {
        written.finish().map_err(failed)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{} tasks in {} lines, {seconds:.1} s", summary.tasks, summary.lines);
    let json = json!({ "tasks": summary.tasks, "lines": summary.lines, "seconds": seconds });
    if to_stdout {
        // Standard output holds the export itself, and nothing after it.
        stderr::say(&text);
        return Ok(Report { good: true, text: String::new(), json: None });
    }
    Ok(Report::good(text, json))
}

/// `primetrade rebuild`
///
/// # Errors
/// Another one is running; the disk has no room for it; the database.
pub async fn rebuild(databases: &Databases, expect_same: bool) -> Result<Report, Failure> {
    let tail = TailReader::new(databases.in_index_order(), None);
    let progress = Progress::new(Some(0), Unit::Things("events"));
    let show = |made: &rebuild::Progress| {
        progress.set_total(made.events_total.unsigned_abs());
        progress.set(made.events_done.unsigned_abs(), made.phase.as_str());
    };
    let making = rebuild::run(&databases.read, &tail, rebuild::Options { expect_same }, show);
    let report = while_there_is_room(databases, making).await?;
    for difference in &report.differences.examples {
        progress.say(&format!("differs: {difference}"));
    }
    drop(progress);
    let differences = report.differences.total;
    let switched = if report.switched { "switched to it" } else { "not switched to it; the old one is served" };
    let text = format!(
        "generation {}: {} events in {:.1} s ({:.0}/s read, folded and written), {differences} differences, {switched}",
        report.generation, report.events, report.seconds, report.events_per_second
    );
    let json = json!({
        "events": report.events,
        "seconds": report.seconds,
        "differences": differences,
        "generation": report.generation,
        "switched": report.switched,
        "resumed": report.resumed,
        "parked": report.parked,
        "events_per_second": report.events_per_second,
        "fill_seconds": report.fill_seconds,
        "index_seconds": report.index_seconds,
        "catch_up_seconds": report.catch_up_seconds,
        "compare_seconds": report.compare_seconds,
    });
    Ok(Report { good: !(expect_same && differences > 0), text, json: Some(json) })
}

/// `primetrade rebuild --back`
///
/// # Errors
/// No earlier generation is kept; a rebuild is running; the database.
pub async fn go_back(databases: &Databases) -> Result<Report, Failure> {
    let began = Instant::now();
    let tail = TailReader::new(databases.in_index_order(), None);
    let generation = rebuild::go_back(&databases.read, &tail).await?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Report::good(
        format!("Generation {generation} is served again, {seconds:.1} s after it was asked for."),
        json!({ "generation": generation, "seconds": seconds }),
    ))
}

/// `primetrade republish`
///
/// # Errors
/// There is no such position yet, or a database.
pub async fn republish(databases: &Databases, from: i64, shard: Option<i16>) -> Result<Report, Failure> {
    let begun = Publication::new(databases.write.clone()).republish(from, shard).await?;
    let publication = begun.publication;
    // Second: until then the projectors only skip what they have.
    if let Some(topic) = &begun.topic {
        let forgotten = projector::forget_offsets(&databases.read, topic).await;
        forgotten.map_err(|source| Failure::NotForgotten { publication, source })?;
    }
    let text = match &begun.topic {
        Some(topic) => format!(
            "Publication {publication} begins at position {from} of shard {}: the relay sends {} events again (so far to \
             {topic}), and the projectors read the topic from its beginning.",
            begun.shard, begun.events
        ),
        None => format!("Publication {publication} begins at position {from}. Nothing has been published before."),
    };
    let json = json!({
        "publication": publication,
        "shard": begun.shard,
        "from": begun.from,
        "events": begun.events,
        "topic": begun.topic,
    });
    Ok(Report::good(text, json))
}

/// `primetrade doctor`
///
/// # Errors
/// A look could not be taken.
pub async fn doctor(databases: &Databases) -> Result<Report, Failure> {
    let progress = Progress::new(Some(0), Unit::Things("events"));
    let findings = doctor::run(databases, &progress).await?;
    drop(progress);
    let good = findings.is_empty();
    let text = if good {
        "All is well: positions and versions are gapless, each command had one effect at most, and the read models equal the fold of the log.".to_owned()
    } else {
        findings.join("\n")
    };
    Ok(Report { good, text, json: Some(json!({ "ok": good, "findings": findings })) })
}

/// What root opens before it hands its privileges down.
#[must_use]
pub fn file_argument(command: &cli::Command) -> crate::privileges::Argument {
    use crate::privileges::Argument;
    let dash = |path: &Path| path == Path::new("-");
    match command {
        cli::Command::Import(args) if !dash(&args.file) => Argument::Read(args.file.clone()),
        cli::Command::Interruptible(cli::Interruptible::Export(args)) if !dash(&args.file) => {
            Argument::Write(args.file.clone())
        }
        _ => Argument::None,
    }
}

/// Where the form was not said and the name says otherwise, a mistake is likely.
#[must_use]
pub fn format_hint(path: &Path, format: Format) -> Option<&'static str> {
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    (is_csv && format == Format::Ndjson).then_some("note: the file's name ends with .csv; for CSV say --format csv")
}
