//! Signing keys: Ed25519, kept in the database, the private half encrypted with a key derived from the one secret.
//!
//! The first copy that starts makes one. [`rotate`] adds another, which is shown in JWKS at once and signs a little later,
//! when every verifier has seen it; the old one is shown until the last token that it signed has expired.

use access::Keys;
use access::installation::Installation;
use access::token::RootSecret;
use backends::database::Pool;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use serde::Serialize;
use uuid::Uuid;

use crate::audit::{Act, Entry};
use crate::error::StartError;

/// How long an access token is good, in seconds.
pub const ACCESS_TOKEN_LIFETIME_S: i32 = 15 * 60;
/// A new key signs after this time: longer than a verifier takes to see it (2 s) and than JWKS may be cached.
pub const OVERLAP_S: i32 = 10;
/// How long clients may keep JWKS.
pub const JWKS_MAX_AGE_S: u32 = 5;

const NONCE_LENGTH: usize = 24;
/// Any number that nobody else uses: only one copy makes a key at a time.
const ADVISORY_LOCK: i64 = 0x7072_696d_6b65_7973;

/// The key that signs now.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) key: SigningKey,
}

/// What is known of the keys at one moment.
pub(crate) struct KeyRing {
    pub(crate) signer: Option<Signer>,
    pub(crate) public: Vec<(String, [u8; 32])>,
}

impl KeyRing {
    pub(crate) fn keys(&self) -> Keys {
        Keys::new(self.public.iter().cloned())
    }

    /// The JSON Web Key Set (RFC 7517, RFC 8037), with the log that the installation has and the proof of both.
    pub(crate) fn jwks(&self, installation: &Installation, log_id: Uuid) -> Vec<u8> {
        #[derive(Serialize)]
        struct Jwk<'a> {
            kty: &'static str,
            crv: &'static str,
            alg: &'static str,
            r#use: &'static str,
            kid: &'a str,
            x: String,
        }
        #[derive(Serialize)]
        struct Set<'a> {
            keys: Vec<Jwk<'a>>,
            log_id: Uuid,
            proof: String,
        }
        let jwk = |(kid, x): &'_ (String, [u8; 32])| (kid.clone(), URL_SAFE_NO_PAD.encode(x));
        let encoded: Vec<_> = self.public.iter().map(jwk).collect();
        let keys = encoded
            .iter()
            .map(|(kid, x)| Jwk { kty: "OKP", crv: "Ed25519", alg: "EdDSA", r#use: "sig", kid, x: x.clone() })
            .collect();
        let proof = URL_SAFE_NO_PAD.encode(installation.proof(log_id, &self.public));
        serde_json::to_vec(&Set { keys, log_id, proof }).unwrap_or_else(|_| b"{\"keys\":[]}".to_vec())
    }
}

/// Encrypts the private halves.
pub(crate) struct KeyCipher {
    current: XChaCha20Poly1305,
    /// Opens what was encrypted with the previous secret.
    previous: Option<XChaCha20Poly1305>,
}

const PURPOSE: &str = "signing-keys";

impl KeyCipher {
    pub(crate) fn new(secret: &RootSecret) -> Self {
        let cipher = |key: [u8; 32]| XChaCha20Poly1305::new(&key.into());
        Self { current: cipher(secret.derive(PURPOSE)), previous: secret.derive_previous(PURPOSE).map(cipher) }
    }

    fn seal(&self, kid: &str, seed: &[u8; 32]) -> Result<Vec<u8>, StartError> {
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let payload = Payload { msg: seed, aad: kid.as_bytes() };
        let sealed = self
            .current
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StartError::Crypto("a key could not be encrypted".into()))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, kid: &str, sealed: &[u8]) -> Option<SigningKey> {
        let seed = opened(&self.current, kid, sealed);
        let seed = seed.or_else(|| opened(self.previous.as_ref()?, kid, sealed))?;
        Some(SigningKey::from_bytes(&seed))
    }

    /// The same key encrypted with the secret, where it was with the previous one.
    fn sealed_anew(&self, kid: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, StartError> {
        let Some(previous) = &self.previous else { return Ok(None) };
        if opened(&self.current, kid, sealed).is_some() {
            return Ok(None);
        }
        opened(previous, kid, sealed).map(|seed| self.seal(kid, &seed)).transpose()
    }
}

