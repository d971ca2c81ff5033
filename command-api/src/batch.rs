//! `POST /api/v1/commands`: many commands in one request, each decided on its own.

use std::convert::Infallible;
use std::io::Write as _;
use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use domain::{CommandId, OwnerId, TaskId};
use event_store::{AppendError, BatchAnswer, CommandOrigin, DecidedCommand, EventStore, StreamAppend};
use http_api::body::{BATCH_BYTES_MAX, read_body, require_media_type};
use http_api::openapi::{EXAMPLE_ID, Operation, count, reference, whole};
use http_api::problem::{Problem, ProblemCode};
use metrics::{counter, histogram};
use process::budget::Reservation;
use process::clock::new_id;
use process::context::without_permit;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::yield_now;
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;

use crate::CommandApi;
use crate::attempt::{Attempt, command_id_of_key, command_id_of_key_and_index};
use crate::execute::{Accepted, Caller, Expected, Identity, Item, Refused};
use crate::line::{self, Line};
use crate::refusal::{self, IdentityFrom};
use crate::{answer, split, write};

/// How many commands a batch has at most.
pub const COMMANDS_MAX: usize = 10_000;
/// How many batches are carried out at the same time; others wait for their turn, and take no place from single commands.
pub(crate) const AT_ONCE_MAX: u32 = 8;
/// How many of them may be one account's, so that others have their turn whatever it sends.
pub(crate) const AT_ONCE_EACH_MAX: u32 = 4;
/// How long one waits for its turn, in milliseconds.
const TURN_WAIT_MS_MAX: u64 = 10_000;
/// How long an equal batch that is under way is waited for, in milliseconds. Longer than a lease lasts.
const EQUAL_WAIT_MS_MAX: u64 = 10_000;
/// How often it is looked for its answer, in milliseconds.
const EQUAL_LOOK_MS: u64 = 100;
/// How often a lease is renewed, in milliseconds: several times before it would end.
const RENEWAL_MS: u64 = 500;
/// After so many commands parsed, others get a turn.
const PARSED_BETWEEN_YIELDS: usize = 256;
/// How many old answers are forgotten with each that is kept: more than one, so that they run out.
const FORGOTTEN_WITH_EACH: i64 = 4;

/// Carries out a batch.
pub(crate) async fn batch(
    State(api): State<CommandApi>,
    attempt: Attempt,
    body: BatchText,
) -> Result<Response, Problem> {
    if attempt.expected.is_some() {
        return Err(Problem::parameter("If-Match is for one task; a command of a batch has expected_version"));
    }
    let owner = attempt.principal.owner;
    let turn = turn(&api, owner).await?;
    let lines = parse(body.commands()?).await;
    let Some(key) = &attempt.key else {
        let results = carry_out(&api, &attempt, lines).await;
        return Ok(api.answer(&attempt).batch(results.body, results.revision, false));
    };
    let command_id = command_id_of_key(key);
    let fingerprint = fingerprint(&lines);
    let store = api.executor.store();
    let kept = store.batch_answer(owner, command_id).await.map_err(|error| Problem::unavailable(&error))?;
    if let Some(kept) = kept {
        return replay(&api, &attempt, fingerprint, kept);
    }
    bind(&api, &attempt, Identity { command_id, fingerprint })
        .await
        .map_err(|refused| refusal::problem(refused, IdentityFrom::IdempotencyKey))?;
    // An equal one may be under way: who waits for it is in nobody's way, and keeps no more than what was sent.
    drop((turn, lines));
    let lease = Lease { store, owner, command_id, holder: new_id() };
    if let Some(kept) = lease.take_or_answer(true).await? {
        return replay(&api, &attempt, fingerprint, kept);
    }
    let carried_out = async {
        let _turn = self::turn(&api, owner).await?;
        Ok(carry_out(&api, &attempt, parse(body.commands()?).await).await)
    };
    let results = match lease.renewed_during(carried_out).await {
        Ok(results) if !results.unfinished => results,
        // The same request again replays what succeeded and decides the rest.
        unfinished => {
            lease.release().await;
            return unfinished.map(|results| api.answer(&attempt).batch(results.body, results.revision, false));
        }
    };
    let own = BatchAnswer { fingerprint, body: results.body };
    // Where it is not known whether it was kept: what was done is done; asked again, it is replayed command by command.
    let kept = store.keep_batch_answer(owner, command_id, lease.holder, &own).await;
    if !kept.map_err(|error| Problem::unavailable(&error))? {
        // This process was held up for so long that another one took over: its answer counts.
        let kept = lease.take_or_answer(false).await?;
        return kept.map_or_else(|| Err(in_flight()), |kept| replay(&api, &attempt, fingerprint, kept));
    }
    if let Err(error) = store.forget_old_batch_answers(FORGOTTEN_WITH_EACH).await {
        tracing::warn!(%error, "old batch answers were not forgotten");
    }
    Ok(api.answer(&attempt).batch(own.body, results.revision, false))
}

