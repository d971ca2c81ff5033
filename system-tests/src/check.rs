//! What always holds (design.md), looked at from outside: by SQL, by a fold of this file's own, by `doctor`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::catch_up::checkpoints_at_heads;
use crate::cluster::pool;
use crate::ledger::{Ledger, Outcome};
use crate::server::{Server, cli};
use crate::wait::until;

/// Waits for lag 0 and then asks for everything that always holds.
pub async fn everything_holds(server: &Server, ledgers: &[&Ledger]) {
    server.caught_up().await;
    everything_holds_in(server.database_url(), server.dir(), ledgers).await;
}

/// The same of a database, whoever serves it; `dir` is for the command line to run in.
pub async fn everything_holds_in(database_url: &str, dir: &Path, ledgers: &[&Ledger]) {
    let pool = pool(database_url).await;
    checkpoints_at_heads(&pool).await;
    let events = events(&pool).await;
    positions_have_no_gap(&pool, &events).await;
    versions_have_no_gap(&events);
    commands_have_one_effect(&events);
    for ledger in ledgers {
        ledger_is_in_the_store(ledger, &events);
    }
    read_model_is_the_fold(&pool, &events).await;
    // a connection that died silently has its locks until Postgres notices
    let doctor = until("nobody has the tables locked", Duration::from_secs(60), || async {
        let run = cli(dir, Some(database_url), &["doctor", "--json"], "").await;
        (!run.out.contains("stay locked by others")).then_some(run)
    });
    let doctor = doctor.await.expect(0).json();
    assert_eq!(doctor["ok"], true, "{doctor}");
    assert_eq!(doctor["findings"].as_array().map(Vec::len), Some(0), "{doctor}");
    pool.close().await;
}

/// An event as it stands in the store.
#[derive(Clone, Debug)]
pub struct Event {
    shard: i16,
    position: i64,
    /// Whose task.
    pub owner: Uuid,
    /// Which task.
    pub task: Uuid,
    /// Its number in the stream.
    pub version: i64,
    /// `TaskCreated` …
    pub kind: String,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    command: Uuid,
    change: Uuid,
    undoes: Option<Uuid>,
    /// Its data.
    pub data: Value,
}

/// The whole log, in the order of its positions.
pub async fn events(pool: &PgPool) -> Vec<Event> {
    let rows = sqlx::query(
        "select shard, position, owner_id, task_id, version, type, occurred_at, command_id, data, \
         coalesce(change_id, command_id), undoes from event_store.event order by shard, position",
    )
    .fetch_all(pool)
    .await
    .expect("the log");
    let event = |row: &sqlx::postgres::PgRow| Event {
        shard: row.get(0),
        position: row.get(1),
        owner: row.get(2),
        task: row.get(3),
        version: row.get(4),
        kind: row.get(5),
        occurred_at: row.get(6),
        command: row.get(7),
        data: serde_json::from_str(row.get(8)).expect("data is JSON"),
        change: row.get(9),
        undoes: row.get(10),
    };
    rows.iter().map(event).collect()
}

/// Invariant 2, positions: 1, 2, 3 … up to the head, in each shard.
pub async fn positions_have_no_gap(pool: &PgPool, events: &[Event]) {
    let heads: Vec<(i16, i64)> =
        sqlx::query_as("select shard, position from event_store.head").fetch_all(pool).await.expect("heads");
    for (shard, head) in heads {
        let positions: Vec<i64> =
            events.iter().filter(|event| event.shard == shard).map(|event| event.position).collect();
        let expected: Vec<i64> = (1..=head).collect();
        assert!(
            positions == expected,
            "shard {shard}: {} events, head at {head}, first odd one at {:?}",
            positions.len(),
            positions.iter().zip(&expected).find(|(is, should)| is != should)
        );
    }
}

