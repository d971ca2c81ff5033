//! An owner's version: what names a snapshot of their rows. It is the ETag of lists and counts and the version of every
//! cached answer.

use access::Principal;
use access::token::Sealer;
use axum::http::HeaderValue;
use uuid::Uuid;

/// An owner, and the shard to name in a token while there is no row of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub id: Uuid,
    pub shard: i16,
}

impl Owner {
    pub fn of(principal: &Principal) -> Self {
        Self { id: principal.owner.0, shard: principal.shard }
    }
}

/// What names a snapshot of one owner's rows, as one statement saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct VersionRow {
    /// None until the log's first event is applied.
    pub log_id: Option<Uuid>,
    pub generation: i32,
    /// None, like all that follows, while the owner has no row.
    pub shard: Option<i16>,
    pub revision: Option<i64>,
    pub change_counter: Option<i64>,
    pub parked_position: Option<i64>,
}

/// The version in a row of a statement that selects these columns beside its own, as all reads do.
macro_rules! version_row {
    ($row:expr, generation: $generation:expr) => {
        $crate::owner_version::VersionRow {
            log_id: $row.log_id,
            generation: $generation,
            shard: $row.shard,
            revision: $row.revision,
            change_counter: $row.change_counter,
            parked_position: $row.parked_position,
        }
    };
}
pub(crate) use version_row;

impl VersionRow {
    /// -1: the owner has no row.
    pub fn counter(&self) -> i64 {
        self.change_counter.unwrap_or(-1)
    }

    /// Whether their change counters can be compared.
    pub fn same_read_model(&self, other: &Self) -> bool {
        self.log_id == other.log_id && self.generation == other.generation
    }

    /// Whether rows of this version may be shown to a client that may have seen `shown`.
    pub fn is_at_least(&self, shown: &Self) -> bool {
        !self.same_read_model(shown) || self.counter() >= shown.counter()
    }

    /// Whether an event at or before the revision is parked: it is shown without that.
    fn has_gap(&self) -> bool {
        self.revision.is_some_and(|revision| self.parked_position.is_some_and(|parked| parked <= revision))
    }

    /// The revision as a token has it: positions start at 1, so the sign says that it was shown with a gap.
    fn token_position(&self) -> i64 {
        let revision = self.revision.unwrap_or(0);
        if self.has_gap() { -revision } else { revision }
    }

    /// The position up to which everything is there: parked events leave a gap.
    pub fn complete_until(&self) -> i64 {
        let revision = self.revision.unwrap_or(0);
        self.parked_position.map_or(revision, |parked| revision.min(parked - 1))
    }
}

/// An owner's version, with the headers that say so.
#[derive(Debug)]
pub(crate) struct OwnerVersion {
    pub row: VersionRow,
    /// The ETag's inside, for lists, history and counts.
    pub tag: String,
    /// That as a weak ETag.
    pub etag: HeaderValue,
    /// Consistency-Token of whatever is read here.
    pub token: HeaderValue,
}

impl OwnerVersion {
    pub fn new(row: VersionRow, owner: Owner, sealer: &Sealer) -> Self {
        let log_id = row.log_id.unwrap_or(Uuid::nil());
        let tag = format!("{:x}-{:x}-{:x}", log_id.as_u128() >> 64, row.generation, row.counter() + 1);
        let token = sealer.consistency_token(
            log_id,
            domain::OwnerId(owner.id),
            row.shard.unwrap_or(owner.shard),
            row.token_position(),
        );
        Self { etag: header(format!("W/\"{tag}\"")), token: header(token), tag, row }
    }
}

/// A header from what is visible ASCII by construction.
pub(crate) fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
