//! A time that is looked back to.

use chrono::TimeDelta;
use domain::{Time, parse_time};

use crate::error::ReadError;

/// How far from this server's clock now may be, in seconds: `as_of` no further ahead, and no further back a read by now.
const NOW_S: i64 = 60;

/// A time that is looked back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AsOf {
    pub at: Time,
    /// Where that is now, the time by this server: what the log holds has happened, also where a clock that ran ahead
    /// wrote a later time.
    pub now: Option<Time>,
}

impl AsOf {
    pub fn parse(value: &str, now: Time) -> Result<Self, ReadError> {
        let at = parse_time(value).map_err(|invalid| ReadError::parameter("as_of", invalid))?;
        let clocks_differ_by = TimeDelta::seconds(NOW_S);
        if at > now + clocks_differ_by {
            return Err(ReadError::Parameter("as_of must not be in the future by more than a minute".into()));
        }
        Ok(Self { at, now: (at > now - clocks_differ_by).then_some(now) })
    }

    /// When that time is no longer now.
    pub fn is_now_until(self) -> Time {
        self.at + TimeDelta::seconds(NOW_S)
    }

    /// Appends what tells it from another one in a cache's key.
    pub fn push_key(self, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.at.timestamp_micros().to_be_bytes());
        key.push(u8::from(self.now.is_some()));
    }
}
