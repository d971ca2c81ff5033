//! `GET /api/v1/jobs/{id}/result`

use std::ops::Range;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use http_api::account::{TaskCaller, covered_by_no_scope};
use http_api::headers::{IfNoneMatch, SentToken, single};
use http_api::openapi::Operation;
use http_api::problem::{Problem, ProblemCode};
use http_api::query::{NoQuery, PathId};
use jobs::ResultFormat;
use process::clock;
use serde_json::json;

use crate::api::CommandApi;
use crate::job::unavailable;
use crate::operation::job as job_operation;
use crate::token::later;

/// The file of an export, or a part of it.
pub(crate) async fn result(
    State(api): State<CommandApi>,
    TaskCaller(principal): TaskCaller,
    token: Option<SentToken>,
    if_none_match: Option<IfNoneMatch>,
    PathId(id): PathId,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sent = api.position_sent(principal.owner, token.as_ref())?;
    let found = api.jobs().find_any(principal.owner, id).await.map_err(unavailable)?;
    let job = found.ok_or_else(|| Problem::new(ProblemCode::NotFound).detail("There is no such job."))?;
    if job.expires_at.is_some_and(|expires_at| expires_at <= clock::now()) {
        return Err(Problem::new(ProblemCode::ResultExpired));
    }
    let (Some(bytes), Some(format)) = (job.result_bytes, job.format) else {
        return Err(Problem::new(ProblemCode::NotFound).detail("The job has no result."));
    };
    if matches!(format, ResultFormat::Archive) && principal.scopes.is_some() {
        // it has what is known of the account, too
        return Err(covered_by_no_scope());
    }
    let bytes = bytes.unsigned_abs();
    let etag = format!("\"{id}\"");
    let position = later(sent, job.revision);
    if if_none_match.is_some_and(|has| has.matches(&etag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        set(&mut response, ETAG, etag);
        api.set_token(response.headers_mut(), principal.owner, principal.shard, position);
        return Ok(response);
    }
    let asked = match range(&headers, bytes, &etag)? {
        Asked::All => None,
        Asked::Part(range) => Some(range),
        Asked::Beyond => {
            let problem = Problem::new(ProblemCode::RangeNotSatisfiable);
            return Err(match HeaderValue::try_from(format!("bytes */{bytes}")) {
                Ok(length) => problem.header(CONTENT_RANGE, length),
                Err(_) => problem,
            });
        }
    };
    let range = asked.clone().unwrap_or(0..bytes);
    let file = api.files()?.result(id, range.clone()).await.map_err(unavailable)?;
    let mut response = Response::new(Body::from_stream(file));
    set(&mut response, CONTENT_TYPE, format.media_type().to_owned());
    set(&mut response, CONTENT_LENGTH, (range.end - range.start).to_string());
    set(&mut response, ETAG, etag);
    set(&mut response, ACCEPT_RANGES, "bytes".to_owned());
    set(&mut response, CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", format.file_name()));
    if asked.is_some() {
        let part = format!("bytes {}-{}/{bytes}", range.start, range.end.saturating_sub(1));
        set(&mut response, CONTENT_RANGE, part);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    api.set_token(response.headers_mut(), principal.owner, principal.shard, position);
    Ok(response)
}

fn set(response: &mut Response, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    Beyond,
}

/// One range of bytes (RFC 9110, 14.2), where what the client has is still the same. What is no such range counts for
/// nothing, several at a time too.
fn range(headers: &HeaderMap, bytes: u64, etag: &str) -> Result<Asked, Problem> {
    let Some(asked) = single(headers, &RANGE)? else { return Ok(Asked::All) };
    if single(headers, &IF_RANGE)?.is_some_and(|has| has.as_bytes() != etag.as_bytes()) {
        return Ok(Asked::All);
    }
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let asked = asked.to_str().ok().and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = asked.and_then(|text| text.trim().split_once('-')) else { return Ok(Asked::All) };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Some(first), None) if last.is_empty() => first..bytes,
        (None, Some(0)) if first.is_empty() => return Ok(Asked::Beyond),
        (None, Some(last)) if first.is_empty() => bytes.saturating_sub(last)..bytes,
        (_, _) => return Ok(Asked::All),
    };
    Ok(if range.start < bytes { Asked::Part(range) } else { Asked::Beyond })
}

pub(crate) fn described() -> Operation {
    job_operation("getJobResult", "Get the file of an export")
        .says("With ranges (`Range`, `If-Range`), so that a download that broke off goes on where it was.")
        .path_id("The job's id.")
        .header("Consistency-Token")
        .header("If-None-Match")
        .empty(304, "The client has it.", &["ETag", "Consistency-Token"])
        .answer(
            200,
            "The file.",
            &["ETag", "Consistency-Token"],
            "application/x-ndjson",
            &json!({"type": "string"}),
            &json!("{\"type\":\"CreateTask\"}\n"),
        )
        .answer_also(200, "text/csv", &json!({"type": "string"}), &json!("id,title\n"))
        .answer_also(200, "text/calendar", &json!({"type": "string"}), &json!("BEGIN:VCALENDAR\r\n"))
        .answer_also(200, "application/gzip", &json!({"type": "string"}), &json!("(bytes)"))
        .answer(
            206,
            "A part of it.",
            &["ETag", "Consistency-Token"],
            "application/x-ndjson",
            &json!({"type": "string"}),
            &json!("{"),
        )
        .answer_also(206, "text/csv", &json!({"type": "string"}), &json!("id"))
        .answer_also(206, "text/calendar", &json!({"type": "string"}), &json!("BEGIN"))
        .answer_also(206, "application/gzip", &json!({"type": "string"}), &json!("(bytes)"))
        .refuses(&[
            ProblemCode::NotFound,
            ProblemCode::ResultExpired,
            ProblemCode::RangeNotSatisfiable,
            ProblemCode::InvalidConsistencyToken,
            ProblemCode::NotConfigured,
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let asked = |text: &str, if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
            if let Some(if_range) = if_range {
                headers.insert(IF_RANGE, HeaderValue::from_str(if_range).unwrap());
            }
            range(&headers, 10, "\"a\"").unwrap()
        };
        for (text, expected) in [
            ("bytes=0-3", Asked::Part(0..4)),
            ("bytes=4-", Asked::Part(4..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=9-99999999999999999999", Asked::All),
            ("bytes=9-99", Asked::Part(9..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=3-2", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("bytes=-", Asked::All),
            ("lines=0-1", Asked::All),
        ] {
            assert_eq!(asked(text, None), expected, "{text}");
        }
        assert_eq!(asked("bytes=0-3", Some("\"a\"")), Asked::Part(0..4));
        for other in ["\"b\"", "W/\"a\"", "Sat, 28 Nov 2026 20:00:00 GMT"] {
            assert_eq!(asked("bytes=0-3", Some(other)), Asked::All, "{other}");
        }
    }
}
