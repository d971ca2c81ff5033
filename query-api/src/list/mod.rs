//! `GET /api/v1/tasks`: filters, sorts, pages.

mod column_cache;
pub(crate) mod column_rows;
pub(crate) mod columns;
mod indexed_texts;
mod matcher;
pub(crate) mod query;
pub(crate) mod request;
mod tag_sets;

use std::time::{Duration, Instant};

use access::token::Sealer;
use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use domain::{OwnerId, Priority, Status, Time};
use http_api::openapi::{Operation, count, one_of, page_of, reference, time};
use http_api::problem::ProblemCode;
use http_api::query::StrictQuery;
use process::clock;
use read_model::Task;
use read_model::search::CHARACTERS_MAX;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use self::query::Page;
use self::request::{ListRequest, Parameters, Sort, SortBy, SortPosition, relevance_key};
use crate::answer::{Content, Etag, Loaded};
use crate::as_of::AsOf;
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::owner_version::VersionRow;
use crate::past::{self, Held, Past, SEARCH_MS_MAX, SEARCHED_TASKS, Snapshot};
use crate::reads::{Query, ReadSource, Reads};
use crate::search::{self, Search};
use crate::sources::planned;
use crate::task_json::{self, write_number, write_text};

pub(crate) use self::column_cache::ColumnCache;
pub(crate) use self::columns::{Columns, Facts};
pub(crate) use self::matcher::Misses;

pub(crate) async fn list(
    State(reads): State<Reads>,
    State(columns): State<ColumnCache>,
    State(past): State<Past>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let request = ListRequest::parse(parameters, asked.owner.id, reads.owner_versions().sealer(), clock::now())?;
    let version = reads.owner_version(asked.owner, asked.minimum).await?;
    if let Some(response) = asked.not_modified(&version) {
        return Ok(response);
    }
    let answer = reads.answer(asked.owner, version, &ListQuery { request, columns, past }).await?;
    Ok(asked.respond(&answer))
}

pub(crate) fn described() -> Operation {
    let sorts = SortBy::INDEXED.iter().flat_map(|by| [by.as_str().to_owned(), format!("-{}", by.as_str())]);
    let sorts: Vec<_> = sorts.chain([SortBy::Relevance.as_str().to_owned()]).collect();
    let page = json!({"items": [task_json::example()], "next_cursor": null, "revision": 3});
    let read = read("listTasks", "List tasks")
        .says("A walk by `next_cursor` shows every task that matches and keeps its place throughout exactly once.");
    described_filters(read)
        .query(
            "sort",
            "`-` is descending; ties by id. No due date is last in both directions. `relevance` only with `q`.",
            json!({"type": "string", "enum": sorts, "default": "-created_at"}),
        )
        .pages()
        .json(200, "A page of tasks.", &ANSWERED_PAGE, &reference("TaskPage"), &page)
}

/// The parameters that say which tasks are meant.
pub(crate) fn described_filters(read: Operation) -> Operation {
    read.query("status", "Any of these.", one_of(&Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>()))
        .query(
            "priority",
            "Any of these.",
            one_of(&Priority::ALL.iter().map(|priority| priority.as_str()).collect::<Vec<_>>()),
        )
        .query("tag", "Any of these, separated by commas.", json!({"type": "string", "minLength": 1}))
        .query("due_after", "Due from then on.", time())
        .query("due_before", "Due before then.", time())
        .query(
            "overdue",
            "Only what is pending or in progress and was due before now.",
            json!({"type": "string", "enum": ["true"]}),
        )
        .query(
            "q",
            "Terms that must all occur in title, description or tags, the last one as a prefix; `\"two words\"` is a phrase, `-word` must not occur. At most 16 terms.",
            json!({"type": "string", "maxLength": CHARACTERS_MAX}),
        )
        .query("as_of", "As it was then, that instant included; not in the future by more than a minute.", time())
        .refuses(&[ProblemCode::SearchTooSlow])
}

