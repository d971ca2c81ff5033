//! The Decider, in sentences: given what happened, when this is asked, then that happens.

use domain::{
    Description, NewTask, Priority, Rank, Refusal, State, Status, TAGS_MAX, Tag, Tags, TaskCommand, TaskEvent,
    TaskPatch, Time, Title, decide, evolve, occurred_at, parse_time,
};
use sentences::*;

#[test]
fn a_task_is_created_once() {
    given([]).when(create("a")).then([created("a")]);
    given([created("a")]).when(create("a")).then_nothing();
    given([created("a")]).when(create("b")).then_refused(Refusal::IdTaken);
}

#[test]
fn the_same_task_is_one_with_the_content_it_was_created_with() {
    given([created("a"), renamed("b")]).when(create("a")).then_nothing();
    given([created("a"), renamed("b")]).when(create("b")).then_refused(Refusal::IdTaken);
    given([created("a"), renamed("b"), renamed("a"), COMPLETED]).when(create("a")).then_nothing();
    given([created("a"), tagged(["x"]), untagged(["x"])]).when(create("a")).then_nothing();
    given([created("a"), DELETED]).when(create("a")).then_refused(Refusal::IdTaken);
}

#[test]
fn nothing_can_be_asked_of_a_task_that_is_not_there() {
    let commands =
        [START, COMPLETE, REOPEN, CANCEL, rename("b"), tag(["x"]), untag(["x"]), patch(TaskPatch::default())];
    for command in commands {
        given([]).when(command.clone()).then_refused(Refusal::NotFound);
        given([created("a"), DELETED]).when(command).then_refused(Refusal::NotFound);
    }
    given([]).when(DELETE).then_refused(Refusal::NotFound);
}

#[test]
fn start_goes_from_pending() {
    given([created("a")]).when(START).then([STARTED]);
    given([created("a"), STARTED]).when(START).then_nothing();
    given([created("a"), COMPLETED]).when(START).then_refused(not("started", Status::Completed));
    given([created("a"), CANCELLED]).when(START).then_refused(not("started", Status::Cancelled));
    given([created("a"), COMPLETED, REOPENED]).when(START).then([STARTED]);
}

#[test]
fn complete_goes_from_pending_and_in_progress() {
    given([created("a")]).when(COMPLETE).then([COMPLETED]);
    given([created("a"), STARTED]).when(COMPLETE).then([COMPLETED]);
    given([created("a"), COMPLETED]).when(COMPLETE).then_nothing();
    given([created("a"), CANCELLED]).when(COMPLETE).then_refused(not("completed", Status::Cancelled));
}

#[test]
fn cancel_goes_from_pending_and_in_progress() {
    given([created("a")]).when(CANCEL).then([CANCELLED]);
    given([created("a"), STARTED]).when(CANCEL).then([CANCELLED]);
    given([created("a"), CANCELLED]).when(CANCEL).then_nothing();
    given([created("a"), COMPLETED]).when(CANCEL).then_refused(not("cancelled", Status::Completed));
}

#[test]
fn reopen_goes_from_completed_and_cancelled_to_pending() {
    given([created("a"), COMPLETED]).when(REOPEN).then([REOPENED]);
    given([created("a"), CANCELLED]).when(REOPEN).then([REOPENED]);
    given([created("a"), STARTED]).when(REOPEN).then_refused(not("reopened", Status::InProgress));
    given([created("a")]).when(REOPEN).then_nothing();
    given([created("a"), STARTED, COMPLETED, REOPENED]).when(REOPEN).then_nothing();
}

#[test]
fn what_was_deleted_is_restored_as_it_was() {
    given([created("a"), STARTED, DELETED]).when(RESTORE).then([RESTORED]);
    given([created("a"), STARTED, DELETED, RESTORED]).when(COMPLETE).then([COMPLETED]);
    given([created("a"), renamed("b"), DELETED, RESTORED]).when(rename("b")).then_nothing();
    given([created("a"), renamed("b"), DELETED, RESTORED]).when(create("a")).then_nothing();
    given([created("a")]).when(RESTORE).then_nothing();
    given([]).when(RESTORE).then_refused(Refusal::NotFound);
}

