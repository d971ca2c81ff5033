//! `primetrade`: the whole of PrimeTrade in one process, and the operator's command line.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// `keys api`: API keys of services.
mod api_keys;
/// The command line.
mod cli;
/// The data folder, its lock and its secret.
mod data_dir;
/// Pools and migrations.
mod database;
/// `doctor`: whether what must hold does.
mod doctor;
/// Why a command could not run.
mod failure;
/// `import`: a file onto the log.
mod import;
/// Reports and progress.
mod output;
/// Lists that are read in pages.
mod pages;
/// A password, typed or piped.
mod password;
/// The managed PostgreSQL: made, started, shared, stopped, recovered.
mod postgres;
/// Root becomes an ordinary user first.
mod privileges;
/// Why a line was rejected, for a person.
mod reason;
/// `restore-finish`: what stands beside the log, brought in line with it.
mod restore;
/// A rebuild on a disk that may have no room for it.
mod room;
/// Export and import together.
#[cfg(test)]
mod round_trip;
/// `salvage`: by the program that has a client of Kafka.
mod salvage;
/// `serve`: the server, from top to bottom.
mod serve;
/// Flags and variables, read once.
mod settings;
/// The commands without a file of their own.
mod subcommands;
/// `user`: accounts.
mod users;
/// A file that is written whole or not at all.
mod written_file;

use process::logs;
use std::process::ExitCode;
use std::time::Duration;

use ::settings::Origin;
use access::token::RootSecret;
use process::arguments;
use process::interrupt::Interrupt;
use process::stderr;
use process::traces;
use secrecy::SecretString;
use service::Listeners;
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::cli::{COULD_NOT_RUN, Cli, Command, Import, Interruptible};
use crate::data_dir::{DataDir, DataDirError};
use crate::database::Databases;
use crate::failure::Failure;
use crate::output::Report;
use crate::postgres::PostgresError;
use crate::privileges::{HANDED_DOWN, PrivilegesError};
use crate::serve::{Kept, Projecting};
use crate::settings::{Flags, Settings};

/// A command makes and frees some forty small things, on whichever thread: glibc spent a third of the server's time on
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli: Cli = match arguments::read() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let json = cli.json;
    let is_server = matches!(cli.command, Command::Serve { .. });
    if is_server {
        stderr::wait_for_nobody();
    }
    let outcome = prepare(&cli).and_then(|settings| match cli.command {
        Command::Interruptible(Interruptible::Config) => subcommands::config(&settings),
        command => in_runtime(settings, command),
    });
    let print = |result: String| if is_server { output::print_at_once(result) } else { output::print(&result) };
    let outcome = outcome.and_then(|report| {
        report.result(json).map_or(Ok(()), print).map_err(Failure::NotTold)?;
        Ok(report.good)
    });
    let status = match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            stderr::say(&format!("error: {failure}"));
            if json {
                // the exit status says it too
                let _ = print(serde_json::json!({ "error": failure.to_string() }).to_string());
            }
            ExitCode::from(COULD_NOT_RUN)
        }
    };
    stderr::flush();
    status
}

/// What has to happen before a thread is started: the configuration, and root's farewell.
fn prepare(cli: &Cli) -> Result<Settings, Failure> {
    let listen = match &cli.command {
        Command::Serve { listen, .. } => listen.clone(),
        _ => None,
    };
    let Cli { config, data_dir, database_url, .. } = cli;
    let (config, data_dir, database_url) = (config.clone(), data_dir.clone(), database_url.clone());
    let settings = Settings::read(&Flags { config, listen, data_dir, database_url })?;
    if matches!(cli.command, Command::Serve { .. }) {
        settings.check_exposure()?;
    }
    let needs_database = !matches!(cli.command, Command::Interruptible(Interruptible::Config));
    if needs_database && !matches!(cli.command, Command::Serve { .. }) {
        check_data_dir(&settings, &cli.command)?;
    }
    if needs_database && settings.databases.write.is_none() && privileges::is_root() {
        if std::env::var_os(HANDED_DOWN).is_some() {
            return Err(PrivilegesError::RunAsRoot.into());
        }
        let file = subcommands::file_argument(&cli.command);
        match privileges::run_as_user(
            settings.run_as.as_deref(),
            &settings.data_dir,
            &file,
            &settings.read_from_files()?,
        )? {}
    }
    Ok(settings)
}

/// Only `serve` begins anew. A command that finds nothing where it looks is in the wrong place: on new data all would seem
/// to be well, and nothing there.
fn check_data_dir(settings: &Settings, command: &Command) -> Result<(), DataDirError> {
    if settings.databases.write.is_none() {
        data_dir::require(&settings.data_dir, data_dir::CLUSTER)?;
    }
    let needs_secret = matches!(
        command,
        Command::Interruptible(Interruptible::Keys(cli::Keys::Rotate) | Interruptible::RestoreFinish)
    );
    if settings.secret.is_none() && needs_secret {
        data_dir::require(&settings.data_dir, data_dir::SECRET)?;
    }
    Ok(())
}