/// Waits for a turn among the batches.
async fn turn(api: &CommandApi, owner: OwnerId) -> Result<Reservation<OwnerId>, Problem> {
    let taken = timeout(Duration::from_millis(TURN_WAIT_MS_MAX), api.batches.take(owner, 1));
    without_permit(taken).await.map_err(|_| Problem::overloaded())
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
        "succeeded": 2, "failed": 0, "revision": 2,
    });
    write("sendCommands", "Many commands in one request")
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
            &["Consistency-Token", "Idempotent-Replayed"],
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

pub(crate) fn answer_schema() -> Value {
    whole(json!({
        "results": {"type": "array", "items": reference("BatchResult")},
        "succeeded": count(),
        "failed": count(),
        "revision": {"type": ["integer", "null"], "description": "The last one among the results."},
    }))
}

/// Each with the status that the single request would have got.
pub(crate) fn result_schema() -> Value {
    json!({
        "oneOf": [
            {
                "title": "Succeeded",
                "type": "object",
                "required": ["index", "status", "id", "version", "revision"],
                "properties": {
                    "index": count(),
                    "status": {"type": "integer", "minimum": 200, "maximum": 299},
                    "id": {"type": "string", "format": "uuid"},
                    "version": count(),
                    "revision": count(),
                    "replayed": {"const": true, "description": "An earlier request had the effect."},
                },
            },
            {
                "title": "Failed",
                "type": "object",
                "required": ["index", "status", "problem"],
                "properties": {
                    "index": count(),
                    "status": {"type": "integer", "minimum": 400, "maximum": 599},
                    "problem": reference("Problem"),
                },
            },
        ],
    })
}

/// The lease on a batch under a key: of equal requests, at whatever copy of the service, one carries it out. Where that
/// one dies, or its client goes away, the lease expires and another takes over.
struct Lease<'a> {
    store: &'a EventStore,
    owner: OwnerId,
    command_id: CommandId,
    /// This request.
    holder: Uuid,
}

fn in_flight() -> Problem {
    refusal::problem(Refused::InFlight, IdentityFrom::IdempotencyKey)
}

impl Lease<'_> {
    /// Waits for the answer of an equal request, or, where `may_take`, for the lease: then there is no answer.
    async fn take_or_answer(&self, may_take: bool) -> Result<Option<BatchAnswer>, Problem> {
        let unavailable = |error| Problem::unavailable(&error);
        let deadline = Instant::now() + Duration::from_millis(EQUAL_WAIT_MS_MAX);
        loop {
            let Self { store, owner, command_id, holder } = *self;
            let taken = may_take && store.lease_batch(owner, command_id, holder).await.map_err(unavailable)?;
            // After the lease: until then somebody else may have answered.
            if let Some(kept) = store.batch_answer(owner, command_id).await.map_err(unavailable)? {
                if taken {
                    self.release().await;
                }
                return Ok(Some(kept));
            }
            if taken {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Err(in_flight());
            }
            without_permit(sleep(Duration::from_millis(EQUAL_LOOK_MS))).await;
        }
    }

    async fn renewed_during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.renew() => match never {},
        }
    }

    async fn renew(&self) -> Infallible {
        let mut renewals = interval(Duration::from_millis(RENEWAL_MS));
        renewals.tick().await;
        loop {
            renewals.tick().await;
            // One that is lost is noticed when the answer is to be kept.
            if let Err(error) = self.store.renew_batch(self.owner, self.command_id, self.holder).await {
                tracing::warn!(%error, "the lease on a batch was not renewed");
            }
        }
    }

    async fn release(&self) {
        if let Err(error) = self.store.release_batch(self.owner, self.command_id, self.holder).await {
            tracing::warn!(%error, "the lease on a batch was not given back; it expires");
        }
    }
}