fn opened(cipher: &XChaCha20Poly1305, kid: &str, sealed: &[u8]) -> Option<[u8; 32]> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let payload = Payload { msg: sealed, aad: kid.as_bytes() };
    cipher.decrypt(&XNonce::from(*nonce), payload).ok()?.first_chunk().copied()
}

/// Makes the first key where there is none, and encrypts anew what was encrypted with the previous secret.
pub(crate) async fn ensure(pool: &Pool, cipher: &KeyCipher) -> Result<(), StartError> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", ADVISORY_LOCK).execute(&mut *transaction).await?;
    let any =
        sqlx::query_scalar!(r#"select exists (select from identity.signing_key where retired_at is null) as "any!""#)
            .fetch_one(&mut *transaction)
            .await?;
    if !any {
        insert(&mut transaction, cipher, 0).await?;
    }
    let keys = sqlx::query!("select kid, private_key from identity.signing_key").fetch_all(&mut *transaction).await?;
    for key in keys {
        let Some(anew) = cipher.sealed_anew(&key.kid, &key.private_key)? else { continue };
        sqlx::query!("update identity.signing_key set private_key = $2 where kid = $1", key.kid, anew)
            .execute(&mut *transaction)
            .await?;
        tracing::info!(kid = key.kid, "a signing key was encrypted anew, with PRIMETRADE_SECRET");
    }
    transaction.commit().await?;
    Ok(())
}

/// Adds a key, which takes over after [`OVERLAP_S`], and lets the others end when their last tokens have expired. Gives
/// back its id. Needs no server, and none of the old keys: it also helps when the secret was lost.
///
/// # Errors
/// The database.
pub async fn rotate(pool: &Pool, secret: &RootSecret) -> Result<String, StartError> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", ADVISORY_LOCK).execute(&mut *transaction).await?;
    sqlx::query!("delete from identity.signing_key where retired_at < now()").execute(&mut *transaction).await?;
    // a minute more than the tokens live, for clocks that differ
    let shown_for_s = OVERLAP_S + ACCESS_TOKEN_LIFETIME_S + 60;
    sqlx::query!(
        "update identity.signing_key set retired_at = now() + make_interval(secs => $1) where retired_at is null",
        f64::from(shown_for_s)
    )
    .execute(&mut *transaction)
    .await?;
    let kid = insert(&mut transaction, &KeyCipher::new(secret), OVERLAP_S).await?;
    Entry::of(Act::KeysRotated).detail(&*kid).write(&mut transaction).await?;
    transaction.commit().await?;
    Ok(kid)
}

/// Makes a key that signs at once, and takes all others away: what they have signed is not taken any more.
pub(crate) async fn replace(transaction: &mut sqlx::PgConnection, secret: &RootSecret) -> Result<String, StartError> {
    sqlx::query!("select pg_advisory_xact_lock($1)", ADVISORY_LOCK).execute(&mut *transaction).await?;
    sqlx::query!("delete from identity.signing_key").execute(&mut *transaction).await?;
    let kid = insert(transaction, &KeyCipher::new(secret), 0).await?;
    Entry::of(Act::KeysRotated).detail(&*kid).write(transaction).await?;
    Ok(kid)
}

async fn insert(
    transaction: &mut sqlx::PgConnection,
    cipher: &KeyCipher,
    signs_after_s: i32,
) -> Result<String, StartError> {
    let seed: [u8; 32] = rand::random();
    let key = SigningKey::from_bytes(&seed);
    let kid = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
    sqlx::query!(
        "insert into identity.signing_key (kid, private_key, public_key, created_at, signs_from)
         values ($1, $2, $3, now(), now() + make_interval(secs => $4))",
        kid,
        cipher.seal(&kid, &seed)?,
        &key.verifying_key().to_bytes()[..],
        f64::from(signs_after_s)
    )
    .execute(&mut *transaction)
    .await?;
    Ok(kid)
}

