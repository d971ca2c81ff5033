//! What a running server holds: the keys and the ended sessions as they are, looked at again every second.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::ended_sessions;
use access::installation::Installation;
use access::token::{RootSecret, Sealer};
use access::{Keys, Revoked, Verifier};
use backends::database::Pool;
use backends::database::in_time;
use domain::OwnerId;
use process::health::Check;
use process::periodic::Periodic;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::{Account, AccountChange, Accounts};
use crate::audit;
use crate::error::{IdentityError, StartError};
use crate::keys::{self, KeyRing, Signer, Vault};
use crate::password::Hasher;
use crate::sessions::{ACCESS_TOKEN_LIFETIME_S, RefreshTokens};
use crate::values::Password;

/// How often the database is asked for ended sessions and keys: well within the 5 s that a revocation may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look that takes longer, its turn included, is given up and tried again.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);
/// Without a good look for so long, `/readyz` says so: from then on somebody may be let in who should not be.
const LOOKED_S_MAX: u64 = 5;
/// Old sessions and audit events are deleted this often, so many at a time; with each look while there are more.
const SWEEP_EVERY_LOOKS: u32 = 600;
const SWEPT_SESSIONS_MAX: i64 = 10_000;
const SWEEP_TIME_MAX: Duration = Duration::from_secs(10);
/// An ended session is told about for so much longer than its tokens live.
const CLOCKS_DIFFER_S: u64 = 60;

/// Accounts, sessions and keys of a running server. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    refresh_tokens: RefreshTokens,
    sealer: Sealer,
    vault: Vault,
    signer: watch::Sender<Option<Arc<Signer>>>,
    jwks: watch::Sender<Arc<[u8]>>,
    /// Whose the keys are.
    installation: Installation,
    log_id: Uuid,
    keys: watch::Sender<Arc<Keys>>,
    revoked: watch::Sender<Arc<Revoked>>,
    /// The public keys last seen, and a lock: looks are told in the order in which they were made.
    looking: Mutex<Vec<(String, [u8; 32])>>,
    /// When ended sessions were last seen.
    looked: watch::Sender<Instant>,
    verifier: Verifier,
}

impl Identity {
    /// Loads the signing keys, makes the first one where there is none, and watches keys and ended sessions until
    /// `shutdown`. New accounts are spread over `shards`; the keys are shown as those of the log `log_id`. The task is to be awaited: it ends only at shutdown.
    ///
    /// # Errors
    /// When the database does not answer, or the keys are encrypted with another secret.
    pub async fn start(
        pool: Pool,
        secret: &RootSecret,
        log_id: Uuid,
        shards: Vec<i16>,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), StartError> {
        let vault = Vault::new(secret);
        keys::ensure(&pool, &vault).await?;
        let accounts = Accounts::new(pool, shards)?;
        let (keys, keys_seen) = watch::channel(Arc::default());
        let (revoked, revoked_seen) = watch::channel(Arc::default());
        let identity = Self(Arc::new(Inner {
            accounts,
            refresh_tokens: RefreshTokens::new(secret),
            sealer: Sealer::new(secret),
            vault,
            signer: watch::Sender::new(None),
            jwks: watch::Sender::new(Arc::from(&b"{\"keys\":[]}"[..])),
            installation: Installation::of(secret),
            log_id,
            keys,
            revoked,
            looking: Mutex::default(),
            looked: watch::Sender::new(Instant::now()),
            verifier: Verifier::new(keys_seen, revoked_seen),
        }));
        identity.look_for_keys().await?;
        if identity.signer().is_none() {
            return Err(StartError::OtherSecret);
        }
        identity.look_for_ended_sessions_once().await?;
        let task = tokio::spawn(identity.clone().watch(shutdown));
        Ok((identity, task))
    }

