//! Who asks. A handler takes [`Principal`] (any account) or [`Admin`] as an argument and is done:
//!
//! ```text
//! async fn list(principal: Principal, ...) -> Result<_, Problem>   // 401 without a good token
//! async fn parked(Admin(principal): Admin, ...)                    // 403 for who is no admin
//! ```
//!
//! Put it before the other arguments, so that a bad token is told before a bad body. The [`Verifier`] is found in the
//! request's extensions, where `server::edge` puts it; a router tested by itself gets `.layer(Extension(verifier))`.
//!
//! Tokens are compact JWS of one kind only: `alg` EdDSA over Ed25519, `typ` at+jwt (RFC 9068), `kid`, no other header,
//! and exactly the claims of [`Claims`]. What the header says never chooses the algorithm. A token that was verified is
//! cached until it expires; revocation, expiry and the set of keys are looked at on every request.
//!
//! Services without the identity database give the Verifier watches of their own (keys from JWKS, revocations from the
//! read database); where they come from is not seen here.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use domain::{OwnerId, Time};
use ed25519_dalek::pkcs8::{self, EncodePrivateKey};
use ed25519_dalek::{SigningKey, VerifyingKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock;
use crate::context;
use crate::ed25519;
use crate::headers::single;
use crate::jwks::Refetch;
use crate::problem::{Problem, ProblemCode};

/// `iss` of every access token.
pub const ISSUER: &str = "primetrade";
/// `aud` of every access token.
pub const AUDIENCE: &str = "primetrade-api";

const TOKEN_TYPE: &str = "at+jwt";
const TOKEN_LENGTH_MAX: usize = 2048;
/// How many verified tokens are remembered: about 600 bytes each.
const CACHED_TOKENS_MAX: usize = 20_000;
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

/// The account behind a request, as its access token says. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The account, which owns its tasks.
    pub owner: OwnerId,
    /// The session that the token belongs to.
    pub session: Uuid,
    /// What it may do.
    pub role: Role,
    /// Where the owner's events live.
    pub shard: i16,
    /// When the token ends.
    pub expires_at: Time,
    verifier: Option<Verifier>,
}

impl Principal {
    /// One that no token made: for tests and for the command line.
    #[must_use]
    pub fn detached(owner: OwnerId, role: Role, shard: i16) -> Self {
        Self { owner, session: Uuid::nil(), role, shard, expires_at: Time::MAX_UTC, verifier: None }
    }

    /// Whether its session has been ended since (logout, password changed, account disabled).
    #[must_use]
    pub fn revoked(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.0.is_revoked(self.session))
    }

    /// Waits until the token expires or its session is ended: a live stream ends then.
    pub async fn ended(&self) {
        let left = (self.expires_at - clock::now()).to_std().unwrap_or_default();
        let revoked = async {
            let Some(verifier) = &self.verifier else { return std::future::pending().await };
            let mut watch = verifier.0.revoked.clone();
            let session = self.session;
            // the sender is gone only when the process stops
            if watch.wait_for(|revoked| revoked.contains(session)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = revoked => {}
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if let Some(principal) = parts.extensions.get::<Self>() {
            // the edge had to know already
            crate::context::belongs_to(principal.owner);
            return Ok(principal.clone());
        }
        let verifier = parts
            .extensions
            .get::<Verifier>()
            .ok_or_else(|| Problem::internal(&"no Verifier in the request's extensions: is server::edge around?"))?;
        let principal = match verifier.authenticate(&parts.headers) {
            Err(_) if verifier.asked_for_its_key(&parts.headers).await => verifier.authenticate(&parts.headers),
            answer => answer,
        }?;
        crate::context::belongs_to(principal.owner);
        Ok(principal)
    }
}

/// A [`Principal`] that is an admin; others get 403.
#[derive(Debug, Clone)]
pub struct Admin(pub Principal);

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, state).await?;
        match principal.role {
            Role::Admin => Ok(Self(principal)),
            Role::User => Err(Problem::new(ProblemCode::Forbidden)),
        }
    }
}

