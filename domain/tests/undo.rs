//! Undo, in sentences, and of random histories.

use std::collections::HashMap;

use domain::{
    Description, NewTask, PastEvent, Priority, Rank, Refusal, State, Status, Tag, Tags, TaskCommand, TaskEvent,
    TaskPatch, Time, Title, decide, evolve, standing_undos, undo,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

/// A task's history that grows by changes, an hour each.
#[derive(Debug, Clone, Default)]
struct Task {
    history: Vec<PastEvent>,
    state: State,
    changes: u128,
}

impl Task {
    fn now(&self) -> Time {
        Time::UNIX_EPOCH + chrono::TimeDelta::hours(self.changes as i64)
    }

    fn push(&mut self, events: Vec<TaskEvent>, undoes: Option<Uuid>) -> Uuid {
        self.changes += 1;
        let (change_id, occurred_at) = (Uuid::from_u128(self.changes), self.now());
        for event in events {
            self.state = evolve(std::mem::take(&mut self.state), &event);
            self.history.push(PastEvent { change_id, undoes, occurred_at, event });
        }
        change_id
    }

    /// One change of these commands; those that are refused leave nothing.
    fn change(&mut self, commands: &[TaskCommand]) -> Uuid {
        let (mut state, mut events) = (self.state.clone(), Vec::new());
        for command in commands {
            for event in decide(&state, command).unwrap_or_default() {
                state = evolve(state, &event);
                events.push(event);
            }
        }
        self.push(events, None)
    }

    fn undo(&mut self, change_id: Uuid) -> Result<Uuid, Refusal> {
        let events = undo(&self.history, change_id, self.now())?;
        Ok(self.push(events, Some(change_id)))
    }

    fn has(&self, change_id: Uuid) -> bool {
        self.history.iter().any(|past| past.change_id == change_id)
    }

    /// All that a client sees of it; none while there is none.
    fn view(&self) -> Option<View> {
        let (mut view, mut there) = (View::default(), false);
        for PastEvent { event, occurred_at, .. } in &self.history {
            let at = *occurred_at;
            match event.clone() {
                TaskEvent::TaskCreated { title, description, priority, due_at, tags, rank } => {
                    let status = Some(Status::Pending);
                    view = View {
                        title: Some(title),
                        description,
                        priority: Some(priority),
                        due_at,
                        tags,
                        rank,
                        status,
                        ..View::default()
                    };
                    there = true;
                }
                TaskEvent::TaskRenamed { title } => view.title = Some(title),
                TaskEvent::TaskDescribed { description } => view.description = description,
                TaskEvent::TaskReprioritized { priority } => view.priority = Some(priority),
                TaskEvent::TaskScheduled { due_at } => view.due_at = due_at,
                TaskEvent::TaskRanked { rank } => view.rank = rank,
                TaskEvent::TaskTagged { tags } => view.tags.extend(tags),
                TaskEvent::TaskUntagged { tags } => view.tags.retain(|tag| !tags.contains(tag)),
                TaskEvent::TaskStarted {} => view.step(Status::InProgress, Some(at), None),
                TaskEvent::TaskCompleted {} => view.step(Status::Completed, view.started_at, Some(at)),
                TaskEvent::TaskReopened {} => view.step(Status::Pending, None, None),
                TaskEvent::TaskCancelled {} => view.step(Status::Cancelled, view.started_at, None),
                TaskEvent::TaskStageReverted { from, to, started_at, completed_at } => {
                    assert_eq!(view.status, Some(from));
                    view.step(to, started_at, completed_at);
                }
                TaskEvent::TaskDeleted {} => there = false,
                TaskEvent::TaskRestored {} => there = true,
                TaskEvent::TaskPurged {} => {}
            }
        }
        assert_eq!(self.state.status(), there.then_some(view.status).flatten());
        there.then_some(view)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct View {
    title: Option<Title>,
    description: Option<Description>,
    priority: Option<Priority>,
    due_at: Option<Time>,
    tags: Tags,
    rank: Option<Rank>,
    status: Option<Status>,
    started_at: Option<Time>,
    completed_at: Option<Time>,
}

impl View {
    fn step(&mut self, status: Status, started_at: Option<Time>, completed_at: Option<Time>) {
        (self.status, self.started_at, self.completed_at) = (Some(status), started_at, completed_at);
    }
}

fn create() -> TaskCommand {
    let title = Title::parse("a").unwrap();
    let (tags, priority) = (Tags::new(), Priority::Medium);
    TaskCommand::Create(Box::new(NewTask { title, description: None, priority, due_at: None, tags, rank: None }))
}

fn patch(patch: TaskPatch) -> TaskCommand {
    TaskCommand::Patch(Box::new(patch))
}

fn rename(title: &str) -> TaskCommand {
    patch(TaskPatch { title: Title::parse(title).ok(), ..TaskPatch::default() })
}

fn tags(names: &[&str]) -> Tags {
    names.iter().map(|name| Tag::parse(name).unwrap()).collect()
}

fn created() -> Task {
    let mut task = Task::default();
    task.change(&[create()]);
    task
}

#[test]
fn what_others_changed_since_stays() {
    let mut task = created();
    let change = task.change(&[rename("b"), TaskCommand::Tag(tags(&["x", "y"])), TaskCommand::Complete]);
    task.change(&[
        TaskCommand::Tag(tags(&["z"])),
        patch(TaskPatch { priority: Some(Priority::Low), ..TaskPatch::default() }),
    ]);
    task.undo(change).unwrap();
    let view = task.view().unwrap();
    assert_eq!((view.title, view.tags), (Title::parse("a").ok(), tags(&["z"])));
    assert_eq!((view.priority, view.status, view.completed_at), (Some(Priority::Low), Some(Status::Pending), None));
}

#[test]
fn what_was_changed_since_is_not_undone() {
    let mut task = created();
    let renamed = task.change(&[rename("b")]);
    let again = task.change(&[rename("c")]);
    let before = task.clone();
    assert_eq!(task.undo(renamed), Err(Refusal::ChangedSince));
    assert_eq!(task.history, before.history);
    task.undo(again).unwrap();
    task.undo(renamed).unwrap();
    assert_eq!(task.view().unwrap().title, Title::parse("a").ok());

    let mut task = created();
    let started = task.change(&[TaskCommand::Start]);
    task.change(&[TaskCommand::Complete]);
    assert_eq!(task.undo(started), Err(Refusal::ChangedSince));
    let tagged = task.change(&[TaskCommand::Tag(tags(&["x"]))]);
    task.change(&[TaskCommand::Untag(tags(&["x"]))]);
    assert_eq!(task.undo(tagged), Err(Refusal::ChangedSince));
    let renamed = task.change(&[rename("b")]);
    task.change(&[TaskCommand::Delete]);
    assert_eq!(task.undo(renamed), Err(Refusal::ChangedSince), "it is deleted");
}

#[test]
fn what_came_to_nothing_has_changed_nothing() {
    let mut task = created();
    let renamed = task.change(&[rename("b")]);
    let nothing = task.change(&[rename("c"), rename("b")]);
    assert_eq!(undo(&task.history, nothing, task.now()), Ok(vec![]));
    task.undo(renamed).unwrap();
    assert_eq!(task.view().unwrap().title, Title::parse("a").ok());
}

#[test]
fn a_change_is_undone_once_and_the_undo_of_an_undo_is_redo() {
    let mut task = created();
    let change = task.change(&[rename("b"), TaskCommand::Start]);
    let after = task.view();
    let undone = task.undo(change).unwrap();
    assert_eq!(task.undo(change), Err(Refusal::UndoneAlready));
    let redone = task.undo(undone).unwrap();
    assert_eq!(task.view(), after, "started when it was started first");
    assert_eq!(task.undo(undone), Err(Refusal::UndoneAlready));
    task.undo(redone).unwrap();
    assert_eq!(task.view().unwrap().title, Title::parse("a").ok(), "undone by the undo of the redo");
    assert_eq!(task.undo(change), Err(Refusal::UndoneAlready));
    assert_eq!(task.undo(Uuid::nil()), Err(Refusal::NotFound));
}

/// What `standing_undos` says of undos, each with what it undoes, the latest first: what is undone, with the undo.
fn standing<const N: usize>(undos: &[[u128; 2]], expected: [[u128; 2]; N]) {
    let ids = |[one, other]: [u128; 2]| (Uuid::from_u128(one), Uuid::from_u128(other));
    let found = standing_undos(undos.iter().map(|&pair| ids(pair)));
    assert_eq!(found, HashMap::from(expected.map(ids)), "{undos:?}");
}

#[test]
fn an_undo_stands_until_it_is_undone() {
    standing(&[[1, 0]], [[0, 1]]);
    // redo: what undoes the undo stands, the undo does not
    standing(&[[2, 1], [1, 0]], [[1, 2]]);
    // and undone again, by undoing the redo, or by undoing the change itself
    standing(&[[3, 2], [2, 1], [1, 0]], [[2, 3], [0, 1]]);
    standing(&[[3, 0], [2, 1], [1, 0]], [[0, 3], [1, 2]]);
}

#[test]
fn of_an_undo_in_two_parts_the_latest_that_stands_is_named() {
    standing(&[[2, 0], [1, 0]], [[0, 2]]);
    standing(&[[4, 2], [2, 0], [1, 0]], [[2, 4], [0, 1]]);
}

#[test]
fn a_creation_is_undone_by_deletion_and_a_deletion_by_restoration() {
    let mut task = Task::default();
    let created = task.change(&[create()]);
    let deleted = task.change(&[TaskCommand::Delete]);
    assert_eq!(task.undo(created), Err(Refusal::ChangedSince));
    assert_eq!(undo(&task.history, deleted, task.now()), Ok(vec![TaskEvent::TaskRestored {}]));
    task.undo(deleted).unwrap();
    assert_eq!(undo(&task.history, created, task.now()), Ok(vec![TaskEvent::TaskDeleted {}]));
    task.undo(created).unwrap();
    assert_eq!(task.view(), None);
}

#[test]
fn what_is_in_the_trash_is_reverted_too() {
    let mut task = created();
    let deleted = task.change(&[TaskCommand::Delete]);
    let shown = task.change(&[TaskCommand::Restore, rename("b")]);
    let hidden = task.change(&[TaskCommand::Delete]);
    let twice = task.change(&[TaskCommand::Restore, rename("c"), TaskCommand::Delete]);
    for change in [twice, hidden, shown, deleted] {
        task.undo(change).unwrap();
    }
    assert_eq!(task.view().unwrap().title, Title::parse("a").ok());
}

#[test]
fn what_was_deleted_is_restored_for_thirty_days() {
    let mut task = created();
    let deleted = task.change(&[TaskCommand::Delete]);
    let last = task.now() + chrono::TimeDelta::days(30);
    assert_eq!(undo(&task.history, deleted, last), Ok(vec![TaskEvent::TaskRestored {}]));
    assert_eq!(undo(&task.history, deleted, last + chrono::TimeDelta::microseconds(1)), Err(Refusal::NotFound));
}

#[test]
fn no_change_of_a_task_that_is_purged_is_undone() {
    let mut task = created();
    let renamed = task.change(&[rename("b")]);
    let deleted = task.change(&[TaskCommand::Delete]);
    let purged = task.change(&[TaskCommand::Purge]);
    for change in [renamed, deleted, purged] {
        assert_eq!(task.undo(change), Err(Refusal::Purged));
    }
    assert_eq!(task.undo(Uuid::from_u128(999)), Err(Refusal::NotFound));
}

#[test]
fn a_task_with_too_many_tags_is_not_undone() {
    let many = |letter: &str| -> Tags { (0..12).map(|n| Tag::parse(&format!("{letter}{n}")).unwrap()).collect() };
    let mut task = created();
    task.change(&[TaskCommand::Tag(many("a"))]);
    let untagged = task.change(&[TaskCommand::Untag(many("a"))]);
    task.change(&[TaskCommand::Tag(many("b"))]);
    assert_eq!(task.undo(untagged), Err(Refusal::TooManyTags));
}

fn command() -> impl Strategy<Value = TaskCommand> {
    let few = || vec(prop::sample::select(["x", "y", "z"].as_slice()), 0..3).prop_map(|names| tags(&names));
    let due = (0..3_i64).prop_map(|day| Time::UNIX_EPOCH + chrono::TimeDelta::days(day));
    let fields = (
        option::of(prop_oneof![Just("a"), Just("b")].prop_map(|text| Title::parse(text).unwrap())),
        option::of(option::of(Just(Description::parse("text").unwrap()))),
        option::of(prop::sample::select(Priority::ALL)),
        option::of(option::of(due)),
        option::of(few()),
        option::of(option::of(Just(Rank::parse("m").unwrap()))),
    );
    let patched = fields.prop_map(|(title, description, priority, due_at, tags, rank)| {
        patch(TaskPatch { title, description, priority, due_at, tags, rank })
    });
    prop_oneof![
        4 => patched,
        2 => few().prop_map(TaskCommand::Tag),
        2 => few().prop_map(TaskCommand::Untag),
        2 => Just(TaskCommand::Start),
        2 => Just(TaskCommand::Complete),
        2 => Just(TaskCommand::Reopen),
        2 => Just(TaskCommand::Cancel),
        2 => Just(TaskCommand::Delete),
        2 => Just(TaskCommand::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn all_is_undone_in_reverse_and_redone_in_order(changes in vec(vec(command(), 1..4), 0..12)) {
        let mut task = Task::default();
        let mut made = vec![(task.view(), task.change(&[create()]))];
        for commands in changes {
            let before = task.view();
            let change_id = task.change(&commands);
            if task.has(change_id) {
                made.push((before, change_id));
            }
        }
        let mut undone = Vec::new();
        for (before, change_id) in made.iter().rev() {
            let after = task.view();
            let undo_id = task.undo(*change_id).unwrap();
            prop_assert_eq!(&task.view(), before);
            undone.push((after, undo_id));
        }
        prop_assert_eq!(task.view(), None, "nothing is there");
        // What made no event is none.
        for (after, undo_id) in undone.into_iter().rev().filter(|(_, undo_id)| task.history.iter().any(|past| past.change_id == *undo_id)).collect::<Vec<_>>() {
            task.undo(undo_id).unwrap();
            prop_assert_eq!(task.view(), after);
        }
    }

    #[test]
    fn what_leads_a_task_back_fits_its_state(changes in vec(vec(command(), 1..4), 0..8), which in vec(any::<prop::sample::Index>(), 1..12)) {
        // Undo and redo in any order: what is refused leaves nothing, what is not follows from the state.
        let mut task = Task::default();
        let mut made = vec![task.change(&[create()])];
        made.extend(changes.iter().map(|commands| task.change(commands)).collect::<Vec<_>>());
        for which in which {
            if let Ok(undo_id) = task.undo(made[which.index(made.len())]) {
                made.push(undo_id);
            }
            let tags = task.view().map_or(0, |view| view.tags.len());
            prop_assert!(tags <= domain::TAGS_MAX);
        }
    }
}