#[test]
fn what_is_purged_never_comes_back() {
    let purged = || given([created("a"), DELETED, PURGED]);
    given([created("a"), DELETED]).when(PURGE).then([PURGED]);
    purged().when(PURGE).then_nothing();
    purged().when(RESTORE).then_refused(Refusal::Purged);
    purged().when(DELETE).then_nothing();
    purged().when(create("a")).then_refused(Refusal::IdTaken);
    purged().when(START).then_refused(Refusal::NotFound);
    let alive = Refusal::NotFrom { from: Status::Pending, asked: "purged" };
    given([created("a")]).when(PURGE).then_refused(alive.clone());
    given([created("a"), DELETED, RESTORED]).when(PURGE).then_refused(alive);
    given([]).when(PURGE).then_refused(Refusal::NotFound);
}

#[test]
fn a_stage_is_reverted_from_where_it_is() {
    let reverted = |from, to| TaskEvent::TaskStageReverted { from, to, started_at: None, completed_at: None };
    let revert = |from, to| TaskCommand::RevertStage { from, to, started_at: None, completed_at: None };
    let (back, is_back) = (revert(Status::Completed, Status::Pending), reverted(Status::Completed, Status::Pending));
    given([created("a"), COMPLETED]).when(back.clone()).then([is_back.clone()]);
    given([created("a"), COMPLETED, is_back.clone()]).when(back.clone()).then_nothing();
    given([created("a"), COMPLETED, is_back]).when(START).then([STARTED]);
    given([created("a"), STARTED]).when(back.clone()).then_refused(not("reverted", Status::InProgress));
    given([created("a"), DELETED]).when(back).then_refused(Refusal::NotFound);
}

#[test]
fn delete_goes_from_anywhere() {
    for stage in [vec![], vec![STARTED], vec![COMPLETED], vec![CANCELLED], vec![COMPLETED, REOPENED]] {
        let events: Vec<_> = [created("a")].into_iter().chain(stage).collect();
        given(events).when(DELETE).then([DELETED]);
    }
    given([created("a"), DELETED]).when(DELETE).then_nothing();
}

#[test]
fn a_patch_yields_an_event_for_each_thing_that_changes() {
    let whole = TaskPatch {
        title: Some(title("b")),
        description: Some(Some(description("more"))),
        priority: Some(Priority::Urgent),
        due_at: Some(Some(time("2026-01-01T00:00:00Z"))),
        tags: Some(tags(["x", "y"])),
        rank: Some(Rank::parse("m").ok()),
    };
    let all_of_it = [
        renamed("b"),
        TaskEvent::TaskDescribed { description: Some(description("more")) },
        TaskEvent::TaskReprioritized { priority: Priority::Urgent },
        TaskEvent::TaskScheduled { due_at: Some(time("2026-01-01T00:00:00Z")) },
        TaskEvent::TaskRanked { rank: Rank::parse("m").ok() },
        tagged(["x", "y"]),
    ];
    given([created("a")]).when(patch(whole.clone())).then(all_of_it.clone());
    let changed: Vec<_> = [created("a")].into_iter().chain(all_of_it).collect();
    given(changed).when(patch(whole)).then_nothing();
    given([created("a")]).when(patch(TaskPatch::default())).then_nothing();
}

#[test]
fn a_patch_empties_what_may_be_empty() {
    let emptied =
        TaskPatch { description: Some(None), due_at: Some(None), tags: Some(Tags::new()), ..TaskPatch::default() };
    given([
        created("a"),
        TaskEvent::TaskDescribed { description: Some(description("more")) },
        TaskEvent::TaskScheduled { due_at: Some(time("2026-01-01T00:00:00Z")) },
        tagged(["x"]),
    ])
    .when(patch(emptied.clone()))
    .then([
        TaskEvent::TaskDescribed { description: None },
        TaskEvent::TaskScheduled { due_at: None },
        untagged(["x"]),
    ]);
    given([created("a")]).when(patch(emptied)).then_nothing();
}

#[test]
fn a_patch_of_tags_says_what_was_removed_and_what_was_added() {
    let wanted = TaskPatch { tags: Some(tags(["b", "c"])), ..TaskPatch::default() };
    given([created("a"), tagged(["a", "b"])]).when(patch(wanted)).then([untagged(["a"]), tagged(["c"])]);
}

