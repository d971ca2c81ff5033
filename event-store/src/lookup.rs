//! Lookups before a decision, and to confirm an outcome without an event: the events of a stream past a version, and
//! the outcomes of command ids. What is asked while one round trip is under way goes with the next.

use std::time::Duration;

use domain::{CommandId, OwnerId, StoredEvent, TaskId, Time};
use futures_util::TryStreamExt;
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::dedicated_connection::{DedicatedConnection, is_about_values};
use crate::effect::Effect;
use crate::log_state::Seen;
use crate::tail::stored_event;
use crate::unavailable::Unavailable;

/// How many lookups go into one round trip at most.
const BATCH_REQUESTS_MAX: usize = 512;
/// How many events of one stream a lookup returns at most.
const EVENTS_MAX: i64 = 1_000;
/// How many events all lookups of a round trip may return together, but for one of each stream.
const BATCH_EVENTS_MAX: i64 = 16_384;
/// After so many bytes of events the rest of a round trip is left for the next.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How long lookups are tried again while the database is away, in milliseconds.
const RETRY_MS_MAX: u64 = 4_000;
/// How long a lookup waits for its answer, in milliseconds.
const ANSWER_WAIT_MS_MAX: u64 = 10_000;

/// What became of a command with an id of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The task it was for.
    pub task_id: TaskId,
    /// The task's version after it.
    pub version: i64,
    /// The position of the task's last event after it.
    pub revision: i64,
    /// Fingerprint of the request; nil where it is not known ([`crate::salvage`]).
    pub fingerprint: Uuid,
    /// What it did.
    pub effect: Effect,
    /// The change that its events are of; none where it made none.
    pub change_id: Option<Uuid>,
}

/// Whether a request with this fingerprint is the one that is remembered. One whose fingerprint is not known is whichever
/// comes with its id.
#[must_use]
pub fn is_same_request(remembered: Uuid, fingerprint: Uuid) -> bool {
    remembered == fingerprint || remembered.is_nil()
}

/// What a lookup found.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// The stream's events past the version asked for, in order. A thousand at most, and fewer or none where the lookups
    /// of one round trip find too much together.
    pub events: Vec<StoredEvent>,
    /// Whether there may be more events after these: look again, past the last of them.
    pub more: bool,
    /// The outcomes of those command ids that are known.
    pub outcomes: Vec<(CommandId, Outcome)>,
}

pub(crate) struct Request {
    owner_id: OwnerId,
    task_id: TaskId,
    after_version: i64,
    command_ids: Vec<CommandId>,
    reply: oneshot::Sender<Result<Looked, Unavailable>>,
}

/// The queue of the lookups. Clones share it.
#[derive(Clone)]
pub(crate) struct LookupQueue(mpsc::Sender<Request>);

impl LookupQueue {
    /// With room for so many, and its other end for [`run`].
    pub(crate) fn new(requests_max: usize) -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(requests_max);
        (Self(sender), receiver)
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn look_up(
        &self,
        owner_id: OwnerId,
        task_id: TaskId,
        after_version: i64,
        command_ids: Vec<CommandId>,
    ) -> Result<Looked, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let request = Request { owner_id, task_id, after_version, command_ids, reply };
        self.0.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::NoAnswer,
        })?;
        match timeout(Duration::from_millis(ANSWER_WAIT_MS_MAX), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Unavailable::NoAnswer),
        }
    }
}

pub(crate) async fn run(mut connection: DedicatedConnection, mut queue: mpsc::Receiver<Request>, seen: Seen) {
    let mut requests = Vec::with_capacity(BATCH_REQUESTS_MAX);
    while queue.recv_many(&mut requests, BATCH_REQUESTS_MAX).await > 0 {
        connection.look().await;
        let answers = look_up_until(&mut connection, &requests, &seen).await;
        match answers {
            Ok(answers) => {
                for (request, looked) in requests.drain(..).zip(answers) {
                    // Who asked may have gone.
                    let _ = request.reply.send(Ok(looked));
                }
            }
            Err(error) => {
                tracing::warn!(%error, requests = requests.len(), "lookups failed");
                for request in requests.drain(..) {
                    let _ = request.reply.send(Err(Unavailable::NoAnswer));
                }
            }
        }
    }
}

async fn look_up_until(
    connection: &mut DedicatedConnection,
    requests: &[Request],
    seen: &Seen,
) -> Result<Vec<Looked>, sqlx::Error> {
    let deadline = Instant::now() + Duration::from_millis(RETRY_MS_MAX);
    let mut pause_ms = 20;
    loop {
        match connection.run(async move |connection| look_up_all(connection, requests, seen).await).await {
            Err(error) if !is_about_values(&error) && Instant::now() < deadline => {
                sleep(Duration::from_millis(pause_ms)).await;
                pause_ms = (pause_ms * 2).min(500);
            }
            result => return result,
        }
    }
}

