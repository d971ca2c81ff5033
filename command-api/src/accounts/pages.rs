//! Pages of lists that are ordered by id.

use axum::http::header::LINK;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use domain::OwnerId;
use serde::Serialize;
use service_kit::page::{Limit, next_link};
use service_kit::problem::{Problem, ProblemCode};
use service_kit::token::Sealer;
use uuid::Uuid;

use super::answer;

/// A page that somebody asks for.
pub(super) struct PageOf<'a> {
    pub sealer: &'a Sealer,
    pub reader: OwnerId,
    /// What cursors of the list are bound to besides its reader.
    pub binding: &'a [u8],
    pub uri: &'a Uri,
    pub limit: Limit,
}

#[derive(Serialize)]
struct Body<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl PageOf<'_> {
    /// The id behind which it begins; none: the first page.
    ///
    /// # Errors
    /// 400 where the cursor is not of this list and reader.
    pub fn begins_behind(&self, cursor: Option<&str>) -> Result<Option<Uuid>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let payload = self.sealer.open_cursor(cursor, self.reader, self.binding).ok();
        let id = payload.and_then(|payload| Uuid::from_slice(&payload).ok());
        id.map(Some).ok_or_else(|| Problem::new(ProblemCode::InvalidCursor))
    }

    /// How many to look for: one more than is shown tells whether there is another page.
    pub fn rows_max(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The answer, from what was found in [`Self::rows_max`].
    pub fn answer<Found, Shown>(&self, mut found: Vec<Found>, id: fn(&Found) -> Uuid) -> Response
    where
        Shown: Serialize + From<Found>,
    {
        let size = usize::from(self.limit);
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(id);
        let next_cursor = last.map(|id| self.sealer.seal_cursor(self.reader, self.binding, id.as_bytes()));
        let link = next_cursor.as_ref().and_then(|cursor| next_link(self.uri.path(), self.uri.query(), cursor));
        let items: Vec<Shown> = found.into_iter().map(Shown::from).collect();
        let mut response = answer(StatusCode::OK, &Body { items, next_cursor });
        if let Some(link) = link {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}
