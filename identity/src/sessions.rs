//! A session is a family of refresh tokens, of which one is good at a time. The database keeps no token, only the hash of
//! the good one and of the one before.

use std::time::{Duration, Instant};

use access::{AUDIENCE, Claims, ISSUER, Role, Scopes};
use domain::{OwnerId, Time};
use process::clock;
use process::context::{self, RequestContext};
use secrecy::SecretString;
use uuid::Uuid;

use crate::accounts::role_of;
use crate::audit::{Act, Entry};
use crate::error::IdentityError;
use crate::identity::Identity;
use crate::keys::{ACCESS_TOKEN_LIFETIME_S, Signer};
use crate::open_sessions::{self, OPEN_SESSIONS_MAX};
use crate::refresh_token::{REFRESH_TOKEN_LIFETIME_S, RefreshToken};
use crate::values::{Email, Password, UserAgent};

/// The answer to a refresh is held for so long. Windows of one client that refresh at the same moment have all arrived
/// by then, and get a 409 instead of ending the session; a refresh is made four times an hour, so that nobody notices.
const ANSWER_HELD: Duration = Duration::from_millis(50);

/// What a client gets.
#[derive(Debug)]
pub struct Tokens {
    /// For `Authorization: Bearer`.
    pub access_token: SecretString,
    /// Good for so many seconds.
    pub expires_in_s: i32,
    /// For the next refresh.
    pub refresh_token: SecretString,
    /// Good for so many seconds.
    pub refresh_expires_in_s: i32,
}

/// Whom an access token is for.
pub(crate) struct Subject {
    pub(crate) owner: OwnerId,
    /// The session, or the API key.
    pub(crate) session: Uuid,
    pub(crate) role: Role,
    /// All that it is good for, where it is an API key's.
    pub(crate) scopes: Option<Scopes>,
    pub(crate) shard: i16,
}

