//! A name of the fold, and of what the projections make of it: a rebuild that was stopped goes on only with the same one.

use domain::{OwnerId, StoredEvent, TaskId, Time};
use read_model::fold;
use uuid::Uuid;

use crate::copy::CopyIn;
use crate::projections::{self, AppliedEvent, Effect, TaskChange};

/// A stream with every type of event.
fn samples() -> Vec<StoredEvent> {
    const SAMPLES: [(&str, &str); 18] = [
        (
            "TaskCreated",
            r#"{"title":"Ä b","description":"C","priority":"high","due_at":"2026-01-02T03:04:05Z","tags":["x"]}"#,
        ),
        ("TaskRenamed", r#"{"title":"B"}"#),
        ("TaskDescribed", r#"{"description":"Déjà"}"#),
        ("TaskReprioritized", r#"{"priority":"low"}"#),
        ("TaskScheduled", r#"{"due_at":null}"#),
        ("TaskRanked", r#"{"rank":"m"}"#),
        ("TaskTagged", r#"{"tags":["y","z"]}"#),
        ("TaskUntagged", r#"{"tags":["x"]}"#),
        ("TaskStarted", "{}"),
        ("TaskCompleted", "{}"),
        ("TaskReopened", "{}"),
        ("TaskStarted", "{}"),
        ("TaskCancelled", "{}"),
        (
            "TaskStageReverted",
            r#"{"from":"cancelled","to":"in_progress","started_at":"2026-01-01T03:04:05Z","completed_at":null}"#,
        ),
        ("TaskDeleted", "{}"),
        ("TaskRestored", "{}"),
        ("TaskDeleted", "{}"),
        ("TaskPurged", "{}"),
    ];
    (1..).zip(SAMPLES).map(|(version, (event_type, data))| sample(version, event_type, data)).collect()
}

/// Names the fold: what the projections make of a stream with every type of event. A rebuild that was stopped goes on
/// only with the same one.
pub(super) fn fold_id() -> Uuid {
    let events = samples();
    let mut effect = Effect::default();
    let mut row = None;
    for event in &events {
        let folded = fold(&mut row, event);
        let Some(after) = row.clone() else { continue };
        if let Ok(Some(changes)) = folded {
            effect.events.push(AppliedEvent { event, changes, after: after.without_texts() });
        }
        effect.tasks.push(TaskChange { before: None, after, text_changed: true });
    }
    let mut made = Vec::new();
    for CopyIn { statements, rows } in projections::ALL.iter().filter_map(|projection| projection.copy(&effect, 0)) {
        made.extend_from_slice(statements.building.as_bytes());
        made.extend_from_slice(&rows.finish());
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &made)
}

fn sample(version: i64, event_type: &str, data: &str) -> StoredEvent {
    StoredEvent {
        shard: 0,
        position: version,
        owner_id: OwnerId(Uuid::nil()),
        task_id: TaskId(Uuid::nil()),
        version,
        event_id: Uuid::nil(),
        event_type: event_type.to_owned(),
        schema_version: 1,
        occurred_at: Time::UNIX_EPOCH + chrono::TimeDelta::seconds(version),
        recorded_at: Time::UNIX_EPOCH,
        actor_type: "system".to_owned(),
        actor_id: None,
        command_id: Uuid::nil(),
        correlation_id: String::new(),
        traceparent: String::new(),
        change_id: None,
        undoes: None,
        data: data.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fold_is_named_by_every_type_of_event() {
        let mut row = None;
        let samples = samples();
        for event in &samples {
            assert!(matches!(fold(&mut row, event), Ok(Some(_))), "{}", event.event_type);
        }
        let types: std::collections::BTreeSet<_> = samples.iter().map(|event| &*event.event_type).collect();
        assert_eq!(types.len(), 16, "each type of event is among them");
    }

    #[test]
    fn the_fold_has_a_name_that_does_not_change_by_itself() {
        assert_eq!(fold_id(), fold_id());
        assert_ne!(fold_id(), Uuid::nil());
    }
}
