//! Random histories of commands, beside a model that knows the rules of the contract in another way.

use std::collections::BTreeSet;

use domain::{
    Description, NewTask, OwnerId, Priority, Rank, Refusal, State, Status, StoredEvent, TAGS_MAX, Tag, Tags,
    TaskCommand, TaskEvent, TaskId, TaskPatch, Time, Title, decide, encode, evolve, occurred_at, parse_time,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn title() -> impl Strategy<Value = Title> {
    prop_oneof![Just("a"), Just("b"), Just("c d")].prop_map(|text| Title::parse(text).unwrap())
}

fn description() -> impl Strategy<Value = Description> {
    prop_oneof![Just(""), Just("x\ny")].prop_map(|text| Description::parse(text).unwrap())
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(Priority::ALL)
}

fn time() -> impl Strategy<Value = Time> {
    (0..3_i64).prop_map(|day| parse_time(&format!("2026-01-0{}T00:00:00Z", day + 1)).unwrap())
}

fn rank() -> impl Strategy<Value = Rank> {
    prop_oneof![Just("a"), Just("b1")].prop_map(|text| Rank::parse(text).unwrap())
}

/// From a pool somewhat larger than a task may have, so that the limit is met.
fn tags() -> impl Strategy<Value = Tags> {
    let few = btree_set(0..30, 0..4);
    let many = btree_set(0..30, 12..=TAGS_MAX);
    prop_oneof![3 => few, 1 => many]
        .prop_map(|numbers: BTreeSet<i32>| numbers.into_iter().map(|n| Tag::parse(&format!("t{n}")).unwrap()).collect())
}

fn new_task() -> impl Strategy<Value = NewTask> {
    (title(), option::of(description()), priority(), option::of(time()), tags(), option::of(rank())).prop_map(
        |(title, description, priority, due_at, tags, rank)| NewTask {
            title,
            description,
            priority,
            due_at,
            tags,
            rank,
        },
    )
}

fn patch() -> impl Strategy<Value = TaskPatch> {
    (
        option::of(title()),
        option::of(option::of(description())),
        option::of(priority()),
        option::of(option::of(time())),
        option::of(tags()),
        option::of(option::of(rank())),
    )
        .prop_map(|(title, description, priority, due_at, tags, rank)| TaskPatch {
            title,
            description,
            priority,
            due_at,
            tags,
            rank,
        })
}

fn command() -> impl Strategy<Value = TaskCommand> {
    prop_oneof![
        2 => new_task().prop_map(|new| TaskCommand::Create(Box::new(new))),
        4 => patch().prop_map(|patch| TaskCommand::Patch(Box::new(patch))),
        2 => tags().prop_map(TaskCommand::Tag),
        2 => tags().prop_map(TaskCommand::Untag),
        2 => Just(TaskCommand::Start),
        2 => Just(TaskCommand::Complete),
        2 => Just(TaskCommand::Reopen),
        2 => Just(TaskCommand::Cancel),
        1 => Just(TaskCommand::Delete),
        1 => Just(TaskCommand::Restore),
        1 => Just(TaskCommand::Purge),
        1 => revert_stage(),
    ]
}

fn revert_stage() -> impl Strategy<Value = TaskCommand> {
    let stages = prop::sample::subsequence(Status::ALL, 2).prop_shuffle();
    (stages, option::of(time()), option::of(time())).prop_map(|(stages, started_at, completed_at)| {
        TaskCommand::RevertStage { from: stages[0], to: stages[1], started_at, completed_at }
    })
}

/// Begins with a creation most of the time, else nothing much would happen.
fn history() -> impl Strategy<Value = Vec<TaskCommand>> {
    (option::weighted(0.9, new_task()), vec(command(), 0..40)).prop_map(|(new, mut commands)| {
        if let Some(new) = new {
            commands.insert(0, TaskCommand::Create(Box::new(new)));
        }
        commands
    })
}

/// The stream that comes of a history: refused commands leave nothing.
fn stream(commands: &[TaskCommand]) -> Vec<TaskEvent> {
    let mut state = State::default();
    let mut stream = Vec::new();
    for command in commands {
        for event in decide(&state, command).unwrap_or_default() {
            state = evolve(state, &event);
            stream.push(event);
        }
    }
    stream
}

fn fold<'a>(state: State, events: impl IntoIterator<Item = &'a TaskEvent>) -> State {
    events.into_iter().fold(state, evolve)
}

fn stored(event: &TaskEvent, version: usize) -> StoredEvent {
    let (event_type, schema_version, data) = encode(event);
    StoredEvent {
        shard: 0,
        position: version as i64,
        owner_id: OwnerId(Uuid::nil()),
        task_id: TaskId(Uuid::nil()),
        version: version as i64,
        event_id: Uuid::nil(),
        event_type: event_type.into(),
        schema_version,
        occurred_at: Time::UNIX_EPOCH,
        recorded_at: Time::UNIX_EPOCH,
        actor_type: "user".into(),
        actor_id: None,
        command_id: Uuid::nil(),
        correlation_id: String::new(),
        traceparent: String::new(),
        change_id: None,
        undoes: None,
        data,
    }
}

