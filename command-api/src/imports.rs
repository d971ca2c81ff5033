use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use axum::response::Response;
use commands::identity::{CommandIdentity, command_id_of_key, fingerprint_of_bytes};
use http_api::body::{FileBody, require_media_type};
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::parse_query;
use jobs::{Request as JobRequest, UPLOAD_BYTES_MAX, Upload, UploadError};
use process::clock::new_id;
use process::context::without_permit;
use serde::Deserialize;
use serde_json::json;
use task_files::Format;

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::exports::REFUSALS;
use crate::job::{self, Asked};
use crate::operation::job_write;

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    format: Option<Format>,
    #[serde(default)]
    dry_run: bool,
}

/// Stores the file, and adds the job that carries its lines out.
pub(crate) async fn import(State(api): State<CommandApi>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let attempt = Attempt::with_query(&mut parts, &api).await?;
    attempt.refuse_condition("If-Match is for one task; a line has expected_version")?;
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let Parameters { format, dry_run } = parse_query(&query)?;
    let format = format_of(&parts.headers, format)?;
    let is_gzip =
        parts.headers.get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let files = api.files()?;
    let mut body = FileBody::of(Request::from_parts(parts, body), UPLOAD_BYTES_MAX).await?;
    let upload = Upload { job_id: new_id(), is_gzip };
    let stored = {
        let _permit = api.upload_permit(attempt.principal.owner).await?;
        without_permit(upload.store(files, body.parts())).await
    };
    let uploaded = match stored {
        Ok(uploaded) => uploaded,
        Err(error) => {
            body.discard().await;
            return Err(refused(error));
        }
    };
    let identity = attempt.key.as_ref().map(|key| CommandIdentity {
        command_id: command_id_of_key(key.as_str()),
        fingerprint: fingerprint_of_bytes("POST", &format!("/api/v1/imports?{query}"), &uploaded.sha256),
    });
    let asked = Asked { id: upload.job_id, request: JobRequest::Import { format }, dry_run, identity };
    let (answer, is_new) = api.submit(&attempt, asked).await;
    if !is_new && let Err(error) = files.delete(upload.job_id).await {
        tracing::warn!(%error, "the file of an import that was not added was not removed");
    }
    answer
}

/// What the media type says, and the parameter where there is one: they must agree.
fn format_of(headers: &HeaderMap, asked: Option<Format>) -> Result<Format, Problem> {
    let taken: &[&'static str] = match asked {
        Some(Format::Ndjson) => &[NDJSON],
        Some(Format::Csv) => &[CSV],
        None => &[NDJSON, CSV],
    };
    Ok(if require_media_type(headers, taken)? == CSV { Format::Csv } else { Format::Ndjson })
}

fn refused(error: UploadError<Problem>) -> Problem {
    match error {
        UploadError::TooLarge => Problem::new(ProblemCode::BodyTooLarge)
            .detail(format!("A file has at most {} MiB, as it is sent and unpacked.", UPLOAD_BYTES_MAX >> 20)),
        UploadError::NotGzip(_) => {
            Problem::new(ProblemCode::MalformedBody).detail("The body is not gzip as it should be.")
        }
        UploadError::Body(problem) => problem,
        UploadError::DiskFull(_) => Problem::disk_full(),
        UploadError::Store(error) => Problem::unavailable(&error),
    }
}

pub(crate) fn described() -> Operation {
    let lines = json!({"type": "string", "description": "A `Command` a line."});
    let rows = json!({"type": "string", "description": "A header that names fields of a task, `title` among them; a row is a `CreateTask`."});
    job_write("importTasks", "Import tasks from a file")
        .says(
            "The file is the body, up to 256 MiB as it is sent and unpacked, and may come with `Content-Encoding: gzip`. \
             Each line is decided on its own, in order per task; one that is wrong fails alone and is listed under the job's \
             errors. A line without `command_id` gets one made from owner, line number and content, so that the same file \
             again has no second effect. With `dry_run` every rule is checked against the tasks as the lines before would \
             have left them, and nothing changes.",
        )
        .query("format", "Of the file; as the `Content-Type` says.", json!({"type": "string", "enum": ["ndjson", "csv"]}))
        .query("dry_run", "Whether nothing is to be changed.", json!({"type": "boolean", "default": false}))
        .body(&[NDJSON], &lines, &json!(r#"{"type":"CreateTask","task_id":"01a20530-d423-75ae-8522-766cb71a70c2","title":"water"}"#))
        .body_also(CSV, &rows, &json!("title,due_at\nwater,2030-01-01T09:00:00Z\n"))
        .json(
            202,
            "The job.",
            &["Location", "Consistency-Token", "Idempotent-Replayed"],
            &reference("Job"),
            &job::example(),
        )
        .refuses(&REFUSALS)
}
