//! Access tokens: what they say, and how they are signed.
//!
//! They are compact JWS of one kind only: `alg` EdDSA over Ed25519, `typ` at+jwt (RFC 9068), `kid`, no other header, and
//! exactly the claims of [`Claims`]. What the header says never chooses the algorithm.

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{self, EncodePrivateKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::ed25519;
use crate::keys::Keys;
use crate::scopes::Scopes;

/// `iss` of every access token.
pub const ISSUER: &str = "primetrade";
/// `aud` of every access token.
pub const AUDIENCE: &str = "primetrade-api";

const TOKEN_TYPE: &str = "at+jwt";
/// Clocks of two machines may differ by this much.
const CLOCK_SKEW_S: i64 = 5;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its own tasks.
    User,
    /// Also accounts, projections, parked events.
    Admin,
}

impl Role {
    /// `user` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// The claims of an access token: these and no others. The gateway knows an account by the text as far as `sub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`ISSUER`]
    pub iss: String,
    /// [`AUDIENCE`]
    pub aud: String,
    /// The account.
    pub sub: Uuid,
    /// The session, or the API key.
    pub sid: Uuid,
    /// What the account may do.
    pub role: Role,
    /// Where the account's events live.
    pub shard: i16,
    /// Made at, seconds since 1970.
    pub iat: i64,
    /// Good until, seconds since 1970.
    pub exp: i64,
    /// The token's own id.
    pub jti: Uuid,
    /// All that it is good for, where it is an API key's. Without it: whatever its account may do.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scopes>,
}

/// What is there is a string: `null` would be good for more.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Scopes>, D::Error> {
    Scopes::deserialize(deserializer).map(Some)
}

/// The header that a token of ours has: nothing more, nothing else.
pub(crate) fn header(kid: &str) -> Header {
    Header { typ: Some(TOKEN_TYPE.to_owned()), kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) }
}

impl Claims {
    /// The signed token.
    ///
    /// # Errors
    /// Never in practice: when the key or the claims cannot be written down.
    pub fn sign(&self, kid: &str, key: &SigningKey) -> Result<String, SignError> {
        ed25519::install();
        let key = EncodingKey::from_ed_der(key.to_pkcs8_der()?.as_bytes());
        Ok(jsonwebtoken::encode(&header(kid), self, &key)?)
    }
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key has no PKCS #8 form.
    #[error("the signing key: {0}")]
    Key(#[from] pkcs8::Error),
    /// The claims could not be signed.
    #[error("the access token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// The claims of a token that is signed by one of the keys, is ours, and has not expired. The header is believed only
/// once it is exactly the one that a token of ours has: it names the key, and chooses nothing.
pub(crate) fn open(token: &str, keys: &Keys, now_s: i64) -> Option<Claims> {
    let sent = jsonwebtoken::decode_header(token).ok()?;
    let kid = sent.kid.as_deref()?;
    if sent != header(kid) {
        return None;
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = jsonwebtoken::decode::<Claims>(token, keys.by_kid.get(kid)?, &validation).ok()?.claims;
    (claims.iat <= now_s.saturating_add(CLOCK_SKEW_S) && now_s < claims.exp).then_some(claims)
}
