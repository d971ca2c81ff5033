//! The past of owners with more versions than are kept in memory, straight from the table.

use std::pin::pin;

use domain::Time;
use futures_util::{Stream, TryStreamExt};
use sqlx::PgConnection;
use uuid::Uuid;

use super::held::Held;
use super::moments::MomentCounts;
use super::version_rows::{Row, rows};
use super::versions::Versions;
use crate::as_of::AsOf;
use crate::owner_version::VersionRow;

/// What may be held for one read.
#[derive(Clone, Copy)]
pub(super) struct HeldMax {
    pub tasks: usize,
    /// Of titles, ranks and tags.
    pub text_bytes: usize,
}

/// The tasks as they were then, with titles and ranks if they are `sorted_by_text`. `None`: more than may be held even so.
pub(super) async fn tasks_at(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
    as_of: AsOf,
    sorted_by_text: bool,
    max: HeldMax,
) -> Result<Option<Held>, sqlx::Error> {
    tasks_of(rows(connection, owner, version), version, as_of, sorted_by_text, max).await
}

/// Of all rows of the owner, by task and version.
pub(super) async fn tasks_of(
    rows: impl Stream<Item = Result<Row, sqlx::Error>>,
    version: VersionRow,
    as_of: AsOf,
    sorted_by_text: bool,
    max: HeldMax,
) -> Result<Option<Held>, sqlx::Error> {
    let mut tasks = Versions::empty(version);
    let mut ahead_until: Option<Time> = None;
    let mut add = |held: Option<Row>, last: Row| {
        let is_ahead = as_of.now.is_some_and(|now| last.updated_at > now);
        if is_ahead {
            ahead_until = Some(ahead_until.map_or(last.updated_at, |until| until.min(last.updated_at)));
        }
        let held = if is_ahead { Some(last) } else { held };
        held.filter(|row| row.status.is_some() && row.priority.is_some())
            .map(|row| if sorted_by_text { row } else { Row { title_key: None, rank: None, ..row } })
            .into_iter()
            .for_each(|row| tasks.push_alone(row));
        tasks.ids.len() <= max.tasks && tasks.text_bytes() <= max.text_bytes
    };
    let mut rows = pin!(rows);
    // Of the task that is being read: what held then, and the last row so far.
    let mut held = None;
    let mut last: Option<Row> = None;
    while let Some(mut row) = rows.try_next().await? {
        if let Some(last) = last.take_if(|last| last.id != row.id)
            && !add(held.take(), last)
        {
            return Ok(None);
        }
        row.title_key = row.title_key.or_else(|| last.take()?.title_key);
        if row.updated_at <= as_of.at {
            held = Some(row.clone());
        }
        last = Some(row);
    }
    let fits = last.is_none_or(|last| add(held, last));
    Ok(fits.then(|| Held::all(tasks, ahead_until)))
}

/// How many tasks had which status at each of these moments, in microseconds, none earlier than the one before.
pub(super) async fn count(
    connection: &mut PgConnection,
    owner: Uuid,
    version: VersionRow,
    moments_us: Vec<i64>,
) -> Result<Vec<[i64; 4]>, sqlx::Error> {
    count_of(rows(connection, owner, version), moments_us).await
}

/// Of all rows of the owner, by task and version.
pub(super) async fn count_of(
    rows: impl Stream<Item = Result<Row, sqlx::Error>>,
    moments_us: Vec<i64>,
) -> Result<Vec<[i64; 4]>, sqlx::Error> {
    let mut counts = MomentCounts::new(moments_us);
    let mut add = |row: &Row, until_us: i64| {
        if let Some(status) = row.status.and_then(|status| usize::try_from(status).ok()) {
            counts.add(status, row.updated_at.timestamp_micros(), until_us);
        }
    };
    let mut rows = pin!(rows);
    let mut before: Option<Row> = None;
    while let Some(row) = rows.try_next().await? {
        if let Some(before) = &before {
            let until_us = if before.id == row.id { row.updated_at.timestamp_micros() } else { i64::MAX };
            add(before, until_us);
        }
        before = Some(row);
    }
    before.iter().for_each(|last| add(last, i64::MAX));
    Ok(counts.finish())
}