/// The keys as they are now. The newest that may sign and can be decrypted signs.
pub(crate) async fn load(pool: &Pool, cipher: &KeyCipher) -> Result<KeyRing, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select kid, private_key, public_key, signs_from <= now() as "signs!" from identity.signing_key
           where retired_at is null or retired_at > now() order by signs_from desc, kid"#
    )
    .fetch_all(pool)
    .await?;
    let mut ring = KeyRing { signer: None, public: Vec::with_capacity(rows.len()) };
    // before its time only where no other can sign
    let mut early = None;
    for row in rows {
        if let Some(public) = row.public_key.first_chunk().filter(|_| row.public_key.len() == 32) {
            ring.public.push((row.kid.clone(), *public));
        }
        if ring.signer.is_none() {
            let signer = cipher.open(&row.kid, &row.private_key).map(|key| Signer { kid: row.kid, key });
            if row.signs {
                ring.signer = signer;
            } else if early.is_none() {
                early = signer;
            }
        }
    }
    ring.signer = ring.signer.or(early);
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(secret: &str) -> KeyCipher {
        KeyCipher::new(&RootSecret::new(secret.to_owned().into()).expect("long enough"))
    }

    #[test]
    fn a_key_is_opened_only_by_its_secret_and_under_its_id() {
        let own = cipher("a secret that is long enough for it");
        let sealed = own.seal("kid", &[9; 32]).expect("seals");
        assert!(!sealed.windows(32).any(|window| window == [9; 32]));
        assert_eq!(own.open("kid", &sealed).map(|key| key.to_bytes()), Some([9; 32]));
        assert!(own.open("other", &sealed).is_none());
        assert!(cipher("another secret, also long enough for it").open("kid", &sealed).is_none());
        assert!(own.open("kid", &sealed[..20]).is_none());
    }

    #[test]
    fn a_key_of_the_previous_secret_is_opened_and_encrypted_anew() {
        let of = |current: &str, previous: &str| {
            let pairs = [("PRIMETRADE_SECRET", current), ("PRIMETRADE_SECRET_PREVIOUS", previous)];
            let source = settings::Source::from_pairs(pairs.map(|(name, value)| (name, value.repeat(8))));
            KeyCipher::new(&RootSecret::read(&source).expect("long enough").expect("given"))
        };
        let (before, after, new) = (of("before", ""), of("after", "before"), of("after", ""));
        let sealed = before.seal("kid", &[9; 32]).expect("seals");
        assert_eq!(after.open("kid", &sealed).map(|key| key.to_bytes()), Some([9; 32]));
        assert!(new.open("kid", &sealed).is_none() && after.open("other", &sealed).is_none());
        let anew = after.sealed_anew("kid", &sealed).expect("seals").expect("of the previous one");
        assert_eq!(new.open("kid", &anew).map(|key| key.to_bytes()), Some([9; 32]));
        assert!(before.open("kid", &anew).is_none());
        assert_eq!(after.sealed_anew("kid", &anew).expect("nothing to do"), None);
        assert_eq!(new.sealed_anew("kid", &sealed).expect("nothing to do"), None);
    }

    #[test]
    fn jwks_shows_public_halves_only() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let public = key.verifying_key().to_bytes();
        let ring = KeyRing { signer: Some(Signer { kid: "kid".into(), key }), public: vec![("kid".into(), public)] };
        let installation =
            Installation::of(&RootSecret::new("a secret that is long enough for it".to_owned().into()).expect("long"));
        let log_id = Uuid::from_u128(7);
        let jwks: serde_json::Value = serde_json::from_slice(&ring.jwks(&installation, log_id)).expect("JSON");
        let proof = URL_SAFE_NO_PAD.encode(installation.proof(log_id, &ring.public));
        let expected = serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": "kid", "x": URL_SAFE_NO_PAD.encode(public)}], "log_id": log_id, "proof": proof});
        assert_eq!(jwks, expected);
    }
}
