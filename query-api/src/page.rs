//! Pages of a list: where one begins, and how it is written.

use access::token::Sealer;
use bytes::Bytes;
use domain::OwnerId;
use http_api::openapi::{count, page_of};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::ReadError;
use crate::task_json::{write_list, write_number, write_text_or_null};

/// The pages of a list. A cursor is the key of the last item of the page before.
pub(crate) struct Pages<'a> {
    /// Makes cursors that nobody else can make.
    pub sealer: &'a Sealer,
    /// Whose cursors they are.
    pub owner: Uuid,
    /// What they are bound to besides their owner.
    pub binding: &'a [u8],
}

impl Pages<'_> {
    /// The key behind which a page begins, as `key` reads it; `None`: the first page.
    pub fn begins_behind<K>(
        &self,
        cursor: Option<&str>,
        key: impl FnOnce(&[u8]) -> Option<K>,
    ) -> Result<Option<K>, ReadError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let payload = self.sealer.open_cursor(cursor, OwnerId(self.owner), self.binding).ok();
        payload.and_then(|payload| key(&payload)).map(Some).ok_or(ReadError::ForeignCursor)
    }

    /// A page of what was found, which is one item more than the limit if there is another page; and the cursor of that
    /// one, behind the last item's `key`. `revision`: what the page shows at least, where it says so.
    pub fn write<Item, Key: AsRef<[u8]>>(
        &self,
        limit: u16,
        mut found: Vec<Item>,
        key: impl FnOnce(&Item) -> Key,
        write: impl FnMut(&mut Vec<u8>, &Item),
        revision: Option<i64>,
    ) -> (Bytes, Option<String>) {
        let limit = usize::from(limit);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more).map(key);
        let next = last.map(|key| self.sealer.seal_cursor(OwnerId(self.owner), self.binding, key.as_ref()));
        let mut body = Vec::with_capacity(100 + 450 * found.len());
        body.extend_from_slice(b"{\"items\":");
        write_list(&mut body, &found, write);
        body.extend_from_slice(b",\"next_cursor\":");
        write_text_or_null(&mut body, next.as_deref());
        if let Some(revision) = revision {
            body.extend_from_slice(b",\"revision\":");
            write_number(&mut body, revision);
        }
        body.push(b'}');
        (body.into(), next)
    }
}

/// The schema of a page that says what it shows at least.
pub(crate) fn page_with_revision(item: &str) -> Value {
    let mut page = page_of(item);
    page["properties"]["revision"] = count();
    page["properties"]["revision"]["description"] = "What the page shows at least; the stream resumes from it.".into();
    page["required"] = json!(["items", "next_cursor", "revision"]);
    page
}
