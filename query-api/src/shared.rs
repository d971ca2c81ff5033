//! What processes share through Redis: where owners stand, for a few seconds, and answers, for minutes.
//!
//! Nothing here can make an answer wrong, whatever the Redis does (docs/redis.md has the cases):
//!
//! - An answer is kept under what it is an answer to: log, generation, owner, change counter, request. That never
//!   becomes wrong; it is no longer asked for. It also says so itself, and is not taken at anything else's word.
//! - A standing says when it was so. It is believed for [`STANDING_MS_MAX`], by this process's clock, and only from a
//!   Redis that has been there for longer than that; and only by who has seen nothing newer (`owners`).
//! - All of it is asked for under the [`Line`] that Postgres has named.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use backends::redis::{Entry, Redis};
use bytes::Bytes;
use chrono::DateTime;
use domain::Time;
use metrics::{Counter, counter};
use process::clock;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::owners::{Owner, StandingRow};
use crate::reads::{Content, Etag, Key};

/// How long a standing is believed after it was so. The projector gives its own the same time.
pub(crate) const STANDING_MS_MAX: i64 = 3_000;
/// How far the clocks of two machines may be apart; where they are further, standings are not believed.
const CLOCKS_APART_MS_MAX: i64 = 1_000;
/// A Redis must have been there for so long: then it holds no believable standing from before.
const SETTLED_MS: u64 = (STANDING_MS_MAX + CLOCKS_APART_MS_MAX) as u64;
// a connection that takes the place of an older one has settled by then
const _: () = assert!(SETTLED_MS < backends::redis::EXCHANGE_MS);
/// For so long a process must remember what it has shown.
pub(crate) const REMEMBERED_MS_MIN: u64 = SETTLED_MS + 1_000;
/// Scripts under way.
const REFILLS_MAX: usize = 4;
/// Answers that wait to be written; more are not kept.
const ANSWERS_WAITING_MAX: usize = 256;
/// Written in one round trip.
const ANSWERS_AT_ONCE_MAX: usize = 16;
/// Larger answers are not kept, bytes.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// Part of the keys of answers: to be raised whenever an answer to the same request looks different.
const ANSWERS_FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), ".1");

/// Which read models: what the primary said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub cache_id: Uuid,
    pub log_id: Uuid,
    pub generation: i32,
}

/// Redis, as this crate uses it.
#[derive(Debug)]
pub(crate) struct Shared {
    redis: Redis,
    /// Tells answers with cursors of another secret apart.
    secret_tag: String,
    refills: Arc<Semaphore>,
    answers: mpsc::Sender<Entry>,
}

/// An answer's name in Redis.
pub(crate) struct AnswerKey {
    key: String,
    owner: Uuid,
    row: StandingRow,
    request_hash: [u8; 32],
}

impl Shared {
    /// `secret_tag`: the same for all processes with the same secret, and for no others.
    pub fn new(redis: Redis, secret_tag: String) -> Self {
        let (answers, waiting) = mpsc::channel(ANSWERS_WAITING_MAX);
        tokio::spawn(write_answers(redis.clone(), waiting));
        Self { redis, secret_tag, refills: Arc::new(Semaphore::new(REFILLS_MAX)), answers }
    }

    /// Where these owners stand, as far as Redis knows and is to be believed. `None` for all: it is not there.
    pub async fn standings(&self, line: &Line, owners: &[Owner]) -> HashMap<Uuid, StandingRow> {
        let keys: Vec<String> = owners.iter().map(|owner| standing_key(line, owner.id)).collect();
        let Ok(values) = self.redis.settled_values(&keys, SETTLED_MS).await else { return HashMap::new() };
        let now_ms = clock::now().timestamp_millis();
        let known = owners.iter().zip(values).filter_map(|(owner, value)| {
            let row = read_standing(&value?, line, *owner, now_ms)?;
            Some((owner.id, row))
        });
        known.collect()
    }

    /// Writes where owners stood when the primary was asked at `asked_at`, in the background, unless too much of that
    /// is under way: then they are missed again.
    pub fn refill(&self, line: &Line, asked_at: Time, rows: &[(Uuid, StandingRow)]) {
        if !self.redis.is_up() {
            return;
        }
        let Ok(place) = self.refills.clone().try_acquire_owned() else { return };
        let as_of_ms = asked_at.timestamp_millis();
        let mut keys = Vec::with_capacity(rows.len());
        let mut arguments = Vec::with_capacity(rows.len() + 1);
        arguments.push((as_of_ms + STANDING_MS_MAX).to_string());
        for (owner, row) in rows {
            keys.push(standing_key(line, *owner));
            arguments.push(write_standing(row, *owner, as_of_ms));
        }
        let redis = self.redis.clone();
        tokio::spawn(async move {
            // Counted and logged there; it is only missed again.
            let _ = redis.run_script(include_str!("../../migrations/redis/standing.lua"), &keys, &arguments).await;
            drop(place);
        });
    }

