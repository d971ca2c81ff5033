//! The keys that tokens are signed with, from `PRIMETRADE_JWKS_URL`: fetched every few seconds, kept while nobody
//! answers there, and fetched once more when a token names a key that is not known.
//!
//! Only keys that are proved to be this installation's are taken (see [`crate::installation`]): at a port or a name
//! another one may answer, and whoever has its tokens would be let in here.

use std::sync::Arc;
use std::time::Duration;

use backends::database::in_time;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use process::health::Check;
use process::periodic::Periodic;
use serde::Deserialize;
use settings::{ConfigError, Source};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::installation::{Installation, Log};
use crate::keys::Keys;
use crate::refetch::{Asked, Refetch};

/// Well within the time between a new key being shown and it signing (10 s).
const FETCH_INTERVAL: Duration = Duration::from_secs(3);
/// Longer than the 3 s after which the gateway gives a frozen copy up and asks another one (`bin/lib/gateway.conf`): a fetch
/// that is ended before that fails, and the next one may meet that copy again.
const FETCH_TIME_MAX: Duration = Duration::from_secs(4);
/// How long a request waits for keys to be fetched. Shorter than those 3 s, or the gateway would give up the copy that waits.
const REFETCH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Keys of another installation are looked at again for so long at the start: two programs that start with a restored log
/// may have seen different ones for a moment.
const NOT_OURS_TIME_MAX: Duration = Duration::from_secs(5);
/// A restart of command-api is no news.
const FAILING_TIME_MAX: Duration = Duration::from_secs(15);
/// For the database to say which log it is.
const LOG_TIME_MAX: Duration = Duration::from_secs(2);
/// However many tokens name unknown keys, there is one fetch in this time.
const FETCH_PAUSE_MIN: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const KEYS_MAX: usize = 64;
/// Where keys are shown.
pub const JWKS_URL: &str = "PRIMETRADE_JWKS_URL";

/// `PRIMETRADE_JWKS_URL`, if it is set.
///
/// # Errors
/// It is no URL.
pub fn url(source: &Source) -> Result<Option<String>, ConfigError> {
    source.http_url(JWKS_URL)
}

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
    /// Those of another installation.
    #[error("PRIMETRADE_JWKS_URL: {0}")]
    NotOurs(NotOurs),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(reqwest::Error),
}

