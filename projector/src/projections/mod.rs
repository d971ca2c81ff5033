//! The projections: each is a file with all that is its own: what events change in its tables, how that is written back,
//! filled in bulk and compared. (DDL, indexes, and what is counted after the bulk phase stand in its migration.)
//!
//! The engine ([`crate::batch`], [`crate::rebuild`]) goes through [`ALL`] and knows nothing else about them. It folds events
//! into the rows of their tasks ([`read_model::fold`]), which decides once whether an event can be applied at all; what comes
//! of that, the [`Effect`], each projection turns into rows of its own. One transaction stores how far the feed is read and
//! writes them all.

/// What a projection is, and what it is given.
mod projection;

/// `task`: tasks as they are. What events are folded into.
mod task;

/// `history`: what each event changed.
mod history;

/// `task_version`: tasks as they were.
mod task_version;

/// `task_count`, `day_count`: numbers of an owner's tasks.
mod counts;

/// `search`: by what tasks are found.
mod search;

/// `change`: what each change is made of.
mod change;

pub(crate) use self::projection::{AppliedEvent, Effect, Projection, Stream, TaskChange};
pub(crate) use self::task::load as load_tasks;

/// Adding one: a file here, its migration (see `0006_projected_tables.sql`), a line here, and a query in query-api.
pub(crate) const ALL: &[&dyn Projection] =
    &[&task::Tasks, &history::History, &task_version::TaskVersions, &counts::Counts, &search::Search, &change::Changes];
