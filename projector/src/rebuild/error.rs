//! Why a rebuild ends without a new generation.

/// Why there is no new generation.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database does not answer, or refuses.
    #[error("the rebuild cannot go on: {0}")]
    Database(#[from] sqlx::Error),
    /// Another rebuild, check or return is under way.
    #[error("another rebuild (or a check by doctor) is running on this database")]
    Running,
    /// There is no generation to go back to.
    #[error("no earlier generation of the read models is kept")]
    NothingKept,
    /// The tables stayed locked by others, such as a dump.
    #[error("the tables of the read models stay locked by others; run it again and it goes on from here")]
    Locked,
    /// The disk has no room for another generation beside the one that there is.
    #[error(
        "the disk has too little room for a second generation of the read models: {0}. The one that is served is as it was. Make room, and run it again"
    )]
    NoRoom(String),
    /// Events come faster than they are applied.
    #[error("the new generation does not catch up with the live one; run it again and it goes on from here")]
    Behind,
}