/// Keys that are not proved to be this installation's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Nothing is said.
    #[error(
        "the keys there do not say whose they are: another program answers there, or a command-api of an earlier version"
    )]
    NotSaid,
    /// Made with another secret.
    #[error(
        "the keys there are of another installation, or of a command-api with another PRIMETRADE_SECRET than this \
         service has. Correct the URL, or give all services one secret"
    )]
    OtherSecret,
    /// Of another log.
    #[error(
        "the keys there are of another installation: its log is {theirs}, that of this service {ours}. Correct the URL; \
         after a restore, `primetrade rebuild` makes the read models of the new log"
    )]
    OtherLog {
        /// As the keys say.
        theirs: Uuid,
        /// As this service has it.
        ours: Uuid,
    },
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotFetched {
    #[error("{0}")]
    NoAnswer(String),
    #[error(transparent)]
    NotOurs(NotOurs),
    #[error("the database does not say which log this is: {0}")]
    Database(#[from] sqlx::Error),
}

/// Where keys come from.
pub struct Jwks {
    url: reqwest::Url,
    http: reqwest::Client,
    installation: Installation,
    log: Log,
}

/// Keys that are followed.
pub struct Followed {
    /// As they change.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// For [`crate::verifier::Verifier::asking`].
    pub refetch: Refetch,
    /// For `/readyz`.
    pub fetched: watch::Receiver<Fetched>,
}

/// When keys were fetched last, and why they could not be since.
#[derive(Debug, Clone)]
pub struct Fetched {
    at: Instant,
    failing: Option<String>,
}

type PublicKeys = Vec<(String, [u8; 32])>;

impl Jwks {
    /// Keys at this URL, of this installation and log.
    ///
    /// # Errors
    /// It is not one, or there is no HTTP client to be had.
    pub fn new(url: &str, installation: Installation, log: Log) -> Result<Self, JwksError> {
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
        Ok(Self { url: parsed, http, installation, log })
    }

    /// Fetches until there are keys, at most for `wait`, and goes on by the future that it gives back, until `shutdown`.
    ///
    /// # Errors
    /// There were none in time, or they are another installation's.
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
            let late = began.elapsed() + FETCH_PAUSE_MIN;
            match reason {
                NotFetched::NotOurs(NotOurs::NotSaid) if late <= wait => {}
                NotFetched::NotOurs(not_ours) if late > NOT_OURS_TIME_MAX => return Err(JwksError::NotOurs(not_ours)),
                _ if late > wait => return Err(JwksError::NoAnswer(reason.to_string(), wait.as_secs())),
                _ => {}
            }
            if !said {
                said = true;
                tracing::warn!(url = %self.url, %reason, "waiting for keys; trying again for {} s", wait.as_secs());
            }
            tokio::time::sleep(FETCH_PAUSE_MIN).await;
        };
        let (sender, keys) = watch::channel(Arc::new(Keys::new(first.clone())));
        let (fetched_sender, fetched) = watch::channel(Fetched { at: Instant::now(), failing: None });
        let (refetch, asked) = Refetch::channel(REFETCH_WAIT_MAX);
        let following = self.keep(first, sender, fetched_sender, asked, shutdown);
        Ok((Followed { keys, refetch, fetched }, following))
    }

    async fn keep(
        self,
        mut known: PublicKeys,
        keys: watch::Sender<Arc<Keys>>,
        fetched: watch::Sender<Fetched>,
        mut asked: Asked,
        shutdown: CancellationToken,
    ) {
        let what = "fetching the keys of tokens (those that are known stay good)";
        let mut fetching = Periodic::every(FETCH_INTERVAL, what, shutdown.clone());
        let mut last = Instant::now();
        while let Some(due) = fetching.due_or(asked.next()).await {
            if last.elapsed() >= FETCH_PAUSE_MIN {
                let Some(seen) = shutdown.run_until_cancelled(self.fetch()).await else { return };
                fetched.send_modify(|fetched| match &seen {
                    Ok(_) => *fetched = Fetched { at: Instant::now(), failing: None },
                    Err(reason) => fetched.failing = Some(reason.to_string()),
                });
                if let Some(seen) = fetching.seen(seen)
                    && seen != known
                {
                    tracing::info!(keys = seen.len(), "the keys that tokens are signed with have changed");
                    keys.send_replace(Arc::new(Keys::new(seen.clone())));
                    known = seen;
                }
                last = Instant::now();
            }
            if let Some(waiting) = due {
                waiting.answer();
            }
        }
    }

    /// The Ed25519 keys of the set, if they are ours; what else is in it is not.
    async fn fetch(&self) -> Result<PublicKeys, NotFetched> {
        let bytes = self.answer().await.map_err(NotFetched::NoAnswer)?;
        let no_answer = |reason: &str| NotFetched::NoAnswer(reason.to_owned());
        let Shown { keys, log_id, proof } =
            parse(&bytes).ok_or_else(|| no_answer("the answer is no JSON Web Key Set"))?;
        if keys.is_empty() {
            return Err(no_answer("there is no Ed25519 key in the answer"));
        }
        let (Some(theirs), Some(proof)) = (log_id, proof) else { return Err(NotFetched::NotOurs(NotOurs::NotSaid)) };
        if !self.installation.proves(&proof, theirs, &keys) {
            return Err(NotFetched::NotOurs(NotOurs::OtherSecret));
        }
        match in_time(LOG_TIME_MAX, self.log.id()).await? {
            Some(ours) if ours != theirs => Err(NotFetched::NotOurs(NotOurs::OtherLog { theirs, ours })),
            // without a log there is nothing to be seen yet
            Some(_) | None => Ok(keys),
        }
    }

    async fn answer(&self) -> Result<Vec<u8>, String> {
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
        Ok(bytes)
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

/// What a set has.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    keys: PublicKeys,
    log_id: Option<Uuid>,
    proof: Option<Vec<u8>>,
}

fn parse(bytes: &[u8]) -> Option<Shown> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Jwk>,
        log_id: Option<Uuid>,
        proof: Option<String>,
    }
    #[derive(Deserialize)]
    struct Jwk {
        kty: String,
        crv: Option<String>,
        kid: Option<String>,
        x: Option<String>,
    }
    let Set { keys, log_id, proof } = serde_json::from_slice(bytes).ok()?;
    let key = |jwk: Jwk| {
        let ours = jwk.kty == "OKP" && jwk.crv.as_deref() == Some("Ed25519");
        let x = URL_SAFE_NO_PAD.decode(jwk.x.filter(|_| ours)?).ok()?;
        Some((jwk.kid?, x.try_into().ok()?))
    };
    let keys = keys.into_iter().filter_map(key).take(KEYS_MAX).collect();
    Some(Shown { keys, log_id, proof: proof.and_then(|proof| URL_SAFE_NO_PAD.decode(proof).ok()) })
}

