//! Error answers of the framework, turned into problems.

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::problem::{Problem, ProblemCode};

/// An error answer that nobody of ours wrote: no body, or the framework's plain text.
pub(super) fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && response.headers().get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// The same status and headers, with a problem for a body.
pub(super) fn as_problem(response: Response) -> Response {
    let problem = Problem::new(ProblemCode::for_status(response.status())).into_response();
    let (parts, _) = response.into_parts();
    let (mut problem, body) = problem.into_parts();
    problem.status = parts.status;
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            problem.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(problem, body)
}