async fn look_up_all(
    connection: &mut PgConnection,
    requests: &[Request],
    seen: &Seen,
) -> Result<Vec<Looked>, sqlx::Error> {
    let mut answers: Vec<Looked> = requests.iter().map(|_| Looked::default()).collect();
    // Events before outcomes: an outcome that is not there yet has no event among those read.
    stream_events(connection, requests, &mut answers).await?;
    let outcomes = command_outcomes(connection, requests).await?;
    let last_events = answers.iter().filter_map(|answer| answer.events.last());
    let last_events = last_events.map(|event| (event.shard, event.position, event.event_id));
    seen.note(last_events.chain(outcomes.iter().filter_map(|found| found.last_event)));
    for Found { number, command_id, outcome, .. } in outcomes {
        if let Some(answer) = answers.get_mut(number) {
            answer.outcomes.push((command_id, outcome));
        }
    }
    Ok(answers)
}

async fn stream_events(
    connection: &mut PgConnection,
    requests: &[Request],
    answers: &mut [Looked],
) -> Result<(), sqlx::Error> {
    let each_max = (BATCH_EVENTS_MAX / requests.len().max(1) as i64).clamp(1, EVENTS_MAX);
    let owner_ids: Vec<Uuid> = requests.iter().map(|request| request.owner_id.0).collect();
    let task_ids: Vec<Uuid> = requests.iter().map(|request| request.task_id.0).collect();
    let after: Vec<i64> = requests.iter().map(|request| request.after_version).collect();
    let mut rows = sqlx::query!(
        r#"
        select q.n as "n!", e.shard as "shard!", e.position as "position!", e.owner_id as "owner_id!",
            e.task_id as "task_id!", e.version as "version!", e.event_id as "event_id!", e.type as "event_type!",
            e.schema_version as "schema_version!", e.occurred_at as "occurred_at!: Time",
            e.recorded_at as "recorded_at!: Time", e.actor_type as "actor_type!", e.actor_id as "actor_id?",
            e.command_id as "command_id!", e.correlation_id as "correlation_id!", e.traceparent as "traceparent!",
            e.data as "data!", e.change_id, e.undoes
        from unnest($1::uuid[], $2::uuid[], $3::bigint[]) with ordinality as q (owner_id, task_id, after, n)
        cross join lateral (
            select * from event_store.event e
            where e.owner_id = q.owner_id and e.task_id = q.task_id and e.version > q.after
            order by e.version
            limit $4
        ) e
        order by q.n, e.version
        "#,
        &owner_ids,
        &task_ids,
        &after,
        each_max,
    )
    .fetch(connection);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let number = row.n as usize - 1;
        let Some(answer) = answers.get_mut(number) else { continue };
        bytes += size_of::<StoredEvent>() + row.data.len();
        answer.events.push(stored_event!(row));
        answer.more = answer.events.len() as i64 == each_max;
        if bytes > BATCH_BYTES_MAX {
            // The rows come in the order of the requests: nobody knows of those after this one.
            for answer in &mut answers[number..] {
                answer.more = true;
            }
            break;
        }
    }
    Ok(())
}

/// The outcome of a command.
struct Found {
    /// Of the request.
    number: usize,
    command_id: CommandId,
    outcome: Outcome,
    /// The task's last event after the command, if it has one: shard, position, id.
    last_event: Option<(i16, i64, Uuid)>,
}

async fn command_outcomes(connection: &mut PgConnection, requests: &[Request]) -> Result<Vec<Found>, sqlx::Error> {
    let mut numbers = Vec::new();
    let mut owner_ids = Vec::new();
    let mut command_ids = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        for command_id in &request.command_ids {
            numbers.push(number as i64);
            owner_ids.push(request.owner_id.0);
            command_ids.push(command_id.0);
        }
    }
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"
        select q.number as "number!", k.command_id as "command_id!", k.task_id as "task_id!", k.version as "version!",
            k.revision as "revision!", k.fingerprint as "fingerprint!", k.status as "status!",
            k.change_id, e.shard as "shard?", e.position as "position?", e.event_id as "event_id?"
        from unnest($1::bigint[], $2::uuid[], $3::uuid[]) as q (number, owner_id, command_id)
        cross join lateral (
            select * from event_store.command k
            where k.owner_id = q.owner_id and k.command_id = q.command_id
            limit 1
        ) k
        left join lateral (
            select * from event_store.event e
            where e.owner_id = k.owner_id and e.task_id = k.task_id and e.version = k.version
            limit 1
        ) e on true
        "#,
        &numbers,
        &owner_ids,
        &command_ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let outcome = Outcome {
                task_id: TaskId(row.task_id),
                version: row.version,
                revision: row.revision,
                fingerprint: row.fingerprint,
                effect: Effect::from_stored(row.status),
                change_id: row.change_id,
            };
            let last_event = match (row.shard, row.position, row.event_id) {
                (Some(shard), Some(position), Some(event_id)) => Some((shard, position, event_id)),
                _ => None,
            };
            Found { number: row.number as usize, command_id: CommandId(row.command_id), outcome, last_event }
        })
        .collect())
}
