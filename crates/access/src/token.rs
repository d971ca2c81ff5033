//! Opaque authenticated strings, all from the one secret (`PRIMETRADE_SECRET`).
//!
//! - [`RootSecret`]: the secret itself; [`RootSecret::derive`] gives a key for one purpose, so that no key serves two.
//!   Beside it there may be the previous one (`PRIMETRADE_SECRET_PREVIOUS`), with which nothing is made any more: what was
//!   made with it is taken until it is removed.
//! - [`Sealer`]: consistency tokens and cursors. Deterministic: the same content gives the same string, so that an
//!   answer that is replayed is equal byte for byte. HMAC-SHA-256, truncated to 128 bits, over the purpose, the owner
//!   and the content; the owner stands in no token but is needed to open one.
//!
//! Strings are base64url without padding. What they carry can be read by their owner, and is the owner's own.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::OwnerId;
use hmac::{Hmac, KeyInit, Mac};
use metrics::counter;
use secrecy::{ExposeSecret, SecretString};
use settings::{ConfigError, Source, invalid};
use sha2::Sha256;
use uuid::Uuid;

const TAG_LENGTH: usize = 16;
/// The shortest secret that is taken, in bytes.
pub const SECRET_LENGTH_MIN: usize = 32;
/// Longest cursor that is given out or looked at, in characters.
pub const CURSOR_LENGTH_MAX: usize = 4096;

type HmacSha256 = Hmac<Sha256>;

/// The one secret of an installation, and the one before it while it is rotated.
#[derive(Clone)]
pub struct RootSecret {
    current: SecretString,
    previous: Option<SecretString>,
}

impl RootSecret {
    /// A secret of at least [`SECRET_LENGTH_MIN`] bytes.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn new(secret: SecretString) -> Result<Self, SecretTooShort> {
        if is_too_short(&secret) {
            return Err(SecretTooShort);
        }
        Ok(Self { current: secret, previous: None })
    }

    /// `PRIMETRADE_SECRET`, where it is given, with the previous one.
    ///
    /// # Errors
    /// When one is too short, or its file cannot be read.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        const NAME: &str = "PRIMETRADE_SECRET";
        let previous = previous(source)?;
        let Some(secret) = source.secret(NAME)? else { return Ok(None) };
        let secret = Self::new(secret).map_err(|too_short| invalid(NAME, &too_short))?;
        Ok(Some(Self { previous, ..secret }))
    }

    /// The same, with the previous one (`PRIMETRADE_SECRET_PREVIOUS`), where that is given.
    ///
    /// # Errors
    /// When it is too short, or its file cannot be read.
    pub fn with_previous(self, source: &Source) -> Result<Self, ConfigError> {
        Ok(Self { previous: previous(source)?, ..self })
    }

    /// A 256-bit key for one purpose. The same secret and purpose always give the same key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derived(&self.current, purpose)
    }

    /// The key for the same purpose from the previous secret, if there is one: to open by it, and to make nothing with.
    #[must_use]
    pub fn derive_previous(&self, purpose: &str) -> Option<[u8; 32]> {
        self.previous.as_ref().map(|previous| derived(previous, purpose))
    }

    /// An HMAC-SHA-256 with the key for one purpose: clone it, feed it.
    #[must_use]
    pub fn mac(&self, purpose: &str) -> Hmac<Sha256> {
        keyed(&self.derive(purpose))
    }

    /// The same for what others bring back, which may be made with the previous secret.
    #[must_use]
    pub fn macs(&self, purpose: &'static str) -> Macs {
        let previous = self.derive_previous(purpose).map(|key| keyed(&key));
        Macs { current: self.mac(purpose), previous, purpose }
    }
}

fn previous(source: &Source) -> Result<Option<SecretString>, ConfigError> {
    const NAME: &str = "PRIMETRADE_SECRET_PREVIOUS";
    let previous = source.secret(NAME)?;
    if previous.as_ref().is_some_and(is_too_short) {
        return Err(invalid(NAME, &SecretTooShort));
    }
    Ok(previous)
}

