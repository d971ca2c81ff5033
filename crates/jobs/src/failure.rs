use task_files::HeaderError;

/// Why a job could not be carried out to the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The first line of a CSV file.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// It was begun again and again for a day.
    #[error("it could not be carried out within a day")]
    TookTooLong,
    /// Tasks that cannot be written or chosen.
    #[error("{0}")]
    Tasks(String),
    /// It was asked for by a program that knew other filters or commands.
    #[error("this version of the program does not know what was asked for")]
    Outdated,
    /// The file is not in the store any more.
    #[error("its file is gone")]
    FileGone,
}