/// A task by the words of the contract: a table of status and verb, and fields that are simply set.
#[derive(Debug, Clone)]
struct Model {
    status: Status,
    original: NewTask,
    now: NewTask,
}

#[derive(Debug, Clone)]
enum Stage {
    Nowhere,
    Here(Model),
    Gone(Model),
    Purged,
}

impl Stage {
    /// What becomes of it, or why it does not.
    fn after(&self, command: &TaskCommand) -> Result<Self, Refusal> {
        let mut model = match (self, command) {
            (Self::Nowhere, TaskCommand::Create(new)) => {
                let (original, now) = (NewTask::clone(new), NewTask::clone(new));
                return Ok(Self::Here(Model { status: Status::Pending, original, now }));
            }
            (Self::Gone(_) | Self::Purged, TaskCommand::Create(_)) => return Err(Refusal::IdTaken),
            (Self::Gone(_) | Self::Purged, TaskCommand::Delete) => return Ok(self.clone()),
            (Self::Gone(_) | Self::Purged, TaskCommand::Purge) => return Ok(Self::Purged),
            (Self::Purged, TaskCommand::Restore) => return Err(Refusal::Purged),
            (Self::Gone(model), TaskCommand::Restore) => return Ok(Self::Here(model.clone())),
            (Self::Nowhere | Self::Gone(_) | Self::Purged, _) => return Err(Refusal::NotFound),
            (Self::Here(model), _) => model.clone(),
        };
        let mut go = |from: &[Status], to: Status, asked: &'static str| {
            if model.status == to || from.contains(&model.status) {
                model.status = to;
                Ok(())
            } else {
                Err(Refusal::NotFrom { from: model.status, asked })
            }
        };
        match command {
            TaskCommand::Start => go(&[Status::Pending], Status::InProgress, "started")?,
            TaskCommand::Complete => go(&[Status::Pending, Status::InProgress], Status::Completed, "completed")?,
            TaskCommand::Cancel => go(&[Status::Pending, Status::InProgress], Status::Cancelled, "cancelled")?,
            TaskCommand::Reopen => go(&[Status::Completed, Status::Cancelled], Status::Pending, "reopened")?,
            TaskCommand::RevertStage { from, to, .. } => go(&[*from], *to, "reverted")?,
            TaskCommand::Delete => return Ok(Self::Gone(model)),
            TaskCommand::Purge => return Err(Refusal::NotFrom { from: model.status, asked: "purged" }),
            TaskCommand::Restore => {}
            TaskCommand::Create(new) if **new == model.original => {}
            TaskCommand::Create(_) => return Err(Refusal::IdTaken),
            TaskCommand::Patch(patch) => {
                let TaskPatch { title, description, priority, due_at, tags, rank } = TaskPatch::clone(patch);
                let old = model.now.clone();
                model.now = NewTask {
                    title: title.unwrap_or(old.title),
                    description: description.unwrap_or(old.description),
                    priority: priority.unwrap_or(old.priority),
                    due_at: due_at.unwrap_or(old.due_at),
                    tags: tags.unwrap_or(old.tags),
                    rank: rank.unwrap_or(old.rank),
                };
            }
            TaskCommand::Tag(tags) => model.now.tags.extend(tags.iter().cloned()),
            TaskCommand::Untag(tags) => model.now.tags.retain(|tag| !tags.contains(tag)),
        }
        if model.now.tags.len() > TAGS_MAX {
            return Err(Refusal::TooManyTags);
        }
        Ok(Self::Here(model))
    }
}

