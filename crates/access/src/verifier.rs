//! Who an access token is of. What it says is verified once and cached until it expires; revocation, expiry and the set of
//! keys are looked at each time.
//!
//! The [`Verifier`] has watches of keys and of ended sessions; where they come from (the identity database, or JWKS and the
//! read database) is not seen here.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chrono::DateTime;
use domain::{OwnerId, Time};
use process::{clock, context};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use uuid::Uuid;

use crate::access_token::{Role, header, open};
use crate::ended_sessions::Revoked;
use crate::keys::Keys;
use crate::refetch::Refetch;
use crate::scopes::Scopes;

const TOKEN_LENGTH_MAX: usize = 2048;
/// How many verified tokens are remembered: about 600 bytes each.
const CACHED_TOKENS_MAX: usize = 20_000;
/// The account behind a request, as its access token says. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The account, which owns its tasks.
    pub owner: OwnerId,
    /// The session that the token belongs to, or the API key.
    pub session: Uuid,
    /// What it may do.
    pub role: Role,
    /// All that the token is good for, where it is an API key's; `None`: a session's, good for whatever the account may do.
    pub scopes: Option<Scopes>,
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
        Self { owner, session: Uuid::nil(), role, scopes: None, shard, expires_at: Time::MAX_UTC, verifier: None }
    }

    /// Whether its session has been ended since (logout, password changed, account disabled), or its API key revoked.
    #[must_use]
    pub fn revoked(&self) -> bool {
        self.verifier.as_ref().is_some_and(|verifier| verifier.0.is_revoked(self.session))
    }

    /// Waits until the token expires, or its session or API key is ended: a live stream ends then.
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
    scopes: Option<Scopes>,
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
    pub async fn asked_for_its_key(&self, token: &str) -> bool {
        let Some(refetch) = &self.0.refetch else { return false };
        if token.len() > TOKEN_LENGTH_MAX {
            return false;
        }
        let Ok(sent) = jsonwebtoken::decode_header(token) else { return false };
        let Some(kid) = sent.kid.clone().filter(|kid| sent == header(kid)) else { return false };
        if self.0.keys.borrow().by_kid.contains_key(&kid) {
            return false;
        }
        context::without_permit(refetch.wait()).await;
        true
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
                    scopes: claims.scope,
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
            scopes: verified.scopes,
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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::access_token::{AUDIENCE, Claims, ISSUER};
    use crate::scopes::Scope;

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
            scope: None,
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
    fn a_token_of_an_api_key_is_good_for_its_scopes_only() {
        let issuer = issuer();
        let scopes_of = |claims: Claims| {
            let token = claims.sign(KID, &issuer.key).expect("signs");
            // the second time it is in the cache
            [(); 2].map(|()| issuer.verifier.verify(&token).expect("good").scopes)
        };
        assert_eq!(scopes_of(claims()), [None; 2]);
        for scopes in [[Scope::TasksRead].into_iter().collect(), Scopes::default()] {
            assert_eq!(scopes_of(Claims { scope: Some(scopes), ..claims() }), [Some(scopes); 2]);
        }
    }

    #[test]
    fn the_gateway_tells_accounts_apart_by_the_first_characters_of_their_claims() {
        let gateway = include_str!("../../../bin/lib/gateway.conf");
        let (_, pattern) = gateway.split_once("(?<gateway_claims>[A-Za-z0-9_-]{").expect("a pattern");
        let length: usize = pattern.split('}').next().and_then(|digits| digits.parse().ok()).expect("a length");
        let seen = |claims: &Claims| URL_SAFE_NO_PAD.encode(json(claims))[..length].to_owned();
        let elsewhere = Claims { sid: Uuid::from_u128(5), role: Role::Admin, shard: 4, iat: 0, ..claims() };
        assert_eq!(seen(&claims()), seen(&elsewhere), "of one account");
        let of_an_api_key = Claims { scope: Some([Scope::TasksRead].into_iter().collect()), ..claims() };
        assert_eq!(seen(&claims()), seen(&of_an_api_key), "of one account");
        for other in [0x11, 1 | (1 << 127)] {
            assert_ne!(seen(&claims()), seen(&Claims { sub: Uuid::from_u128(other), ..claims() }), "of two accounts");
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
            good.replace("{\"iss\"", "{\"scope\":null,\"iss\""),
            good.replace("{\"iss\"", "{\"scope\":[\"tasks:read\"],\"iss\""),
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
        // cached, so that a lookup which compares too little is found out
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
            scopes: None,
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
}
