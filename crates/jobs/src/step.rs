use uuid::Uuid;

/// Lines that are done, in order.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The last line that was done before them.
    pub after: i64,
    /// The last of them.
    pub line: i64,
    pub succeeded: i64,
    pub failed: i64,
    /// How many events they appended.
    pub events: i64,
    /// Position of the last event that they stand for.
    pub revision: Option<i64>,
    /// Of those that failed the ones that are kept.
    pub failures: Vec<StepFailure>,
}

#[derive(Debug)]
pub(crate) struct StepFailure {
    pub number: i64,
    pub line: Option<i64>,
    pub task_id: Option<Uuid>,
    pub problem: String,
}
