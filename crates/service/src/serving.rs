//! A program while it serves: what all programs have in common once they are built.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use access::Verifier;
use access::installation::Installation;
use access::token::RootSecret;
use backends::redis::Redis;
use http_api::Api;
use http_api::edge::EdgeSettings;
use metrics_exporter_prometheus::PrometheusHandle;
use process::background::{Background, Died};
use process::health::Health;
use tokio_util::sync::CancellationToken;

use crate::listeners::{Answers, Listeners};

/// What a program was built for.
pub struct Built {
    /// Its routes, without those of operations.
    pub api: Api,
    /// Who may use them.
    pub verifier: Verifier,
}

/// What a program needs while it serves.
pub struct Serving {
    /// What the configuration says of the edge.
    pub edge: EdgeSettings,
    /// The installation's secret.
    pub secret: RootSecret,
    /// Where several copies count together what clients ask for.
    pub redis: Option<Redis>,
    /// For livez and readyz.
    pub health: Health,
    /// For metrics.
    pub metrics: PrometheusHandle,
    /// Tasks that run as long as the process.
    pub background: Background,
    /// Cancelled when no connection is accepted any more: live streams end then.
    pub closing: CancellationToken,
}

/// How a program ends once it is told to.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// For so long everything is still answered, while `/readyz` says otherwise.
    pub drain_time: Duration,
    /// How long background tasks may take to write what is under way, once nobody asks any more.
    pub background_time_max: Duration,
}

impl Serving {
    /// Answers until `stop`, or until a background task has died or something else has `failed`; then ends what is under
    /// way.
    ///
    /// # Errors
    /// What died or failed, or the listener.
    pub async fn answer<E: Display + From<io::Error> + From<Died>>(
        self,
        listeners: Listeners,
        Built { api, verifier }: Built,
        stop: &CancellationToken,
        ending: Ending,
        failed: impl Future<Output = E>,
    ) -> Result<(), E> {
        let Self { edge, secret, redis, health, metrics, mut background, closing } = self;
        let edge = edge.edge(verifier, &secret, health.draining());
        if let Some(redis) = redis {
            let sharing = edge.limits.share(redis, &Installation::of(&secret), background.stop.clone());
            background.spawn("sharing of rate limits", sharing);
        }
        let answers = Answers { api, edge, health, metrics, closing };
        let died = async {
            tokio::select! {
                died = background.first_to_die() => died.into(),
                error = failed => error,
            }
        };
        let outcome = listeners.answer(answers, stop, ending.drain_time, died).await;
        background.stop(ending.background_time_max).await;
        outcome
    }
}
