//! `GET /api/v1/changes`, `GET /api/v1/changes/{id}`: what requests did, the latest first, and what undid it.

use axum::extract::State;
use axum::response::Response;
use domain::{Time, standing_undos};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, Operation, count, reference, time, whole};
use http_api::page::Limit;
use http_api::problem::ProblemCode;
use http_api::query::{NoQuery, PathId, StrictQuery};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED, ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::history::{actor_schema, write_actor};
use crate::owner_version::{VersionRow, version_row};
use crate::page::{Pages, page_with_revision};
use crate::reads::{Query, ReadScope, Reads};
use crate::task_json::{write_id, write_number, write_time};

/// The query string of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    task_id: Option<Uuid>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<String>,
}

/// A page of changes.
struct ChangesRequest {
    /// Only those that touched this task.
    task_id: Option<Uuid>,
    limit: u16,
    /// Changes whose first event is before this position.
    before: i64,
}

/// One change.
struct ChangeRequest(Uuid);

/// What a cursor is bound to.
fn binding(task_id: Option<Uuid>) -> Vec<u8> {
    [&b"c"[..], task_id.as_ref().map_or(&[][..], |id| id.as_bytes())].concat()
}

pub(crate) async fn changes(
    State(reads): State<Reads>,
    asked: Asked,
    StrictQuery(Parameters { task_id, limit, cursor }): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let pages = Pages { sealer: reads.owner_versions().sealer(), owner: asked.owner.id, binding: &binding(task_id) };
    let before = pages.begins_behind(cursor.as_deref(), |key| Some(i64::from_be_bytes(key.try_into().ok()?)))?;
    let request = ChangesRequest { task_id, limit: limit.get(), before: before.unwrap_or(i64::MAX) };
    asked.answer(&reads, &request).await
}

pub(crate) async fn change(
    State(reads): State<Reads>,
    asked: Asked,
    PathId(id): PathId,
    _: NoQuery,
) -> Result<Response, ReadError> {
    asked.answer(&reads, &ChangeRequest(id)).await
}

pub(crate) fn described_list() -> Operation {
    read("listChanges", "List what requests did, the latest first")
        .says("By the position of their first event. Each can be undone.")
        .query("task_id", "Only changes that touched this task.", json!({"type": "string", "format": "uuid"}))
        .pages()
        .json(
            200,
            "A page of changes.",
            &ANSWERED_PAGE,
            &reference("ChangePage"),
            &json!({"items": [example()], "next_cursor": null, "revision": 3}),
        )
}

pub(crate) fn described() -> Operation {
    read("showChange", "Show what a request did")
        .path_id("The change's id.")
        .json(200, "The change.", &ANSWERED, &reference("Change"), &example())
        .refuses(&[ProblemCode::NotFound])
}

fn example() -> Value {
    json!({
        "id": EXAMPLE_ID, "occurred_at": EXAMPLE_TIME, "recorded_at": EXAMPLE_TIME,
        "actor": {"type": "user", "id": EXAMPLE_ID}, "types": {"TaskCompleted": 2}, "tasks": 2, "events": 2,
        "undoes": null, "undone_by": null,
    })
}

pub(crate) fn schema() -> Value {
    page_with_revision("Change")
}

pub(crate) fn item_schema() -> Value {
    whole(json!({
        "id": {"type": "string", "format": "uuid"},
        "occurred_at": time(),
        "recorded_at": time(),
        "actor": actor_schema(),
        "types": {
            "type": "object", "additionalProperties": {"type": "integer", "minimum": 1},
            "description": "The number of its events by type.",
        },
        "tasks": count(),
        "events": count(),
        "undoes": {"type": ["string", "null"], "format": "uuid", "description": "The change that it undoes."},
        "undone_by": {"type": ["string", "null"], "format": "uuid", "description": "The latest undo that stands."},
    }))
}

impl Query for ChangesRequest {
    fn key(&self) -> Vec<u8> {
        [&b"C"[..], &self.limit.to_be_bytes(), &self.before.to_be_bytes(), &binding(self.task_id)].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        let which = Which { task_id: self.task_id, change_id: None, before: self.before, limit: self.limit };
        let Found { live_generation, row, changes } = load(scope, which).await?;
        let pages = Pages { sealer: scope.sealer(), owner: scope.owner, binding: &binding(self.task_id) };
        let key = |last: &Change| last.position.to_be_bytes();
        let write = |out: &mut Vec<u8>, change: &Change| change.write(out);
        let (body, next) = pages.write(self.limit, changes, key, write, Some(row.complete_until()));
        let task = self.task_id.map(|id| format!("task_id={id}&")).unwrap_or_default();
        let link = next.map(|cursor| format!("/api/v1/changes?{task}limit={}&cursor={cursor}", self.limit));
        Ok(Loaded { live_generation, row, content: Some(Content { body, etag: Etag::OwnerVersion, link }) })
    }
}

