//! `q`: which tasks of an owner match it.

use futures_util::TryStreamExt;
use read_model::search::{Mark, Query, Relevance, Texts};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::ReadError;
use crate::task_json::{write_list, write_number};

/// The tasks that match, and how well: the same index is the same task.
#[derive(Default)]
pub(crate) struct Matches {
    pub ids: Vec<Uuid>,
    /// By their [codes](Relevance::code).
    pub relevances: Vec<i16>,
    /// How many tasks the owner has.
    pub of_tasks: i64,
}

/// All tasks of the owner that match, in no order. The transaction must let the planner choose
/// ([`crate::sources::planned`]).
///
/// Lexemes tell which can match; where they do not decide, the texts do. A generation that was made before there were
/// lexemes has texts alone.
pub(crate) async fn matches(
    connection: &mut PgConnection,
    generation: i32,
    owner: Uuid,
    query: &Query,
) -> Result<Matches, ReadError> {
    if query.is_empty() {
        return Ok(Matches::default());
    }
    let kept = sqlx::query!(
        r#"select complete_from <= $1 as "has_lexemes!",
               (select sum(count)::bigint from read_model.task_count where generation = $1 and owner_id = $2) as tasks
           from read_model.projected_table where name = 'search'"#,
        generation,
        owner
    )
    .fetch_one(&mut *connection)
    .await?;
    let found = match query.tsquery(Relevance::WEAKEST).filter(|_| kept.has_lexemes) {
        Some(tsquery) if query.is_exact() => by_lexemes(connection, generation, owner, query, &tsquery).await?,
        tsquery => by_texts(connection, generation, owner, query, tsquery).await?,
    };
    Ok(Matches { of_tasks: kept.tasks.unwrap_or(0), ..found })
}

async fn by_lexemes(
    connection: &mut PgConnection,
    generation: i32,
    owner: Uuid,
    query: &Query,
    tsquery: &str,
) -> Result<Matches, ReadError> {
    let by_relevance: Vec<String> = Relevance::ALL.iter().filter_map(|weakest| query.tsquery(*weakest)).collect();
    let found = sqlx::query!(
        r#"select array_agg(task_id) as "ids?: Vec<Uuid>", array_agg(relevance) as "relevances?: Vec<i16>" from (
               select task_id, (case when lexemes @@ $4::text::tsquery then 0 when lexemes @@ $5::text::tsquery then 1
                   when lexemes @@ $6::text::tsquery then 2 when lexemes @@ $7::text::tsquery then 3
                   when lexemes @@ $8::text::tsquery then 4 else 5 end)::smallint as relevance
               from read_model.search
               where generation = $1 and owner_id = $2 and lexemes @@ $3::text::tsquery) s"#,
        generation,
        owner,
        tsquery,
        by_relevance.first(),
        by_relevance.get(1),
        by_relevance.get(2),
        by_relevance.get(3),
        by_relevance.get(4)
    )
    .fetch_one(connection)
    .await?;
    Ok(Matches { ids: found.ids.unwrap_or_default(), relevances: found.relevances.unwrap_or_default(), of_tasks: 0 })
}

/// Holds all tasks against their texts, or those that can match by their lexemes.
async fn by_texts(
    connection: &mut PgConnection,
    generation: i32,
    owner: Uuid,
    query: &Query,
    tsquery: Option<String>,
) -> Result<Matches, ReadError> {
    let mut matches = Matches::default();
    let mut add = |id, title: &str, tags: &[String], description: Option<&str>| {
        if let Some(relevance) = query.relevance(&Texts::of(title, tags.iter().map(String::as_str), description)) {
            matches.ids.push(id);
            matches.relevances.push(relevance.code().into());
        }
    };
    match tsquery {
        Some(tsquery) => {
            let mut candidates = sqlx::query!(
                "select t.task_id, t.title, t.tags, t.description
                 from read_model.search s
                 cross join lateral (select * from read_model.task t
                     where t.generation = $1 and t.owner_id = $2 and t.task_id = s.task_id limit 1) t
                 where s.generation = $1 and s.owner_id = $2 and s.lexemes @@ $3::text::tsquery and not t.deleted",
                generation,
                owner,
                tsquery
            )
            .fetch(connection);
            while let Some(task) = candidates.try_next().await? {
                add(task.task_id, &task.title, &task.tags, task.description.as_deref());
            }
        }
        None => {
            let mut tasks = sqlx::query!(
                "select task_id, title, tags, description from read_model.task
                 where generation = $1 and owner_id = $2 and not deleted",
                generation,
                owner
            )
            .fetch(connection);
            while let Some(task) = tasks.try_next().await? {
                add(task.task_id, &task.title, &task.tags, task.description.as_deref());
            }
        }
    }
    Ok(matches)
}

/// What `matches` of an item is, in JSON.
pub(crate) fn schema() -> Value {
    json!({
        "type": "array", "maxItems": 20,
        "description": "Where the terms were found, with `q`: the code points from `from` up to `to`.",
        "items": {
            "type": "object",
            "properties": {
                "field": {"type": "string", "enum": ["title", "description"]},
                "from": {"type": "integer", "minimum": 0},
                "to": {"type": "integer", "minimum": 1},
            },
            "required": ["field", "from", "to"],
            "additionalProperties": false,
        },
    })
}

/// Appends marks as the JSON of `matches`.
pub(crate) fn write_marks(out: &mut Vec<u8>, marks: impl IntoIterator<Item = Mark>) {
    write_list(out, marks, |out, Mark { field, from, to }| {
        out.extend_from_slice(b"{\"field\":\"");
        out.extend_from_slice(field.as_str().as_bytes());
        out.extend_from_slice(b"\",\"from\":");
        write_number(out, i64::try_from(from).unwrap_or(i64::MAX));
        out.extend_from_slice(b",\"to\":");
        write_number(out, i64::try_from(to).unwrap_or(i64::MAX));
        out.push(b'}');
    });
}
