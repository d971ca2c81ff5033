//! Consistency tokens: what one stands for that was sent along, and that of an answer.

use axum::http::{HeaderMap, HeaderValue};
use domain::OwnerId;
use http_api::headers::{CONSISTENCY_TOKEN, SentToken};
use http_api::problem::{Problem, ProblemCode};

use crate::api::CommandApi;

impl CommandApi {
    /// The position that a token stands for which was sent along; 0 without one. Negative: see
    /// `VersionRow::token_position` of `query-api`.
    pub(crate) fn position_sent(&self, owner: OwnerId, sent: Option<&SentToken>) -> Result<i64, Problem> {
        let Some(sent) = sent else { return Ok(0) };
        let refused = || Problem::new(ProblemCode::InvalidConsistencyToken);
        let token = self.sealer().open_consistency_token(sent.as_str(), owner).map_err(|_| refused())?;
        if !token.log_id.is_nil() && token.log_id != self.executor().store().log_id() {
            return Err(refused());
        }
        Ok(token.position)
    }

    /// The token with which a client reads what is done.
    pub(crate) fn set_token(&self, headers: &mut HeaderMap, owner: OwnerId, shard: i16, position: i64) {
        let token = self.sealer().consistency_token(self.executor().store().log_id(), owner, shard, position);
        if let Ok(token) = HeaderValue::try_from(token) {
            headers.insert(CONSISTENCY_TOKEN, token);
        }
    }

    /// The later one of a revision and the owner's last event that this process knows of; none where there is neither.
    pub(crate) fn or_last_known(&self, owner: OwnerId, revision: Option<i64>) -> Option<i64> {
        revision.max(Some(self.executor().last_position(owner)).filter(|known| *known > 0))
    }
}

/// What a token stands for that holds for both: the later one.
pub(crate) fn later(sent: i64, revision: Option<i64>) -> i64 {
    revision.filter(|revision| revision.unsigned_abs() > sent.unsigned_abs()).unwrap_or(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_counts_and_what_was_seen_with_a_gap_stays_so() {
        assert_eq!([later(0, None), later(0, Some(3)), later(5, Some(3)), later(3, Some(5))], [0, 3, 5, 5]);
        assert_eq!([later(-5, None), later(-5, Some(3)), later(-5, Some(5)), later(-5, Some(6))], [-5, -5, -5, 6]);
    }
}
