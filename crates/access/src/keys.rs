//! The public keys that access tokens may be signed with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::DecodingKey;

use crate::ed25519;

/// The keys that tokens may be signed with.
#[derive(Debug, Default)]
pub struct Keys {
    pub(crate) by_kid: HashMap<String, DecodingKey>,
    /// Tells the sets apart, so that what an earlier one verified is verified again.
    pub(crate) edition: u64,
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