/// The claims of an access token: these and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`ISSUER`]
    pub iss: String,
    /// [`AUDIENCE`]
    pub aud: String,
    /// The account.
    pub sub: Uuid,
    /// The session.
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
}

/// The header that a token of ours has: nothing more, nothing else.
fn header(kid: &str) -> Header {
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

/// The keys that tokens may be signed with.
#[derive(Debug, Default)]
pub struct Keys {
    by_kid: HashMap<String, DecodingKey>,
    /// Tells the sets apart, so that what an earlier one verified is verified again.
    edition: u64,
}

impl Keys {
    /// From key ids and Ed25519 public keys. A key that is no point of the curve, or a weak one, is left out.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; 32])>) -> Self {
        static EDITION: AtomicU64 = AtomicU64::new(1);
        ed25519::install();
        let by_kid = keys
            .into_iter()
            .filter_map(|(kid, bytes)| {
                let key = VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak());
                if key.is_none() {
                    tracing::error!(kid, "a public key is not usable and is left out");
                }
                let components = URL_SAFE_NO_PAD.encode(key?.as_bytes());
                DecodingKey::from_ed_components(&components).ok().map(|key| (kid, key))
            })
            .collect();
        Self { by_kid, edition: EDITION.fetch_add(1, Ordering::Relaxed) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_kid.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_kid.is_empty()
    }
}

/// The sessions that have ended while tokens of theirs may still be about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revoked(pub HashSet<Uuid>);

impl Revoked {
    /// Whether this session has ended.
    #[must_use]
    pub fn contains(&self, session: Uuid) -> bool {
        self.0.contains(&session)
    }
}

/// Verifies access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: watch::Receiver<Arc<Keys>>,
    revoked: watch::Receiver<Arc<Revoked>>,
    verified: Cache<VerifiedToken, Verified>,
    refetch: Option<Refetch>,
}

/// A token that was verified, as a key of the cache. Only the end of it is hashed, which is the end of a signature and
/// as good as random; all of it is compared.
#[derive(PartialEq, Eq)]
struct VerifiedToken(Box<str>);

/// A token that was sent.
struct SentToken<'a>(&'a str);

const HASHED_LENGTH: usize = 16;

impl Hash for SentToken<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0.as_bytes().last_chunk::<HASHED_LENGTH>() {
            Some(end) => state.write_u128(u128::from_ne_bytes(*end)),
            None => self.0.hash(state),
        }
    }
}

impl Hash for VerifiedToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        SentToken(&self.0).hash(state);
    }
}

impl Equivalent<VerifiedToken> for SentToken<'_> {
    fn equivalent(&self, key: &VerifiedToken) -> bool {
        *self.0 == *key.0
    }
}

#[derive(Clone, Copy)]
struct Verified {
    owner: Uuid,
    session: Uuid,
    role: Role,
    shard: i16,
    expires_at_s: i64,
    edition: u64,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// With the keys that are good and the sessions that are not, both as they change.
    #[must_use]
    pub fn new(keys: watch::Receiver<Arc<Keys>>, revoked: watch::Receiver<Arc<Revoked>>) -> Self {
        Self(Arc::new(Inner { keys, revoked, verified: Cache::new(CACHED_TOKENS_MAX), refetch: None }))
    }

    /// The same, which has the keys fetched again when a token names one that is not known.
    #[must_use]
    pub fn asking(self, refetch: Refetch) -> Self {
        let Inner { keys, revoked, .. } = &*self.0;
        let verified = Cache::new(CACHED_TOKENS_MAX);
        Self(Arc::new(Inner { keys: keys.clone(), revoked: revoked.clone(), verified, refetch: Some(refetch) }))
    }