/// Invariant 2, versions: 1, 2, 3 … in each stream, in the order of the positions; time never goes back.
pub fn versions_have_no_gap(events: &[Event]) {
    let mut last: HashMap<(Uuid, Uuid), (i64, DateTime<Utc>)> = HashMap::new();
    for event in events {
        let stream = last.entry((event.owner, event.task));
        let (version, occurred_at) = stream.or_insert((0, DateTime::<Utc>::MIN_UTC));
        assert_eq!(event.version, *version + 1, "versions of {}", event.task);
        assert!(event.occurred_at >= *occurred_at, "time goes back: {event:?}");
        (*version, *occurred_at) = (event.version, event.occurred_at);
    }
}

/// Invariant 3: the events of a command id are one append to one task.
pub fn commands_have_one_effect(events: &[Event]) {
    let mut commands: HashMap<(Uuid, Uuid), Vec<&Event>> = HashMap::new();
    for event in events {
        let command = commands.entry((event.owner, event.command)).or_default();
        command.push(event);
    }
    for effect in commands.values() {
        let adjacent = effect.windows(2).all(|pair| {
            pair[1].task == pair[0].task
                && pair[1].version == pair[0].version + 1
                && pair[1].position == pair[0].position + 1
        });
        assert!(adjacent, "more than one effect: {effect:?}");
    }
}

/// Invariant 1 and 3 for what clients were told: a 2xx stands in the store once, a 4xx not at all.
pub fn ledger_is_in_the_store(ledger: &Ledger, events: &[Event]) {
    let mut effects: HashMap<String, u32> = HashMap::new();
    for event in events.iter().filter(|e| e.owner == ledger.account().id) {
        if let Some(title) = event.data["title"].as_str() {
            *effects.entry(title.to_owned()).or_default() += 1;
        }
        if event.kind == "TaskCompleted" {
            *effects.entry(format!("completed:{}", event.task)).or_default() += 1;
        }
    }
    let attempts = ledger.attempts();
    for attempt in &attempts {
        let found = effects.get(&attempt.marker).copied().unwrap_or(0);
        match attempt.outcome {
            Outcome::Done => assert_eq!(found, 1, "answered 2xx: {attempt:?}"),
            Outcome::Refused(_) => assert_eq!(found, 0, "answered 4xx: {attempt:?}"),
            Outcome::Unknown => assert!(found <= 1, "never settled: {attempt:?}"),
        }
    }
    let titles = effects.keys().filter(|key| key.starts_with("m-")).count();
    let asked = attempts.iter().filter(|a| a.marker.starts_with("m-")).count();
    assert!(titles <= asked, "{titles} titles in the store, {asked} asked for");
}

#[derive(Clone, Debug, PartialEq)]
struct Task {
    version: i64,
    position: i64,
    live: Option<Live>,
}

