//! `GET /api/v1/tasks`: filters, sorts, pages.

mod column_cache;
mod column_rows;
pub(crate) mod columns;
mod first_page;
mod indexed_texts;
pub(crate) mod matcher;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod tag_sets;
pub(crate) mod task_set;

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use domain::{Priority, Status, Time};
use http_api::openapi::{Operation, one_of, reference, time};
use http_api::problem::ProblemCode;
use http_api::query::StrictQuery;
use process::clock;
use read_model::Task;
use read_model::search::{CHARACTERS_MAX, Query as SearchQuery, title_key};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use self::first_page::first;
use self::query::Page;
use self::request::{ListRequest, Parameters, Sort, SortBy, SortKey, SortPosition, relevance_key};
use self::task_set::TaskSet;
use crate::answer::{Content, Etag, Loaded};
use crate::as_of::AsOf;
use crate::asked::Asked;
use crate::described::{ANSWERED_PAGE, read};
use crate::error::ReadError;
use crate::page::{Pages, page_with_revision};
use crate::past::{self, Past, SEARCH_MS_MAX, SEARCHED_TASKS, Snapshot};
use crate::reads::{Query, ReadScope, Reads};
use crate::search;
use crate::sources::planned;
use crate::task_json;

pub(crate) use self::column_cache::ColumnCache;
pub(crate) use self::columns::{Columns, Facts};

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
    let sorts = SortBy::DIRECTED.iter().flat_map(|by| [by.as_str().to_owned(), format!("-{}", by.as_str())]);
    let sorts: Vec<_> = sorts.chain([SortBy::Relevance.as_str().to_owned()]).collect();
    let page = json!({"items": [task_json::example()], "next_cursor": null, "revision": 3});
    let read = read("listTasks", "List tasks")
        .says("A walk by `next_cursor` shows every task that matches and keeps its place throughout exactly once.");
    described_filters(read)
        .query(
            "sort",
            "`-` is descending; ties by id. No due date and no rank are last in both directions; titles are compared as a search does. `relevance` only with `q`.",
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
    page_with_revision("ListedTask")
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

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        if let Some(as_of) = self.request.as_of {
            return self.load_as_of(scope, as_of).await;
        }
        let (page, until) = self.page(scope, clock::now()).await?;
        let etag = until.map_or(Etag::OwnerVersion, Etag::OwnerVersionUntil);
        Ok(self.loaded(page, etag, scope))
    }
}

/// Has a session plan how pages are found without `q`, titles and ranks, and how those of owners with columns are read.
pub(crate) async fn plan_ahead(connection: &mut PgConnection, generation: i32) -> Result<(), ReadError> {
    for by in [SortBy::CreatedAt, SortBy::UpdatedAt, SortBy::Priority, SortBy::DueAt] {
        for descending in [false, true] {
            let request = ListRequest::first_page(Sort { by, descending });
            if by.is_indexed() {
                query::walk(&mut *connection, generation, Uuid::nil(), &request).await?;
            } else {
                query::pick(&mut *connection, generation, Uuid::nil(), &request).await?;
            }
        }
    }
    query::by_ids(connection, generation, Uuid::nil(), &[]).await?;
    Ok(())
}

impl ListQuery {
    /// The page as it was then: found as pages of owners with many tasks are.
    async fn load_as_of(&self, scope: ReadScope<'_>, as_of: AsOf) -> Result<Loaded, ReadError> {
        let request = &self.request;
        let (mut snapshot, held) = self.past.tasks_at(scope, as_of, request.sort.by.is_text()).await?;
        let search = request.filters.q.as_ref();
        let by_relevance = request.sort.by == SortBy::Relevance;
        let etag = held.as_ref().map_or(Etag::OwnerVersion, |held| held.etag(as_of));
        // The versions are let go of with this: whoever brings them up to date does not wait for the database.
        let ids = match (held, request.filters.at(as_of.at)) {
            (Some(held), Some(filters)) => {
                let tasks = held.tasks();
                let wanted = if search.is_some() { tasks.places_max() } else { usize::from(request.limit) + 1 };
                first(&tasks, &ListRequest { filters, ..request.clone() }, wanted)
            }
            _ => Vec::new(),
        };
        let began = Instant::now();
        let mut tasks = Vec::new();
        for ids in ids.chunks(SEARCHED_TASKS) {
            let found = past::tasks(&mut snapshot.transaction, scope, ids, as_of).await?;
            // The texts of then are in no index.
            let finds = |task: &Task| search.is_none_or(|query| query.relevance(&task.texts()).is_some());
            tasks.extend(found.into_iter().filter(finds));
            if tasks.len() > usize::from(request.limit) && !by_relevance {
                break;
            }
            if search.is_some() && began.elapsed() > Duration::from_millis(SEARCH_MS_MAX) {
                return Err(ReadError::SearchTooSlow);
            }
        }
        if by_relevance {
            let position = |task: &Task| (key(task, request), task.id);
            let after = request.after.as_ref().map(|after| (after.key.clone(), after.id));
            tasks.retain(|task| after.as_ref().is_none_or(|after| position(task) > *after));
            tasks.sort_by_cached_key(position);
            tasks.truncate(usize::from(request.limit) + 1);
        }
        let Snapshot { transaction, row, live_generation } = snapshot;
        transaction.commit().await?;
        Ok(self.loaded(Page { live_generation, row, total: 0, tasks }, etag, scope))
    }

