use axum::extract::State;
use axum::response::Response;
use commands::identity::{CommandIdentity, command_id_of_key, fingerprint};
use commands::json::Json;
use domain::InvalidFields;
use http_api::account::covered_by_no_scope;
use http_api::openapi::{Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use jobs::{Filters, Request};
use process::clock::new_id;
use serde_json::{Value, json};
use task_files::{ExportFormat, parse_filter};

use crate::api::CommandApi;
use crate::attempt::{Attempt, JsonText};
use crate::job::{self, Asked, unavailable};
use crate::operation::job_write;

/// What every job that is asked for may be refused for.
pub(crate) const REFUSALS: [ProblemCode; 6] = [
    ProblemCode::RequestInFlight,
    ProblemCode::KeyReused,
    ProblemCode::TooManyJobs,
    ProblemCode::Contended,
    ProblemCode::DiskFull,
    ProblemCode::NotConfigured,
];

/// Adds the job that writes the file.
pub(crate) async fn export(
    State(api): State<CommandApi>,
    attempt: Attempt,
    body: JsonText,
) -> Result<Response, Problem> {
    attempt.refuse_condition("If-Match is for one task")?;
    api.files()?;
    let json = body.json()?;
    let mut invalid = InvalidFields::default();
    let (mut format, mut filters) = (None, None);
    for (name, value) in members(&json)? {
        match (name.as_ref(), value) {
            ("format" | "filter", Json::Null) => {}
            ("format", Json::Text(name)) => {
                format = Asks::all().find(|format| format.as_str() == name);
                if format.is_none() {
                    invalid.breaks_rule("/format", "must be ndjson, csv, ics or archive");
                }
            }
            ("format", _) => invalid.malformed("/format", "must be a string"),
            ("filter", value) => filters = filters_of(value, &mut invalid),
            (unknown, _) => invalid.unknown(unknown),
        }
    }
    if format.is_none() && !invalid.errors().iter().any(|error| error.pointer == "/format") {
        invalid.missing("/format");
    }
    if format == Some(Asks::Everything) && filters.is_some() {
        invalid.breaks_rule("/filter", "must not be there: an archive has everything");
    }
    let format = invalid.or(format)?;
    let until = api.position_now(attempt.principal.shard).await?;
    let request = match format {
        Asks::Tasks(format) => Request::Export { format, filters: filters.unwrap_or_default(), until },
        // it has what is known of the account, too
        Asks::Everything if attempt.principal.scopes.is_some() => return Err(covered_by_no_scope()),
        Asks::Everything => Request::Archive { until },
    };
    let identity = identity(&attempt, "/api/v1/exports", &json);
    api.submit(&attempt, Asked { id: new_id(), request, dry_run: false, identity }).await.0
}

/// What a file is asked for of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Tasks(ExportFormat),
    Everything,
}

impl Asks {
    fn all() -> impl Iterator<Item = Self> {
        ExportFormat::ALL.into_iter().map(Self::Tasks).chain([Self::Everything])
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Tasks(format) => format.as_str(),
            Self::Everything => "archive",
        }
    }
}

/// The members of a body that has to be an object.
pub(crate) fn members<'a, 'b>(json: &'b Json<'a>) -> Result<&'b [(std::borrow::Cow<'a, str>, Json<'a>)], Problem> {
    match json {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => {
            Err(Problem::new(ProblemCode::MalformedBody).error("", "must be an object"))
        }
    }
}

/// A filter with the members and values of a list's query.
pub(crate) fn filters_of(json: &Json<'_>, invalid: &mut InvalidFields) -> Option<Filters> {
    let Json::Object(members) = json else {
        invalid.malformed("/filter", "must be an object");
        return None;
    };
    let mut filters = Filters::new();
    for (name, value) in members {
        match value {
            Json::Null => {}
            Json::Text(value) => {
                filters.insert(name.to_string(), value.to_string());
            }
            _ => invalid.malformed(format!("/filter/{name}"), "must be a string"),
        }
    }
    if let Err(wrong) = parse_filter(&filters) {
        wrong.errors().iter().for_each(|error| invalid.breaks_rule(error.pointer.clone(), error.detail.clone()));
    }
    Some(filters)
}

/// Of the request's key and content.
pub(crate) fn identity(attempt: &Attempt, path: &str, json: &Json<'_>) -> Option<CommandIdentity> {
    attempt.key.as_ref().map(|key| CommandIdentity {
        command_id: command_id_of_key(key.as_str()),
        fingerprint: fingerprint("POST", path, Some(json)),
    })
}

impl CommandApi {
    /// The position of the last event of a shard.
    pub(crate) async fn position_now(&self, shard: i16) -> Result<i64, Problem> {
        let heads = self.executor().store().tail().heads().await.map_err(unavailable)?;
        Ok(heads.into_iter().find(|(found, _)| *found == shard).map_or(0, |(_, position)| position))
    }
}

pub(crate) fn filter_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": "The filters of `GET /api/v1/tasks`, with the same values.",
        "additionalProperties": false,
        "properties": {
            "status": text("With commas between: any of them."),
            "priority": text("With commas between: any of them."),
            "tag": text("With commas between: any of them."),
            "due_after": text("From then on."),
            "due_before": text("Before then."),
            "overdue": {"const": "true"},
            "q": text("As in a search."),
        },
    })
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["format"],
        "properties": {
            "format": {"type": "string", "enum": Asks::all().map(Asks::as_str).collect::<Vec<_>>()},
            "filter": {"oneOf": [{"type": "null"}, reference("Filter")]},
        },
    })
}

pub(crate) fn described() -> Operation {
    job_write("exportTasks", "Export tasks to a file")
        .says(
            "The tasks that are there at the request, as of one revision, by creation and id; deleted ones are left out. \
             `ndjson`: commands that rebuild the same tasks, with their history, when they are imported; `csv`: a row for each \
             task; `ics`: a calendar with a VTODO for each task and a VEVENT for each due date. `archive`, without a filter: \
             everything that the account has, as a compressed tar file with `profile.json` and folders of NDJSON files: `tasks` \
             (those in the trash too, with `deleted_at`), their `history`, `changes`, and `audit`; no API key gets it. The file is the \
             job's result for 7 days.",
        )
        .body(&["application/json"], &reference("NewExport"), &json!({"format": "csv", "filter": {"status": "pending"}}))
        .json(
            202,
            "The job.",
            &["Location", "Consistency-Token", "Idempotent-Replayed"],
            &reference("Job"),
            &job::example(),
        )
        .refuses(&REFUSALS)
}