/// For `/readyz`: keys that are known stay good while nobody answers, so this never fails.
#[must_use]
pub fn check(fetched: &watch::Receiver<Fetched>, keys: &watch::Receiver<Arc<Keys>>) -> Check {
    let count = keys.borrow().len();
    let Fetched { at, failing } = &*fetched.borrow();
    let known = format!("{count} known, fetched {} s ago", at.elapsed().as_secs());
    match failing {
        Some(reason) if at.elapsed() >= FAILING_TIME_MAX => Check::degraded(format!("{known}; not since: {reason}")),
        Some(_) | None => Check::ok(known),
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::token::RootSecret;

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
        let keys = |text: &str| parse(text.as_bytes()).map(|shown| shown.keys);
        assert_eq!(keys(&set.to_string()), Some(vec![("a".to_owned(), [9; 32])]));
        assert_eq!(keys("{\"keys\":[]}"), Some(Vec::new()));
        assert_eq!(keys("<html>"), None);
    }

    fn installation(secret: &str) -> Installation {
        Installation::of(&RootSecret::new(secret.repeat(8).into()).expect("long enough"))
    }

    const OURS: Log = Log::Known(Uuid::from_u128(1));

    #[test]
    fn a_url_that_is_none_is_named() {
        for bad in ["", "command-api:8081", "ftp://x/y"] {
            let error = Jwks::new(bad, installation("ours"), OURS).map(drop).expect_err(bad).to_string();
            assert!(error.contains("PRIMETRADE_JWKS_URL"), "{error}");
        }
    }

    /// As ours are shown where the secret and the log are these.
    fn shown(secret: &str, log_id: u128) -> String {
        let keys = vec![("a".to_owned(), [9; 32])];
        let log_id = Uuid::from_u128(log_id);
        let jwk = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": URL_SAFE_NO_PAD.encode([9; 32])});
        let proof = URL_SAFE_NO_PAD.encode(installation(secret).proof(log_id, &keys));
        serde_json::json!({"keys": [jwk], "log_id": log_id, "proof": proof}).to_string()
    }

    /// A server that answers so after this time; it ends when it is aborted.
    async fn answering(body: String, after: Duration) -> (String, JoinHandle<std::io::Result<()>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let answer = move || async move {
            tokio::time::sleep(after).await;
            body
        };
        let router = axum::Router::new().fallback(answer);
        (url, tokio::spawn(async move { axum::serve(listener, router).await }))
    }

    /// When the gateway gives up a copy that does not answer a read.
    fn gateway_gives_up() -> Duration {
        let gateway = include_str!("../../../bin/lib/gateway.conf");
        let general = gateway.lines().find_map(|line| line.strip_prefix("proxy_read_timeout ")?.strip_suffix("s;"));
        Duration::from_secs(general.and_then(|seconds| seconds.parse().ok()).expect("a time-out for all locations"))
    }

    /// The first copy that the gateway asks has frozen; the second one answers at once.
    #[tokio::test]
    async fn keys_are_fetched_past_a_copy_that_has_frozen() {
        assert!(REFETCH_WAIT_MAX < gateway_gives_up(), "a request waits for keys, and is not given up for it");
        let (url, serving) = answering(shown("ours", 1), gateway_gives_up() + Duration::from_millis(300)).await;
        let jwks = Jwks::new(&url, installation("ours"), OURS).expect("a URL");
        // one attempt
        let followed = jwks.follow(Duration::ZERO, CancellationToken::new()).await;
        let (followed, _) = followed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(followed.keys.borrow().len(), 1);
        serving.abort();
    }

    /// What another installation, another program or an earlier version shows at the address.
    #[tokio::test]
    async fn keys_that_are_not_proved_to_be_ours_are_refused_by_name() {
        let unproved: serde_json::Value = serde_json::from_str(&shown("ours", 1)).expect("JSON");
        let unproved = serde_json::json!({"keys": unproved["keys"]}).to_string();
        for (what, body, named) in [
            ("ours", shown("ours", 1), None),
            ("another secret", shown("theirs", 1), Some("PRIMETRADE_SECRET")),
            ("another log", shown("ours", 2), Some("its log is 00000000-0000-0000-0000-000000000002")),
            ("no proof", unproved, Some("do not say whose they are")),
            ("another program", "<html>".to_owned(), Some("no JSON Web Key Set")),
        ] {
            let (url, serving) = answering(body, Duration::ZERO).await;
            let jwks = Jwks::new(&url, installation("ours"), OURS).expect("a URL");
            let followed = jwks.follow(Duration::from_secs(6), CancellationToken::new());
            match (followed.await, named) {
                (Ok((followed, _)), None) => assert_eq!(followed.keys.borrow().len(), 1),
                (Err(error), Some(named)) => {
                    let error = error.to_string();
                    assert!(error.contains("PRIMETRADE_JWKS_URL") && error.contains(named), "{what}: {error}");
                }
                (Ok(_), Some(_)) => panic!("{what}: taken"),
                (Err(error), None) => panic!("{what}: {error}"),
            }
            serving.abort();
        }
    }
}
