//! The command line.

use std::path::PathBuf;

use access::Scope;
use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

/// Exit status of what could not run.
pub const COULD_NOT_RUN: u8 = 2;

/// Task-management backend whose truth is a log of events.
#[derive(Debug, Parser)]
#[command(name = "primetrade", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit status: 0 done, 1 done but something is wrong, 2 could not run.\n\
    Settings come from flags, then from the file of --config, then from variables (primetrade config shows them all).")]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
    /// Print one JSON object on standard output at the end.
    #[arg(long, global = true)]
    pub json: bool,
    /// File of settings, a NAME=value a line [default: PRIMETRADE_CONFIG_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the managed PostgreSQL and the secret [default: ./data].
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// PostgreSQL to use instead of the managed one.
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, behind one port.
    Serve {
        /// Address and port [default: 127.0.0.1:8080].
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// Do not apply events to the read models: what the benchmark measures the append path with.
        #[arg(long, hide = true)]
        hold_projector: bool,
    },
    /// Run the commands of a file, a line each, on behalf of an account.
    ///
    /// Each rejected line is reported by its number on standard error, and the rest goes on. A line without a
    /// command_id gets one made from owner, line number and content: the same file again has no second effect. Lines of an
    /// account's own export are recognised: what is there has no effect.
    /// In CSV the first line names the columns, in any order, title among them. Each row is a CreateTask: id, title,
    /// description, priority, due_at and tags are taken, created_at says when it happened, and status, version,
    /// updated_at, started_at and completed_at are not looked at.
    Import(Import),
    /// The others.
    #[command(flatten)]
    Interruptible(Interruptible),
}

/// Commands that may be interrupted anywhere: nothing of them has to be finished first.
#[derive(Debug, Subcommand)]
pub enum Interruptible {
    /// Bring the database to this version's schema.
    Migrate {
        /// Change nothing; say what would be applied, and whether the programs that are in use now could still be started
        /// afterwards (exit status 1: they could not).
        #[arg(long)]
        dry_run: bool,
    },
    /// Show every setting that holds and where it comes from, without secrets.
    Config,
    /// The keys that sign access tokens, and the API keys of services.
    #[command(subcommand)]
    Keys(Keys),
    /// Accounts.
    #[command(subcommand)]
    User(User),
    /// Write an account's tasks to a file.
    ///
    /// ndjson: the commands that rebuild the same tasks when they are imported, with their times; deleted tasks are
    /// left out. csv: the tasks as they are now, a row each.
    Export(Export),
    /// Make the read models anew from the log, beside the old ones, and switch to them.
    Rebuild {
        /// Do not switch when rows differ from the ones served now (exit status 1).
        #[arg(long)]
        expect_same: bool,
        /// Make nothing: switch back to the read models before the ones served now, once they have caught up.
        #[arg(long, conflicts_with = "expect_same")]
        back: bool,
    },
    /// Publish the log to Kafka again, where messages were lost.
    ///
    /// A new publication begins at this position: the relay sends what is there and after it, and the projectors
    /// read the topic from its beginning. Nothing is applied twice. With it the log may also go to another topic, or
    /// to another number of partitions (--from 1).
    Republish {
        /// Position of the first event; the error of a projector that lacks messages names it.
        #[arg(long, value_name = "POSITION")]
        from: i64,
        /// The shard, where there are several.
        #[arg(long)]
        shard: Option<i16>,
    },
    /// After a restore from a backup, or the promotion of a standby that was behind: brings all that stands beside the log in
    /// line with it.
    ///
    /// The log gets another id, and is published anew; all sessions end, and all signing keys but a new one; what the ledger
    /// (PRIMETRADE_SECURITY_LEDGER) has and the backup has not is done to accounts again; the read models are made anew, and
    /// everything is checked. Run it before the server or the services are started; again, if it was interrupted.
    RestoreFinish,
    /// After the loss of the disk, and a restore from a backup: appends the events that the backup lacks and the topic still
    /// holds, as they were.
    ///
    /// Run it before the services are started. Where the topic lacks one, what comes after it cannot be appended (exit
    /// status 1), and `primetrade restore-finish` is needed. It is carried out by the program primetrade-salvage beside this
    /// one, which comes with the services.
    Salvage {
        /// Where the events are taken from.
        #[arg(long, required = true)]
        from_kafka: bool,
        /// Append nothing; say what would be.
        #[arg(long)]
        dry_run: bool,
    },
    /// Check the log, the command ids and the read models of a live database.
    Doctor,
}

/// `primetrade keys …`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a new signing key; the old one stays valid until the tokens that it signed have expired.
    Rotate,
    /// API keys: by these, services act for an account without its password.
    #[command(subcommand)]
    Api(ApiKeys),
}