fn replay(api: &CommandApi, attempt: &Attempt, fingerprint: Uuid, kept: BatchAnswer) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct Revision {
        revision: Option<i64>,
    }
    if kept.fingerprint != fingerprint {
        return Err(refusal::problem(Refused::KeyReused, IdentityFrom::IdempotencyKey));
    }
    let Revision { revision } = serde_json::from_str(&kept.body).map_err(|error| Problem::internal(&error))?;
    Ok(api.answer(attempt).batch(kept.body, revision, true))
}

/// Binds the key to this batch before anything is done: an outcome that is no command's. So the key cannot be used for
/// another request from now on, nor for this one if it was used before, by a single request or by another batch.
async fn bind(api: &CommandApi, attempt: &Attempt, identity: Identity) -> Result<(), Refused> {
    const NO_TASK: TaskId = TaskId(Uuid::nil());
    let store = api.executor.store();
    let Caller { owner: owner_id, shard, actor, correlation_id, traceparent, history: _ } = attempt.caller();
    let Identity { command_id, fingerprint } = identity;
    let outcome = DecidedCommand { command_id, fingerprint: Some(fingerprint), status: 200, events: Vec::new() };
    let append = StreamAppend {
        owner_id,
        task_id: NO_TASK,
        expected_version: 0,
        expected_revision: 0,
        origin: CommandOrigin { actor, correlation_id, traceparent },
        commands: vec![outcome],
    };
    match store.append(shard, append).await {
        Ok(_) => Ok(()),
        Err(AppendError::CommandKnown) => {
            let looked = store.look_up(owner_id, NO_TASK, i64::MAX, vec![command_id]).await?;
            match looked.outcomes.first() {
                // An earlier attempt at the same: what it did is replayed.
                Some((_, bound)) if bound.fingerprint == fingerprint => Ok(()),
                Some(_) => Err(Refused::KeyReused),
                None => Err(Refused::Unavailable),
            }
        }
        Err(AppendError::Conflict) => Err(Refused::Contended),
        Err(AppendError::Refused) => Err(Refused::Failed),
        Err(AppendError::Unavailable(unavailable)) => Err(unavailable.into()),
    }
}

/// A command as it was sent, and what came of parsing it.
struct Parsed {
    text: Bytes,
    line: Result<Line, Problem>,
}

async fn parse(commands: Vec<Bytes>) -> Vec<Parsed> {
    let mut parsed = Vec::with_capacity(commands.len());
    for text in commands {
        let line = line::parse(&text);
        parsed.push(Parsed { text, line });
        if parsed.len().is_multiple_of(PARSED_BETWEEN_YIELDS) {
            yield_now().await;
        }
    }
    parsed
}

/// Of the whole batch: of its commands as JSON and in order; of what is not a command, as it was sent.
fn fingerprint(batch: &[Parsed]) -> Uuid {
    let mut hash = Sha256::new();
    for Parsed { text, line } in batch {
        match line {
            Ok(line) => {
                hash.update([1, u8::from(line.command_id.is_some())]);
                hash.update(line.command_id.map_or(Uuid::nil(), |id| id.0));
                hash.update(line.fingerprint);
            }
            Err(_) => {
                hash.update([0]);
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text);
            }
        }
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(first)
}

