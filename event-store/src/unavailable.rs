/// The database does not answer, or the queue is full. Whether a command that was under way took effect is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// More commands wait than the queue holds; nothing was done.
    #[error("the queue of the event store is full")]
    Busy,
    /// The disk has no room for more; nothing was done.
    #[error("the event store's disk is full")]
    DiskFull,
    /// No answer from the database within the time that a command waits.
    #[error("the event store does not answer")]
    NoAnswer,
}
