//! `GET /api/v1/stream`: what happens to an account's tasks, as server-sent events.
//!
//! A stream pulls: whenever its client can take more and there is more, it reads a page of events after the last one
//! sent, from the history. Nothing is queued for it, so a slow client costs no memory and misses nothing; one that is
//! gone resumes from the last id it saw. One that takes next to nothing is told so and dropped, since it holds a subscription and
//! a connection; one that takes nothing at all is dropped by the connection (`server`). One poller for all streams of the process tells them how far there is to read.

mod events;
mod jobs;
mod subscriptions;

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use access::Principal;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http_api::account::TaskCaller;
use http_api::headers::LastEventId;
use http_api::openapi::{Operation, Tag};
use http_api::problem::{Problem, ProblemCode};
use http_api::query::NoQuery;
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::subscriptions::STREAMS_EACH_MAX;
use self::subscriptions::{Subscription, Subscriptions};
use crate::error::ReadError;
use crate::minimum_revision::MinimumRevision;
use crate::owner_version::Owner;
use crate::reads::Reads;

/// How often a comment says that the stream lives.
const COMMENT_EVERY_S: u64 = 15;
/// A client may take so long for what it was given before it is asked for the next: some 100 KiB, buffers included.
const TAKEN_S_MAX: u64 = 20;
/// What a client that takes longer is told, last of all. It has the id to resume from.
const TOO_SLOW: &[u8] = b": too slow, dropped; connect again with Last-Event-ID\nretry: 1000\n\n";
/// When a page that could not be read is tried again.
const RETRY_MS: u64 = 250;

/// All streams of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Streams {
    reads: Reads,
    subscriptions: Subscriptions,
    shutdown: CancellationToken,
}

impl Streams {
    /// `shutdown` ends them.
    pub fn new(reads: Reads, shutdown: CancellationToken) -> Self {
        Self { subscriptions: Subscriptions::new(reads.clone()), reads, shutdown }
    }
}

pub(crate) async fn stream(
    State(streams): State<Streams>,
    TaskCaller(principal): TaskCaller,
    resume_from: Option<LastEventId>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let live = Live::open(&streams, principal, resume_from.map(|LastEventId(position)| position)).await?;
    let body = Body::from_stream(stream::unfold(live, |mut live| async move {
        let chunk = live.give().await?;
        Some((Ok::<_, Infallible>(chunk), live))
    }));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
        // nginx would hold events back otherwise
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Queries, "followTasks", "Follow what happens to the account's tasks")
        .says(
            "Server-sent events: `id` is a revision, `event` a type, `data` the task after it (of `TaskDeleted` and \
             `TaskPurged`: its id and version; of a task that is purged by now, no other events come). Event `job`: a job of the account that has changed, as `GET /api/v1/jobs/{id}` shows it; it has no \
             `id`, and one that was missed does not come again. The first message has only an id, where the stream begins. A comment every 15 s says that it lives. \
             It ends with the token, and where a client is too slow to take what it is sent (a comment says so); connect \
             again with `Last-Event-ID`, and nothing is missed. An account has 10 at once, at each copy of the service.",
        )
        .task_caller()
        .header("Last-Event-ID")
        .answer(
            200,
            "The stream.",
            &[],
            "text/event-stream",
            &json!({"type": "string"}),
            &json!("id: 17\n\nid: 18\nevent: TaskStarted\ndata: {\"id\":\"…\"}\n\n"),
        )
        .refuses(&[ProblemCode::TooManyStreams])
}

/// One client's stream.
struct Live {
    streams: Streams,
    principal: Principal,
    subscription: Subscription,
    /// Everything up to here has been sent.
    position: i64,
    /// So many messages about jobs have been sent, or were there before.
    jobs: u64,
    /// What to send before anything else.
    greeting: Option<Bytes>,
    comments: Interval,
    given: Given,
}

/// What the client was given.
enum Given {
    /// Something, then.
    At(Instant),
    /// Nothing yet.
    Nothing,
    /// That it is too slow, last of all.
    TooSlow,
}