/// The answer, and what is to be known of it.
struct Results {
    body: String,
    /// The last revision of those that succeeded.
    revision: Option<i64>,
    /// Whether a command was neither done nor refused (5xx, or an equal one under way).
    unfinished: bool,
}

async fn carry_out(api: &CommandApi, attempt: &Attempt, batch: Vec<Parsed>) -> Results {
    histogram!("batch_commands").record(batch.len() as f64);
    let mut items = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for (index, Parsed { line, .. }) in batch.into_iter().enumerate() {
        match line {
            Ok(line) => {
                places.push(Ok(if line.command_id.is_some() {
                    IdentityFrom::CommandId
                } else {
                    IdentityFrom::IdempotencyKey
                }));
                items.push(item(attempt, index, line));
            }
            Err(problem) => places.push(Err(problem)),
        }
    }
    let mut outcomes = api.executor.execute_all(&attempt.caller(), items).await.into_iter();
    let mut writer = Writer::with_capacity(places.len());
    for place in places {
        let outcome = place.and_then(|identity_from| {
            // There is an outcome for each item.
            let outcome = outcomes.next().unwrap_or(Err(Refused::Failed));
            outcome.map_err(|refused| refusal::problem(refused, identity_from))
        });
        match outcome {
            Ok(accepted) => {
                CommandApi::count(&accepted);
                writer.succeeded(&accepted);
            }
            Err(problem) => writer.failed(&problem),
        }
    }
    writer.finish()
}

fn item(attempt: &Attempt, index: usize, line: Line) -> Item {
    let Line { task_id, command, command_id, occurred_at, expected_version, fingerprint } = line;
    let command_id = command_id.or_else(|| attempt.key.as_ref().map(|key| command_id_of_key_and_index(key, index)));
    Item {
        task_id,
        command,
        identity: command_id.map(|command_id| Identity { command_id, fingerprint }),
        expected: expected_version.map_or(Expected::Nothing, |version| Expected::OneOf(vec![version])),
        occurred_at,
    }
}

/// Writes the answer, one result after the other.
struct Writer {
    body: Vec<u8>,
    succeeded: usize,
    failed: usize,
    revision: Option<i64>,
    unfinished: bool,
}