fn in_runtime(settings: Settings, command: Command) -> Result<Report, Failure> {
    let mut log = settings.log.clone();
    if !matches!(command, Command::Serve { .. }) && settings.source.origin("PRIMETRADE_LOG") == Origin::Default {
        log.filter = Targets::new().with_default(Level::WARN);
    }
    logs::init(&log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Setup)?;
    let outcome = runtime.block_on(run(settings, command));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// A command, with what is taken before anything costly is begun.
enum Task {
    Serve(Listeners, Projecting),
    Import(Import),
    Interruptible(Interruptible),
}

async fn run(settings: Settings, command: Command) -> Result<Report, Failure> {
    let interrupt = Interrupt::listen().map_err(Failure::Setup)?;
    let is_server = matches!(command, Command::Serve { .. });
    let _traces = match is_server {
        true => traces::from(&settings.source, "primetrade")?,
        false => None,
    };
    let task = match command {
        Command::Serve { hold_projector, .. } => {
            let listeners = Listeners::bind(&settings.listen, settings.tls()?).await?;
            Task::Serve(listeners, if hold_projector { Projecting::Held } else { Projecting::Live })
        }
        Command::Import(args) => Task::Import(args),
        Command::Interruptible(command) => Task::Interruptible(command),
    };
    // Held as long as the server runs on the managed PostgreSQL.
    let mut server_lock = None;
    let opening = async {
        match &settings.databases.write {
            Some(url) => Ok(Databases::open_urls(url, &settings.databases).await?),
            None => {
                let dir = DataDir::open(&settings.data_dir).map_err(PostgresError::from)?;
                if is_server {
                    server_lock = Some(dir.lock_for_server().map_err(PostgresError::from)?);
                }
                dir.check_for_postgres().map_err(PostgresError::from)?;
                Databases::open_managed(&dir, settings.postgres_bin.as_deref()).await
            }
        }
    };
    let databases = tokio::select! {
        opened = opening => opened?,
        () = interrupt.soft.cancelled() => return Err(Failure::Interrupted),
    };
    let outcome = tokio::select! {
        outcome = work(&settings, &databases, task, &interrupt) => outcome,
        () = interrupt.hard.cancelled() => {
            if let Some(managed) = databases.managed() {
                managed.quit();
            }
            // Nothing is waited for: what is not committed now will be asked for again.
            std::process::exit(COULD_NOT_RUN.into());
        }
    };
    let closed = databases.close().await;
    drop(server_lock);
    let report = outcome?;
    closed?;
    Ok(report)
}

async fn work(
    settings: &Settings,
    databases: &Databases,
    task: Task,
    interrupt: &Interrupt,
) -> Result<Report, Failure> {
    let stop = interrupt.soft.clone();
    // migrates by itself, or only says what it would do
    if !matches!(task, Task::Interruptible(Interruptible::Migrate { .. })) {
        or_interrupted(&stop, async { Ok(databases.migrate().await?) }).await?;
    }
    match task {
        Task::Serve(listeners, projecting) => {
            let secret = secret(settings)?;
            let kept = Kept { files: settings.files()?, ledger: settings.ledger()? };
            serve::run(listeners, databases, &secret, settings.edge.clone(), projecting, kept, stop).await?;
            Ok(Report::good("", serde_json::json!({ "stopped": true })))
        }
        Task::Import(args) => {
            if let Some(hint) = subcommands::format_hint(&args.file, args.format) {
                stderr::say(hint);
            }
            subcommands::import(databases, args, stop).await
        }
        Task::Interruptible(command) => or_interrupted(&stop, interruptible(settings, databases, command)).await,
    }
}

async fn interruptible(settings: &Settings, databases: &Databases, command: Interruptible) -> Result<Report, Failure> {
    match command {
        Interruptible::Migrate { dry_run } => subcommands::migrate(databases, dry_run).await,
        Interruptible::Config => subcommands::config(settings),
        Interruptible::Keys(cli::Keys::Rotate) => subcommands::rotate_keys(databases, &secret(settings)?).await,
        Interruptible::Keys(cli::Keys::Api(command)) => {
            api_keys::run(&users::accounts(databases).await?, command).await
        }
        Interruptible::User(command) => users::run(databases, command).await,
        Interruptible::Export(args) => subcommands::export(databases, args).await,
        Interruptible::Rebuild { back: true, .. } => subcommands::go_back(databases).await,
        Interruptible::Rebuild { expect_same, .. } => subcommands::rebuild(databases, expect_same).await,
        Interruptible::Republish { from, shard } => subcommands::republish(databases, from, shard).await,
        Interruptible::RestoreFinish => restore::finish(databases, &secret(settings)?, settings.ledger()?).await,
        Interruptible::Salvage { dry_run, .. } => Ok(salvage::run(settings, dry_run).await?),
        Interruptible::Doctor => subcommands::doctor(databases).await,
    }
}

async fn or_interrupted<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        outcome = work => outcome,
        () = stop.cancelled() => Err(Failure::Interrupted),
    }
}

/// The one given, or the one of the data folder.
fn secret(settings: &Settings) -> Result<RootSecret, Failure> {
    if let Some(secret) = &settings.secret {
        return Ok(secret.clone());
    }
    let dir = DataDir::open(&settings.data_dir)?;
    let path = dir.join("secret").display().to_string();
    let secret = RootSecret::new(SecretString::from(dir.secret()?)).map_err(|_| DataDirError::BadSecret { path })?;
    Ok(secret.with_previous(&settings.source)?)
}
