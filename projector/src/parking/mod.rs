//! Events that could not be applied, and those that come after them in their streams: they are parked, in order, until an
//! administrator has them tried again.

mod list;
mod park;
mod retry;

pub(crate) use self::list::{ask_for_retry, list};
pub(crate) use self::park::{ToPark, load, reason, short};
pub(crate) use self::retry::{RETRY_TIME_MAX, due, retry};
