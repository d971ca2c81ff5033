use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use commands::Caller;
use commands::batch::{Batch, CommandError};
use commands::identity::{CommandIdentity, command_id_of_key};
use commands::keyed_batch::KeyedBatch;
use commands::parse_error::COMMANDS_MAX;
use http_api::body::{BATCH_BYTES_MAX, read_body, require_media_type};
use http_api::openapi::{EXAMPLE_ID, Operation, reference};
use http_api::problem::{Problem, ProblemCode};
use metrics::histogram;
use serde_json::{Value, json};

use crate::api::CommandApi;
use crate::attempt::Attempt;
use crate::batch_answer::{Results, Writer};
use crate::operation::write;
use crate::{keyed, refusal};

/// The body of a batch in one of its two forms.
#[derive(Debug)]
pub(crate) enum BatchText {
    /// `{"commands": [...]}`
    Json(Bytes),
    /// A command a line.
    Lines(Bytes),
}

impl<S: Sync> FromRequest<S> for BatchText {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        const LINES: &str = "application/x-ndjson";
        let media_type = require_media_type(request.headers(), &["application/json", LINES])?;
        let body = read_body(request, BATCH_BYTES_MAX).await?;
        Ok(if media_type == LINES { Self::Lines(body) } else { Self::Json(body) })
    }
}

impl BatchText {
    async fn parse(&self) -> Result<Batch, Problem> {
        let parsed = match self {
            Self::Json(body) => Batch::from_json(body).await,
            Self::Lines(body) => Batch::from_lines(body).await,
        };
        parsed.map_err(refusal::parse_problem)
    }
}

/// Carries out a batch. Under a key it is carried out once, and its whole answer is kept.
pub(crate) async fn batch(
    State(api): State<CommandApi>,
    attempt: Attempt,
    body: BatchText,
) -> Result<Response, Problem> {
    attempt.refuse_condition("If-Match is for one task; a command of a batch has expected_version")?;
    let caller = attempt.caller();
    let permit = api.batch_permit(caller.owner).await?;
    let batch = body.parse().await?;
    let Some(key) = &attempt.key else {
        return Ok(keyed::answer(&api, &attempt, carry_out(&api, &caller, None, batch).await));
    };
    let identity = CommandIdentity { command_id: command_id_of_key(key.as_str()), fingerprint: batch.fingerprint() };
    let keyed = KeyedBatch::new(api.executor().store(), &caller, identity);
    if let Some(kept) = keyed.answer().await.map_err(keyed::problem)? {
        return keyed::replay(&api, &attempt, kept);
    }
    // While it waits for an equal one it keeps no more than what was sent.
    drop((permit, batch));
    let work = async |caller: &Caller| {
        let _permit = api.batch_permit(caller.owner).await?;
        Ok(carry_out(&api, caller, Some(key.as_str()), body.parse().await?).await)
    };
    keyed::carry_out(&api, &attempt, keyed, work).await
}

async fn carry_out(api: &CommandApi, caller: &Caller, key: Option<&str>, batch: Batch) -> Results {
    histogram!("batch_commands").record(batch.command_count() as f64);
    let mut writer = Writer::new(batch.command_count(), caller.change_id);
    for outcome in batch.execute(api.executor(), caller, key).await {
        match outcome {
            Ok(accepted) => {
                api.count(&accepted);
                writer.succeeded(&accepted);
            }
            Err(CommandError::Parse(error)) => writer.failed(&refusal::parse_problem(error)),
            Err(CommandError::Execute(error, from)) => writer.failed(&refusal::problem(error, from)),
        }
    }
    writer.finish(api.executor().last_position(caller.owner))
}

pub(crate) fn described() -> Operation {
    let commands = [
        json!({"type": "CreateTask", "task_id": EXAMPLE_ID, "title": "water"}),
        json!({"type": "StartTask", "task_id": EXAMPLE_ID, "command_id": "01a20530-d423-75ae-8522-766cb71a70c3"}),
    ];
    let lines = commands.each_ref().map(Value::to_string).join("\n");
    let answer = json!({
        "results": [
            {"index": 0, "status": 201, "id": EXAMPLE_ID, "version": 1, "revision": 1},
            {"index": 1, "status": 200, "id": EXAMPLE_ID, "version": 2, "revision": 2},
        ],
        "succeeded": 2, "failed": 0, "change_id": EXAMPLE_ID, "revision": 2,
    });
    write("sendCommands", "Send many commands in one request")
        .says(
            "Each is decided on its own, in order per task; one that is wrong in itself fails alone, with its problem. Only a \
             body that is not the list it should be fails as a whole. Under an `Idempotency-Key` the whole answer is kept, \
             failed commands included.",
        )
        .body(&["application/json"], &reference("Batch"), &json!({"commands": commands}))
        .body_also(
            "application/x-ndjson",
            &json!({"type": "string", "description": "A `Command` a line."}),
            &json!(lines),
        )
        .json(
            200,
            "What came of each.",
            &["Consistency-Token", "Change-Id", "Idempotent-Replayed"],
            &reference("BatchAnswer"),
            &answer,
        )
        .refuses(&[ProblemCode::BatchTooLarge])
}

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["commands"],
        "properties": {
            "commands": {"type": "array", "minItems": 1, "maxItems": COMMANDS_MAX, "items": reference("Command")},
        },
    })
}
