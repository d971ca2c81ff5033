use std::sync::Arc;

use access::Keys;
use access::installation::Installation;
use access::token::RootSecret;
use backends::database::Pool;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use crate::keys::{self, KeyCipher, KeyRing, Signer};

/// The keys as they were last seen, for whoever signs and verifies.
pub(crate) struct KeyRotation {
    pool: Pool,
    cipher: KeyCipher,
    signer: watch::Sender<Option<Arc<Signer>>>,
    jwks: watch::Sender<Arc<[u8]>>,
    keys: watch::Sender<Arc<Keys>>,
    /// Whose the keys are.
    installation: Installation,
    log_id: Uuid,
    /// The public keys last seen, and a lock: looks are told in the order in which they were made.
    seen: Mutex<Vec<(String, [u8; 32])>>,
}

impl KeyRotation {
    /// Nothing is seen yet. The keys are shown as those of the log `log_id`.
    pub(crate) fn new(pool: Pool, cipher: KeyCipher, secret: &RootSecret, log_id: Uuid) -> Self {
        Self {
            pool,
            cipher,
            signer: watch::Sender::new(None),
            jwks: watch::Sender::new(Arc::from(&b"{\"keys\":[]}"[..])),
            keys: watch::Sender::default(),
            installation: Installation::of(secret),
            log_id,
            seen: Mutex::default(),
        }
    }

    /// The key that signs.
    pub(crate) fn signer(&self) -> Option<Arc<Signer>> {
        self.signer.borrow().clone()
    }

    /// The public keys as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> Arc<[u8]> {
        self.jwks.borrow().clone()
    }

    /// The public keys, for whoever verifies.
    pub(crate) fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.subscribe()
    }

    /// Reads the keys as they are now.
    pub(crate) async fn look(&self) -> Result<(), sqlx::Error> {
        let mut seen = self.seen.lock().await;
        let ring: KeyRing = keys::load(&self.pool, &self.cipher).await?;
        if *seen != ring.public {
            self.jwks.send_replace(ring.jwks(&self.installation, self.log_id).into());
            self.keys.send_replace(Arc::new(ring.keys()));
            seen.clone_from(&ring.public);
        }
        let current = self.signer().map(|signer| signer.kid.clone());
        match ring.signer {
            Some(signer) if current.as_ref() != Some(&signer.kid) => {
                tracing::info!(kid = signer.kid, "access tokens are signed with this key");
                self.signer.send_replace(Some(Arc::new(signer)));
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}