    /// The name of the answer to a request at a standing. None: it is not kept.
    pub fn answer_key(&self, cache_id: Uuid, row: &StandingRow, key: &Key) -> Option<AnswerKey> {
        // An owner of whom nothing was ever applied needs no cache.
        let (log_id, counter) = (row.log_id?, row.change_counter?);
        let request_hash: [u8; 32] = Sha256::digest(&key.request).into();
        let line = Line { cache_id, log_id, generation: row.generation };
        let mut name = String::with_capacity(260);
        prefix(&mut name, &line);
        // Writing into a string cannot fail.
        let _ = write!(name, "answer:{}:{ANSWERS_FORMAT}:{}:{counter:x}:", self.secret_tag, Uuid::simple(key.owner));
        for byte in request_hash {
            let _ = write!(name, "{byte:02x}");
        }
        Some(AnswerKey { key: name, owner: key.owner, row: *row, request_hash })
    }

    /// The answer, if somebody has kept it.
    pub async fn answer(&self, key: &AnswerKey) -> Option<Content> {
        let found = self.redis.get(&key.key).await.ok().flatten();
        found.and_then(|value| read_answer(key, &value, clock::now()))
    }

    /// Keeps an answer for others, in the background, unless too many wait for that.
    pub fn keep(&self, key: &AnswerKey, content: &Content, kept_ms_max: u64) {
        if content.body.len() > ANSWER_BYTES_MAX || !self.redis.is_up() {
            return;
        }
        let left_ms = match content.etag {
            Etag::StandingUntil(until) => {
                u64::try_from((until - clock::now()).num_milliseconds()).unwrap_or(0).min(kept_ms_max)
            }
            Etag::Standing | Etag::Version(_) => kept_ms_max,
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
    let mut entries = Vec::with_capacity(ANSWERS_AT_ONCE_MAX);
    while waiting.recv_many(&mut entries, ANSWERS_AT_ONCE_MAX).await > 0 {
        // Counted and logged there; it is only missed.
        let _ = redis.set(std::mem::take(&mut entries)).await;
    }
}

fn prefix(key: &mut String, line: &Line) {
    let Line { cache_id, log_id, generation } = line;
    let _ = write!(key, "primetrade:{}:{}:{generation}:", cache_id.simple(), log_id.simple());
}

fn standing_key(line: &Line, owner: Uuid) -> String {
    let mut key = String::with_capacity(140);
    prefix(&mut key, line);
    let _ = write!(key, "standing:{}", owner.simple());
    key
}

const NOTHING_PARKED: u64 = u64::MAX;
const STANDING_LENGTH: usize = 96;

fn write_standing(row: &StandingRow, owner: Uuid, as_of_ms: i64) -> String {
    // None of them is negative.
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let counter = row.change_counter.map_or(0, |counter| number(counter) + 1);
    let revision = number(row.revision.unwrap_or(0));
    let parked = row.parked_position.map_or(NOTHING_PARKED, number);
    format!("{counter:016x}{:016x}{revision:016x}{parked:016x}{}", number(as_of_ms), owner.simple())
}

/// None: it is not what it should be, of somebody else, or too old to be believed.
fn read_standing(value: &[u8], line: &Line, owner: Owner, now_ms: i64) -> Option<StandingRow> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() == STANDING_LENGTH && text.is_ascii())?;
    let number = |at: usize| u64::from_str_radix(&text[16 * at..16 * (at + 1)], 16).ok();
    let (counter, as_of_ms, revision, parked) = (number(0)?, number(1)?, number(2)?, number(3)?);
    if Uuid::try_parse(&text[64..]).ok()? != owner.id {
        return None;
    }
    let age_ms = now_ms.checked_sub(i64::try_from(as_of_ms).ok()?)?;
    if !(-CLOCKS_APART_MS_MAX..=STANDING_MS_MAX).contains(&age_ms) {
        return None;
    }
    let has_row = counter > 0;
    let parked = (parked != NOTHING_PARKED).then(|| i64::try_from(parked).ok());
    Some(StandingRow {
        log_id: Some(line.log_id),
        generation: line.generation,
        shard: has_row.then_some(owner.shard),
        revision: if has_row { Some(i64::try_from(revision).ok()?) } else { None },
        change_counter: if has_row { Some(i64::try_from(counter - 1).ok()?) } else { None },
        parked_position: match parked {
            Some(position) => Some(position?),
            None => None,
        },
    })
}

