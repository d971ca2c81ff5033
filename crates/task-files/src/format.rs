/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A command a line, as JSON.
    Ndjson,
    /// Values with a separator between, after a header; a row is a task.
    Csv,
}
