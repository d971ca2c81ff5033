//! What goes around the merged router, and what the configuration says of it.

use access::Verifier;
use access::token::RootSecret;
use http_server::client_address::TrustedProxies;
use process::health::Draining;
use process::load::Load;
use settings::{ConfigError, Source};

use super::cors;
use crate::limits::RateLimits;

/// What goes around the merged router.
#[derive(Clone, Default)]
pub struct Edge {
    /// For [`crate::account::Account`]; none where no route needs one.
    pub verifier: Option<Verifier>,
    /// Origins that browsers may call from; `*` for any. None: no CORS.
    pub cors_origins: Vec<String>,
    /// How much a client may ask for.
    pub limits: RateLimits,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub proxies: TrustedProxies,
    /// How much is worked on at once: one for all listeners of a process.
    pub load: Load,
    /// Once it is set, each answer closes its connection.
    pub draining: Draining,
}

/// What the configuration says about the edge.
#[derive(Debug, Clone)]
pub struct EdgeSettings {
    /// `PRIMETRADE_CORS_ORIGINS`
    pub cors_origins: Vec<String>,
    /// `PRIMETRADE_TRUSTED_PROXIES`
    pub proxies: TrustedProxies,
    /// `PRIMETRADE_RATE_LIMITS`, on unless it is off.
    pub rate_limits: bool,
}

impl EdgeSettings {
    /// Reads the variables named above.
    ///
    /// # Errors
    /// Names the one that cannot be taken.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            cors_origins: cors::origins(source)?,
            proxies: TrustedProxies::read(source)?,
            rate_limits: source.switch("PRIMETRADE_RATE_LIMITS", true)?,
        })
    }

    /// The edge of a process.
    #[must_use]
    pub fn edge(self, verifier: Verifier, secret: &RootSecret, draining: Draining) -> Edge {
        Edge {
            verifier: Some(verifier),
            cors_origins: self.cors_origins,
            limits: if self.rate_limits { RateLimits::on(secret) } else { RateLimits::off() },
            proxies: self.proxies,
            load: Load::default(),
            draining,
        }
    }
}
