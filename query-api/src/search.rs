//! `q`: which tasks of an owner match it.

use futures_util::TryStreamExt;
use read_model::Task;
use read_model::search::{Field, Mark, Query, Rank, Texts};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::ReadError;
use crate::task_json::write_number;

/// A `q`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Search {
    /// As it was sent.
    pub text: String,
    /// What it asks for.
    pub query: Query,
}

/// The tasks that match, and how well: the same index is the same task.
#[derive(Default)]
pub(crate) struct Matches {
    pub ids: Vec<Uuid>,
    /// By their [codes](Rank::code).
    pub ranks: Vec<i16>,
    /// How many tasks the owner has.
    pub of_tasks: i64,
}

impl Search {
    /// Reads `q`.
    ///
    /// # Errors
    /// It is too long, has too many terms, or a NUL.
    pub fn parse(q: String) -> Result<Self, ReadError> {
        if q.contains('\0') {
            return Err(ReadError::parameter("q", "must not contain NUL"));
        }
        let query = Query::parse(&q).map_err(|error| ReadError::parameter("q", error))?;
        Ok(Self { text: q, query })
    }
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
    let found = match query.tsquery(Rank::WEAKEST).filter(|_| kept.has_lexemes) {
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
    let by_rank: Vec<String> = Rank::ALL.iter().filter_map(|weakest| query.tsquery(*weakest)).collect();
    let found = sqlx::query!(
        r#"select array_agg(task_id) as "ids?: Vec<Uuid>", array_agg(rank) as "ranks?: Vec<i16>" from (
               select task_id, (case when lexemes @@ $4::text::tsquery then 0 when lexemes @@ $5::text::tsquery then 1
                   when lexemes @@ $6::text::tsquery then 2 when lexemes @@ $7::text::tsquery then 3
                   when lexemes @@ $8::text::tsquery then 4 else 5 end)::smallint as rank
               from read_model.search
               where generation = $1 and owner_id = $2 and lexemes @@ $3::text::tsquery) s"#,
        generation,
        owner,
        tsquery,
        by_rank.first(),
        by_rank.get(1),
        by_rank.get(2),
        by_rank.get(3),
        by_rank.get(4)
    )
    .fetch_one(connection)
    .await?;
    Ok(Matches { ids: found.ids.unwrap_or_default(), ranks: found.ranks.unwrap_or_default(), of_tasks: 0 })
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
        if let Some(rank) = query.rank(&Texts::of(title, tags.iter().map(String::as_str), description)) {
            matches.ids.push(id);
            matches.ranks.push(rank.code().into());
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

/// The texts of a task, to be searched.
pub(crate) fn texts(task: &Task) -> Texts {
    Texts::of(&task.title, task.tags.iter().map(String::as_str), task.description.as_deref())
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
    out.push(b'[');
    for (n, Mark { field, from, to }) in marks.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(match field {
            Field::Title => b"{\"field\":\"title\",\"from\":".as_slice(),
            Field::Description => b"{\"field\":\"description\",\"from\":",
        });
        write_number(out, i64::try_from(from).unwrap_or(i64::MAX));
        out.extend_from_slice(b",\"to\":");
        write_number(out, i64::try_from(to).unwrap_or(i64::MAX));
        out.push(b'}');
    }
    out.push(b']');
}
