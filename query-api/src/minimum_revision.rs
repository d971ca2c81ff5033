//! The revision that a read must show at least: what a Consistency-Token asks for.

use access::token::Sealer;
use domain::OwnerId;
use http_api::headers::SentToken;
use uuid::Uuid;

use crate::error::ReadError;
use crate::owner_version::VersionRow;

/// What a Consistency-Token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MinimumRevision {
    /// Nil: from a read before the log was known; any log will do.
    pub log_id: Uuid,
    pub revision: i64,
    /// Given out by a read while an event at or before `revision` was parked: its holder has seen that state, gap and
    /// all, and is not to be turned away for it. A command's token is.
    pub seen_with_gap: bool,
}

impl MinimumRevision {
    /// From a token that was given out to this owner.
    pub fn open(token: &SentToken, owner: OwnerId, sealer: &Sealer) -> Result<Self, ReadError> {
        let token = sealer.open_consistency_token(token.as_str(), owner).map_err(|_| ReadError::ForeignToken)?;
        let (log_id, position) = (token.log_id, token.position);
        // See `VersionRow::token_position`.
        Ok(Self { log_id, revision: position.saturating_abs(), seen_with_gap: position < 0 })
    }

    /// Whether a read at this version shows it.
    pub fn is_met_by(&self, row: &VersionRow) -> Result<bool, ReadError> {
        if !self.log_id.is_nil() && row.log_id.is_some_and(|log_id| log_id != self.log_id) {
            return Err(ReadError::ForeignToken);
        }
        let parked = row.parked_position.is_some_and(|parked| parked <= self.revision);
        if parked && !self.seen_with_gap {
            return Err(ReadError::Parked);
        }
        let log_known = self.log_id.is_nil() || row.log_id.is_some();
        Ok(self.revision == 0 || (log_known && row.revision.is_some_and(|revision| revision >= self.revision)))
    }
}
