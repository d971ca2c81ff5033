//! Answers to reads, as they are kept and sent.

use std::sync::Arc;

use axum::http::HeaderValue;
use bytes::Bytes;
use domain::Time;
use process::clock;
use uuid::Uuid;

use crate::owner_version::{OwnerVersion, VersionRow, header};

/// What is asked for, by whom: the same for requests that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub owner: Uuid,
    pub request: Vec<u8>,
}

/// An answer, as it is sent every time, and the owner version that it is true for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub owner_version: Arc<OwnerVersion>,
    pub body: Bytes,
    pub etag: HeaderValue,
    /// `Link` to the next page.
    pub link: Option<HeaderValue>,
    /// Until then, where the clock changes it as well.
    pub valid_until: Option<Time>,
}

impl Answer {
    pub fn is_current(&self, version: &Arc<OwnerVersion>) -> bool {
        (Arc::ptr_eq(&self.owner_version, version) || self.owner_version.row == version.row)
            && self.valid_until.is_none_or(|until| clock::now() < until)
    }
}

/// What one statement found.
pub(crate) struct Loaded {
    /// What is live now: the asked generation, unless a rebuild has just switched.
    pub live_generation: i32,
    /// The snapshot's version.
    pub row: VersionRow,
    /// None: there is no such thing.
    pub content: Option<Content>,
}

/// The content of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub body: Bytes,
    pub etag: Etag,
    /// Of the next page.
    pub link: Option<String>,
}

/// What an answer's ETag is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Etag {
    /// Generation and change counter.
    OwnerVersion,
    /// Those, and the next moment at which the clock changes the answer.
    OwnerVersionUntil(Time),
    /// A task's version: strong.
    TaskVersion(i64),
}

impl Answer {
    pub fn new(owner_version: Arc<OwnerVersion>, content: Content) -> Self {
        let (etag, valid_until) = match content.etag {
            Etag::OwnerVersion => (owner_version.etag.clone(), None),
            Etag::OwnerVersionUntil(until) => {
                let until_us = until.timestamp_micros();
                (header(format!("W/\"{}-{until_us:x}\"", owner_version.tag)), Some(until))
            }
            Etag::TaskVersion(version) => (http_api::headers::version_etag(version), None),
        };
        let link = content.link.map(|link| header(format!("<{link}>; rel=\"next\"")));
        Self { owner_version, body: content.body, etag, link, valid_until }
    }
}
