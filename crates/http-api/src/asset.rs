//! A file that is in the binary.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::headers::IfNoneMatch;
use crate::packed::Packed;

/// A file of this binary, with what tells it from that of another version.
pub struct Asset {
    body: Packed,
    media_type: HeaderValue,
    etag: HeaderValue,
    cache: HeaderValue,
}

impl Asset {
    /// `cache` is its `Cache-Control`.
    #[must_use]
    pub fn new(body: impl Into<Bytes>, media_type: &'static str, cache: HeaderValue) -> Self {
        let body = body.into();
        let hash = Sha256::digest(&body);
        let first: [u8; 8] = hash.first_chunk().copied().unwrap_or_default();
        // weak: it may be compressed
        let etag = format!("W/\"{:016x}\"", u64::from_be_bytes(first));
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("W/\"\""));
        Self { body: Packed::new(body), media_type: HeaderValue::from_static(media_type), etag, cache }
    }

    /// Itself, or 304 to who has it.
    pub async fn answer(&self, request: &HeaderMap, has: Option<&IfNoneMatch>) -> Response {
        let validators = [(CACHE_CONTROL, self.cache.clone()), (ETAG, self.etag.clone())];
        if has.is_some_and(|has| self.etag.to_str().is_ok_and(|etag| has.matches(etag))) {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        let mut response = self.body.answer(request).await;
        response.headers_mut().insert(CONTENT_TYPE, self.media_type.clone());
        (validators, response).into_response()
    }
}