/// Of an answer: what it is an answer to, its ETag, its link. The body follows.
const ANSWER_HEAD: usize = 4 + 16 + 16 + 4 + 3 * 8 + 32 + 1 + 8 + 4;
const ANSWER_MAGIC: [u8; 4] = *b"pta1";

fn write_answer(key: &AnswerKey, content: &Content) -> Vec<u8> {
    let link = content.link.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(ANSWER_HEAD + link.len() + content.body.len());
    out.extend_from_slice(&identity(key));
    let (kind, number) = match content.etag {
        Etag::Standing => (0, 0),
        Etag::StandingUntil(until) => (1, until.timestamp_micros()),
        Etag::Version(version) => (2, version),
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
        0 => Etag::Standing,
        1 => Etag::StandingUntil(DateTime::from_timestamp_micros(number).filter(|until| now < *until)?),
        2 => Etag::Version(number),
        _ => return None,
    };
    let link = if link.is_empty() { None } else { Some(String::from_utf8(link.to_vec()).ok()?) };
    Some(Content { body: value.slice_ref(body), etag, link })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const LINE: Line = Line { cache_id: Uuid::nil(), log_id: Uuid::max(), generation: 3 };
    const OWNER: Owner = Owner { id: Uuid::from_u128(9), shard: 4 };
    const NOW_MS: i64 = 1_790_000_000_000;

    fn row() -> StandingRow {
        StandingRow {
            log_id: Some(Uuid::max()),
            generation: 3,
            shard: Some(4),
            revision: Some(70),
            change_counter: Some((5 << 32) + 7),
            parked_position: Some(60),
        }
    }

    #[test]
    fn a_standing_is_read_as_it_was_written() {
        let nobody = StandingRow { shard: None, revision: None, change_counter: None, parked_position: None, ..row() };
        let nothing_yet = StandingRow { change_counter: Some(0), revision: Some(0), parked_position: None, ..row() };
        for row in [row(), nobody, nothing_yet] {
            let value = write_standing(&row, OWNER.id, NOW_MS);
            assert_eq!(value.len(), STANDING_LENGTH);
            assert_eq!(read_standing(value.as_bytes(), &LINE, OWNER, NOW_MS), Some(row));
        }
    }

    #[test]
    fn a_standing_of_somebody_else_or_of_another_time_is_not_believed() {
        let value = write_standing(&row(), OWNER.id, NOW_MS);
        let other = Owner { id: Uuid::from_u128(8), shard: 4 };
        assert_eq!(read_standing(value.as_bytes(), &LINE, other, NOW_MS), None);
        let at = |now_ms| read_standing(value.as_bytes(), &LINE, OWNER, now_ms).is_some();
        assert!(at(NOW_MS + STANDING_MS_MAX) && at(NOW_MS - CLOCKS_APART_MS_MAX));
        assert!(!at(NOW_MS + STANDING_MS_MAX + 1) && !at(NOW_MS - CLOCKS_APART_MS_MAX - 1));
    }

    fn key() -> AnswerKey {
        AnswerKey { key: String::new(), owner: OWNER.id, row: row(), request_hash: [7; 32] }
    }

    fn content(etag: Etag) -> Content {
        Content { body: Bytes::from_static(b"{}"), etag, link: Some("/next?a=1".into()) }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_only_as_what_it_is() {
        let now = DateTime::from_timestamp_millis(NOW_MS).unwrap();
        let value = Bytes::from(write_answer(&key(), &content(Etag::Version(12))));
        let read = read_answer(&key(), &value, now).unwrap();
        assert_eq!((&read.body[..], read.link.as_deref()), (&b"{}"[..], Some("/next?a=1")));
        assert!(matches!(read.etag, Etag::Version(12)));
        let another_row = StandingRow { change_counter: Some(8), ..row() };
        let parked = StandingRow { parked_position: None, ..row() };
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
        let value = Bytes::from(write_answer(&key(), &content(Etag::StandingUntil(until))));
        assert!(read_answer(&key(), &value, until - TimeDelta::microseconds(1)).is_some());
        assert!(read_answer(&key(), &value, until).is_none());
    }
}
