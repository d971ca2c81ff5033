//! Tasks as they were: what lists, counts and single tasks as of a time are made from.

/// An owner's tasks with the intervals in which they held, in memory.
mod versions;

/// The versions of all owners who asked lately.
mod cache;

/// How many tasks stood where at each of some moments.
mod moments;

/// Tasks as of a time, with their texts.
mod tasks;

pub(crate) use self::cache::{Past, Snapshot};
pub(crate) use self::moments::MomentCounts;
pub(crate) use self::tasks::{SEARCH_MS_MAX, SEARCHED_TASKS, search, tasks};
pub(crate) use self::versions::Held;
