//! `GET /api/v1/tasks/facets`: how many tasks match the filters of a list, and how many would under another choice of one
//! of them.

mod tally;

use axum::extract::State;
use axum::response::Response;
use domain::{Priority, Status};
use http_api::openapi::{Operation, count, reference, whole};
use http_api::query::StrictQuery;
use process::clock;
use serde::Deserialize;
use serde_json::{Value, json};

use self::tally::{DUE, TAGS_MAX, Tally};
use crate::answer::{Content, Etag, Loaded};
use crate::as_of::AsOf;
use crate::asked::Asked;
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::list::request::{self, ListRequest};
use crate::list::{ColumnCache, Columns, described_filters};
use crate::past::{self, Past, Snapshot};
use crate::reads::{Query, ReadScope, Reads};

/// The query string of facets: the filters of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    status: Option<String>,
    priority: Option<String>,
    tag: Option<String>,
    due_after: Option<String>,
    due_before: Option<String>,
    overdue: Option<String>,
    q: Option<String>,
    as_of: Option<String>,
}

impl From<Parameters> for request::Parameters {
    fn from(parameters: Parameters) -> Self {
        let Parameters { status, priority, tag, due_after, due_before, overdue, q, as_of } = parameters;
        Self { status, priority, tag, due_after, due_before, overdue, q, as_of, ..Self::default() }
    }
}

pub(crate) async fn facets(
    State(reads): State<Reads>,
    State(columns): State<ColumnCache>,
    State(past): State<Past>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let sealer = reads.owner_versions().sealer();
    let request = ListRequest::parse(parameters.into(), asked.owner.id, sealer, clock::now())?;
    asked.answer(&reads, &FacetsQuery { request, columns, past }).await
}

pub(crate) fn described() -> Operation {
    let facets = json!({
        "total": 1,
        "by_status": {"pending": 1, "in_progress": 0, "completed": 0, "cancelled": 0},
        "by_priority": {"low": 0, "medium": 1, "high": 0, "urgent": 0},
        "by_tag": [{"tag": "home", "count": 1}],
        "by_due": {"overdue": 0, "next_24_hours": 1, "later": 0, "none": 0},
        "revision": 3,
    });
    let read = read("showFacets", "Count tasks that match filters").says(
        "Each facet counts under all filters but its own; `by_due`, of what is pending or in progress, without `due_after`, \
         `due_before` and `overdue`. `by_tag` has the most frequent tags first, ties by name.",
    );
    described_filters(read).json(200, "The counts.", &ANSWERED, &reference("Facets"), &facets)
}

pub(crate) fn schema() -> Value {
    whole(json!({
        "total": count(),
        "by_status": counts_by(Status::ALL.iter().map(|status| status.as_str())),
        "by_priority": counts_by(Priority::ALL.iter().map(|priority| priority.as_str())),
        "by_tag": {
            "type": "array", "maxItems": TAGS_MAX, "items": whole(json!({"tag": {"type": "string"}, "count": count()})),
        },
        "by_due": counts_by(DUE.into_iter()),
        "revision": count(),
    }))
}

fn counts_by(names: impl Iterator<Item = &'static str>) -> Value {
    whole(Value::Object(names.map(|name| (name.to_owned(), count())).collect()))
}

/// Facets, and what may find them faster.
struct FacetsQuery {
    request: ListRequest,
    columns: ColumnCache,
    past: Past,
}

impl Query for FacetsQuery {
    fn key(&self) -> Vec<u8> {
        [&b"F"[..], &self.request.to_bytes()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        if let Some(as_of) = self.request.as_of {
            return self.load_as_of(scope, as_of).await;
        }
        let filters = &self.request.filters;
        let mut tally = Tally::new(filters, clock::now());
        let add = |columns: &Columns| tally.add(columns);
        let (live_generation, row) = self.columns.count(scope, filters.q.as_ref(), add).await?;
        let etag = tally.changes_at().map_or(Etag::OwnerVersion, Etag::OwnerVersionUntil);
        let body = tally.to_json(row.complete_until()).into();
        Ok(Loaded { live_generation, row, content: Some(Content { body, etag, link: None }) })
    }
}

impl FacetsQuery {
    async fn load_as_of(&self, scope: ReadScope<'_>, as_of: AsOf) -> Result<Loaded, ReadError> {
        let filters = &self.request.filters;
        let mut tally = Tally::new(filters, as_of.at);
        let (mut snapshot, held) = self.past.tasks_at(scope, as_of, false).await?;
        let mut etag = Etag::OwnerVersion;
        if let Some(held) = held {
            etag = held.etag(as_of);
            match &filters.q {
                None => tally.add(&held.tasks()),
                Some(query) => {
                    let found = past::search(&mut snapshot.transaction, scope, held, as_of, query).await?;
                    tally.add(&found.tasks());
                }
            }
        }
        let Snapshot { transaction, row, live_generation } = snapshot;
        transaction.commit().await?;
        let body = tally.to_json(row.complete_until()).into();
        Ok(Loaded { live_generation, row, content: Some(Content { body, etag, link: None }) })
    }
}