    /// Whether the token names a key that was not known and has been asked for since.
    async fn asked_for_its_key(&self, headers: &HeaderMap) -> bool {
        let Some(refetch) = &self.0.refetch else { return false };
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let sent = token.filter(|token| token.len() <= TOKEN_LENGTH_MAX).and_then(|token| {
            let sent = jsonwebtoken::decode_header(token).ok()?;
            (sent == header(sent.kid.as_deref()?)).then_some(sent)
        });
        let Some(kid) = sent.and_then(|sent| sent.kid) else { return false };
        if self.0.keys.borrow().by_kid.contains_key(&kid) {
            return false;
        }
        context::waiting(refetch.wait()).await;
        true
    }

    /// The principal of a request that has a good token; why another has none is told by [`Verifier::authenticate`].
    pub(crate) fn known(&self, headers: &HeaderMap) -> Option<Principal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        value.to_str().ok().and_then(bearer).and_then(|token| self.verify(token))
    }

    /// The principal of a request.
    ///
    /// # Errors
    /// 401 without a good bearer token, 400 with two `Authorization` headers.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let Some(value) = single(headers, &AUTHORIZATION)? else {
            return Err(Problem::new(ProblemCode::Unauthenticated)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"primetrade\"")));
        };
        value.to_str().ok().and_then(bearer).and_then(|token| self.verify(token)).ok_or_else(|| {
            Problem::new(ProblemCode::Unauthenticated).header(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"primetrade\", error=\"invalid_token\""),
            )
        })
    }

    /// The principal of a token, if it is good now.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Principal> {
        if token.len() > TOKEN_LENGTH_MAX {
            return None;
        }
        let now_s = clock::now().timestamp();
        let edition = self.0.keys.borrow().edition;
        let verified = match self.0.verified.get(&SentToken(token)).filter(|verified| verified.edition == edition) {
            Some(verified) => verified,
            None => {
                let keys = self.0.keys.borrow().clone();
                let claims = open(token, &keys, now_s)?;
                let verified = Verified {
                    owner: claims.sub,
                    session: claims.sid,
                    role: claims.role,
                    shard: claims.shard,
                    expires_at_s: claims.exp,
                    edition: keys.edition,
                };
                self.0.verified.insert(VerifiedToken(token.into()), verified);
                verified
            }
        };
        if verified.expires_at_s <= now_s || self.0.is_revoked(verified.session) {
            return None;
        }
        Some(Principal {
            owner: OwnerId(verified.owner),
            session: verified.session,
            role: verified.role,
            shard: verified.shard,
            expires_at: DateTime::from_timestamp(verified.expires_at_s, 0)?,
            verifier: Some(self.clone()),
        })
    }
}

impl Inner {
    fn is_revoked(&self, session: Uuid) -> bool {
        self.revoked.borrow().contains(session)
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case("bearer ")).then(|| token.trim_matches(' '))
}

