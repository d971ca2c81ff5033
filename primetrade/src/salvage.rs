//! `salvage`: events that the topic still holds, back into the log. The client of Kafka takes a minute to build, and a single
//! process has no use for it: so it is in a program of its own beside this one.

use std::io;
use std::process::Stdio;

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::process::Command;

use crate::output::Report;
use crate::settings::Settings;

const PROGRAM: &str = "primetrade-salvage";

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SalvageFailure {
    /// One process by itself publishes nothing.
    #[error(
        "there is nothing to salvage for a managed PostgreSQL, whose events go to no topic: set PRIMETRADE_DATABASE_URL"
    )]
    NoDatabase,
    /// The program is missing.
    #[error(
        "{PROGRAM}, which comes with the services (`-p services`, built as this program was), cannot be run beside this program: {0}"
    )]
    NoProgram(io::Error),
    /// It has said why.
    #[error("nothing more could be salvaged, for the reason above; what was appended stays, and it can be run again")]
    Failed,
}

/// `primetrade salvage --from-kafka`
///
/// # Errors
/// See [`SalvageFailure`].
pub async fn run(settings: &Settings, dry_run: bool) -> Result<Report, SalvageFailure> {
    let url = settings.databases.write.as_ref().ok_or(SalvageFailure::NoDatabase)?;
    let program = std::env::current_exe().map_err(SalvageFailure::NoProgram)?.with_file_name(PROGRAM);
    let mut command = Command::new(program);
    if let Ok(Some(file)) = settings.source.text("PRIMETRADE_CONFIG_FILE") {
        command.arg("--config").arg(file);
    }
    if dry_run {
        command.arg("--dry-run");
    }
    command.env("PRIMETRADE_DATABASE_URL", url.url.expose_secret()).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().map_err(SalvageFailure::NoProgram)?;
    let output = child.wait_with_output().await.map_err(SalvageFailure::NoProgram)?;
    let found: Value = serde_json::from_slice(&output.stdout).map_err(|_| SalvageFailure::Failed)?;
    let count = |field: &str| found[field].as_i64().unwrap_or_default();
    let (events, left) = (count("events"), count("left"));
    if let (Some(other), Some(here)) = (found["other_log_id"].as_str(), found["log_id"].as_str()) {
        let text = format!(
            "Nothing can be appended: from the last event of the backup on the topic has messages of the log {other}, and none of \
             this one, {here}. Either the log has got another id already, since a process was started after the restore: restore \
             the backup once more, and run this before anything is started; or give up what the backup lacks, by primetrade \
             restore-finish. Or the topic is another installation's: see PRIMETRADE_KAFKA_TOPIC."
        );
        return Ok(Report { good: false, text, json: Some(found) });
    }
    let mut text = match (dry_run, events) {
        (_, 0) => "The topic holds no event that the log lacks and that could be appended.".to_owned(),
        (false, _) => format!("{events} events were appended, as they were."),
        (true, _) => format!("{events} events would be appended."),
    };
    if left > 0 {
        text += &format!(
            " The topic lacks the one after them, so that {left} positions more, up to the last that it has, are lost: run \
             primetrade restore-finish."
        );
    }
    Ok(Report { good: left == 0, text, json: Some(found) })
}