#[derive(Clone, Debug, PartialEq)]
struct Live {
    title: String,
    description: Option<String>,
    priority: i16,
    status: i16,
    tags: BTreeSet<String>,
    due_at: Option<DateTime<Utc>>,
    rank: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

type Tasks = BTreeMap<(Uuid, Uuid), Task>;

/// Invariant 4: tasks, counters and revisions of the live generation are what the log says.
pub async fn read_model_is_the_fold(pool: &PgPool, events: &[Event]) {
    let generation: i32 = sqlx::query_scalar("select live_generation from read_model.projection")
        .fetch_one(pool)
        .await
        .expect("live generation");
    let folded = fold(events);
    let stored = stored_tasks(pool, generation).await;
    for (id, task) in &folded {
        assert_eq!(stored.get(id), Some(task), "task {id:?}");
    }
    assert_eq!(stored.len(), folded.len(), "tasks that the log does not know");
    assert_eq!(stored_counts(pool, generation).await, counts(&folded), "counts");
    assert_eq!(stored_days(pool, generation).await, days(&folded), "days");
    assert_eq!(stored_revisions(pool, generation).await, revisions(events), "revisions");
    assert_eq!(stored_history(pool, generation).await, history(events), "history");
    assert_eq!(stored_changes(pool, generation).await, changes(events), "changes");
    nothing_is_left_of_what_was_purged(pool, generation, events).await;
}

async fn nothing_is_left_of_what_was_purged(pool: &PgPool, generation: i32, events: &[Event]) {
    let purges = events.iter().filter(|event| event.kind == "TaskPurged");
    let purged: BTreeSet<(Uuid, Uuid)> = purges.map(|event| (event.owner, event.task)).collect();
    for contents in [
        "select owner_id, task_id from read_model.task where generation = $1 and (title <> '' or title_key <> '' \
         or description is not null or due_at is not null or rank is not null or tags <> '{}' or not deleted)",
        "select owner_id, task_id from read_model.history where generation = $1 and changes <> '{}'",
        "select owner_id, task_id from read_model.task_version where generation = $1 and (priority is not null \
         or due_at is not null or tags <> '{}' or title_key is not null or rank is not null)",
        "select owner_id, task_id from read_model.search where generation = $1 and lexemes <> ''",
    ] {
        let rows: Vec<(Uuid, Uuid)> =
            sqlx::query_as(contents).bind(generation).fetch_all(pool).await.expect("rows with content");
        let left: Vec<_> = rows.into_iter().filter(|row| purged.contains(row)).collect();
        assert!(left.is_empty(), "purged, but: {left:?} of {contents}");
    }
}

fn fold(events: &[Event]) -> Tasks {
    let mut tasks = Tasks::new();
    let mut trash: BTreeMap<(Uuid, Uuid), Option<Live>> = BTreeMap::new();
    for event in events {
        let task = tasks.entry((event.owner, event.task)).or_insert(Task { version: 0, position: 0, live: None });
        (task.version, task.position) = (event.version, event.position);
        apply(&mut task.live, trash.entry((event.owner, event.task)).or_default(), event);
    }
    tasks
}

fn apply(live: &mut Option<Live>, trash: &mut Option<Live>, event: &Event) {
    match event.kind.as_str() {
        "TaskCreated" => {
            *live = Some(created(event));
            return;
        }
        "TaskDeleted" => {
            *trash = live.take();
            return;
        }
        "TaskRestored" => *live = trash.take(),
        "TaskPurged" => {
            assert!(live.is_none(), "purged without a deletion: {event:?}");
            *trash = None;
            return;
        }
        _ => {}
    }
    let task = live.as_mut().expect("an event of a task that exists");
    let (at, data) = (event.occurred_at, &event.data);
    task.updated_at = at;
    match event.kind.as_str() {
        "TaskRenamed" => task.title = text(data, "title").expect("title"),
        "TaskDescribed" => task.description = text(data, "description"),
        "TaskReprioritized" => task.priority = priority(data),
        "TaskScheduled" => task.due_at = when(data, "due_at"),
        "TaskRanked" => task.rank = text(data, "rank"),
        "TaskTagged" => task.tags.extend(tags(data)),
        "TaskUntagged" => task.tags = &task.tags - &tags(data),
        "TaskStarted" => (task.status, task.started_at) = (1, Some(at)),
        "TaskCompleted" => (task.status, task.completed_at) = (2, Some(at)),
        "TaskReopened" => (task.status, task.started_at, task.completed_at) = (0, None, None),
        "TaskCancelled" => task.status = 3,
        "TaskStageReverted" => {
            task.status = status(data);
            (task.started_at, task.completed_at) = (when(data, "started_at"), when(data, "completed_at"));
        }
        "TaskRestored" => {}
        unknown => panic!("event type {unknown}"),
    }
}

fn created(event: &Event) -> Live {
    Live {
        title: text(&event.data, "title").expect("title"),
        description: text(&event.data, "description"),
        priority: priority(&event.data),
        status: 0,
        tags: tags(&event.data),
        due_at: when(&event.data, "due_at"),
        rank: text(&event.data, "rank"),
        created_at: event.occurred_at,
        updated_at: event.occurred_at,
        started_at: None,
        completed_at: None,
    }
}

fn text(data: &Value, field: &str) -> Option<String> {
    data[field].as_str().map(str::to_owned)
}

fn when(data: &Value, field: &str) -> Option<DateTime<Utc>> {
    data[field].as_str().map(|text| text.parse().expect("time"))
}

fn tags(data: &Value) -> BTreeSet<String> {
    let tags = data["tags"].as_array().into_iter().flatten();
    tags.map(|tag| tag.as_str().expect("tag").to_owned()).collect()
}

fn priority(data: &Value) -> i16 {
    match data["priority"].as_str().expect("priority") {
        "low" => 0,
        "medium" => 1,
        "high" => 2,
        "urgent" => 3,
        unknown => panic!("priority {unknown}"),
    }
}

fn status(data: &Value) -> i16 {
    match data["to"].as_str().expect("status") {
        "pending" => 0,
        "in_progress" => 1,
        "completed" => 2,
        "cancelled" => 3,
        unknown => panic!("status {unknown}"),
    }
}

fn counts(tasks: &Tasks) -> BTreeMap<(Uuid, i16, i16), i64> {
    let mut counts = BTreeMap::new();
    for ((owner, _), task) in tasks {
        if let Some(live) = &task.live {
            *counts.entry((*owner, live.status, live.priority)).or_insert(0) += 1;
        }
    }
    counts
}

fn days(tasks: &Tasks) -> BTreeMap<(Uuid, NaiveDate), (i64, i64)> {
    let mut days: BTreeMap<(Uuid, NaiveDate), (i64, i64)> = BTreeMap::new();
    for ((owner, _), task) in tasks {
        if let Some(live) = &task.live {
            days.entry((*owner, live.created_at.date_naive())).or_default().0 += 1;
            if let Some(at) = live.completed_at {
                days.entry((*owner, at.date_naive())).or_default().1 += 1;
            }
        }
    }
    days
}

fn revisions(events: &[Event]) -> BTreeMap<Uuid, i64> {
    // in order of positions: the last one wins
    events.iter().map(|event| (event.owner, event.position)).collect()
}

fn history(events: &[Event]) -> BTreeSet<(Uuid, Uuid, i64, i64, String)> {
    let line = |e: &Event| (e.owner, e.task, e.version, e.position, e.kind.clone());
    events.iter().map(line).collect()
}

/// Tasks, first and last position, what it undoes, the number of events by type.
type ChangeRow = (usize, i64, i64, Option<Uuid>, Value);

/// What a change is made of.
#[derive(Debug, Default, PartialEq)]
struct Change {
    tasks: BTreeSet<Uuid>,
    position: i64,
    last_position: i64,
    undoes: Option<Uuid>,
    types: BTreeMap<String, i64>,
}

fn changes(events: &[Event]) -> BTreeMap<(Uuid, Uuid), ChangeRow> {
    let mut changes: BTreeMap<(Uuid, Uuid), Change> = BTreeMap::new();
    for event in events {
        let change = changes.entry((event.owner, event.change)).or_default();
        if change.tasks.is_empty() {
            change.position = event.position;
        }
        change.tasks.insert(event.task);
        change.last_position = event.position;
        change.undoes = event.undoes;
        *change.types.entry(event.kind.clone()).or_default() += 1;
    }
    let row = |c: Change| (c.tasks.len(), c.position, c.last_position, c.undoes, json!(c.types));
    changes.into_iter().map(|(id, change)| (id, row(change))).collect()
}

async fn stored_changes(pool: &PgPool, generation: i32) -> BTreeMap<(Uuid, Uuid), ChangeRow> {
    let rows = sqlx::query(
        "select owner_id, change_id, tasks, position, last_position, undoes, types::text from read_model.change \
         where generation = $1",
    )
    .bind(generation)
    .fetch_all(pool)
    .await
    .expect("changes");
    let row = |row: &sqlx::postgres::PgRow| {
        let (tasks, types): (i32, String) = (row.get(2), row.get(6));
        let tasks = usize::try_from(tasks).expect("a number of tasks");
        let types = serde_json::from_str(&types).expect("types are JSON");
        ((row.get(0), row.get(1)), (tasks, row.get(3), row.get(4), row.get(5), types))
    };
    rows.iter().map(row).collect()
}

async fn stored_tasks(pool: &PgPool, generation: i32) -> Tasks {
    let rows = sqlx::query(
        "select owner_id, task_id, version, position, deleted, title, description, priority, status, tags, \
         due_at, created_at, updated_at, started_at, completed_at, rank from read_model.task where generation = $1",
    )
    .bind(generation)
    .fetch_all(pool)
    .await
    .expect("tasks");
    let live = |row: &sqlx::postgres::PgRow| Live {
        title: row.get(5),
        description: row.get(6),
        priority: row.get(7),
        status: row.get(8),
        tags: row.get::<Vec<String>, _>(9).into_iter().collect(),
        due_at: row.get(10),
        created_at: row.get(11),
        updated_at: row.get(12),
        started_at: row.get(13),
        completed_at: row.get(14),
        rank: row.get(15),
    };
    let task = |row: &sqlx::postgres::PgRow| Task {
        version: row.get(2),
        position: row.get(3),
        live: (!row.get::<bool, _>(4)).then(|| live(row)),
    };
    rows.iter().map(|row| ((row.get(0), row.get(1)), task(row))).collect()
}

async fn stored_counts(pool: &PgPool, generation: i32) -> BTreeMap<(Uuid, i16, i16), i64> {
    let rows: Vec<(Uuid, i16, i16, i64)> = sqlx::query_as(
        "select owner_id, status, priority, count from read_model.task_count where generation = $1 and count <> 0",
    )
    .bind(generation)
    .fetch_all(pool)
    .await
    .expect("counts");
    rows.into_iter().map(|(o, s, p, n)| ((o, s, p), n)).collect()
}

async fn stored_days(pool: &PgPool, generation: i32) -> BTreeMap<(Uuid, NaiveDate), (i64, i64)> {
    let rows: Vec<(Uuid, NaiveDate, i64, i64)> = sqlx::query_as(
        "select owner_id, day, created, completed from read_model.day_count \
         where generation = $1 and (created <> 0 or completed <> 0)",
    )
    .bind(generation)
    .fetch_all(pool)
    .await
    .expect("days");
    rows.into_iter().map(|(o, d, a, b)| ((o, d), (a, b))).collect()
}

async fn stored_revisions(pool: &PgPool, generation: i32) -> BTreeMap<Uuid, i64> {
    let rows: Vec<(Uuid, i64)> =
        sqlx::query_as("select owner_id, revision from read_model.owner where generation = $1")
            .bind(generation)
            .fetch_all(pool)
            .await
            .expect("revisions");
    rows.into_iter().collect()
}

async fn stored_history(pool: &PgPool, generation: i32) -> BTreeSet<(Uuid, Uuid, i64, i64, String)> {
    let rows: Vec<(Uuid, Uuid, i64, i64, String)> = sqlx::query_as(
        "select owner_id, task_id, version, position, type from read_model.history where generation = $1",
    )
    .bind(generation)
    .fetch_all(pool)
    .await
    .expect("history");
    rows.into_iter().collect()
}

/// Every row of the live generation as text, by table, to be compared row for row. Change counters are left out, for they
/// count transactions and a rebuild has others, as are counts of nothing.
pub async fn read_model_rows(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let tables = sqlx::query_scalar("select name from read_model.projected_table").fetch_all(pool);
    let tables: Vec<String> = tables.await.expect("the tables of a generation");
    let mut all = BTreeMap::new();
    for table in tables {
        let rows = format!(
            r#"
            select (r.row - 'generation' - 'change_counter')::text
            from (
                select to_jsonb(t) as row from read_model.{table} as t
                where generation = (select live_generation from read_model.projection)
            ) as r
            where not (r.row @> '{{"count": 0}}' or r.row @> '{{"created": 0, "completed": 0}}')
            order by 1
            "#
        );
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_all(pool).await.expect("rows");
        all.insert(table, rows);
    }
    all
}