impl Writer {
    fn with_capacity(results: usize) -> Self {
        let mut body = Vec::with_capacity(128 * results + 64);
        body.extend_from_slice(br#"{"results":["#);
        Self { body, succeeded: 0, failed: 0, revision: None, unfinished: false }
    }

    fn succeeded(&mut self, accepted: &Accepted) {
        self.begin(accepted.status);
        self.body.push(b',');
        answer::members(&mut self.body, accepted.task_id, accepted.version, accepted.revision);
        if accepted.replayed {
            self.body.extend_from_slice(br#","replayed":true"#);
        }
        self.body.push(b'}');
        self.succeeded += 1;
        self.revision = self.revision.max(Some(accepted.revision));
    }

    fn failed(&mut self, problem: &Problem) {
        self.begin(problem.status().as_u16());
        self.body.extend_from_slice(br#","problem":"#);
        // Strings and numbers, into a vector: neither fails.
        let _ = serde_json::to_writer(&mut self.body, problem);
        self.body.push(b'}');
        self.failed += 1;
        self.unfinished |= problem.status().is_server_error() || problem.code() == ProblemCode::RequestInFlight;
    }

    fn begin(&mut self, status: u16) {
        let index = self.succeeded + self.failed;
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(self.body, r#"{comma}{{"index":{index},"status":{status}"#);
    }

    fn finish(mut self) -> Results {
        let Self { succeeded, failed, revision, unfinished, .. } = self;
        let _ = write!(self.body, r#"],"succeeded":{succeeded},"failed":{failed},"revision":"#);
        let _ = match revision {
            Some(revision) => write!(self.body, "{revision}}}"),
            None => write!(self.body, "null}}"),
        };
        counter!("batch_commands_failed_total").increment(failed as u64);
        // Made of strings.
        let body = String::from_utf8(self.body).unwrap_or_default();
        Results { body, revision, unfinished }
    }
}

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
    /// The commands, not yet looked at: each is right or wrong on its own.
    fn commands(&self) -> Result<Vec<Bytes>, Problem> {
        let commands = match self {
            Self::Json(body) => split::commands(body, COMMANDS_MAX)?,
            Self::Lines(body) => split::lines(body, COMMANDS_MAX),
        };
        match commands.len() {
            0 => Err(Problem::field("/commands", "must have at least one command")),
            1..=COMMANDS_MAX => Ok(commands),
            _ => Err(Problem::new(ProblemCode::BatchTooLarge)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(text: &'static str) -> Parsed {
        Parsed { text: Bytes::from_static(text.as_bytes()), line: line::parse(text.as_bytes()) }
    }

    #[test]
    fn the_answer_is_as_the_contract_has_it() {
        let mut writer = Writer::with_capacity(3);
        let task_id = TaskId(Uuid::nil());
        let accepted = Accepted { status: 201, task_id, version: 1, revision: 7, replayed: false, events: 1 };
        writer.succeeded(&accepted);
        writer.failed(&Problem::field("/title", "is \"missing\""));
        writer.succeeded(&Accepted { status: 200, revision: 5, replayed: true, ..accepted });
        let results = writer.finish();
        assert!(!results.unfinished);
        assert_eq!(results.revision, Some(7));
        let body: Value = serde_json::from_str(&results.body).unwrap();
        assert_eq!(
            body["results"][0],
            json!({"index": 0, "status": 201, "id": Uuid::nil(), "version": 1, "revision": 7})
        );
        assert_eq!(body["results"][1]["index"], 1);
        assert_eq!(body["results"][1]["status"], 422);
        assert_eq!(body["results"][1]["problem"]["code"], "invalid-fields");
        assert_eq!(body["results"][1]["problem"]["errors"][0]["pointer"], "/title");
        assert_eq!(
            body["results"][2],
            json!({"index": 2, "status": 200, "id": Uuid::nil(), "version": 1, "revision": 5, "replayed": true})
        );
        assert_eq!((&body["succeeded"], &body["failed"], &body["revision"]), (&json!(2), &json!(1), &json!(7)));
    }

    #[test]
    fn an_answer_that_is_not_final_is_known_as_such() {
        for (refused, unfinished) in [
            (Refused::NotFound, false),
            (Refused::KeyReused, false),
            (Refused::InFlight, true),
            (Refused::Unavailable, true),
            (Refused::Overloaded, true),
            (Refused::DiskFull, true),
        ] {
            let mut writer = Writer::with_capacity(1);
            writer.failed(&refusal::problem(refused.clone(), IdentityFrom::CommandId));
            let results = writer.finish();
            assert_eq!(results.unfinished, unfinished, "{refused:?}");
            assert!(results.body.ends_with(r#""succeeded":0,"failed":1,"revision":null}"#), "{}", results.body);
        }
    }

    #[test]
    fn batches_are_compared_command_by_command() {
        const ID: &str = "01932c6e-7d3b-7cc1-a5ad-0242ac120002";
        let start = parsed(r#"{"type":"StartTask","task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#);
        let spaced = parsed(r#"{ "task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002", "type":"StartTask" }"#);
        let with_id = parsed(
            r#"{"type":"StartTask","task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002","command_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#,
        );
        assert!(start.line.is_ok() && with_id.line.is_ok(), "{ID}");
        let of = |batch: &[&Parsed]| {
            let batch: Vec<Parsed> =
                batch.iter().map(|p| Parsed { text: p.text.clone(), line: p.line.clone() }).collect();
            fingerprint(&batch)
        };
        assert_eq!(of(&[&start]), of(&[&spaced]));
        assert_ne!(of(&[&start]), of(&[&with_id]));
        assert_ne!(of(&[&start]), of(&[&start, &start]));
        let broken = parsed("{");
        assert_ne!(of(&[&start, &broken]), of(&[&broken, &start]));
        assert_ne!(of(&[&broken]), of(&[&parsed("{{")]));
    }
}
