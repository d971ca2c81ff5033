use std::sync::Arc;
use std::time::{Duration, Instant};

use access::Revoked;
use backends::database::{Pool, in_time};
use process::health::Check;
use tokio::sync::{Mutex, watch};

use crate::keys::ACCESS_TOKEN_LIFETIME_S;

/// A look that takes longer, its wait for another one included, is broken off and tried again.
pub(crate) const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// Without a good look for so long, `/readyz` says so: from then on somebody may be let in who should not be.
const LOOKED_S_MAX: u64 = 5;
/// An ended session is told about for so much longer than its tokens live.
const CLOCKS_DIFFER_S: u64 = 60;
/// How long an ended session is told about.
pub(crate) const TOLD_FOR: Duration =
    Duration::from_secs(ACCESS_TOKEN_LIFETIME_S.unsigned_abs() as u64 + CLOCKS_DIFFER_S);

/// The sessions that have ended while their access tokens live, and the API keys that were revoked, as they were last seen.
pub(crate) struct EndedSessions {
    pool: Pool,
    revoked: watch::Sender<Arc<Revoked>>,
    /// When they were last seen.
    looked: watch::Sender<Instant>,
    /// Looks are told in the order in which they were made.
    looking: Mutex<()>,
}

impl EndedSessions {
    /// None is seen yet.
    pub(crate) fn new(pool: Pool) -> Self {
        let looked = watch::Sender::new(Instant::now());
        Self { pool, revoked: watch::Sender::default(), looked, looking: Mutex::default() }
    }

    /// For whoever verifies.
    pub(crate) fn revoked(&self) -> watch::Receiver<Arc<Revoked>> {
        self.revoked.subscribe()
    }

    /// For `/readyz`: whether they are seen.
    pub(crate) fn check(&self) -> Check {
        match self.looked.borrow().elapsed().as_secs() {
            0..=LOOKED_S_MAX => Check::ok("ended ones are seen"),
            seconds => Check::failed(format!("ended ones have not been seen for {seconds} s")),
        }
    }

    /// Looks after a change of one's own. What was changed stands: where the look fails, the next one finds it.
    pub(crate) async fn look_at_once(&self) {
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "ended sessions could not be looked for at once");
        }
    }

    /// Reads them as they are now.
    pub(crate) async fn look(&self) -> Result<(), sqlx::Error> {
        in_time(LOOK_TIME_MAX, self.look_without_limit()).await
    }

    /// As [`look`](Self::look), for as long as it takes.
    pub(crate) async fn look_without_limit(&self) -> Result<(), sqlx::Error> {
        let _in_order = self.looking.lock().await;
        let ended = sqlx::query_scalar!(
            r#"select id as "id!" from identity.session where ended_at > now() - make_interval(secs => $1)
               union all
               select id from identity.api_key where revoked_at > now() - make_interval(secs => $1)"#,
            TOLD_FOR.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await?;
        let ended = Revoked(ended.into_iter().collect());
        self.revoked.send_if_modified(|revoked| {
            let changed = **revoked != ended;
            if changed {
                *revoked = Arc::new(ended);
            }
            changed
        });
        self.looked.send_replace(Instant::now());
        Ok(())
    }
}