fn is_too_short(secret: &SecretString) -> bool {
    secret.expose_secret().len() < SECRET_LENGTH_MIN
}

fn derived(secret: &SecretString, purpose: &str) -> [u8; 32] {
    let mut mac = keyed(secret.expose_secret().as_bytes());
    mac.update(b"primetrade/1/");
    mac.update(purpose.as_bytes());
    mac.finalize().into_bytes().into()
}

/// HMACs with the keys for one purpose: what is made is made with the secret's, and what was made with the previous one's is
/// taken too.
#[derive(Clone)]
pub struct Macs {
    current: HmacSha256,
    previous: Option<HmacSha256>,
    purpose: &'static str,
}

impl Macs {
    /// To make with: feed it.
    #[must_use]
    pub fn make(&self) -> Hmac<Sha256> {
        self.current.clone()
    }

    /// Whether it is right by either key.
    pub fn take(&self, is_right: impl Fn(Hmac<Sha256>) -> bool) -> bool {
        if is_right(self.current.clone()) {
            return true;
        }
        let is_previous = self.previous.as_ref().is_some_and(|previous| is_right(previous.clone()));
        if is_previous {
            // while it is counted, the previous secret is still needed
            counter!("previous_secret_used_total", "purpose" => self.purpose).increment(1);
        }
        is_previous
    }
}

impl std::fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootSecret([redacted])")
    }
}

/// The secret has fewer than [`SECRET_LENGTH_MIN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret must have at least {SECRET_LENGTH_MIN} bytes")]
pub struct SecretTooShort;

/// The string is not one of ours, or not for this owner or use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this installation for this account and use")]
pub struct BadToken;

/// What a consistency token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// Which log: one restored from a backup has another id.
    pub log_id: Uuid,
    /// The owner's shard.
    pub shard: i16,
    /// A read must show at least the events up to this position.
    pub position: i64,
}

