//! Answers that processes share through Redis, for minutes.
//!
//! An answer is kept under what it is an answer to: log, generation, owner, change counter, request. That never becomes
//! wrong; it is no longer asked for. It also says so itself, and is not taken for anything else. So nothing here can make an
//! answer wrong, whatever the Redis does (docs/redis.md has the cases).

use std::fmt::Write as _;
use std::sync::LazyLock;

use access::token::Sealer;
use backends::redis::{Entry, Redis};
use bytes::Bytes;
use chrono::DateTime;
use domain::{OwnerId, Time};
use metrics::{Counter, counter};
use process::clock;
use read_model::ReadModelId;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::answer::{Content, Etag, Key};
use crate::owner_version::VersionRow;

/// Answers that wait to be written; more are not kept.
const ANSWERS_WAITING_MAX: usize = 256;
/// Written in one round trip.
const ANSWERS_PER_WRITE_MAX: usize = 16;
/// Larger answers are not kept, bytes.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// Part of the keys of answers: to be raised whenever an answer to the same request looks different.
const ANSWERS_FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), ".1");

#[derive(Debug)]
pub(crate) struct RedisAnswers {
    redis: Redis,
    /// Tells answers with cursors of another secret apart: the same for all processes with the same secret.
    secret_tag: String,
    answers: mpsc::Sender<Entry>,
}

/// An answer's name in Redis.
pub(crate) struct AnswerKey {
    key: String,
    owner: Uuid,
    row: VersionRow,
    request_hash: [u8; 32],
}

impl RedisAnswers {
    /// Needs a Tokio runtime: answers are written in the background.
    pub fn new(redis: Redis, sealer: &Sealer) -> Self {
        let secret_tag = sealer.seal_cursor(OwnerId(Uuid::nil()), b"redis", b"");
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING_MAX);
        tokio::spawn(write_answers(redis.clone(), waiting));
        Self { redis, secret_tag, answers }
    }

    /// The name of the answer to a request at a version. None: it is not kept.
    pub fn key(&self, cache_id: Uuid, row: &VersionRow, key: &Key) -> Option<AnswerKey> {
        // An owner of whom nothing was ever applied needs no cache.
        let (log_id, counter) = (row.log_id?, row.change_counter?);
        let request_hash: [u8; 32] = Sha256::digest(&key.request).into();
        let read_model = ReadModelId { cache_id, log_id, generation: row.generation };
        let mut name = read_model.key_prefix();
        // Writing into a string cannot fail.
        let _ = write!(name, "answer:{}:{ANSWERS_FORMAT}:{}:{counter:x}:", self.secret_tag, Uuid::simple(key.owner));
        for byte in request_hash {
            let _ = write!(name, "{byte:02x}");
        }
        Some(AnswerKey { key: name, owner: key.owner, row: *row, request_hash })
    }

    /// The answer, if a process has kept it.
    pub async fn get(&self, key: &AnswerKey) -> Option<Content> {
        let found = self.redis.get(&key.key).await.ok().flatten();
        found.and_then(|value| read_answer(key, &value, clock::now()))
    }

    /// Keeps an answer for others, in the background, unless too many wait for that.
    pub fn keep(&self, key: &AnswerKey, content: &Content, kept_ms_max: u64) {
        if content.body.len() > ANSWER_BYTES_MAX || !self.redis.is_up() {
            return;
        }
        let left_ms = match content.etag {
            Etag::OwnerVersionUntil(until) => {
                u64::try_from((until - clock::now()).num_milliseconds()).unwrap_or(0).min(kept_ms_max)
            }
            Etag::OwnerVersion | Etag::TaskVersion(_) => kept_ms_max,
        };
        if left_ms == 0 {
            return;
        }
        let entry = Entry { key: key.key.clone(), value: write_answer(key, content), ttl_ms: left_ms };
        if self.answers.try_send(entry).is_err() {
            static NOT_KEPT: LazyLock<Counter> = LazyLock::new(|| counter!("cache_answers_not_kept_total"));
            NOT_KEPT.increment(1);
        }
    }
}

async fn write_answers(redis: Redis, mut waiting: mpsc::Receiver<Entry>) {
    let mut entries = Vec::with_capacity(ANSWERS_PER_WRITE_MAX);
    while waiting.recv_many(&mut entries, ANSWERS_PER_WRITE_MAX).await > 0 {
        // Counted and logged there; it is only missed.
        let _ = redis.set(std::mem::take(&mut entries)).await;
    }
}

/// Of an answer: what it is an answer to, its ETag, its link. The body follows.
const ANSWER_HEAD: usize = 4 + 16 + 16 + 4 + 3 * 8 + 32 + 1 + 8 + 4;
const ANSWER_MAGIC: [u8; 4] = *b"pta1";