pub(crate) fn schema() -> Value {
    let mut page = page_of("ListedTask");
    page["properties"]["revision"] = count();
    page["properties"]["revision"]["description"] = "What the page shows at least; the stream resumes from it.".into();
    page["required"] = json!(["items", "next_cursor", "revision"]);
    page
}

/// A task, with `q` also where it was found.
pub(crate) fn item_schema() -> Value {
    let mut item = task_json::schema();
    item["properties"]["matches"] = search::schema();
    item
}

/// A list, and what may find it faster.
struct ListQuery {
    request: ListRequest,
    columns: ColumnCache,
    past: Past,
}

impl Query for ListQuery {
    fn key(&self) -> Vec<u8> {
        self.request.to_bytes()
    }

    async fn load(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
    ) -> Result<Loaded, ReadError> {
        if let Some(as_of) = self.request.as_of {
            return self.load_as_of(reads, source, owner, shown, as_of).await;
        }
        let now = clock::now();
        let page = self.page(reads, source, owner, shown, now).await?;
        let etag = if self.request.filters.overdue {
            let (row, next_due_at) = query::next_due(reads.pool(source), shown.generation, owner, now).await?;
            let next_overdue = next_due_at.map(|due_at| due_at + TimeDelta::microseconds(1));
            // Of another version than the page: the page is not kept.
            let until = if row == page.row { next_overdue } else { Some(now) };
            until.map_or(Etag::OwnerVersion, Etag::OwnerVersionUntil)
        } else {
            Etag::OwnerVersion
        };
        let (live_generation, row) = (page.live_generation, page.row);
        let content = content(page, etag, owner, &self.request, reads.owner_versions().sealer());
        Ok(Loaded { live_generation, row, content: Some(content) })
    }
}

/// Has a session plan the walks, and how pages of owners with columns are read.
pub(crate) async fn plan_ahead(connection: &mut PgConnection, generation: i32) -> Result<(), ReadError> {
    for by in SortBy::INDEXED {
        for descending in [false, true] {
            let request = ListRequest::first_page(Sort { by, descending });
            query::walk(&mut *connection, generation, Uuid::nil(), &request).await?;
        }
    }
    query::by_ids(connection, generation, Uuid::nil(), &[]).await?;
    Ok(())
}

impl ListQuery {
    /// The page as it was then: found as pages of owners with many tasks are.
    async fn load_as_of(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
        as_of: AsOf,
    ) -> Result<Loaded, ReadError> {
        let request = &self.request;
        let (mut snapshot, held) = self.past.tasks_at(reads, source, owner, shown, as_of).await?;
        let search = request.filters.q.as_ref();
        let by_relevance = request.sort.by == SortBy::Relevance;
        let ids = match (&held, request.filters.at(as_of.at)) {
            (Some(Held { tasks, .. }), Some(filters)) => {
                let wanted = if search.is_some() { tasks.len() } else { usize::from(request.limit) + 1 };
                tasks.first(&ListRequest { filters, ..request.clone() }, wanted)
            }
            _ => Vec::new(),
        };
        let etag = held.map_or(Etag::OwnerVersion, |held| held.etag(as_of));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for ids in ids.chunks(SEARCHED_TASKS) {
            let found = past::tasks(&mut snapshot.transaction, shown.generation, owner, ids, as_of).await?;
            // The texts of then are in no index.
            let finds = |task: &Task| search.is_none_or(|q| q.query.rank(&search::texts(task)).is_some());
            tasks.extend(found.into_iter().filter(finds));
            if tasks.len() > usize::from(request.limit) && !by_relevance {
                break;
            }
            if search.is_some() && began.elapsed() > Duration::from_millis(SEARCH_MS_MAX) {
                return Err(ReadError::SearchTooSlow);
            }
        }
        if by_relevance {
            let place = |task: &Task| (key(task, request), task.id);
            tasks.retain(|task| request.after.is_none_or(|after| place(task) > (after.key, after.id)));
            tasks.sort_by_cached_key(place);
            tasks.truncate(usize::from(request.limit) + 1);
        }
        let Snapshot { transaction, row, live_generation } = snapshot;
        transaction.commit().await?;
        let page = Page { live_generation, row, total: 0, tasks };
        let content = content(page, etag, owner, &self.request, reads.owner_versions().sealer());
        Ok(Loaded { live_generation, row, content: Some(content) })
    }

