//! A refresh token is the session's id and a random number, authenticated by a key derived from the secret, so that a token
//! that was spent long ago is told from one that was made up: only the first ends the session.

use access::token::{Macs, RootSecret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How long a refresh token is good, in seconds; each refresh starts it anew.
pub(crate) const REFRESH_TOKEN_LIFETIME_S: i32 = 30 * 24 * 3600;

const TAG_LENGTH: usize = 16;
const CONTENT_LENGTH: usize = 32;

/// Makes and reads refresh tokens.
pub(crate) struct RefreshTokens(Macs);

/// A refresh token: its session, and the hash that the database knows.
pub(crate) struct RefreshToken {
    pub(crate) text: String,
    pub(crate) session: Uuid,
    pub(crate) hash: [u8; 32],
}

impl RefreshTokens {
    pub(crate) fn new(secret: &RootSecret) -> Self {
        Self(secret.macs("refresh-token"))
    }

    pub(crate) fn make(&self, session: Uuid) -> RefreshToken {
        let mut bytes = [0; CONTENT_LENGTH + TAG_LENGTH];
        bytes[..16].copy_from_slice(session.as_bytes());
        bytes[16..CONTENT_LENGTH].copy_from_slice(&rand::random::<[u8; 16]>());
        let tag = fed(self.0.make(), &bytes[..CONTENT_LENGTH]).finalize().into_bytes();
        bytes[CONTENT_LENGTH..].copy_from_slice(&tag[..TAG_LENGTH]);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        RefreshToken { session, hash: Sha256::digest(bytes).into(), text }
    }

    /// One that was made here at some time.
    pub(crate) fn read(&self, text: &str) -> Option<RefreshToken> {
        let mut bytes = [0; CONTENT_LENGTH + TAG_LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (content, tag) = bytes.split_at(CONTENT_LENGTH);
        let is_right = |mac| fed(mac, content).verify_truncated_left(tag).is_ok();
        if length != bytes.len() || !self.0.take(is_right) {
            return None;
        }
        let session = Uuid::from_bytes(*content.first_chunk()?);
        Some(RefreshToken { session, hash: Sha256::digest(bytes).into(), text: String::new() })
    }
}

fn fed(mut mac: Hmac<Sha256>, content: &[u8]) -> Hmac<Sha256> {
    mac.update(content);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secret: &str) -> RefreshTokens {
        RefreshTokens::new(&RootSecret::new(secret.to_owned().into()).expect("long enough"))
    }

    #[test]
    fn a_refresh_token_is_read_only_where_it_was_made() {
        let own = tokens("a secret that is long enough for it");
        let made = own.make(Uuid::from_u128(5));
        let read = own.read(&made.text).expect("ours");
        assert_eq!((read.session, read.hash), (made.session, made.hash));
        assert_ne!(own.make(Uuid::from_u128(5)).text, made.text);
        assert!(tokens("another secret, also long enough for it").read(&made.text).is_none());
        for broken in ["", "x", &made.text[1..], &format!("{}A", made.text), &made.text.replace(&made.text[3..4], "_")]
        {
            assert!(broken == made.text || own.read(broken).is_none(), "{broken}");
        }
    }
}
