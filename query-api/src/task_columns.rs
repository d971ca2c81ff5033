//! A task from the columns of a statement.

/// The task in a row of a statement that selects the columns of `read_model.task` beside its own; `None` where they are null.
macro_rules! task_in {
    ($row:expr, id: $id:expr, version: $version:expr) => {
        read_model::Task::of(read_model::TaskColumns {
            id: $id,
            version: $version,
            title: $row.title,
            description: $row.description,
            status: $row.status,
            priority: $row.priority,
            due_at: $row.due_at,
            tags: $row.tags,
            rank: $row.rank,
            created_at: $row.created_at,
            updated_at: $row.updated_at,
            started_at: $row.started_at,
            completed_at: $row.completed_at,
        })
    };
}
pub(crate) use task_in;