#[test]
fn fields_change_at_every_stage() {
    for stage in [STARTED, COMPLETED, CANCELLED] {
        given([created("a"), stage]).when(rename("b")).then([renamed("b")]);
    }
}

#[test]
fn tags_are_added_and_removed_where_that_changes_something() {
    given([created("a"), tagged(["x"])]).when(tag(["x", "y"])).then([tagged(["y"])]);
    given([created("a"), tagged(["x"])]).when(tag(["x"])).then_nothing();
    given([created("a"), tagged(["x", "y"])]).when(untag(["y", "z"])).then([untagged(["y"])]);
    given([created("a"), tagged(["x"])]).when(untag(["z"])).then_nothing();
    given([created("a")]).when(tag([])).then_nothing();
}

#[test]
fn a_task_has_at_most_twenty_tags() {
    let many = |count: usize| -> Tags { (0..count).map(|i| Tag::parse(&format!("t{i}")).unwrap()).collect() };
    let full = TaskEvent::TaskTagged { tags: many(TAGS_MAX) };
    given([created("a")]).when(TaskCommand::Tag(many(TAGS_MAX))).then([full.clone()]);
    given([created("a")]).when(TaskCommand::Tag(many(TAGS_MAX + 1))).then_refused(Refusal::TooManyTags);
    given([created("a"), full.clone()]).when(tag(["one-more"])).then_refused(Refusal::TooManyTags);
    given([created("a"), full.clone()]).when(tag(["t0", "t19"])).then_nothing();
    given([created("a"), full.clone(), untagged(["t0"])]).when(tag(["one-more"])).then([tagged(["one-more"])]);
    given([created("a"), full.clone()])
        .when(TaskCommand::Untag(many(TAGS_MAX + 10)))
        .then([TaskEvent::TaskUntagged { tags: many(TAGS_MAX) }]);
    // Twenty others instead: removed first, so that no prefix of the stream has more than twenty.
    let others: Tags = (0..TAGS_MAX).map(|i| Tag::parse(&format!("u{i}")).unwrap()).collect();
    given([created("a"), full])
        .when(patch(TaskPatch { tags: Some(others.clone()), ..TaskPatch::default() }))
        .then([TaskEvent::TaskUntagged { tags: many(TAGS_MAX) }, TaskEvent::TaskTagged { tags: others }]);
}

#[test]
fn what_is_stored_has_happened_even_where_it_could_not() {
    // evolve never fails, and brings a task back only where it was restored, whatever a log holds.
    let deleted = || evolve(evolve(State::Missing, &created("a")), &DELETED);
    for event in [STARTED, COMPLETED, REOPENED, CANCELLED, renamed("a"), tagged(["x"])] {
        assert_eq!(evolve(State::Missing, &event), State::Missing);
        assert_eq!(evolve(deleted(), &event), deleted());
    }
    assert_eq!(evolve(deleted(), &created("a")), deleted());
    assert_eq!(evolve(State::Missing, &RESTORED), State::Missing);
    given([created("a"), created("b")]).when(rename("a")).then_nothing();
}

#[test]
fn things_happen_when_they_are_said_to_or_now() {
    let (early, previous, now) =
        (time("2013-01-01T00:00:00Z"), time("2020-01-01T00:00:00Z"), time("2026-01-01T00:00:00Z"));
    assert_eq!(occurred_at(None, now, None), Ok(now));
    assert_eq!(occurred_at(None, now, Some(previous)), Ok(now));
    assert_eq!(occurred_at(Some(early), now, None), Ok(early));
    assert_eq!(occurred_at(Some(previous), now, Some(previous)), Ok(previous));
    assert_eq!(occurred_at(Some(early), now, Some(previous)), Err(Refusal::OccursBeforePrevious { previous }));
}

#[test]
fn a_clock_that_goes_back_does_not_take_a_stream_along() {
    let (now, previous) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:00:30Z"));
    assert_eq!(occurred_at(None, now, Some(previous)), Ok(previous));
}

#[test]
fn the_future_begins_after_a_minute() {
    let now = time("2026-01-01T00:00:00Z");
    let (grace, beyond) = (time("2026-01-01T00:01:00Z"), time("2026-01-01T00:01:00.000001Z"));
    assert_eq!(occurred_at(Some(grace), now, None), Ok(grace));
    assert_eq!(occurred_at(Some(beyond), now, None), Err(Refusal::OccursInFuture));
    assert_eq!(occurred_at(Some(beyond), now, Some(beyond)), Err(Refusal::OccursInFuture));
}