fn write_answer(key: &AnswerKey, content: &Content) -> Vec<u8> {
    let link = content.link.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(ANSWER_HEAD + link.len() + content.body.len());
    out.extend_from_slice(&identity(key));
    let (kind, number) = match content.etag {
        Etag::OwnerVersion => (0, 0),
        Etag::OwnerVersionUntil(until) => (1, until.timestamp_micros()),
        Etag::TaskVersion(version) => (2, version),
    };
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
    // A link is shorter than any request's URI may be.
    out.extend_from_slice(&u32::try_from(link.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(link.as_bytes());
    out.extend_from_slice(&content.body);
    out
}

/// What an answer is an answer to: the same bytes for nothing else.
fn identity(key: &AnswerKey) -> Vec<u8> {
    let AnswerKey { owner, row, request_hash, .. } = key;
    let mut out = Vec::with_capacity(ANSWER_HEAD);
    out.extend_from_slice(&ANSWER_MAGIC);
    out.extend_from_slice(owner.as_bytes());
    out.extend_from_slice(row.log_id.unwrap_or(Uuid::nil()).as_bytes());
    out.extend_from_slice(&row.generation.to_be_bytes());
    for number in [row.revision, row.change_counter, row.parked_position] {
        out.extend_from_slice(&number.unwrap_or(i64::MIN).to_be_bytes());
    }
    out.extend_from_slice(request_hash);
    out
}

/// None: it is an answer to something else, or the clock has changed it.
fn read_answer(key: &AnswerKey, value: &Bytes, now: Time) -> Option<Content> {
    let expected = identity(key);
    let rest = value.strip_prefix(&expected[..])?;
    let (kind, rest) = rest.split_first()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (link_length, rest) = rest.split_first_chunk::<4>()?;
    let (number, link_length) = (i64::from_be_bytes(*number), u32::from_be_bytes(*link_length) as usize);
    let (link, body) = rest.split_at_checked(link_length)?;
    let etag = match kind {
        0 => Etag::OwnerVersion,
        1 => Etag::OwnerVersionUntil(DateTime::from_timestamp_micros(number).filter(|until| now < *until)?),
        2 => Etag::TaskVersion(number),
        _ => return None,
    };
    let link = if link.is_empty() { None } else { Some(String::from_utf8(link.to_vec()).ok()?) };
    Some(Content { body: value.slice_ref(body), etag, link })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const OWNER: Uuid = Uuid::from_u128(9);
    const NOW_MS: i64 = 1_790_000_000_000;

    fn row() -> VersionRow {
        VersionRow {
            log_id: Some(Uuid::max()),
            generation: 3,
            shard: Some(4),
            revision: Some(70),
            change_counter: Some((5 << 32) + 7),
            parked_position: Some(60),
        }
    }

    fn key() -> AnswerKey {
        AnswerKey { key: String::new(), owner: OWNER, row: row(), request_hash: [7; 32] }
    }

    fn content(etag: Etag) -> Content {
        Content { body: Bytes::from_static(b"{}"), etag, link: Some("/next?a=1".into()) }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_only_as_what_it_is() {
        let now = DateTime::from_timestamp_millis(NOW_MS).unwrap();
        let value = Bytes::from(write_answer(&key(), &content(Etag::TaskVersion(12))));
        let read = read_answer(&key(), &value, now).unwrap();
        assert_eq!((&read.body[..], read.link.as_deref()), (&b"{}"[..], Some("/next?a=1")));
        assert!(matches!(read.etag, Etag::TaskVersion(12)));
        let another_row = VersionRow { change_counter: Some(8), ..row() };
        let parked = VersionRow { parked_position: None, ..row() };
        for other in [
            AnswerKey { owner: Uuid::from_u128(8), ..key() },
            AnswerKey { row: another_row, ..key() },
            AnswerKey { row: parked, ..key() },
            AnswerKey { request_hash: [8; 32], ..key() },
        ] {
            assert!(read_answer(&other, &value, now).is_none());
        }
        for length in 0..value.len() - 2 {
            assert!(read_answer(&key(), &value.slice(..length), now).is_none(), "{length}");
        }
    }

    #[test]
    fn what_the_clock_has_changed_is_not_taken() {
        let until = DateTime::from_timestamp_millis(NOW_MS).unwrap();
        let value = Bytes::from(write_answer(&key(), &content(Etag::OwnerVersionUntil(until))));
        assert!(read_answer(&key(), &value, until - TimeDelta::microseconds(1)).is_some());
        assert!(read_answer(&key(), &value, until).is_none());
    }
}
