//! Tasks as they were: what lists, counts and single tasks as of a time are made from.

/// Room in columns that are kept for long.
mod room;

/// The statements that the past is made from.
mod version_rows;

/// The texts that tasks are sorted by.
mod sort_texts;

/// When tasks moved from one status to another.
mod timeline;

/// An owner's versions of tasks, in memory.
mod versions;

/// The tasks that held at a time.
mod held;

/// How many tasks stood where at each of some moments, from intervals in any order.
mod moments;

/// Owners with more versions than are kept in memory.
mod unkept;

/// The versions of all owners who asked lately.
mod cache;

/// Tasks as of a time, with their texts.
mod tasks;

pub(crate) use self::cache::{Past, Snapshot};
pub(crate) use self::tasks::{SEARCH_MS_MAX, SEARCHED_TASKS, search, tasks};
