//! What goes wrong, one enum for each boundary.

/// Why something about an account was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another account has the address.
    #[error("there is an account with this address already")]
    EmailTaken,
    /// Unknown address or wrong password; which one is not told.
    #[error("address or password is wrong")]
    InvalidCredentials,
    /// The right password, or the right API key, of a disabled account.
    #[error("the account is disabled")]
    Disabled,
    /// The current password, asked for a change, is wrong.
    #[error("the current password is wrong")]
    WrongPassword,
    /// Unknown, expired, ended or used before.
    #[error("the refresh token is not good any more")]
    InvalidRefreshToken,
    /// Unknown, expired or revoked; which one is not told.
    #[error("the API key is not good")]
    InvalidApiKey,
    /// Another refresh with the same token had not been answered when this one arrived.
    #[error("another refresh with this token was in progress")]
    RefreshInFlight,
    /// No such account.
    #[error("there is no such account")]
    NotFound,
    /// Too many passwords wait to be hashed.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// The disk has too little room left for what would stay; nothing was done.
    #[error("{0}")]
    DiskFull(String),
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Unavailable(sqlx::Error),
    /// What should not happen.
    #[error("{0}")]
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for IdentityError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error {
            // 08: connection, 53: resources, 57: the server is stopping, 40: to be tried again, 25: it only reads
            let class = database.code().map(|code| code.chars().take(2).collect::<String>());
            if class.is_some_and(|class| ["08", "53", "57", "40", "25"].contains(&class.as_str())) {
                return Self::Unavailable(error);
            }
            return Self::Internal(Box::new(error));
        }
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            error => Self::Internal(Box::new(error)),
        }
    }
}

/// Why identity could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database refused or does not answer.
    #[error("identity: {0}")]
    Database(#[from] sqlx::Error),
    /// There are signing keys, and none can be decrypted.
    #[error(
        "the signing keys in the database were encrypted with another PRIMETRADE_SECRET: give that one, here or as \
         PRIMETRADE_SECRET_PREVIOUS, or make a new key by `primetrade keys rotate`"
    )]
    OtherSecret,
    /// No shard was given for new accounts.
    #[error("identity: no shard for new accounts")]
    NoShard,
    /// A key or a hash could not be made.
    #[error("identity: {0}")]
    Crypto(String),
}