/// `primetrade keys api …`
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Make an API key. It is shown now and never again.
    Create {
        /// E-mail address of the account for which the service acts.
        #[arg(long, value_name = "EMAIL")]
        account: String,
        /// What the key is called, such as the name of the service: 1 to 100 characters.
        #[arg(long)]
        name: String,
        /// What it is good for: tasks:read, tasks:write. May be given several times, or with commas between.
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// It ends after this time, as 90d, 12h or 30m [default: it ends when it is revoked].
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<TimeDelta>,
    },
    /// List API keys, without the keys themselves; what has ended is shown for 30 days.
    List {
        /// E-mail address: only of this account.
        #[arg(long, value_name = "EMAIL")]
        account: Option<String>,
    },
    /// Revoke an API key: it and its access tokens end within 5 seconds, at every service.
    Revoke {
        /// The key's id, as the list shows it.
        id: Uuid,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = || Scope::ALL.map(Scope::as_str).join(", ");
    Scope::parse(text).ok_or_else(|| format!("there are {}", names()))
}

/// From a minute to ten years.
fn lifetime(text: &str) -> Result<TimeDelta, String> {
    const MINUTES_MAX: i64 = 10 * 366 * 24 * 60;
    let minutes = || {
        let unit = text.chars().last()?;
        let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
        let minutes = match unit {
            'd' => number.checked_mul(24 * 60)?,
            'h' => number.checked_mul(60)?,
            'm' => number,
            _ => return None,
        };
        (1..=MINUTES_MAX).contains(&minutes).then(|| TimeDelta::minutes(minutes))
    };
    minutes().ok_or_else(|| "expected days, hours or minutes, as 90d, 12h or 30m, at most ten years".to_owned())
}

/// `primetrade user …`
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make an account.
    Create {
        /// E-mail address.
        #[arg(long)]
        email: String,
        /// Name; without one, the part of the address before the @.
        #[arg(long)]
        name: Option<String>,
        /// May see and steer everything.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: PasswordStdin,
    },
    /// Set an account's password; its sessions end.
    Password {
        /// E-mail address.
        #[arg(long)]
        email: String,
        #[command(flatten)]
        password: PasswordStdin,
    },
    /// Disable an account; its sessions end.
    Disable {
        /// E-mail address.
        #[arg(long)]
        email: String,
    },
    /// List all accounts.
    List,
}

/// Passwords do not belong on a command line.
#[derive(Debug, Args)]
#[group(skip)]
pub struct PasswordStdin {
    /// Read the password from standard input (one line).
    #[arg(long, required = true)]
    pub password_stdin: bool,
}

/// `primetrade import`
#[derive(Debug, Args)]
pub struct Import {
    /// The file, or - for standard input.
    pub file: PathBuf,
    /// E-mail address of the account whose tasks they become.
    #[arg(long, value_name = "EMAIL")]
    pub owner: String,
    /// Form of the file.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// Check each line by itself and change nothing. Rules that depend on the task are not checked.
    #[arg(long)]
    pub dry_run: bool,
    /// Take what happened in the future as it is: for what was written while a clock ran ahead.
    #[arg(long)]
    pub history: bool,
}

/// `primetrade export`
#[derive(Debug, Args)]
pub struct Export {
    /// The file, or - for standard output.
    pub file: PathBuf,
    /// E-mail address of the account.
    #[arg(long, value_name = "EMAIL")]
    pub owner: String,
    /// Form of the file.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// CSV as Excel reads it: with a byte order mark, and lines that end in CRLF.
    #[arg(long)]
    pub excel: bool,
}

/// Forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A command a line, as JSON.
    Ndjson,
    /// Values with a header. Commas between; an import takes semicolons and tabs too.
    Csv,
}

impl From<Format> for task_files::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv,
        }
    }
}

impl From<Format> for task_files::ExportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_takes_json_and_says_what_it_is_for() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
        assert!(Cli::try_parse_from(["primetrade", "user", "list", "--json"]).unwrap().json);
        assert!(Cli::try_parse_from(["primetrade", "user", "create", "--email", "a@b.c"]).is_err(), "no password");
    }

    #[test]
    fn a_lifetime_is_a_number_of_days_hours_or_minutes() {
        for (text, expected) in
            [("90d", TimeDelta::days(90)), ("12h", TimeDelta::hours(12)), ("1m", TimeDelta::minutes(1))]
        {
            assert_eq!(lifetime(text), Ok(expected));
        }
        for wrong in ["", "d", "90", "90 d", "0d", "-1d", "1.5d", "1y", "99999d", "9223372036854775807d", "9é"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_api_key_has_the_scopes_that_there_are() {
        let of = |scopes: &[&str]| {
            let args = ["primetrade", "keys", "api", "create", "--account", "a@b.c", "--name", "n"];
            let parsed = Cli::try_parse_from(args.iter().chain(scopes)).ok()?;
            let Command::Interruptible(Interruptible::Keys(Keys::Api(ApiKeys::Create { scopes, .. }))) = parsed.command
            else {
                return None;
            };
            Some(scopes)
        };
        let both = Some(vec![Scope::TasksRead, Scope::TasksWrite]);
        assert_eq!(of(&["--scope", "tasks:read", "--scope", "tasks:write"]), both);
        assert_eq!(of(&["--scope", "tasks:read,tasks:write"]), both);
        for wrong in [&[][..], &["--scope", "tasks"], &["--scope", ""], &["--scope", "tasks:read,admin"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
