//! `GET /api/v1/tasks/suggest`: the tasks and tags that somebody who is typing `q` may mean.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use http_api::openapi::{EXAMPLE_ID, Operation, count, reference, whole};
use http_api::problem::ProblemCode;
use http_api::query::StrictQuery;
use read_model::Task;
use read_model::search::{CHARACTERS_MAX, Query as SearchQuery, Texts};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::list::query::{self, Page};
use crate::list::request::ListRequest;
use crate::list::task_set::TaskSet;
use crate::list::{ColumnCache, Columns};
use crate::reads::{Query, ReadScope, ReadSource, Reads};
use crate::search::{self, write_marks};
use crate::sources::planned;
use crate::task_json::{self, write_list, write_number, write_tag_count, write_text};

/// Of each list, in an answer.
const LIMIT_MAX: u16 = 20;
const LIMIT_DEFAULT: u16 = 8;
/// How long the texts of an owner are waited for: at a replica much less than after what it counts as away.
const TEXTS_MS_MAX: u64 = 5_000;
const REPLICA_TEXTS_MS_MAX: u64 = 200;

/// The query string.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    q: Option<String>,
    limit: Option<String>,
}

pub(crate) async fn suggest(
    State(reads): State<Reads>,
    State(columns): State<ColumnCache>,
    asked: Asked,
    StrictQuery(Parameters { q, limit }): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let q = q.filter(|q| !q.is_empty()).ok_or_else(|| ReadError::parameter("q", "must be given"))?;
    let query = SearchQuery::parse(&q).map_err(|error| ReadError::parameter("q", error))?;
    let limit = limit.as_deref().map_or(Ok(LIMIT_DEFAULT), parse_limit)?;
    asked.answer(&reads, &SuggestQuery { query, limit, columns }).await
}

fn parse_limit(text: &str) -> Result<u16, ReadError> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit) && !text.starts_with('+'));
    limit.ok_or_else(|| ReadError::parameter("limit", format_args!("must be a number from 1 to {LIMIT_MAX}")))
}

pub(crate) fn described() -> Operation {
    let suggestions = json!({
        "tasks": [{
            "id": EXAMPLE_ID, "title": "Ring Zoë", "status": "pending",
            "matches": [{"field": "title", "from": 5, "to": 8}],
        }],
        "tags": [{"tag": "zoo", "count": 2}],
        "revision": 3,
    });
    read("suggestTasks", "Suggest tasks and tags")
        .says(
            "Tasks in the order of relevance, and tags that match by themselves, those of most tasks first. A term of five letters \
             or more that no task has may have one letter missing, more or other, or two neighbours swapped; in tasks only.",
        )
        .query("q", "As of a list.", json!({"type": "string", "minLength": 1, "maxLength": CHARACTERS_MAX}))
        .query(
            "limit",
            "Of each list.",
            json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
        )
        .json(200, "The suggestions.", &ANSWERED, &reference("Suggestions"), &suggestions)
        .refuses(&[ProblemCode::SearchTooSlow])
}

pub(crate) fn schema() -> Value {
    let of_task = task_json::schema();
    let of_task = |member: &str| of_task["properties"][member].clone();
    let task = whole(json!({
        "id": of_task("id"), "title": of_task("title"), "status": of_task("status"), "matches": search::schema(),
    }));
    let tag = whole(json!({"tag": {"type": "string"}, "count": count()}));
    whole(json!({
        "tasks": {"type": "array", "maxItems": LIMIT_MAX, "items": task},
        "tags": {"type": "array", "maxItems": LIMIT_MAX, "items": tag},
        "revision": count(),
    }))
}

/// Suggestions, and what may find them faster.
struct SuggestQuery {
    query: SearchQuery,
    limit: u16,
    columns: ColumnCache,
}

impl Query for SuggestQuery {
    fn key(&self) -> Vec<u8> {
        [&b"G"[..], &self.request(self.query.clone()).to_bytes()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        // Columns are of the nearest source.
        if !scope.is_nearest() {
            return Ok(self.by_tables(scope).await?.loaded(self.limit));
        }
        if let Some(found) = self.by_columns(scope).await? {
            return Ok(found.loaded(self.limit));
        }
        let ReadScope { source, owner, .. } = scope;
        let mut found = self.by_tables(scope).await?;
        let of_tasks = found.page.total;
        if of_tasks == 0 {
            return Ok(found.loaded(self.limit));
        }
        if found.page.tasks.is_empty() && self.query.may_have_mistakes() {
            // Only texts in memory tell what is similar.
            let wait_ms_max = if source == ReadSource::Replica { REPLICA_TEXTS_MS_MAX } else { TEXTS_MS_MAX };
            if !self.columns.texts(scope.generation(), owner, of_tasks, wait_ms_max).await {
                return Err(ReadError::SearchTooSlow);
            }
            found = self.by_columns(scope).await?.unwrap_or(found);
        } else {
            self.columns.request_texts(scope.generation(), owner, of_tasks);
        }
        Ok(found.loaded(self.limit))
    }
}

impl SuggestQuery {
    fn request(&self, query: SearchQuery) -> ListRequest {
        ListRequest::most_relevant(query, self.limit)
    }

