//! The answers to requests that the server refuses before there is a route.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use http_server::Refusal;
use process::context::{RequestContext, X_REQUEST_ID};

use crate::edge::secure;
use crate::problem::{Problem, ProblemCode};

/// For [`http_server::serve`].
#[must_use]
pub fn refuse(headers: &HeaderMap, refusal: &Refusal) -> Response {
    let context = RequestContext::from_headers(headers);
    let request_id = context.request_id_header();
    let mut response = context.sync_scope(|| problem(refusal).into_response());
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    secure(headers);
    response
}

fn problem(refusal: &Refusal) -> Problem {
    let bad_request = |detail: &'static str| Problem::new(ProblemCode::BadRequest).detail(detail);
    match refusal {
        Refusal::RepeatedHeader(name) => Problem::repeated_header(name),
        Refusal::NoHost => Problem::parameter("the header Host is missing"),
        Refusal::TransferEncoding => bad_request("the one Transfer-Encoding that is taken is chunked"),
        Refusal::AmbiguousLength => {
            bad_request("Transfer-Encoding and Content-Length don't go together, nor do chunks behind another request")
        }
        Refusal::TooSlow => Problem::new(ProblemCode::RequestTooSlow),
    }
}
