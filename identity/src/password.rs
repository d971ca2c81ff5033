//! Argon2id with the parameters of OWASP's password storage sheet: 19 MiB, two passes, one lane.
//!
//! A hash takes tens of milliseconds of a core, so it runs off the async threads, as many at once as there are cores,
//! and a bounded number waits; who comes after that is told to come again.

use std::sync::Arc;
use std::thread::available_parallelism;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::{IdentityError, StartError};
use crate::values::Password;

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// How many passwords may wait for a core.
const WAITING_MAX: usize = 64;

/// Hashes and verifies. Clones share the queue.
#[derive(Clone)]
pub struct Hasher(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What an unknown address is verified against, so that it takes the same time.
    unknown_hash: String,
}

impl Hasher {
    /// With a queue of its own. Hashes once.
    ///
    /// # Errors
    /// When the parameters are refused or the system gives no random numbers.
    pub fn new() -> Result<Self, StartError> {
        let crypto = |error: &dyn std::fmt::Display| StartError::Crypto(error.to_string());
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| crypto(&e))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let unknown_hash = argon2.hash_password(&rand::random::<[u8; 32]>()).map_err(|e| crypto(&e))?.to_string();
        let cores = available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            argon2,
            running: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(cores + WAITING_MAX)),
            unknown_hash,
        })))
    }

    /// The hash of a password that nobody knows.
    pub(crate) fn of_nobody(&self) -> &str {
        &self.0.unknown_hash
    }

    /// A PHC string for a new password.
    ///
    /// # Errors
    /// [`IdentityError::Overloaded`] when too many wait.
    pub async fn hash(&self, password: Password) -> Result<String, IdentityError> {
        self.run(move |inner| {
            inner.argon2.hash_password(password.reveal().as_bytes()).map(|hash| hash.to_string()).map_err(internal)
        })
        .await?
    }

    /// Whether the password is the one of the hash. Without a hash (an unknown address) it is not, after the same time.
    ///
    /// # Errors
    /// [`IdentityError::Overloaded`] when too many wait; a hash that cannot be read.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, IdentityError> {
        self.run(move |inner| {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&inner.unknown_hash);
            let hash = PasswordHash::new(hash).map_err(internal)?;
            // with the parameters that stand in the hash
            Ok(inner.argon2.verify_password(password.reveal().as_bytes(), &hash).is_ok() && known)
        })
        .await?
    }

    /// Whether a hash was made with other parameters than those of today: then it is made anew at the next login.
    #[must_use]
    pub fn is_outdated(&self, hash: &str) -> bool {
        let today = |hash: &PasswordHash| {
            hash.algorithm.as_str() == "argon2id"
                && Params::try_from(hash).is_ok_and(|params| {
                    (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES)
                })
        };
        !PasswordHash::new(hash).is_ok_and(|hash| today(&hash))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> T + Send + 'static,
    ) -> Result<T, IdentityError> {
        let inner = self.0.clone();
        let waiting = inner.waiting.clone().try_acquire_owned().map_err(|_| IdentityError::Overloaded)?;
        // neither semaphore is ever closed
        let running = inner.running.clone().acquire_owned().await.map_err(internal)?;
        let working = tokio::task::spawn_blocking(move || {
            // kept to the end also where nobody waits for it any more: a client that goes away stops no hash
            let _held = (waiting, running);
            work(&inner)
        });
        working.await.map_err(internal)
    }
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> IdentityError {
    IdentityError::Internal(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).expect("a password")
    }

    #[tokio::test]
    async fn only_the_right_password_is_verified() {
        let hasher = Hasher::new().expect("starts");
        let hash = hasher.hash(password("correct horse")).await.expect("hashes");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash(password("correct horse")).await.expect("hashes"), "salted");
        assert!(hasher.verify(password("correct horse"), Some(hash.clone())).await.expect("verifies"));
        assert!(!hasher.verify(password("correct horsf"), Some(hash.clone())).await.expect("verifies"));
        assert!(!hasher.verify(password("correct horse"), None).await.expect("verifies"));
        assert!(!hasher.is_outdated(&hash));
        assert!(hasher.is_outdated(&hash.replace("t=2", "t=1")));
        assert!(hasher.is_outdated(&hash.replace("argon2id", "argon2i")));
    }

    /// Not a benchmark: without the work for an unknown address the two differ by a factor of thousands.
    #[tokio::test]
    async fn an_unknown_address_takes_as_long_as_a_wrong_password() {
        let hasher = Hasher::new().expect("starts");
        let hash = hasher.hash(password("correct horse")).await.expect("hashes");
        let fastest = async |hash: Option<String>| {
            let mut fastest = std::time::Duration::MAX;
            for _ in 0..3 {
                let began = std::time::Instant::now();
                assert!(!hasher.verify(password("wrong horse"), hash.clone()).await.expect("verifies"));
                fastest = fastest.min(began.elapsed());
            }
            fastest
        };
        let known = fastest(Some(hash)).await;
        let unknown = fastest(None).await;
        assert!(unknown * 4 > known && known * 4 > unknown, "known {known:?}, unknown {unknown:?}");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_permit() {
        let hasher = Hasher::new().expect("starts");
        let cores = hasher.0.running.available_permits();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        {
            let mut working = std::pin::pin!(hasher.run(move |_| ended.recv().is_err()));
            assert!(futures_util::poll!(&mut working).is_pending());
        }
        assert_eq!(hasher.0.running.available_permits(), cores - 1);
        assert_eq!(hasher.0.waiting.available_permits(), cores + WAITING_MAX - 1);
        drop(end);
        let all = u32::try_from(cores).expect("a number of cores");
        drop(hasher.0.running.acquire_many(all).await.expect("never closed"));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let hasher = Hasher::new().expect("starts");
        let hash = hasher.hash(password("correct horse")).await.expect("hashes");
        let many = (0..WAITING_MAX * 3).map(|_| hasher.verify(password("wrong horse"), Some(hash.clone())));
        let answers = futures_util::future::join_all(many).await;
        let refused = answers.iter().filter(|answer| matches!(answer, Err(IdentityError::Overloaded))).count();
        assert!(refused > 0 && refused <= WAITING_MAX * 2, "{refused}");
        assert!(answers.iter().all(|answer| !matches!(answer, Ok(true))));
        assert!(hasher.verify(password("correct horse"), Some(hash)).await.expect("there is room again"));
    }
}