impl Query for ChangeRequest {
    fn key(&self) -> Vec<u8> {
        [&b"D"[..], self.0.as_bytes()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        let which = Which { task_id: None, change_id: Some(self.0), before: i64::MAX, limit: 1 };
        let Found { live_generation, row, changes } = load(scope, which).await?;
        let content = changes.first().map(|change| {
            let mut body = Vec::with_capacity(400);
            change.write(&mut body);
            Content { body: body.into(), etag: Etag::OwnerVersion, link: None }
        });
        Ok(Loaded { live_generation, row, content })
    }
}

/// Which changes: at most `limit + 1`.
struct Which {
    task_id: Option<Uuid>,
    change_id: Option<Uuid>,
    before: i64,
    limit: u16,
}

struct Found {
    live_generation: i32,
    row: VersionRow,
    /// The latest first.
    changes: Vec<Change>,
}

/// A change, as it is shown.
struct Change {
    id: Uuid,
    /// Of its first event.
    position: i64,
    occurred_at: Time,
    recorded_at: Time,
    actor_type: String,
    actor_id: Option<Uuid>,
    /// JSON
    types: String,
    tasks: i32,
    events: i64,
    undoes: Option<Uuid>,
    undone_by: Option<Uuid>,
}

async fn load(scope: ReadScope<'_>, which: Which) -> Result<Found, ReadError> {
    let (generation, owner) = (scope.generation(), scope.owner);
    let mut transaction = scope.pool().begin_snapshot().await?;
    let rows = sqlx::query!(
        r#"with found as (
               (select c.change_id from read_model.change c
                where $3::uuid is null and $4::uuid is null and c.generation = $1 and c.owner_id = $2 and c.position < $5
                order by c.position desc limit $6)
               union all
               (select c.change_id
                from (select distinct h.change_id from read_model.history h
                      where h.generation = $1 and h.owner_id = $2 and h.task_id = $3) t
                join read_model.change c on c.generation = $1 and c.owner_id = $2 and c.change_id = t.change_id
                where c.position < $5
                order by c.position desc limit $6)
               union all
               select $4 where $4 is not null
           )
           select p.log_id, p.live_generation, t.complete_from <= $1 as "is_complete!", o.shard as "shard?",
               o.revision as "revision?", o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               c.change_id as "change_id?", c.position as "position?", h.occurred_at as "occurred_at?",
               h.recorded_at as "recorded_at?", h.actor_type as "actor_type?", h.actor_id as "actor_id?",
               c.types::text as "types?", c.events as "events?", c.tasks as "tasks?", c.undoes as "undoes?"
           from read_model.projection p
           join read_model.projected_table t on t.name = 'change'
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           left join lateral (
               select c.*, (select sum(value::bigint)::bigint from jsonb_each_text(c.types)) as events
               from found join read_model.change c
                   on c.generation = $1 and c.owner_id = $2 and c.change_id = found.change_id
           ) c on true
           left join read_model.history h on h.generation = $1 and h.owner_id = $2 and h.position = c.last_position
           order by c.position desc"#,
        generation,
        owner,
        which.task_id,
        which.change_id,
        which.before,
        i64::from(which.limit) + 1,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let first = rows.first().ok_or(ReadError::Unavailable)?;
    let row = version_row!(first, generation: generation);
    let live_generation = first.live_generation;
    if live_generation == generation && !first.is_complete {
        tracing::error!(generation, "changes need a rebuild of the read models: primetrade rebuild");
        return Err(ReadError::Unavailable);
    }
    let changes = rows.into_iter().filter_map(|row| {
        Some(Change {
            id: row.change_id?,
            position: row.position?,
            occurred_at: row.occurred_at?,
            recorded_at: row.recorded_at?,
            actor_type: row.actor_type?,
            actor_id: row.actor_id,
            types: row.types?,
            tasks: row.tasks?,
            events: row.events?,
            undoes: row.undoes,
            undone_by: None,
        })
    });
    let mut changes: Vec<Change> = changes.collect();
    let ids: Vec<Uuid> = changes.iter().map(|change| change.id).collect();
    let undos = sqlx::query!(
        r#"with recursive undo as (
               select change_id, undoes, position from read_model.change
               where generation = $1 and owner_id = $2 and undoes = any ($3)
               union
               select c.change_id, c.undoes, c.position
               from undo join read_model.change c on c.generation = $1 and c.owner_id = $2 and c.undoes = undo.change_id
           )
           select change_id as "change_id!", undoes as "undoes!" from undo order by position desc"#,
        generation,
        owner,
        &ids,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let undone_by = standing_undos(undos.iter().map(|undo| (undo.change_id, undo.undoes)));
    for change in &mut changes {
        change.undone_by = undone_by.get(&change.id).copied();
    }
    Ok(Found { live_generation, row, changes })
}

impl Change {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_id(out, Some(self.id));
        out.extend_from_slice(b",\"occurred_at\":");
        write_time(out, Some(self.occurred_at));
        out.extend_from_slice(b",\"recorded_at\":");
        write_time(out, Some(self.recorded_at));
        out.extend_from_slice(b",\"actor\":");
        write_actor(out, &self.actor_type, self.actor_id);
        out.extend_from_slice(b",\"types\":");
        // JSON already, made by the projector.
        out.extend_from_slice(self.types.as_bytes());
        out.extend_from_slice(b",\"tasks\":");
        write_number(out, self.tasks.into());
        out.extend_from_slice(b",\"events\":");
        write_number(out, self.events);
        out.extend_from_slice(b",\"undoes\":");
        write_id(out, self.undoes);
        out.extend_from_slice(b",\"undone_by\":");
        write_id(out, self.undone_by);
        out.push(b'}');
    }
}