/// That the state is what the model says, asked by what everybody can call.
fn assert_is(state: &State, stage: &Stage) {
    match stage {
        Stage::Nowhere => assert_eq!(*state, State::Missing),
        Stage::Purged => assert_eq!(*state, State::Purged),
        Stage::Gone(model) => {
            let restored = evolve(state.clone(), &TaskEvent::TaskRestored {});
            assert!(state.status().is_none() && restored != *state);
            assert_is(&restored, &Stage::Here(model.clone()));
        }
        Stage::Here(model) => {
            assert_eq!(state.status(), Some(model.status));
            let NewTask { title, description, priority, due_at, tags, rank } = model.now.clone();
            let same = TaskPatch {
                title: Some(title),
                description: Some(description),
                priority: Some(priority),
                due_at: Some(due_at),
                tags: Some(tags),
                rank: Some(rank),
            };
            assert_eq!(decide(state, &TaskCommand::Patch(Box::new(same))), Ok(vec![]), "content");
            let again = TaskCommand::Create(Box::new(model.original.clone()));
            assert_eq!(decide(state, &again), Ok(vec![]), "original content");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_decider_agrees_with_the_model(commands in history()) {
        let (mut state, mut stage) = (State::default(), Stage::Nowhere);
        for command in &commands {
            match (decide(&state, command), stage.after(command)) {
                (Ok(events), Ok(after)) => {
                    state = fold(state, &events);
                    stage = after;
                }
                (Err(refusal), Err(expected)) => prop_assert_eq!(refusal, expected),
                (decided, expected) => prop_assert!(false, "{command:?}: {decided:?}, but the model: {expected:?}"),
            }
            assert_is(&state, &stage);
        }
    }

    #[test]
    fn what_was_accepted_is_nothing_new_when_asked_again(commands in history()) {
        let mut state = State::default();
        for command in &commands {
            if let Ok(events) = decide(&state, command) {
                state = fold(state, &events);
                prop_assert_eq!(decide(&state, command), Ok(vec![]), "{:?}", command);
            }
        }
    }

    #[test]
    fn no_event_is_without_effect_and_only_a_restoration_or_the_end_comes_after_a_deletion(commands in history()) {
        let stream = stream(&commands);
        let mut state = State::default();
        for (index, event) in stream.iter().enumerate() {
            let creation = matches!(event, TaskEvent::TaskCreated { .. });
            prop_assert_eq!(creation, index == 0, "a stream begins with its creation, and only there is one");
            if matches!(event, TaskEvent::TaskDeleted {}) {
                let comes_back_or_ends = |next: &TaskEvent| {
                    matches!(next, TaskEvent::TaskRestored {} | TaskEvent::TaskPurged {})
                };
                prop_assert!(stream.get(index + 1).is_none_or(comes_back_or_ends));
            }
            let ends = *event == TaskEvent::TaskPurged {};
            prop_assert!(!ends || index + 1 == stream.len());
            // So the version is raised by each thing that happened, and by nothing else.
            let after = evolve(state.clone(), event);
            prop_assert_ne!(&after, &state, "{:?}", event);
            state = after;
        }
    }

    #[test]
    fn a_prefix_and_the_rest_are_the_whole(commands in history(), cut in any::<prop::sample::Index>()) {
        // As the command side does it: a stream cached at some version, read on from there in its stored form.
        let stream = stream(&commands);
        let whole = fold(State::default(), &stream);
        let (prefix, rest) = stream.split_at(cut.index(stream.len() + 1));
        let cached = fold(State::default(), prefix);
        let read: Vec<_> = rest.iter().enumerate().map(|(i, event)| stored(event, i + 1).decode().unwrap()).collect();
        prop_assert_eq!(fold(cached, &read), whole);
    }

    #[test]
    fn every_event_is_read_back_as_it_was_written(commands in history()) {
        for event in stream(&commands) {
            prop_assert_eq!(stored(&event, 1).decode(), Ok(event));
        }
    }

    #[test]
    fn no_prefix_of_a_stream_has_too_many_tags(commands in history()) {
        let mut tags = Tags::new();
        for event in stream(&commands) {
            match event {
                TaskEvent::TaskCreated { tags: new, .. } => tags = new,
                TaskEvent::TaskTagged { tags: added } => {
                    prop_assert!(added.is_disjoint(&tags));
                    tags.extend(added);
                }
                TaskEvent::TaskUntagged { tags: removed } => {
                    prop_assert!(removed.is_subset(&tags));
                    tags.retain(|tag| !removed.contains(tag));
                }
                TaskEvent::TaskRenamed { .. }
                | TaskEvent::TaskDescribed { .. }
                | TaskEvent::TaskReprioritized { .. }
                | TaskEvent::TaskScheduled { .. }
                | TaskEvent::TaskRanked { .. }
                | TaskEvent::TaskStarted {}
                | TaskEvent::TaskCompleted {}
                | TaskEvent::TaskReopened {}
                | TaskEvent::TaskCancelled {}
                | TaskEvent::TaskStageReverted { .. }
                | TaskEvent::TaskDeleted {}
                | TaskEvent::TaskRestored {}
                | TaskEvent::TaskPurged {} => {}
            }
            prop_assert!(tags.len() <= TAGS_MAX);
        }
    }

    #[test]
    fn a_decision_depends_on_nothing_but_state_and_command(commands in history(), command in command()) {
        let state = fold(State::default(), &stream(&commands));
        prop_assert_eq!(decide(&state, &command), decide(&state.clone(), &command));
    }

    #[test]
    fn occurred_at_never_decreases(
        asked in vec((option::of(0..200_i64), 0..100_i64), 1..20)
    ) {
        let second = |s: i64| Time::from_timestamp(1_000_000_000 + s, 0).unwrap();
        let mut previous = None;
        for (asked, now) in asked {
            if let Ok(time) = occurred_at(asked.map(second), second(now), previous) {
                prop_assert!(previous.is_none_or(|previous| time >= previous));
                prop_assert!(asked.is_none() || asked.map(second) == Some(time), "asked for is kept to the letter");
                previous = Some(time);
            }
        }
    }
}