    /// For `server::edge`.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.0.verifier.clone()
    }

    /// Tells the services without this database which sessions have ended, by way of the read database, until `shutdown`.
    pub fn publish_ended_sessions(
        &self,
        read_pool: Pool,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let known_for = Duration::from_secs(u64::from(ACCESS_TOKEN_LIFETIME_S.unsigned_abs()) + CLOCKS_DIFFER_S);
        ended_sessions::publish(read_pool, self.0.revoked.subscribe(), known_for, shutdown)
    }

    /// Fetches what admins did at the services without this database, by way of the read database, until `shutdown`.
    pub fn collect_admin_acts(
        &self,
        read_pool: Pool,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        audit::collect(self.pool().clone(), read_pool, shutdown)
    }

    /// For `/readyz`: whether ended sessions are seen.
    #[must_use]
    pub fn check(&self) -> Check {
        match self.0.looked.borrow().elapsed().as_secs() {
            0..=LOOKED_S_MAX => Check::ok("ended ones are seen"),
            seconds => Check::failed(format!("ended ones have not been seen for {seconds} s")),
        }
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Arc<[u8]> {
        self.0.jwks.borrow().clone()
    }

    /// For cursors of the list of accounts.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.0.sealer
    }

    /// Accounts, for what needs no session. What changes sessions has a method here, which is seen at once.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// As [`Accounts::change`]; what it ends is seen here at once.
    ///
    /// # Errors
    /// As there.
    pub async fn change(&self, id: OwnerId, change: AccountChange) -> Result<Account, IdentityError> {
        let account = self.0.accounts.change(id, change).await?;
        self.look_for_ended_sessions().await;
        Ok(account)
    }

    /// As [`Accounts::change_password`]; what it ends is seen here at once.
    ///
    /// # Errors
    /// As there.
    pub async fn change_password(
        &self,
        id: OwnerId,
        session: Uuid,
        current: Password,
        new: Password,
    ) -> Result<(), IdentityError> {
        self.0.accounts.change_password(id, session, current, new).await?;
        self.look_for_ended_sessions().await;
        Ok(())
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.accounts.pool
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.0.accounts.hasher
    }

    pub(crate) fn refresh_tokens(&self) -> &RefreshTokens {
        &self.0.refresh_tokens
    }

    pub(crate) fn signer(&self) -> Option<Arc<Signer>> {
        self.0.signer.borrow().clone()
    }

    /// Asks for ended sessions now, after a change of one's own. What was changed stands: where the question fails, the
    /// next look finds it.
    pub(crate) async fn look_for_ended_sessions(&self) {
        if let Err(error) = self.look_for_ended_sessions_in_time().await {
            tracing::warn!(%error, "ended sessions could not be looked for at once");
        }
    }

    async fn look_for_ended_sessions_in_time(&self) -> Result<(), sqlx::Error> {
        in_time(LOOK_TIME_MAX, self.look_for_ended_sessions_once()).await
    }

    async fn look_for_ended_sessions_once(&self) -> Result<(), sqlx::Error> {
        let _in_order = self.0.looking.lock().await;
        let ended = sqlx::query_scalar!(
            "select id from identity.session where ended_at > now() - make_interval(secs => $1)",
            f64::from(ACCESS_TOKEN_LIFETIME_S) + CLOCKS_DIFFER_S as f64
        )
        .fetch_all(self.pool())
        .await?;
        let ended = Revoked(ended.into_iter().collect::<HashSet<_>>());
        self.0.revoked.send_if_modified(|revoked| {
            let changed = **revoked != ended;
            if changed {
                *revoked = Arc::new(ended);
            }
            changed
        });
        self.0.looked.send_replace(Instant::now());
        Ok(())
    }

    async fn look_for_keys(&self) -> Result<(), sqlx::Error> {
        let mut seen = self.0.looking.lock().await;
        let ring: KeyRing = keys::load(self.pool(), &self.0.vault).await?;
        if *seen != ring.public {
            self.0.jwks.send_replace(ring.jwks(&self.0.installation, self.0.log_id).into());
            self.0.keys.send_replace(Arc::new(ring.keys()));
            seen.clone_from(&ring.public);
        }
        let current = self.signer().map(|signer| signer.kid.clone());
        match ring.signer {
            Some(signer) if current.as_ref() != Some(&signer.kid) => {
                tracing::info!(kid = signer.kid, "access tokens are signed with this key");
                self.0.signer.send_replace(Some(Arc::new(signer)));
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    async fn watch(self, shutdown: CancellationToken) {
        let mut looking = Periodic::every(LOOK_INTERVAL, "looking for ended sessions and keys", shutdown.clone());
        let mut looks: u32 = 0;
        let mut more = false;
        while looking.due().await {
            looks = looks.wrapping_add(1);
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.look(more || looks.is_multiple_of(SWEEP_EVERY_LOOKS)) => looked,
            };
            more = looking.seen(looked).unwrap_or(false);
        }
    }

    /// Gives back whether there is more to sweep.
    async fn look(&self, sweep: bool) -> Result<bool, sqlx::Error> {
        self.look_for_ended_sessions_in_time().await?;
        in_time(LOOK_TIME_MAX, self.look_for_keys()).await?;
        if sweep { in_time(SWEEP_TIME_MAX, self.sweep()).await } else { Ok(false) }
    }

    /// Gives back whether there is more to sweep.
    async fn sweep(&self) -> Result<bool, sqlx::Error> {
        // a day more, so that a late use of a token is still told apart
        let swept = sqlx::query!(
            "delete from identity.session where id in (
                 select id from identity.session where refresh_expires_at < now() - interval '1 day' limit $1)",
            SWEPT_SESSIONS_MAX
        )
        .execute(self.pool())
        .await?;
        let more_events = audit::sweep(self.pool(), audit::EVENTS_MAX).await?;
        Ok(more_events || swept.rows_affected() >= SWEPT_SESSIONS_MAX.unsigned_abs())
    }
}