impl Live {
    async fn open(streams: &Streams, principal: Principal, resume_from: Option<i64>) -> Result<Self, ReadError> {
        let owner = Owner::of(&principal);
        // The subscription first: a client that asks for too many streams costs no query.
        let subscription = streams.subscriptions.subscribe(owner)?;
        let version = streams.reads.owner_versions().look_up(owner).await?;
        let until = version.row.complete_until();
        subscription.events.advance(&version.row);
        let (position, greeting) = match resume_from {
            Some(position) => {
                // what comes before it is not to be left out in silence: it is of another installation, or was lost
                let seen = MinimumRevision { log_id: Uuid::nil(), revision: position, seen_with_gap: true };
                match streams.reads.owner_versions().at_least(owner, Some(seen)).await {
                    Err(ReadError::NotYet) => {
                        return Err(ReadError::Parameter("the header Last-Event-ID is no past id".to_owned()));
                    }
                    version => drop(version?),
                }
                (position, None)
            }
            None => (until, Some(Bytes::from(format!("id: {until}\n\n")))),
        };
        let every = Duration::from_secs(COMMENT_EVERY_S);
        let mut comments = tokio::time::interval_at(Instant::now() + every, every);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            streams: streams.clone(),
            principal,
            jobs: subscription.jobs(),
            subscription,
            position,
            greeting,
            comments,
            given: Given::Nothing,
        })
    }

    /// What to send next; None: the stream is over. Asked for once the client has taken what it was given before, or as
    /// much of it that the rest fits into buffers.
    async fn give(&mut self) -> Option<Bytes> {
        match self.given {
            Given::TooSlow => return None,
            Given::At(at) if at.elapsed() > Duration::from_secs(TAKEN_S_MAX) => {
                self.given = Given::TooSlow;
                metrics::counter!("streams_dropped_total").increment(1);
                return Some(Bytes::from_static(TOO_SLOW));
            }
            Given::At(_) | Given::Nothing => {}
        }
        let chunk = self.next().await?;
        self.given = Given::At(Instant::now());
        Some(chunk)
    }

    /// What to send next; None: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            if self.principal.revoked() || self.streams.shutdown.is_cancelled() || self.subscription.events.is_over() {
                return None;
            }
            if self.subscription.jobs() > self.jobs {
                let (chunk, number) = self.subscription.events.jobs_after(self.jobs);
                self.jobs = number;
                return Some(chunk);
            }
            if self.subscription.until() > self.position {
                // Boxed, so that a stream that waits is small.
                let page: Pin<Box<dyn Future<Output = _> + Send>> =
                    Box::pin(self.subscription.events.page_after(&self.streams.reads, self.position));
                if let Ok(page) = page.await {
                    let (chunk, position) = page.after(self.position);
                    let moved = position > self.position;
                    self.position = position;
                    if !chunk.is_empty() {
                        return Some(chunk);
                    }
                    if moved {
                        continue;
                    }
                }
                // The database does not answer (logged where it happened), or a replica is behind. Nothing is lost.
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(RETRY_MS)) => continue,
                    () = self.principal.ended() => return None,
                    () = self.streams.shutdown.cancelled() => return None,
                }
            }
            tokio::select! {
                moved = self.subscription.moved() => if !moved { return None },
                _ = self.comments.tick() => return Some(Bytes::from_static(b":\n\n")),
                () = self.principal.ended() => return None,
                () = self.streams.shutdown.cancelled() => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use access::Role;
    use access::token::{RootSecret, Sealer};
    use sqlx::postgres::PgConnectOptions;

    use super::*;
    use crate::owner_versions::OwnerVersions;
    use crate::sources::Sources;

    fn waiting() -> Live {
        let secret = RootSecret::new("a secret of at least thirty-two bytes".to_owned().into()).unwrap();
        let pool = crate::connect::connect(PgConnectOptions::new(), 1);
        let stop = CancellationToken::new();
        let sources = Sources::of(pool);
        let versions = OwnerVersions::new(sources.clone(), Sealer::new(&secret), None);
        let streams = Streams::new(Reads::new(sources, versions), stop);
        let principal = Principal::detached(domain::OwnerId(uuid::Uuid::nil()), Role::User, 0);
        let subscription = streams.subscriptions.subscribe(Owner::of(&principal)).unwrap();
        let comments = tokio::time::interval_at(Instant::now(), Duration::from_secs(COMMENT_EVERY_S));
        Live { streams, principal, subscription, position: 0, jobs: 0, greeting: None, comments, given: Given::Nothing }
    }

    /// A thousand of them idle: the connections' own buffers are what counts.
    #[tokio::test]
    async fn a_waiting_stream_is_small() {
        let mut live = waiting();
        assert!(size_of::<Live>() <= 256, "{}", size_of::<Live>());
        let give = live.give();
        assert!(size_of_val(&give) <= 1024, "{}", size_of_val(&give));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_too_long_is_told_and_dropped() {
        let mut live = waiting();
        live.greeting = Some(Bytes::from_static(b"id: 7\n\n"));
        assert_eq!(live.give().await.unwrap(), "id: 7\n\n");
        // it waits for events for as long as there are none, and takes its time within the limit
        assert_eq!(live.give().await.unwrap(), ":\n\n");
        tokio::time::advance(Duration::from_secs(TAKEN_S_MAX - 1)).await;
        assert_eq!(live.give().await.unwrap(), ":\n\n");
        tokio::time::advance(Duration::from_secs(COMMENT_EVERY_S)).await;
        assert_eq!(live.give().await.unwrap(), ":\n\n");
        tokio::time::advance(Duration::from_secs(TAKEN_S_MAX + 1)).await;
        let last = live.give().await.unwrap();
        assert!(last.starts_with(b": too slow") && last.ends_with(b"\n\n"), "{last:?}");
        assert!(live.give().await.is_none());
    }
}