impl Identity {
    /// Starts a session of the client that calls itself `user_agent`. An unknown address and a wrong password take the same time and get the same answer; that the
    /// account is disabled is told only to who has its password. What the account has open beyond [`OPEN_SESSIONS_MAX`]
    /// sessions ends.
    ///
    /// # Errors
    /// [`IdentityError::InvalidCredentials`], [`IdentityError::Disabled`], [`IdentityError::Overloaded`], the database.
    pub async fn login(
        &self,
        email: &Email,
        password: Password,
        user_agent: Option<UserAgent>,
    ) -> Result<Tokens, IdentityError> {
        self.answered(async {
            let account = sqlx::query!(
                "select id, role, disabled, shard, password_hash from identity.account where email = $1",
                email.as_str()
            )
            .fetch_optional(self.pool())
            .await?;
            let hash = account.as_ref().map(|account| account.password_hash.clone());
            let right = self.hasher().verify(password.clone(), hash).await?;
            let Some(account) = account.as_ref().filter(|_| right) else {
                // an address that nobody has is not written down: it may be a password in the wrong field
                let failed = Entry::of(Act::LoginFailed);
                let failed = account.map_or(failed.clone(), |account| failed.account(OwnerId(account.id)));
                self.accounts().record(failed).await?;
                return Err(IdentityError::InvalidCredentials);
            };
            if account.disabled {
                let failed = Entry::of(Act::LoginFailed).account(OwnerId(account.id)).detail("disabled");
                self.accounts().record(failed).await?;
                return Err(IdentityError::Disabled);
            }
            let password_hash = match self.rehashed(account.id, &account.password_hash, password).await {
                Ok(new_hash) => new_hash.unwrap_or_else(|| account.password_hash.clone()),
                // the next login will
                Err(error) => {
                    tracing::warn!(%error, "a password could not be hashed anew");
                    account.password_hash.clone()
                }
            };
            let session = clock::new_id();
            let refresh_token = self.refresh_tokens().make(session);
            let now = clock::now();
            // the account is looked at again under a lock: disabled or given another password meanwhile, it gets no session
            let mut transaction = self.pool().begin().await?;
            let begun = sqlx::query!(
                "insert into identity.session (id, account_id, refresh_hash, created_at, refresh_expires_at, last_seen_at,
                                           address, user_agent)
             select $1, id, $4, $5, $6, $5, $7::text::inet, $8 from identity.account
             where id = $2 and password_hash = $3 and not disabled for share",
                session,
                account.id,
                password_hash,
                &refresh_token.hash[..],
                now,
                now + lifetime(REFRESH_TOKEN_LIFETIME_S),
                client_address(),
                user_agent.as_ref().map(UserAgent::as_str)
            )
            .execute(&mut *transaction)
            .await?;
            let about = |act| Entry::of(act).account(OwnerId(account.id));
            if begun.rows_affected() == 0 {
                drop(transaction);
                self.accounts().record(about(Act::LoginFailed)).await?;
                return Err(IdentityError::InvalidCredentials);
            }
            about(Act::LoginSucceeded).by_subject().session(session).write(&mut transaction).await?;
            open_sessions::end_excess(&mut transaction, OwnerId(account.id), OPEN_SESSIONS_MAX).await?;
            transaction.commit().await?;
            let subject = Subject {
                owner: OwnerId(account.id),
                session,
                role: role_of(&account.role)?,
                scopes: None,
                shard: account.shard,
            };
            self.tokens(&subject, refresh_token, now)
        })
        .await
    }

    /// A password's hash with the parameters of today, where it had others.
    async fn rehashed(&self, account: Uuid, hash: &str, password: Password) -> Result<Option<String>, IdentityError> {
        if !self.hasher().is_outdated(hash) {
            return Ok(None);
        }
        let new_hash = self.hasher().hash(password).await?;
        let updated = sqlx::query!(
            "update identity.account set password_hash = $3 where id = $1 and password_hash = $2",
            account,
            hash,
            new_hash
        )
        .execute(self.pool())
        .await?;
        Ok((updated.rows_affected() == 1).then_some(new_hash))
    }

    /// Spends a refresh token for new tokens of the same session, which was seen at the client that calls itself
    /// `user_agent`. `arrived` is when the request did.
    ///
    /// # Errors
    /// [`IdentityError::RefreshInFlight`] when another with the same token had not been answered when this one arrived,
    /// [`IdentityError::InvalidRefreshToken`] when it is unknown, expired or was spent before, which ends the session;
    /// the database.
    pub async fn refresh(
        &self,
        token: &str,
        arrived: Instant,
        user_agent: Option<UserAgent>,
    ) -> Result<Tokens, IdentityError> {
        self.answered(async {
            let sent = self.refresh_tokens().read(token).ok_or(IdentityError::InvalidRefreshToken)?;
            let next = self.refresh_tokens().make(sent.session);
            let now = clock::now();
            let mut transaction = self.pool().begin().await?;
            let spent = sqlx::query!(
                "update identity.session s
             set refresh_hash = $3, spent_hash = s.refresh_hash, refresh_expires_at = $4,
                 answered_at = clock_timestamp() + make_interval(secs => $5),
                 last_seen_at = $6, address = $7::text::inet, user_agent = $8
             from identity.account a
             where s.id = $1 and s.refresh_hash = $2 and s.ended_at is null and s.refresh_expires_at > clock_timestamp()
               and a.id = s.account_id and not a.disabled
             returning a.id, a.role, a.shard",
                sent.session,
                &sent.hash[..],
                &next.hash[..],
                now + lifetime(REFRESH_TOKEN_LIFETIME_S),
                ANSWER_HELD.as_secs_f64(),
                now,
                client_address(),
                user_agent.as_ref().map(UserAgent::as_str)
            )
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(account) = spent else {
                transaction.rollback().await?;
                return Err(self.refused(&sent, arrived).await?);
            };
            let refreshed =
                Entry::of(Act::SessionRefreshed).account(OwnerId(account.id)).by_subject().session(sent.session);
            refreshed.write(&mut transaction).await?;
            transaction.commit().await?;
            process::context::without_permit(tokio::time::sleep(ANSWER_HELD)).await;
            let subject = Subject {
                owner: OwnerId(account.id),
                session: sent.session,
                role: role_of(&account.role)?,
                scopes: None,
                shard: account.shard,
            };
            self.tokens(&subject, next, now)
        })
        .await
    }

    /// Why a refresh token is not good. One that was spent before this request arrived ends the session.
    async fn refused(&self, sent: &RefreshToken, arrived: Instant) -> Result<IdentityError, IdentityError> {
        let mut transaction = self.pool().begin().await?;
        let session = sqlx::query!(
            r#"select account_id, ended_at is not null or refresh_expires_at <= clock_timestamp() as "over!",
                      refresh_hash = $2 as "current!",
                      coalesce(spent_hash = $2 and clock_timestamp() - make_interval(secs => $3) < answered_at, false)
                          as "in_flight!"
               from identity.session where id = $1 for update"#,
            sent.session,
            &sent.hash[..],
            arrived.elapsed().as_secs_f64()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        match session {
            Some(session) if session.over || session.current => Ok(IdentityError::InvalidRefreshToken),
            Some(session) if session.in_flight => Ok(IdentityError::RefreshInFlight),
            Some(session) => {
                tracing::warn!(session = %sent.session, "a spent refresh token was used again: the session is ended");
                sqlx::query!("update identity.session set ended_at = clock_timestamp() where id = $1", sent.session)
                    .execute(&mut *transaction)
                    .await?;
                let reused = Entry::of(Act::RefreshTokenReused).account(OwnerId(session.account_id));
                reused.session(sent.session).write(&mut transaction).await?;
                transaction.commit().await?;
                self.look_for_ended_sessions().await;
                Ok(IdentityError::InvalidRefreshToken)
            }
            None => Ok(IdentityError::InvalidRefreshToken),
        }
    }

    /// Ends a session: its refresh token at once, its access tokens here at once and elsewhere within two seconds.
    ///
    /// # Errors
    /// The database.
    pub async fn logout(&self, session: Uuid) -> Result<(), IdentityError> {
        self.answered(async {
            let mut transaction = self.pool().begin().await?;
            let account = sqlx::query_scalar!(
                "update identity.session set ended_at = clock_timestamp() where id = $1 and ended_at is null
             returning account_id",
                session
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if let Some(account) = account {
                let logged_out = Entry::of(Act::LoggedOut).account(OwnerId(account)).session(session);
                // by a refresh token, the request did not know
                match RequestContext::in_progress() {
                    Some(_) => logged_out.by_subject(),
                    None => logged_out,
                }
                .write(&mut transaction)
                .await?;
            }
            transaction.commit().await?;
            self.look_for_ended_sessions().await;
            Ok(())
        })
        .await
    }

    /// Ends the session of a refresh token, as [`logout`](Self::logout) does; also by one that was spent.
    ///
    /// # Errors
    /// [`IdentityError::InvalidRefreshToken`] when it was never given out; the database.
    pub async fn logout_by_refresh_token(&self, token: &str) -> Result<(), IdentityError> {
        self.logout(self.session_of(token).ok_or(IdentityError::InvalidRefreshToken)?).await
    }

    /// The session of a refresh token that was given out at some time.
    #[must_use]
    pub fn session_of(&self, refresh_token: &str) -> Option<Uuid> {
        self.refresh_tokens().read(refresh_token).map(|token| token.session)
    }

    fn tokens(&self, subject: &Subject, refresh: RefreshToken, now: Time) -> Result<Tokens, IdentityError> {
        Ok(Tokens {
            access_token: self.access_token(subject, now, ACCESS_TOKEN_LIFETIME_S)?,
            expires_in_s: ACCESS_TOKEN_LIFETIME_S,
            refresh_token: refresh.text.into(),
            refresh_expires_in_s: REFRESH_TOKEN_LIFETIME_S,
        })
    }

    /// A signed access token.
    pub(crate) fn access_token(
        &self,
        subject: &Subject,
        now: Time,
        lifetime_s: i32,
    ) -> Result<SecretString, IdentityError> {
        let internal = |error| IdentityError::Internal(error);
        let signer = self.signer().ok_or_else(|| internal("there is no key to sign with".into()))?;
        let Signer { kid, key } = &*signer;
        let iat = now.timestamp();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: subject.owner.0,
            sid: subject.session,
            role: subject.role,
            shard: subject.shard,
            iat,
            exp: iat + i64::from(lifetime_s),
            jti: clock::new_id(),
            scope: subject.scopes,
        };
        Ok(claims.sign(kid, key).map_err(|error| internal(Box::new(error)))?.into())
    }
}

/// The address of the client whose request is in progress.
fn client_address() -> Option<String> {
    context::client_of_current().map(|address| address.to_string())
}

fn lifetime(seconds: i32) -> chrono::TimeDelta {
    chrono::TimeDelta::seconds(seconds.into())
}