    /// Finds the page in the quickest way that there is for it; all ways find the same one.
    async fn page(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
        now: Time,
    ) -> Result<Page, ReadError> {
        let Self { request, columns, .. } = self;
        let pool = reads.pool(source);
        let Some(filters) = request.filters.at(now) else {
            return query::by_ids(pool, shown.generation, owner, &[]).await;
        };
        let request = &ListRequest { filters, ..request.clone() };
        let by_q = request.filters.q.is_some();
        // Columns are of the nearest source.
        let by_columns = !request.filters.is_empty() && reads.is_nearest(source);
        let find = |columns: &Columns| (columns.find(request), ());
        if by_columns && let Some((page, ())) = columns.page(shown, owner, by_q, find).await? {
            return Ok(page);
        }
        if !by_q {
            let page = query::walk(pool, shown.generation, owner, request).await?;
            if is_whole(&page, request) {
                return Ok(page);
            }
            if by_columns {
                columns.request(shown.generation, owner, page.total, false);
            }
        }
        let mut transaction = planned(pool).await?;
        let page = query::pick(&mut transaction, shown.generation, owner, request).await?;
        transaction.commit().await?;
        if by_q && by_columns {
            columns.request(shown.generation, owner, page.total, true);
        }
        Ok(page)
    }
}

/// Whether a walk has seen all that the page needs.
fn is_whole(page: &Page, request: &ListRequest) -> bool {
    if request.filters.is_empty() || page.total <= query::WALK_TASKS_MAX {
        return true;
    }
    // The walk of due dates may have been cut off before the tasks without one, which stand behind it.
    let undated_first = request.after.is_some_and(|after| after.key.is_none());
    let in_order =
        request.sort.by != SortBy::DueAt || undated_first || page.tasks.iter().all(|task| task.due_at.is_some());
    in_order && page.tasks.len() > usize::from(request.limit)
}

fn content(mut page: Page, etag: Etag, owner: Uuid, request: &ListRequest, sealer: &Sealer) -> Content {
    let limit = usize::from(request.limit);
    let more = page.tasks.len() > limit;
    page.tasks.truncate(limit);
    let next = page.tasks.last().filter(|_| more).map(|last| {
        let place = SortPosition { key: key(last, request), id: last.id };
        sealer.seal_cursor(OwnerId(owner), &request.binding, &place.to_bytes())
    });
    let mut body = Vec::with_capacity(100 + 450 * page.tasks.len());
    body.extend_from_slice(b"{\"items\":[");
    for (n, task) in page.tasks.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        task_json::write(&mut body, task);
        if let Some(Search { query, .. }) = &request.filters.q {
            body.pop();
            body.extend_from_slice(b",\"matches\":");
            search::write_marks(&mut body, query.marks(&search::texts(task)));
            body.push(b'}');
        }
    }
    body.extend_from_slice(b"],\"next_cursor\":");
    match &next {
        Some(cursor) => write_text(&mut body, cursor),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(b",\"revision\":");
    write_number(&mut body, page.row.complete_until());
    body.push(b'}');
    Content { body: body.into(), etag, link: next.map(|cursor| request.link(&cursor)) }
}

fn key(task: &Task, request: &ListRequest) -> Option<i64> {
    match request.sort.by {
        SortBy::CreatedAt => Some(task.created_at.timestamp_micros()),
        SortBy::UpdatedAt => Some(task.updated_at.timestamp_micros()),
        SortBy::Priority => Some(i64::from(task.priority.code())),
        SortBy::DueAt => task.due_at.map(|time| time.timestamp_micros()),
        SortBy::Relevance => {
            let rank = request.filters.q.as_ref()?.query.rank(&search::texts(task))?;
            Some(relevance_key(rank, task.created_at.timestamp_micros()))
        }
    }
}