/// Makes and opens consistency tokens and cursors. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    consistency: Macs,
    cursor: Macs,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// With keys derived from the secret.
    #[must_use]
    pub fn new(secret: &RootSecret) -> Self {
        Self { consistency: secret.macs("consistency-token"), cursor: secret.macs("cursor") }
    }

    /// The token for a position in a log, bound to its owner.
    #[must_use]
    pub fn consistency_token(&self, log_id: Uuid, owner: OwnerId, shard: i16, position: i64) -> String {
        let mut bytes = [0; CONTENT_LENGTH + TAG_LENGTH];
        bytes[..16].copy_from_slice(log_id.as_bytes());
        bytes[16..18].copy_from_slice(&shard.to_be_bytes());
        bytes[18..CONTENT_LENGTH].copy_from_slice(&position.to_be_bytes());
        let tag = tag(&self.consistency, &[owner.0.as_bytes(), &bytes[..CONTENT_LENGTH]]);
        bytes[CONTENT_LENGTH..].copy_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token of this owner says.
    ///
    /// # Errors
    /// When it was not made here for this owner.
    pub fn open_consistency_token(&self, token: &str, owner: OwnerId) -> Result<ConsistencyToken, BadToken> {
        let mut bytes = [0; CONTENT_LENGTH + TAG_LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).map_err(|_| BadToken)?;
        if length != bytes.len() {
            return Err(BadToken);
        }
        let (content, given) = bytes.split_at(CONTENT_LENGTH);
        verify(&self.consistency, &[owner.0.as_bytes(), content], given)?;
        let (log_id, rest) = content.split_first_chunk::<16>().ok_or(BadToken)?;
        let (shard, rest) = rest.split_first_chunk::<2>().ok_or(BadToken)?;
        let position = rest.first_chunk::<8>().ok_or(BadToken)?;
        Ok(ConsistencyToken {
            log_id: Uuid::from_bytes(*log_id),
            shard: i16::from_be_bytes(*shard),
            position: i64::from_be_bytes(*position),
        })
    }

    /// A cursor with this payload, good only for this owner and binding (what names filters and sort).
    #[must_use]
    pub fn seal_cursor(&self, owner: OwnerId, binding: &[u8], payload: &[u8]) -> String {
        let tag = tag(&self.cursor, &cursor_parts(&owner, &length_prefix(binding), binding, payload));
        let mut bytes = Vec::with_capacity(TAG_LENGTH + payload.len());
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(payload);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The payload of a cursor.
    ///
    /// # Errors
    /// When it was not made here for this owner and binding.
    pub fn open_cursor(&self, cursor: &str, owner: OwnerId, binding: &[u8]) -> Result<Vec<u8>, BadToken> {
        if cursor.len() > CURSOR_LENGTH_MAX {
            return Err(BadToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadToken)?;
        let (given, payload) = bytes.split_at_checked(TAG_LENGTH).ok_or(BadToken)?;
        verify(&self.cursor, &cursor_parts(&owner, &length_prefix(binding), binding, payload), given)?;
        Ok(payload.to_vec())
    }
}

const CONTENT_LENGTH: usize = 16 + 2 + 8;

fn length_prefix(binding: &[u8]) -> [u8; 8] {
    (binding.len() as u64).to_be_bytes()
}

fn cursor_parts<'a>(owner: &'a OwnerId, length: &'a [u8; 8], binding: &'a [u8], payload: &'a [u8]) -> [&'a [u8]; 4] {
    [owner.0.as_bytes(), length, binding, payload]
}

/// An HMAC with its key set: any length of key will do, so this cannot fail.
fn keyed(key: &[u8]) -> HmacSha256 {
    match HmacSha256::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

fn fed(mut mac: HmacSha256, parts: &[&[u8]]) -> HmacSha256 {
    for part in parts {
        mac.update(part);
    }
    mac
}

fn tag(macs: &Macs, parts: &[&[u8]]) -> [u8; TAG_LENGTH] {
    let full = fed(macs.make(), parts).finalize().into_bytes();
    let mut tag = [0; TAG_LENGTH];
    tag.copy_from_slice(&full[..TAG_LENGTH]);
    tag
}

/// In constant time.
fn verify(macs: &Macs, parts: &[&[u8]], given: &[u8]) -> Result<(), BadToken> {
    let is_right = |mac| fed(mac, parts).verify_truncated_left(given).is_ok();
    if given.len() == TAG_LENGTH && macs.take(is_right) { Ok(()) } else { Err(BadToken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: &str) -> Sealer {
        Sealer::new(&RootSecret::new(secret.to_owned().into()).expect("long enough"))
    }

    const SECRET: &str = "a secret that is long enough for it";
    const ME: OwnerId = OwnerId(Uuid::from_u128(1));
    const YOU: OwnerId = OwnerId(Uuid::from_u128(2));
    const LOG: Uuid = Uuid::from_u128(3);

    #[test]
    fn a_consistency_token_says_what_was_put_in_and_is_deterministic() {
        let sealer = sealer(SECRET);
        let token = sealer.consistency_token(LOG, ME, 7, i64::MAX);
        assert_eq!(token, sealer.consistency_token(LOG, ME, 7, i64::MAX));
        assert_eq!(
            sealer.open_consistency_token(&token, ME),
            Ok(ConsistencyToken { log_id: LOG, shard: 7, position: i64::MAX })
        );
    }

    #[test]
    fn no_other_owner_secret_use_or_changed_byte_opens_it() {
        let own = sealer(SECRET);
        let token = own.consistency_token(LOG, ME, 0, 42);
        assert_eq!(own.open_consistency_token(&token, YOU), Err(BadToken));
        assert_eq!(sealer("another secret, also long enough for it").open_consistency_token(&token, ME), Err(BadToken));
        assert_eq!(own.open_cursor(&token, ME, b""), Err(BadToken));
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("ours");
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert_eq!(own.open_consistency_token(&URL_SAFE_NO_PAD.encode(&changed), ME), Err(BadToken), "{index}");
        }
        for broken in ["", "AAAA", "not base64 !", &token[1..], &format!("{token}A"), &format!("{token}AAAA")] {
            assert_eq!(own.open_consistency_token(broken, ME), Err(BadToken), "{broken}");
        }
    }

    #[test]
    fn a_cursor_is_bound_to_owner_filters_and_payload() {
        let sealer = sealer(SECRET);
        let cursor = sealer.seal_cursor(ME, b"sort=due_at", b"payload");
        assert_eq!(sealer.open_cursor(&cursor, ME, b"sort=due_at").as_deref(), Ok(&b"payload"[..]));
        assert_eq!(sealer.open_cursor(&cursor, YOU, b"sort=due_at"), Err(BadToken));
        assert_eq!(sealer.open_cursor(&cursor, ME, b"sort=title"), Err(BadToken));
        // the border between binding and payload is part of what is authenticated
        assert_ne!(sealer.seal_cursor(ME, b"ab", b"c")[..20], sealer.seal_cursor(ME, b"a", b"bc")[..20],);
        assert_eq!(sealer.open_cursor(&"A".repeat(CURSOR_LENGTH_MAX + 4), ME, b""), Err(BadToken));
    }

    #[test]
    fn what_was_made_with_the_previous_secret_is_taken_until_it_is_removed() {
        const NEW: &str = "a new secret that is long enough for it";
        let of = |current: &str, previous: &str| {
            let pairs = [("PRIMETRADE_SECRET", current), ("PRIMETRADE_SECRET_PREVIOUS", previous)];
            let secret = RootSecret::read(&Source::from_pairs(pairs)).expect("long enough").expect("given");
            Sealer::new(&secret)
        };
        let (before, ahead, after, new) = (of(SECRET, ""), of(SECRET, NEW), of(NEW, SECRET), of(NEW, ""));
        let (old_token, old_cursor) = (before.consistency_token(LOG, ME, 0, 1), before.seal_cursor(ME, b"a", b"b"));
        let (new_token, new_cursor) = (new.consistency_token(LOG, ME, 0, 1), new.seal_cursor(ME, b"a", b"b"));
        // nothing is made with the previous one
        for (sealer, token, cursor) in [(&ahead, &old_token, &old_cursor), (&after, &new_token, &new_cursor)] {
            assert_eq!(sealer.consistency_token(LOG, ME, 0, 1), *token);
            assert_eq!(sealer.seal_cursor(ME, b"a", b"b"), *cursor);
        }
        for (sealer, takes_old, takes_new) in
            [(&before, true, false), (&ahead, true, true), (&after, true, true), (&new, false, true)]
        {
            for (token, cursor, takes) in [(&old_token, &old_cursor, takes_old), (&new_token, &new_cursor, takes_new)] {
                assert_eq!(sealer.open_consistency_token(token, ME).is_ok(), takes);
                assert_eq!(sealer.open_cursor(cursor, ME, b"a").is_ok(), takes);
                assert!(sealer.open_consistency_token(token, YOU).is_err());
                assert!(sealer.open_cursor(cursor, ME, b"b").is_err());
            }
        }
        for current in [SECRET, ""] {
            let short = [("PRIMETRADE_SECRET", current), ("PRIMETRADE_SECRET_PREVIOUS", "short")];
            let refused = RootSecret::read(&Source::from_pairs(short)).expect_err("refused").to_string();
            assert!(refused.contains("PRIMETRADE_SECRET_PREVIOUS"), "{refused}");
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_none_is_shown() {
        assert!(RootSecret::new("short".to_owned().into()).is_err());
        let secret = RootSecret::new(SECRET.to_owned().into()).expect("long enough");
        assert!(!format!("{secret:?}").contains("long"));
        assert_ne!(secret.derive("a"), secret.derive("b"));
    }
}
