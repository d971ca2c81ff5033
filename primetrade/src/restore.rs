//! `restore-finish`: after the database of the log was restored from a backup, or a standby was promoted that was behind,
//! what stands beside the log is of a future that is lost. Each step may be repeated; all of it runs again if it is
//! interrupted.

use access::token::RootSecret;
use backends::database::Pool;
use domain::format_time;
use event_store::{Lineage, TailReader};
use identity::Ledger;
use identity::ledger::{LedgerError, Line};
use identity::restore::{Restored, after_restore};
use process::stderr;
use projector::Lost;
use serde_json::json;

use crate::database::Databases;
use crate::failure::Failure;
use crate::output::Report;
use crate::subcommands;

/// `primetrade restore-finish`
///
/// # Errors
/// A database does not answer, or the ledger cannot be read.
pub async fn finish(databases: &Databases, secret: &RootSecret, ledger: Option<Ledger>) -> Result<Report, Failure> {
    let tail = TailReader::new(databases.write.clone(), None);
    // First: nothing is changed where it cannot be read.
    let lines = match &ledger {
        Some(ledger) => lines_of(ledger, &databases.write).await?,
        None => Vec::new(),
    };
    let lost = projector::lost(&databases.read, &tail).await.map_err(Failure::ReadModels)?;

    let restored = after_restore(&databases.write, secret, &lines).await?;
    let (former, now) = Lineage::new(databases.write.clone()).renew_id().await.map_err(Failure::EventStore)?;
    stderr::say(&format!("The log {former} is {now} from now on."));
    let rebuilt = subcommands::rebuild(databases, false).await?;
    let topic = tail.published().await.map_err(Failure::EventStore)?.first().map(|published| published.topic.clone());
    if let Some(topic) = &topic {
        projector::forget_offsets(&databases.read, topic).await.map_err(Failure::ReadModels)?;
    }
    let checked = subcommands::doctor(databases).await?;

    let mut said = vec![
        format!("The log has the id {now}; it was {former}."),
        said_of_lost(&lost),
        format!(
            "{} sessions were ended. The key {} signs; no other is taken any more.",
            restored.sessions_ended, restored.kid
        ),
    ];
    said.extend(said_of_accounts(&restored, ledger.is_some()));
    said.push(format!("The read models were made anew: {}", rebuilt.text));
    if let Some(topic) = &topic {
        said.push(format!("The relay publishes all of the log to {topic} again, under its new id, once it runs."));
    }
    said.push(checked.text);
    let json = json!({
        "log_id": now,
        "former_log_id": former,
        "lost": {
            "events": lost.events,
            "tasks": lost.tasks,
            "accounts": lost.owners,
            "from": lost.recorded.map(|(first, _)| format_time(first)),
            "until": lost.recorded.map(|(_, last)| format_time(last)),
            "complete": lost.is_all,
        },
        "sessions_ended": restored.sessions_ended,
        "kid": restored.kid,
        "accounts_changed": restored.accounts_changed.iter().map(|(id, now)| json!({ "id": id, "now": now })).collect::<Vec<_>>(),
        "passwords_refused": restored.passwords_refused,
        "api_keys_revoked": restored.api_keys_revoked,
        "accounts_lost": restored.accounts_lost,
        "rebuild": rebuilt.json,
        "doctor": checked.json,
    });
    Ok(Report { good: checked.good, text: said.join("\n"), json: Some(json) })
}

/// All lines of the ledger. What was done since anybody wrote it is added first: else what the operator did after an earlier
/// run would be taken back.
async fn lines_of(ledger: &Ledger, pool: &Pool) -> Result<Vec<Line>, LedgerError> {
    // no ledger is made where its name is wrong
    ledger.read()?;
    while ledger.add_new(pool).await? > 0 {}
    ledger.read()
}

fn said_of_lost(lost: &Lost) -> String {
    if lost.recorded.is_none() && lost.is_all {
        return "The read models had no event that the log lacks. (What nobody had applied is not known here.)"
            .to_owned();
    }
    let (at_least, not_all) = match lost.is_all {
        true => ("", ""),
        false => ("at least ", " The log was written since it got another id, so this is not all."),
    };
    let recorded = lost.recorded.map_or_else(String::new, |(first, last)| {
        format!(", recorded from {} to {}", format_time(first), format_time(last))
    });
    let Lost { events, tasks, owners, .. } = lost;
    format!(
        "Lost, as far as the read models had them: {at_least}{events} events of {tasks} tasks of {owners} accounts{recorded}.{not_all}"
    )
}

fn said_of_accounts(restored: &Restored, has_ledger: bool) -> Vec<String> {
    if !has_ledger {
        return vec![
            "Roles, disabled accounts, passwords and API keys are as in the backup: PRIMETRADE_SECURITY_LEDGER names no ledger."
                .to_owned(),
        ];
    }
    let mut said = Vec::new();
    for (id, now) in &restored.accounts_changed {
        said.push(format!("{id}: {now} again"));
    }
    for id in &restored.api_keys_revoked {
        said.push(format!("the API key {id} is revoked again"));
    }
    for id in &restored.passwords_refused {
        said.push(format!(
            "{id}: its password was changed after the backup, and the one that came back is not taken; set one with primetrade user password"
        ));
    }
    for id in &restored.accounts_lost {
        said.push(format!("{id}: was made after the backup, and is lost"));
    }
    if said.is_empty() {
        said.push("The ledger has nothing that the backup lacks.".to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said_to_be_all_only_where_it_is() {
        let time = |text| domain::parse_time(text).expect("a time");
        let some = Lost {
            events: 3,
            tasks: 2,
            owners: 1,
            recorded: Some((time("2026-01-01T00:00:00Z"), time("2026-01-01T00:00:01Z"))),
            is_all: true,
        };
        let said = said_of_lost(&some);
        assert!(said.contains(": 3 events of 2 tasks of 1 accounts, recorded from 2026-01-01"), "{said}");
        let said = said_of_lost(&Lost { is_all: false, ..some });
        assert!(said.contains(": at least 3 events") && said.contains("this is not all"), "{said}");
        let said = said_of_lost(&Lost { is_all: true, ..Lost::default() });
        assert!(said.contains("had no event that the log lacks"), "{said}");
        let said = said_of_lost(&Lost::default());
        assert!(said.contains("at least 0 events") && said.contains("this is not all"), "{said}");
    }
}
