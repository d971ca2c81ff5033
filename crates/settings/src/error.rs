//! What can be wrong with a setting.

use std::path::PathBuf;

/// What is wrong with the configuration. The message names the variable and never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is needed and not there.
    #[error("{name} is not set: {needed_for}")]
    Missing {
        /// The variable.
        name: String,
        /// What it is needed for.
        needed_for: &'static str,
    },
    /// Its value cannot be taken.
    #[error("{name}: {reason}")]
    Invalid {
        /// The variable.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no such variable.
    #[error("{name} is not a setting of this program{}", suggestion.map(|s| format!(" (did you mean {s}?)")).unwrap_or_default())]
    Unknown {
        /// The variable.
        name: String,
        /// The nearest one that there is.
        suggestion: Option<&'static str>,
    },
    /// `X` and `X_FILE` are both set.
    #[error("{name} and {name}_FILE are both set: one of them has to go")]
    Both {
        /// The variable.
        name: String,
    },
    /// The file that `X_FILE` names cannot be read.
    #[error("{name}_FILE: cannot read {}: {source}", path.display())]
    File {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// An error for a value that was read and cannot be taken. The reason has no part of it: who has taken one variable for
/// another would find a password in the log.
#[must_use]
pub fn invalid(name: &str, reason: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Invalid { name: name.into(), reason: reason.to_string() }
}