/// The claims of a token that is signed by one of the keys, is ours, and has not expired. The header is believed only
/// once it is exactly the one that a token of ours has: it names the key, and chooses nothing.
fn open(token: &str, keys: &Keys, now_s: i64) -> Option<Claims> {
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

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;

    use super::*;

    struct Issuer {
        key: SigningKey,
        verifier: Verifier,
        keys: watch::Sender<Arc<Keys>>,
        revoked: watch::Sender<Arc<Revoked>>,
    }

    const KID: &str = "key-1";

    fn issuer() -> Issuer {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (keys, keys_seen) = watch::channel(Arc::new(Keys::new([(KID.to_owned(), key.verifying_key().to_bytes())])));
        let (revoked, revoked_seen) = watch::channel(Arc::default());
        Issuer { key, verifier: Verifier::new(keys_seen, revoked_seen), keys, revoked }
    }

    fn claims() -> Claims {
        let now = clock::now().timestamp();
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: Uuid::from_u128(1),
            sid: Uuid::from_u128(2),
            role: Role::User,
            shard: 3,
            iat: now,
            exp: now + 900,
            jti: Uuid::from_u128(4),
        }
    }

    /// A token with any header and claims, signed with the right key.
    fn forge(key: &SigningKey, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }

    fn json(claims: &Claims) -> String {
        serde_json::to_string(claims).expect("serialises")
    }

    #[test]
    fn a_good_token_names_its_principal() {
        let issuer = issuer();
        let token = claims().sign(KID, &issuer.key).expect("signs");
        for _ in 0..2 {
            let principal = issuer.verifier.verify(&token).expect("good");
            assert_eq!(principal.owner, OwnerId(Uuid::from_u128(1)));
            assert_eq!(principal.session, Uuid::from_u128(2));
            assert_eq!((principal.role, principal.shard), (Role::User, 3));
        }
    }

    #[test]
    fn no_other_header_is_taken_though_the_signature_is_right() {
        let issuer = issuer();
        let good = json(&claims());
        assert!(
            issuer
                .verifier
                .verify(&forge(&issuer.key, r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1"}"#, &good))
                .is_some()
        );
        for header in [
            r#"{"alg":"none","typ":"at+jwt","kid":"key-1"}"#,
            r#"{"alg":"None","typ":"at+jwt","kid":"key-1"}"#,
            r#"{"alg":"HS256","typ":"at+jwt","kid":"key-1"}"#,
            r#"{"alg":"eddsa","typ":"at+jwt","kid":"key-1"}"#,
            r#"{"alg":"EdDSA","typ":"JWT","kid":"key-1"}"#,
            r#"{"alg":"EdDSA","kid":"key-1"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-2"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"../key-1"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1","crit":["b64"]}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1","jku":"https://example.org"}"#,
            r#"{"alg":"EdDSA","alg":"EdDSA","typ":"at+jwt","kid":"key-1"}"#,
            r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1","jwk":{"kty":"OKP"}}"#,
            "{}",
            "",
        ] {
            assert!(issuer.verifier.verify(&forge(&issuer.key, header, &good)).is_none(), "{header}");
        }
    }

    #[test]
    fn a_hmac_with_the_public_key_is_no_signature() {
        use hmac::{Hmac, KeyInit, Mac};
        let issuer = issuer();
        for alg in ["HS256", "EdDSA"] {
            let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"key-1"}}"#);
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(json(&claims())));
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(issuer.key.verifying_key().as_bytes()).expect("any key");
            mac.update(signed.as_bytes());
            let tag = mac.finalize().into_bytes();
            for signature in [tag.to_vec(), [tag.to_vec(), tag.to_vec()].concat(), vec![0; 64], vec![]] {
                let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
                assert!(issuer.verifier.verify(&token).is_none(), "{alg}");
            }
        }
    }

    #[test]
    fn wrong_claims_are_refused_though_the_signature_is_right() {
        let issuer = issuer();
        let now = clock::now().timestamp();
        let header = r#"{"alg":"EdDSA","typ":"at+jwt","kid":"key-1"}"#;
        let changed = |change: fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            json(&claims)
        };
        let good = json(&claims());
        for bad in [
            changed(|c| c.iss = "another".into()),
            changed(|c| c.aud = "another".into()),
            changed(|c| c.exp = 0),
            changed(|c| c.exp = c.iat),
            changed(|c| c.exp = -1),
            changed(|c| c.iat += 3600),
            good.replace("\"sub\"", "\"sup\""),
            good.replace("\"role\":\"user\"", "\"role\":\"root\""),
            good.replace("\"role\":\"user\"", "\"role\":\"user\",\"role\":\"admin\""),
            good.replace(&format!("\"exp\":{}", now + 900), "\"exp\":\"soon\""),
            good.replace(&format!("\"exp\":{}", now + 900), "\"exp\":1e30"),
            good.replace("{\"iss\"", "{\"nbf\":0,\"iss\""),
            "[]".into(),
            "null".into(),
        ] {
            assert!(issuer.verifier.verify(&forge(&issuer.key, header, &bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_changed_byte_another_key_or_more_parts_are_refused() {
        let issuer = issuer();
        let token = claims().sign(KID, &issuer.key).expect("signs");
        // cached, so that a look-up which compares too little is found out
        assert!(issuer.verifier.verify(&token).is_some());
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ascii");
            assert!(issuer.verifier.verify(&changed).is_none(), "{index}");
        }
        let other = claims().sign(KID, &SigningKey::from_bytes(&[8; 32])).expect("signs");
        assert!(issuer.verifier.verify(&other).is_none());
        let unsigned = token.rsplit_once('.').map(|(signed, _)| signed.to_owned()).unwrap_or_default();
        for broken in
            [format!("{token}.x"), format!("x.{token}"), format!("{unsigned}."), unsigned, String::new(), "...".into()]
        {
            assert!(issuer.verifier.verify(&broken).is_none(), "{broken}");
        }
        assert!(issuer.verifier.verify(&format!("{token}{}", "A".repeat(10_000))).is_none());
    }

    #[test]
    fn a_cached_token_ends_with_its_time() {
        let issuer = issuer();
        let now = clock::now().timestamp();
        // as if it had been verified earlier
        let verified = Verified {
            owner: Uuid::nil(),
            session: Uuid::nil(),
            role: Role::User,
            shard: 0,
            expires_at_s: now,
            edition: issuer.verifier.0.keys.borrow().edition,
        };
        issuer.verifier.0.verified.insert(VerifiedToken("t".into()), verified);
        assert!(issuer.verifier.verify("t").is_none());
        issuer.verifier.0.verified.insert(VerifiedToken("t".into()), Verified { expires_at_s: now + 60, ..verified });
        assert!(issuer.verifier.verify("t").is_some());
    }

    #[tokio::test]
    async fn a_revoked_session_and_a_withdrawn_key_end_cached_tokens_at_once() {
        let issuer = issuer();
        let token = claims().sign(KID, &issuer.key).expect("signs");
        let principal = issuer.verifier.verify(&token).expect("good");
        assert!(!principal.revoked());

        let ended = principal.ended();
        issuer.revoked.send_replace(Arc::new(Revoked([Uuid::from_u128(2)].into())));
        assert!(issuer.verifier.verify(&token).is_none() && principal.revoked());
        tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.expect("the stream is told");

        issuer.revoked.send_replace(Arc::default());
        assert!(issuer.verifier.verify(&token).is_some());
        issuer.keys.send_replace(Arc::new(Keys::new([])));
        assert!(issuer.verifier.verify(&token).is_none());
    }

    #[test]
    fn the_authorization_header_is_read_as_rfc_6750_has_it() {
        let issuer = issuer();
        let token = claims().sign(KID, &issuer.key).expect("signs");
        let status = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"));
            }
            match issuer.verifier.authenticate(&headers) {
                Ok(_) => 200,
                Err(problem) => {
                    let has_challenge = axum::response::IntoResponse::into_response(problem.clone())
                        .headers()
                        .contains_key(WWW_AUTHENTICATE);
                    assert_eq!(has_challenge, problem.status() == 401);
                    problem.status().as_u16()
                }
            }
        };
        let good = format!("Bearer {token}");
        assert_eq!(status(&[&good]), 200);
        assert_eq!(status(&[&format!("bearer {token}")]), 200);
        assert_eq!(status(&[]), 401);
        assert_eq!(status(&[&format!("Basic {token}")]), 401);
        assert_eq!(status(&[&format!("Bearer{token}")]), 401);
        assert_eq!(status(&["Bearer"]), 401);
        assert_eq!(status(&["Bearer "]), 401);
        assert_eq!(status(&[&good, &good]), 400);
    }
}
