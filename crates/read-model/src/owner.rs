//! An owner's version: two numbers and what is parked, as `read_model.owner` has them, and how Redis keeps them for a few
//! seconds.
//!
//! Written to Redis by projector (after each commit) and query-api (after asking Postgres), read by query-api. What can go
//! wrong: docs/redis.md.

use std::fmt::Write as _;

use domain::{OwnerId, Time};
use uuid::Uuid;

/// How long Redis is believed after it was so, milliseconds.
pub const OWNER_VERSION_MS_MAX: i64 = 3_000;

/// The script that writes owner versions, forwards only. Keys: [`ReadModelId::owner_key`] of each. Arguments: when they
/// expire (Unix time in milliseconds), then a value ([`CachedOwnerVersion::to_value`]) for each key.
pub const WRITE_OWNER_VERSIONS: &str = include_str!("../../../migrations/redis/owner-versions.lua");

const NOTHING_PARKED: u64 = u64::MAX;
const VALUE_LENGTH: usize = 96;

/// A row of `read_model.owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRow {
    /// Whose.
    pub owner_id: OwnerId,
    /// Position of the last event applied for this owner.
    pub revision: i64,
    /// Raised by every change of this owner's rows.
    pub change_counter: i64,
    /// Position of the first event of this owner that is parked.
    pub parked_position: Option<i64>,
}

/// Names the read models of one generation: the first part of every key in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadModelId {
    /// The read models' own name in Redis.
    pub cache_id: Uuid,
    /// The log that they were made from.
    pub log_id: Uuid,
    /// The generation that queries read.
    pub generation: i32,
}

impl ReadModelId {
    /// What every key begins with.
    #[must_use]
    pub fn key_prefix(&self) -> String {
        let Self { cache_id, log_id, generation } = self;
        let mut prefix = String::with_capacity(260);
        // Writing into a string cannot fail.
        let _ = write!(prefix, "primetrade:{}:{}:{generation}:", cache_id.simple(), log_id.simple());
        prefix
    }

    /// The key of an owner's version. Its name is older than that word: during an update it is shared with former programs.
    #[must_use]
    pub fn owner_key(&self, owner: OwnerId) -> String {
        let mut key = self.key_prefix();
        let _ = write!(key, "standing:{}", owner.0.simple());
        key
    }
}

/// An owner's version as Redis keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedOwnerVersion {
    /// Whose.
    pub owner_id: OwnerId,
    /// When it was so, or earlier: Unix time in milliseconds.
    pub as_of_ms: i64,
    /// `None`: the owner had no row.
    pub row: Option<OwnerRow>,
}

impl CachedOwnerVersion {
    /// Of an owner who had a row.
    #[must_use]
    pub fn of(row: OwnerRow, as_of: Time) -> Self {
        Self { owner_id: row.owner_id, as_of_ms: as_of.timestamp_millis(), row: Some(row) }
    }

    /// As `migrations/redis/owner-versions.lua` describes it: the greater text is the newer one.
    #[must_use]
    pub fn to_value(&self) -> String {
        // None of them is negative.
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let counter = self.row.map_or(0, |row| number(row.change_counter) + 1);
        let revision = self.row.map_or(0, |row| number(row.revision));
        let parked = self.row.and_then(|row| row.parked_position).map_or(NOTHING_PARKED, number);
        let (as_of_ms, owner) = (number(self.as_of_ms), self.owner_id.0.simple());
        format!("{counter:016x}{as_of_ms:016x}{revision:016x}{parked:016x}{owner}")
    }

    /// `None`: it is not what [`Self::to_value`] writes.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() == VALUE_LENGTH && text.is_ascii())?;
        let number = |at: usize| u64::from_str_radix(text.get(16 * at..16 * (at + 1))?, 16).ok();
        let (counter, as_of_ms, revision, parked) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let owner_id = OwnerId(Uuid::try_parse(text.get(64..)?).ok()?);
        let parked_position = match parked {
            NOTHING_PARKED => None,
            position => Some(i64::try_from(position).ok()?),
        };
        let row = match counter {
            0 => None,
            counter => Some(OwnerRow {
                owner_id,
                revision: i64::try_from(revision).ok()?,
                change_counter: i64::try_from(counter - 1).ok()?,
                parked_position,
            }),
        };
        Some(Self { owner_id, as_of_ms: i64::try_from(as_of_ms).ok()?, row })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: OwnerId = OwnerId(Uuid::from_u128(9));

    fn row() -> OwnerRow {
        OwnerRow { owner_id: OWNER, revision: 70, change_counter: (5 << 32) + 7, parked_position: Some(60) }
    }

    #[test]
    fn an_owner_version_is_read_as_it_was_written() {
        let nothing_applied = OwnerRow { change_counter: 0, revision: 0, parked_position: None, ..row() };
        for row in [Some(row()), Some(nothing_applied), None] {
            let cached = CachedOwnerVersion { owner_id: OWNER, as_of_ms: 1_790_000_000_000, row };
            assert_eq!(cached.to_value().len(), VALUE_LENGTH);
            assert_eq!(CachedOwnerVersion::from_value(cached.to_value().as_bytes()), Some(cached));
        }
    }

    #[test]
    fn anything_else_is_not_read() {
        let value = CachedOwnerVersion { owner_id: OWNER, as_of_ms: 1, row: Some(row()) }.to_value();
        for wrong in [&value[1..], "", &"x".repeat(VALUE_LENGTH), &format!("{value}0"), &"ä".repeat(48)] {
            assert_eq!(CachedOwnerVersion::from_value(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