/// What the sentences are made of.
mod sentences {
    use super::*;

    pub const STARTED: TaskEvent = TaskEvent::TaskStarted {};
    pub const COMPLETED: TaskEvent = TaskEvent::TaskCompleted {};
    pub const REOPENED: TaskEvent = TaskEvent::TaskReopened {};
    pub const CANCELLED: TaskEvent = TaskEvent::TaskCancelled {};
    pub const DELETED: TaskEvent = TaskEvent::TaskDeleted {};
    pub const RESTORED: TaskEvent = TaskEvent::TaskRestored {};
    pub const PURGED: TaskEvent = TaskEvent::TaskPurged {};
    pub const START: TaskCommand = TaskCommand::Start;
    pub const COMPLETE: TaskCommand = TaskCommand::Complete;
    pub const REOPEN: TaskCommand = TaskCommand::Reopen;
    pub const CANCEL: TaskCommand = TaskCommand::Cancel;
    pub const DELETE: TaskCommand = TaskCommand::Delete;
    pub const RESTORE: TaskCommand = TaskCommand::Restore;
    pub const PURGE: TaskCommand = TaskCommand::Purge;

    pub struct Given(State);
    pub struct When(Result<Vec<TaskEvent>, Refusal>);

    pub fn given(events: impl IntoIterator<Item = TaskEvent>) -> Given {
        Given(events.into_iter().fold(State::default(), |state, event| evolve(state, &event)))
    }

    impl Given {
        pub fn when(self, command: TaskCommand) -> When {
            When(decide(&self.0, &command))
        }
    }

    impl When {
        #[track_caller]
        pub fn then(self, events: impl IntoIterator<Item = TaskEvent>) {
            assert_eq!(self.0, Ok(events.into_iter().collect()));
        }

        #[track_caller]
        pub fn then_nothing(self) {
            self.then([]);
        }

        #[track_caller]
        pub fn then_refused(self, refusal: Refusal) {
            assert_eq!(self.0, Err(refusal));
        }
    }

    pub fn title(text: &str) -> Title {
        Title::parse(text).unwrap()
    }

    pub fn description(text: &str) -> Description {
        Description::parse(text).unwrap()
    }

    pub fn time(text: &str) -> Time {
        parse_time(text).unwrap()
    }

    pub fn tags<const N: usize>(names: [&str; N]) -> Tags {
        names.into_iter().map(|name| Tag::parse(name).unwrap()).collect()
    }

    pub fn create(name: &str) -> TaskCommand {
        TaskCommand::Create(Box::new(NewTask {
            title: title(name),
            description: None,
            priority: Priority::Medium,
            due_at: None,
            tags: Tags::new(),
            rank: None,
        }))
    }

    pub fn created(name: &str) -> TaskEvent {
        TaskEvent::TaskCreated {
            title: title(name),
            description: None,
            priority: Priority::Medium,
            due_at: None,
            tags: Tags::new(),
            rank: None,
        }
    }

    pub fn patch(patch: TaskPatch) -> TaskCommand {
        TaskCommand::Patch(Box::new(patch))
    }

    pub fn rename(name: &str) -> TaskCommand {
        patch(TaskPatch { title: Some(title(name)), ..TaskPatch::default() })
    }

    pub fn renamed(name: &str) -> TaskEvent {
        TaskEvent::TaskRenamed { title: title(name) }
    }

    pub fn tag<const N: usize>(names: [&str; N]) -> TaskCommand {
        TaskCommand::Tag(tags(names))
    }

    pub fn untag<const N: usize>(names: [&str; N]) -> TaskCommand {
        TaskCommand::Untag(tags(names))
    }

    pub fn tagged<const N: usize>(names: [&str; N]) -> TaskEvent {
        TaskEvent::TaskTagged { tags: tags(names) }
    }

    pub fn untagged<const N: usize>(names: [&str; N]) -> TaskEvent {
        TaskEvent::TaskUntagged { tags: tags(names) }
    }

    pub fn not(asked: &'static str, from: Status) -> Refusal {
        Refusal::NotFrom { from, asked }
    }
}
