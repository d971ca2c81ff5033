//! The stored form of every event, pinned. A snapshot that changes here means that a log written yesterday may not be
//! readable tomorrow: give the event a new schema version and upcast the old form instead.

use domain::{
    Description, OwnerId, Priority, Rank, State, Status, StoredEvent, Tag, Tags, TaskCommand, TaskEvent, TaskId, Time,
    Title, Unreadable, decide, encode, evolve, parse_time,
};
use uuid::Uuid;

fn title() -> Title {
    Title::parse("Ring \"Zoë\" \u{1f514}").unwrap()
}

fn time() -> Time {
    parse_time("2026-01-31T12:00:00.000123Z").unwrap()
}

fn tags() -> Tags {
    ["zeta", "Äpfel", "alpha"].into_iter().map(|name| Tag::parse(name).unwrap()).collect()
}

/// One of each, and both forms of those with an optional part.
fn every_event() -> Vec<TaskEvent> {
    let description = Some(Description::parse("two\nlines, a\ttab and \u{7}").unwrap());
    vec![
        TaskEvent::TaskCreated {
            title: title(),
            description: description.clone(),
            priority: Priority::High,
            due_at: Some(time()),
            tags: tags(),
            rank: None,
        },
        TaskEvent::TaskCreated {
            title: title(),
            description: None,
            priority: Priority::Medium,
            due_at: None,
            tags: Tags::new(),
            rank: None,
        },
        TaskEvent::TaskRenamed { title: title() },
        TaskEvent::TaskDescribed { description },
        TaskEvent::TaskDescribed { description: None },
        TaskEvent::TaskReprioritized { priority: Priority::Urgent },
        TaskEvent::TaskScheduled { due_at: Some(time()) },
        TaskEvent::TaskScheduled { due_at: None },
        TaskEvent::TaskTagged { tags: tags() },
        TaskEvent::TaskUntagged { tags: tags() },
        TaskEvent::TaskStarted {},
        TaskEvent::TaskCompleted {},
        TaskEvent::TaskReopened {},
        TaskEvent::TaskCancelled {},
        TaskEvent::TaskDeleted {},
        TaskEvent::TaskCreated {
            title: title(),
            description: None,
            priority: Priority::Medium,
            due_at: None,
            tags: Tags::new(),
            rank: Rank::parse("a1").ok(),
        },
        TaskEvent::TaskRanked { rank: Rank::parse("Zz").ok() },
        TaskEvent::TaskRanked { rank: None },
        TaskEvent::TaskStageReverted {
            from: Status::Pending,
            to: Status::Completed,
            started_at: None,
            completed_at: Some(time()),
        },
        TaskEvent::TaskRestored {},
        TaskEvent::TaskPurged {},
    ]
}

fn stored(event_type: &str, schema_version: i16, data: &str) -> StoredEvent {
    StoredEvent {
        shard: 0,
        position: 7,
        owner_id: OwnerId(Uuid::from_u128(1)),
        task_id: TaskId(Uuid::from_u128(2)),
        version: 3,
        event_id: Uuid::from_u128(3),
        event_type: event_type.into(),
        schema_version,
        occurred_at: time(),
        recorded_at: parse_time("2026-01-31T13:00:00Z").unwrap(),
        actor_type: "user".into(),
        actor_id: Some(Uuid::from_u128(1)),
        command_id: Uuid::from_u128(4),
        correlation_id: "request-1".into(),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        change_id: Some(Uuid::from_u128(5)),
        undoes: Some(Uuid::from_u128(6)),
        data: data.into(),
    }
}

#[test]
fn the_stored_form_of_each_event_is_pinned() {
    let lines: Vec<String> = every_event()
        .iter()
        .map(|event| {
            let (event_type, schema_version, data) = encode(event);
            format!("{event_type} {schema_version} {data}")
        })
        .collect();
    insta::assert_snapshot!("stored_form", lines.join("\n"));
}

/// Every form that was ever written, from the snapshot itself: what is there must stay readable.
#[test]
fn every_pinned_form_is_read_back() {
    let pinned = include_str!("snapshots/stored_events__stored_form.snap");
    let body = pinned.splitn(3, "---\n").nth(2).unwrap();
    let read: Vec<TaskEvent> = body
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let mut next = || parts.next().unwrap();
            let (event_type, schema_version, data) = (next(), next().parse().unwrap(), next());
            stored(event_type, schema_version, data).decode().unwrap_or_else(|error| panic!("{line}: {error}"))
        })
        .collect();
    assert_eq!(read, every_event());
}

