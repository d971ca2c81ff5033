//! The keys that tokens are signed with, from `PRIMETRADE_JWKS_URL`: fetched every few seconds, kept while nobody
//! answers there, and fetched once more when a token names a key that is not known.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::auth::Keys;
use crate::health::Check;
use crate::outage::Outage;

/// Well within the time between a new key being shown and it signing (10 s).
const FETCH_INTERVAL: Duration = Duration::from_secs(3);
const FETCH_TIME_MAX: Duration = Duration::from_secs(2);
/// However many tokens name unknown keys, there is one fetch in this time.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Requests that wait for a fetch; more are answered at once.
const ASKING_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = 64 << 10;
const KEYS_MAX: usize = 64;

/// Why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Not an http or https URL.
    #[error("PRIMETRADE_JWKS_URL: {0}")]
    Url(String),
    /// Nobody answers, or with something else.
    #[error(
        "the keys cannot be fetched from PRIMETRADE_JWKS_URL ({0}); tried for {1} s. Start command-api, or correct the URL"
    )]
    NoAnswer(String, u64),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(reqwest::Error),
}

/// Where keys come from.
pub struct Jwks {
    url: reqwest::Url,
    http: reqwest::Client,
}

/// Keys that are followed.
pub struct Followed {
    /// As they change.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// For [`crate::auth::Verifier::asking`].
    pub refetch: Refetch,
    /// For `/readyz`: when they were last fetched.
    pub fetched: watch::Receiver<Instant>,
}

/// Asks for the keys to be fetched now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Refetch(mpsc::Sender<oneshot::Sender<()>>);

impl Refetch {
    /// Returns once they have been fetched, or were a moment ago, or it took too long.
    pub async fn wait(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.try_send(answer).is_ok() {
            let _ = tokio::time::timeout(FETCH_TIME_MAX, answered).await;
        }
    }
}

type PublicKeys = Vec<(String, [u8; 32])>;

impl Jwks {
    /// Keys at this URL.
    ///
    /// # Errors
    /// It is not one, or there is no HTTP client to be had.
    pub fn new(url: &str) -> Result<Self, JwksError> {
        let parsed = reqwest::Url::parse(url).map_err(|error| JwksError::Url(error.to_string()))?;
        if !["http", "https"].contains(&parsed.scheme()) {
            return Err(JwksError::Url("it begins with http:// or https://".to_owned()));
        }
        // somebody else in the process may have chosen one already: then that is used
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(JwksError::Client)?;
        Ok(Self { url: parsed, http })
    }

    /// Fetches until there are keys, at most for `wait`, and goes on by the future that it gives back, until `shutdown`.
    ///
    /// # Errors
    /// There were none in time.
    pub async fn follow(
        self,
        wait: Duration,
        shutdown: CancellationToken,
    ) -> Result<(Followed, impl Future<Output = ()> + Send), JwksError> {
        let began = Instant::now();
        let mut said = false;
        let first = loop {
            let reason = match self.fetch().await {
                Ok(keys) => break keys,
                Err(reason) => reason,
            };
            if began.elapsed() + FETCH_PAUSE_MIN > wait {
                return Err(JwksError::NoAnswer(reason, wait.as_secs()));
            }
            if !said {
                said = true;
                tracing::warn!(url = %self.url, reason, "waiting for keys; trying again for {} s", wait.as_secs());
            }
            tokio::time::sleep(FETCH_PAUSE_MIN).await;
        };
        let (sender, keys) = watch::channel(Arc::new(Keys::new(first.clone())));
        let (fetched_sender, fetched) = watch::channel(Instant::now());
        let (ask, asked) = mpsc::channel(ASKING_MAX);
        let following = self.keep(first, sender, fetched_sender, asked, shutdown);
        Ok((Followed { keys, refetch: Refetch(ask), fetched }, following))
    }

    async fn keep(
        self,
        mut known: PublicKeys,
        keys: watch::Sender<Arc<Keys>>,
        fetched: watch::Sender<Instant>,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
        shutdown: CancellationToken,
    ) {
        let mut tick = interval(FETCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        let mut last = Instant::now();
        let mut outage = Outage::of("fetching the keys of tokens (those that are known stay good)");
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
                Some(answer) = asked.recv() => {
                    waiting.push(answer);
                    while let Ok(answer) = asked.try_recv() {
                        waiting.push(answer);
                    }
                }
            }
            if last.elapsed() >= FETCH_PAUSE_MIN {
                if let Some(seen) = outage.seen(self.fetch().await) {
                    if seen != known {
                        tracing::info!(keys = seen.len(), "the keys that tokens are signed with have changed");
                        keys.send_replace(Arc::new(Keys::new(seen.clone())));
                        known = seen;
                    }
                    fetched.send_replace(Instant::now());
                }
                last = Instant::now();
            }
            for answer in waiting.drain(..) {
                // who asked may have gone
                let _ = answer.send(());
            }
        }
    }

    /// The Ed25519 keys of the set; what else is in it is not ours.
    async fn fetch(&self) -> Result<PublicKeys, String> {
        let answer = self.http.get(self.url.clone()).send().await.map_err(|error| chain(&error))?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let mut bytes = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| chain(&error))?);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        match parse(&bytes) {
            Some(keys) if !keys.is_empty() => Ok(keys),
            Some(_) => Err("there is no Ed25519 key in the answer".to_owned()),
            None => Err("the answer is no JSON Web Key Set".to_owned()),
        }
    }
}

/// An HTTP client says why only in the sources of its error.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn parse(bytes: &[u8]) -> Option<PublicKeys> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Jwk>,
    }
    #[derive(Deserialize)]
    struct Jwk {
        kty: String,
        crv: Option<String>,
        kid: Option<String>,
        x: Option<String>,
    }
    let set: Set = serde_json::from_slice(bytes).ok()?;
    let key = |jwk: Jwk| {
        let ours = jwk.kty == "OKP" && jwk.crv.as_deref() == Some("Ed25519");
        let x = URL_SAFE_NO_PAD.decode(jwk.x.filter(|_| ours)?).ok()?;
        Some((jwk.kid?, x.try_into().ok()?))
    };
    Some(set.keys.into_iter().filter_map(key).take(KEYS_MAX).collect())
}

/// For `/readyz`: keys that are known stay good while nobody answers, so this never fails.
#[must_use]
pub fn check(fetched: &watch::Receiver<Instant>, keys: &watch::Receiver<Arc<Keys>>) -> Check {
    let count = keys.borrow().len();
    Check::ok(format!("{count} known, fetched {} s ago", fetched.borrow().elapsed().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ed25519_keys_are_taken_from_a_set() {
        let x = URL_SAFE_NO_PAD.encode([9; 32]);
        let set = serde_json::json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "a", "x": x},
            {"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AAAA"},
            {"kty": "OKP", "crv": "X25519", "kid": "b", "x": x},
            {"kty": "RSA", "kid": "c", "n": "AQAB", "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "x": x},
        ]});
        assert_eq!(parse(set.to_string().as_bytes()), Some(vec![("a".to_owned(), [9; 32])]));
        assert_eq!(parse(b"{\"keys\":[]}"), Some(Vec::new()));
        assert_eq!(parse(b"<html>"), None);
    }

    #[test]
    fn a_url_that_is_none_is_named() {
        for bad in ["", "command-api:8081", "ftp://x/y"] {
            let error = Jwks::new(bad).map(drop).expect_err(bad).to_string();
            assert!(error.contains("PRIMETRADE_JWKS_URL"), "{error}");
        }
    }
}
