//! The form of `PRIMETRADE_OBJECT_STORE_URL`. Every program checks it; it is shown, so no password may be in it.

use std::path::PathBuf;

use crate::error::{ConfigError, invalid};
use crate::source::Source;

/// Where files of jobs are.
pub const OBJECT_STORE_URL: &str = "PRIMETRADE_OBJECT_STORE_URL";

/// Where files of jobs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStoreUrl {
    /// `file:///folder`
    Folder(PathBuf),
    /// `s3://bucket/prefix`; variables of AWS say the rest.
    Bucket {
        /// Its name.
        bucket: String,
        /// What the names of files begin with; may be empty.
        prefix: String,
    },
}

impl ObjectStoreUrl {
    /// Reads the setting, if it is set.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        let Some(url) = source.text(OBJECT_STORE_URL)? else { return Ok(None) };
        let reason = "it is file:///folder, or s3://bucket/prefix without a user and a password, which are \
                      AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        Self::parse(&url).map(Some).ok_or_else(|| invalid(OBJECT_STORE_URL, &reason))
    }

    fn parse(url: &str) -> Option<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            return path.starts_with('/').then(|| Self::Folder(PathBuf::from(path)));
        }
        let place = url.strip_prefix("s3://")?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name = !bucket.is_empty() && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        // of a key with a / in it the second half would be a part of the prefix
        let has_login = prefix.contains('@');
        (is_name && !has_login).then(|| Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}