/// Tags were once stored as they were typed. What is read is composed, so one tag has one form for whoever folds.
#[test]
fn tags_that_were_stored_decomposed_are_read_composed() {
    let tag = Tag::parse("caf\u{e9}").unwrap();
    let old = "{\"tags\":[\"cafe\u{301}\",\"caf\u{e9}\"]}";
    let tagged = stored("TaskTagged", 1, old).decode().unwrap();
    assert_eq!(tagged, TaskEvent::TaskTagged { tags: Tags::from([tag.clone()]) });
    let created =
        stored("TaskCreated", 1, "{\"title\":\"t\",\"priority\":\"low\",\"tags\":[\"cafe\u{301}\"]}").decode();
    let state = evolve(State::default(), &created.unwrap());
    let tags = Tags::from([tag]);
    assert_eq!(decide(&state, &TaskCommand::Tag(tags.clone())), Ok(vec![]), "it has it already");
    assert_eq!(decide(&state, &TaskCommand::Untag(tags.clone())), Ok(vec![TaskEvent::TaskUntagged { tags }]));
}

#[test]
fn no_event_is_missing_from_the_snapshot() {
    // A new variant does not compile here until it is added above.
    let known = |event: &TaskEvent| match event {
        TaskEvent::TaskCreated { .. } => 0,
        TaskEvent::TaskRenamed { .. } => 1,
        TaskEvent::TaskDescribed { .. } => 2,
        TaskEvent::TaskReprioritized { .. } => 3,
        TaskEvent::TaskScheduled { .. } => 4,
        TaskEvent::TaskTagged { .. } => 5,
        TaskEvent::TaskUntagged { .. } => 6,
        TaskEvent::TaskStarted {} => 7,
        TaskEvent::TaskCompleted {} => 8,
        TaskEvent::TaskReopened {} => 9,
        TaskEvent::TaskCancelled {} => 10,
        TaskEvent::TaskDeleted {} => 11,
        TaskEvent::TaskRanked { .. } => 12,
        TaskEvent::TaskStageReverted { .. } => 13,
        TaskEvent::TaskRestored {} => 14,
        TaskEvent::TaskPurged {} => 15,
    };
    let seen: std::collections::BTreeSet<i32> = every_event().iter().map(known).collect();
    assert_eq!(seen, (0..16).collect());
}

#[test]
fn the_envelope_is_pinned() {
    insta::assert_json_snapshot!("envelope", stored("TaskStarted", 1, "{}"));
    let json = serde_json::to_string(&stored("TaskStarted", 1, "{}")).unwrap();
    assert_eq!(serde_json::from_str::<StoredEvent>(&json).unwrap(), stored("TaskStarted", 1, "{}"));
}

#[test]
fn what_is_unknown_is_not_guessed() {
    for (event_type, schema_version) in
        [("TaskArchived", 1), ("TaskCreated", 3), ("TaskCreated", 0), ("taskcreated", 1), ("", 1)]
    {
        let unknown = Unreadable::UnknownType { event_type: event_type.into(), schema_version };
        assert_eq!(stored(event_type, schema_version, "{}").decode(), Err(unknown));
    }
}

#[test]
fn broken_data_is_not_guessed() {
    for (event_type, data) in [
        ("TaskCreated", "{}"),
        ("TaskCreated", r#"{"title":"a","priority":"huge","tags":[]}"#),
        ("TaskCreated", r#"{"title":"a","priority":"low","tags":[],"colour":"red"}"#),
        ("TaskRenamed", r#"{"title":null}"#),
        ("TaskRenamed", r#"{"title":"a"} {}"#),
        ("TaskScheduled", r#"{"due_at":"tomorrow"}"#),
        ("TaskScheduled", "{}"),
        ("TaskRanked", "{}"),
        ("TaskStageReverted", r#"{"from":"pending","to":"completed","started_at":null}"#),
        ("TaskRanked", r#"{"rank":"a0"}"#),
        ("TaskDescribed", "{}"),
        ("TaskTagged", r#"{"tags":"a"}"#),
        ("TaskStarted", r#"{"by":"me"}"#),
        ("TaskStarted", ""),
        ("TaskStarted", "null"),
    ] {
        let read = stored(event_type, 1, data).decode();
        assert!(matches!(read, Err(Unreadable::BrokenData { .. })), "{event_type} {data}: {read:?}");
    }
}

#[test]
fn what_cannot_be_read_is_not_quoted() {
    let data = r#"{"title":"a","priority":"medium","tags":"a secret of mine"}"#;
    let said = stored("TaskCreated", 1, data).decode().unwrap_err().to_string();
    assert!(!said.contains("secret") && said.contains("column 58"), "{said}");
}
