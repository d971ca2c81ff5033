use std::sync::Arc;
use std::time::Duration;

use access::Verifier;
use access::ended_sessions;
use access::token::{RootSecret, Sealer};
use backends::database::{DiskSpace, Pool, in_time};
use domain::OwnerId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use process::background::Background;
use process::health::{Check, Health};
use process::periodic::Periodic;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::{Account, AccountChange, Accounts};
use crate::audit;
use crate::ended_sessions::{EndedSessions, LOOK_TIME_MAX, TOLD_FOR};
use crate::error::{IdentityError, StartError};
use crate::key_rotation::KeyRotation;
use crate::keys::{self, KeyCipher, Signer};
use crate::password::Hasher;
use crate::refresh_token::RefreshTokens;
use crate::values::Password;

/// How often the database is asked for ended sessions and keys: well within the 5 s that a revocation may take.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Old sessions, API keys and audit events are deleted this often, so many at a time; with each look while there are more.
const SWEEP_EVERY_LOOKS: u32 = 600;
const SWEPT_SESSIONS_MAX: i64 = 10_000;
const SWEEP_TIME_MAX: Duration = Duration::from_secs(10);

/// The log in whose database accounts are.
#[derive(Debug, Clone)]
pub struct LogBeside {
    /// Its id: the keys are shown as those of this log.
    pub id: Uuid,
    /// Its shards: new accounts are spread over them.
    pub shards: Vec<i16>,
    /// Of their disk.
    pub disk_space: DiskSpace,
}

/// Accounts, sessions and keys of a running server. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    refresh_tokens: RefreshTokens,
    sealer: Sealer,
    keys: KeyRotation,
    ended_sessions: EndedSessions,
    verifier: Verifier,
}

impl Identity {
    /// Loads the signing keys, makes the first one where there is none, and watches keys and ended sessions until
    /// `shutdown`. The task is to be awaited: it ends only at shutdown.
    ///
    /// # Errors
    /// When the database does not answer, or the keys are encrypted with another secret.
    pub fn start(
        pool: Pool,
        secret: &RootSecret,
        log: LogBeside,
        shutdown: CancellationToken,
    ) -> BoxFuture<'_, Result<(Self, JoinHandle<()>), StartError>> {
        Box::pin(async move {
            let cipher = KeyCipher::new(secret);
            keys::ensure(&pool, &cipher).await?;
            let keys = KeyRotation::new(pool.clone(), cipher, secret, log.id);
            let ended_sessions = EndedSessions::new(pool.clone());
            let verifier = Verifier::new(keys.keys(), ended_sessions.revoked());
            let identity = Self(Arc::new(Inner {
                accounts: Accounts::new(pool, log.shards)?.beside(log.disk_space),
                refresh_tokens: RefreshTokens::new(secret),
                sealer: Sealer::new(secret),
                keys,
                ended_sessions,
                verifier,
            }));
            identity.0.keys.look().await?;
            if identity.signer().is_none() {
                return Err(StartError::OtherSecret);
            }
            identity.0.ended_sessions.look_without_limit().await?;
            let task = tokio::spawn(identity.clone().watch(shutdown));
            Ok((identity, task))
        })
    }

    /// That of a server. What belongs to it runs in `background`, and is shown in `/readyz`; what admins did at the services
    /// without this database is fetched by way of the read database.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub async fn open(
        pool: Pool,
        read_pool: Pool,
        secret: &RootSecret,
        log: LogBeside,
        background: &mut Background,
        health: &Health,
    ) -> Result<Self, StartError> {
        let stop = background.stop.clone();
        let (identity, watching) = Self::start(pool.clone(), secret, log, stop.clone()).await?;
        background.spawn("watch over keys and sessions", watching.map(drop));
        background.spawn("collection of admins' acts", audit::collect(pool, read_pool, stop));
        let shown = identity.clone();
        health.register("sessions", move || std::future::ready(shown.check()));
        Ok(identity)
    }

    /// For `server::edge`.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.0.verifier.clone()
    }

    /// Tells the services without this database which sessions have ended, by way of the read database, until `shutdown`.
    pub fn publish_ended_sessions(&self, read_pool: Pool, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(ended_sessions::publish(read_pool, self.0.ended_sessions.revoked(), TOLD_FOR, shutdown))
    }

    /// For `/readyz`: whether ended sessions are seen.
    #[must_use]
    pub fn check(&self) -> Check {
        self.0.ended_sessions.check()
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Arc<[u8]> {
        self.0.keys.jwks()
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

    /// As [`Accounts::answered`].
    pub(crate) async fn answered<T>(
        &self,
        work: impl Future<Output = Result<T, IdentityError>>,
    ) -> Result<T, IdentityError> {
        self.0.accounts.answered(work).await
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
        self.0.keys.signer()
    }

    /// Sees what a change of one's own has ended.
    pub(crate) async fn look_for_ended_sessions(&self) {
        self.0.ended_sessions.look_at_once().await;
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
        self.0.ended_sessions.look().await?;
        in_time(LOOK_TIME_MAX, self.0.keys.look()).await?;
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
        let swept_keys = self.sweep_api_keys(SWEPT_SESSIONS_MAX).await?;
        let more_events = audit::sweep(self.pool(), audit::EVENTS_MAX).await?;
        Ok(more_events || swept.rows_affected().max(swept_keys) >= SWEPT_SESSIONS_MAX.unsigned_abs())
    }
}