    /// Finds the page in the quickest way that there is for it; all ways find the same one. Also when it changes by the clock
    /// alone, if it does.
    async fn page(&self, scope: ReadScope<'_>, now: Time) -> Result<(Page, Option<Time>), ReadError> {
        let Self { request, columns, .. } = self;
        let (pool, generation, owner) = (scope.pool(), scope.generation(), scope.owner);
        let overdue = request.filters.overdue;
        let Some(filters) = request.filters.at(now) else {
            // Whatever the clock says.
            return Ok((query::by_ids(pool, generation, owner, &[]).await?, None));
        };
        let request = &ListRequest { filters, ..request.clone() };
        let by_q = request.filters.q.is_some();
        // Which columns do not have.
        let by_text = request.sort.by.is_text();
        // Columns are of the nearest source.
        let by_columns =
            (!request.filters.is_empty() || !request.sort.by.is_indexed()) && !by_text && scope.is_nearest();
        let next_due = |columns: &Columns| if overdue { columns.next_due(now) } else { None };
        let find = |columns: &Columns| (columns.find(request), next_due(columns));
        if by_columns && let Some((page, next_due_at)) = columns.page(scope.shown, owner, by_q, find).await? {
            return Ok((page, next_due_at.map(overdue_from)));
        }
        let walked = walked(scope, request).await?;
        let passes_over_all = overdue || walked.is_none();
        let page = match walked {
            Some(page) => page,
            None => picked(scope, request).await?,
        };
        if passes_over_all && by_columns {
            columns.request(generation, owner, page.total, by_q);
        }
        if !overdue {
            return Ok((page, None));
        }
        let (row, next_due_at) = query::next_due(pool, generation, owner, now).await?;
        // Of another version than the page: the page is not kept.
        let until = if row == page.row { next_due_at.map(overdue_from) } else { Some(now) };
        Ok((page, until))
    }

    fn loaded(&self, page: Page, etag: Etag, scope: ReadScope<'_>) -> Loaded {
        let request = &self.request;
        let Page { live_generation, row, tasks, .. } = page;
        let pages = Pages { sealer: scope.sealer(), owner: scope.owner, binding: &request.binding };
        let key = |last: &Task| SortPosition { key: key(last, request), id: last.id }.to_bytes();
        let write = |out: &mut Vec<u8>, task: &Task| write(out, task, request.filters.q.as_ref());
        let (body, next) = pages.write(request.limit, tasks, key, write, Some(row.complete_until()));
        let link = next.map(|cursor| request.link(&cursor));
        Loaded { live_generation, row, content: Some(Content { body, etag, link }) }
    }
}

/// The page by a walk of the sort's index. `None`: there is none, or the walk ended before the page was full.
async fn walked(scope: ReadScope<'_>, request: &ListRequest) -> Result<Option<Page>, ReadError> {
    if request.filters.q.is_some() || !request.sort.by.is_indexed() {
        return Ok(None);
    }
    let page = query::walk(scope.pool(), scope.generation(), scope.owner, request).await?;
    Ok(is_whole(&page, request).then_some(page))
}

/// The page by a pass over all tasks of the owner, or over those that `q` finds.
async fn picked(scope: ReadScope<'_>, request: &ListRequest) -> Result<Page, ReadError> {
    let (pool, generation, owner) = (scope.pool(), scope.generation(), scope.owner);
    if request.filters.q.is_none() {
        let mut connection = pool.acquire().await?;
        return query::pick(&mut connection, generation, owner, request).await;
    }
    let mut transaction = planned(pool).await?;
    let page = query::pick(&mut transaction, generation, owner, request).await?;
    transaction.commit().await?;
    Ok(page)
}

/// Whether a walk has seen all that the page needs.
fn is_whole(page: &Page, request: &ListRequest) -> bool {
    request.filters.is_empty() || page.total <= query::WALK_TASKS_MAX || page.tasks.len() > usize::from(request.limit)
}

/// When a task that is due then counts as overdue.
fn overdue_from(due_at: Time) -> Time {
    due_at + TimeDelta::microseconds(1)
}

fn write(out: &mut Vec<u8>, task: &Task, q: Option<&SearchQuery>) {
    task_json::write(out, task);
    if let Some(query) = q {
        out.pop();
        out.extend_from_slice(b",\"matches\":");
        search::write_marks(out, query.marks(&task.texts()));
        out.push(b'}');
    }
}

fn key(task: &Task, request: &ListRequest) -> Option<SortKey> {
    let at = |time: Time| SortKey::Number(time.timestamp_micros());
    match request.sort.by {
        SortBy::CreatedAt => Some(at(task.created_at)),
        SortBy::UpdatedAt => Some(at(task.updated_at)),
        SortBy::Priority => Some(SortKey::Number(i64::from(task.priority.code()))),
        SortBy::DueAt => task.due_at.map(at),
        SortBy::Title => Some(SortKey::Text(title_key(&task.title))),
        SortBy::Rank => task.rank.clone().map(SortKey::Text),
        SortBy::Relevance => {
            let relevance = request.filters.q.as_ref()?.relevance(&task.texts())?;
            Some(SortKey::Number(relevance_key(relevance, task.created_at.timestamp_micros())))
        }
    }
}