    /// From columns, if the owner has some with texts.
    async fn by_columns(&self, scope: ReadScope<'_>) -> Result<Option<Found>, ReadError> {
        let look = |columns: &Columns| {
            let query = columns.tolerating(&self.query);
            let mut tags = TagCounts::new(&self.query);
            tags.add(columns);
            (columns.find(&self.request(query.clone())), (query, tags.most_frequent(self.limit)))
        };
        let found = self.columns.page(scope.shown, scope.owner, true, look).await?;
        Ok(found.map(|(page, (query, tags))| Found { page, query, tags }))
    }

    /// From the database, without mistakes.
    async fn by_tables(&self, scope: ReadScope<'_>) -> Result<Found, ReadError> {
        let (generation, owner) = (scope.generation(), scope.owner);
        let query = self.query.clone();
        let mut transaction = planned(scope.pool()).await?;
        let page = query::pick(&mut transaction, generation, owner, &self.request(query.clone())).await?;
        let mut tags = TagCounts::new(&query);
        Columns::read_in_parts(&mut transaction, generation, owner, None, |part| tags.add(part)).await?;
        transaction.commit().await?;
        let tags = tags.most_frequent(self.limit);
        Ok(Found { page, query, tags })
    }
}

/// Tags that match, and how many tasks have them.
struct TagCounts<'q> {
    query: &'q SearchQuery,
    counts: HashMap<String, i64>,
}

impl<'q> TagCounts<'q> {
    fn new(query: &'q SearchQuery) -> Self {
        Self { query, counts: HashMap::new() }
    }

    fn add(&mut self, columns: &Columns) {
        let sets = columns.sets();
        let mut by_set = vec![0; sets.sets.len()];
        columns.places().for_each(|at| by_set[columns.tag_set(at) as usize] += 1);
        let matching = columns.matching_tags(self.query);
        for ((tag, count), _) in sets.count_tags(&by_set).zip(matching).filter(|((_, count), is)| *is && *count > 0) {
            *self.counts.entry(tag.to_owned()).or_default() += count;
        }
    }

    /// The first of them; ties by name.
    fn most_frequent(self, limit: u16) -> Vec<(String, i64)> {
        let mut tags: Vec<(String, i64)> = self.counts.into_iter().collect();
        tags.sort_unstable_by(|(tag, count), (next, next_count)| (next_count, tag).cmp(&(count, next)));
        tags.truncate(limit.into());
        tags
    }
}

/// Suggestions, from one snapshot.
struct Found {
    page: Page,
    /// What found the tasks: `q`, or what is similar to it.
    query: SearchQuery,
    tags: Vec<(String, i64)>,
}

impl Found {
    fn loaded(self, limit: u16) -> Loaded {
        let Page { live_generation, row, ref tasks, .. } = self.page;
        let mut body = Vec::with_capacity(2_000);
        body.extend_from_slice(b"{\"tasks\":");
        write_list(&mut body, tasks.iter().take(limit.into()), |out, task| write_task(out, task, &self.query));
        body.extend_from_slice(b",\"tags\":");
        write_list(&mut body, &self.tags, |out, (tag, count)| write_tag_count(out, tag, *count));
        body.extend_from_slice(b",\"revision\":");
        write_number(&mut body, row.complete_until());
        body.push(b'}');
        let content = Content { body: body.into(), etag: Etag::OwnerVersion, link: None };
        Loaded { live_generation, row, content: Some(content) }
    }
}

fn write_task(out: &mut Vec<u8>, task: &Task, query: &SearchQuery) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(task.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.extend_from_slice(b"\",\"title\":");
    write_text(out, &task.title);
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(task.status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"matches\":");
    // In what is shown.
    write_marks(out, query.marks(&Texts::of(&task.title, [], None)));
    out.push(b'}');
}
