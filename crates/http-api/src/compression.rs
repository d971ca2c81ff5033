//! Answers compressed for those who take them so.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body::Body as _;
use tower::Service;
use tower_http::CompressionLevel;
use tower_http::compression::Compression;

use crate::problem::Problem;

/// Smaller answers are not compressed, in bytes.
pub const COMPRESSED_FROM_BYTES: u64 = 1 << 10;

/// On an answer that stays as it is: whoever made it has chosen the encoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen;

/// Text of a known size from 1 KiB on, that has no strong entity tag and whose encoding nobody has chosen yet.
pub(crate) fn is_compressible(response: &Response) -> bool {
    let headers = response.headers();
    response.body().size_hint().exact().is_some_and(|bytes| bytes >= COMPRESSED_FROM_BYTES)
        && !headers.contains_key(CONTENT_ENCODING)
        && response.extensions().get::<Chosen>().is_none()
        && headers.get(ETAG).is_none_or(|etag| etag.as_bytes().starts_with(b"W/"))
        && headers.get(CONTENT_TYPE).is_some_and(|value| {
            let value = value.as_bytes();
            (value.starts_with(b"text/") && !value.starts_with(b"text/event-stream"))
                || value.starts_with(b"application/json")
                || value.starts_with(b"application/problem+json")
                || value.starts_with(b"application/x-ndjson")
                || value.starts_with(b"application/javascript")
        })
}

/// In an encoding that the client takes, if there is one.
pub(crate) fn compress(response: Response, accept_encoding: HeaderValue) -> Response {
    compress_at(CompressionLevel::Default, response, accept_encoding)
}

/// The same at a level of the caller's.
pub(crate) fn compress_at(level: CompressionLevel, response: Response, accept_encoding: HeaderValue) -> Response {
    let status = response.status();
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(ACCEPT_ENCODING, accept_encoding);
    let mut response = Some(response);
    let answered = tower::service_fn(move |_: Request| {
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    });
    let mut compression = Compression::new(answered)
        .quality(level)
        .compress_when(|_: StatusCode, _: Version, _: &HeaderMap, _: &axum::http::Extensions| true);
    match compression.call(request).now_or_never() {
        Some(Ok(compressed)) => {
            let mut response = compressed.map(Body::new);
            // an encoding that nobody can satisfy is no reason to call what was done undone
            *response.status_mut() = status;
            response
        }
        Some(Err(never)) => match never {},
        None => Problem::internal(&"compression did not answer at once").into_response(),
    }
}
