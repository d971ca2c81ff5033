//! The sessions that an account has open: listed, ended one by one, and bounded in number.

use std::net::IpAddr;

use domain::{OwnerId, Time};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::audit::{Act, Entry};
use crate::error::IdentityError;
use crate::identity::Identity;
use crate::refresh_token::REFRESH_TOKEN_LIFETIME_S;

/// An account has at most so many; a login beyond it ends the one that was seen least recently.
pub const OPEN_SESSIONS_MAX: i64 = 1000;

/// A session that can still be refreshed, as its account sees it.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// UUID v7; `sid` of its access tokens.
    pub id: Uuid,
    /// When it began.
    pub created_at: Time,
    /// When it began or was refreshed last.
    pub last_seen_at: Time,
    /// The client's address then.
    pub address: Option<IpAddr>,
    /// What the client called itself then.
    pub user_agent: Option<String>,
}

impl Identity {
    /// A page of an account's open sessions, the latest begun first, begun before the one named.
    ///
    /// # Errors
    /// The database.
    pub async fn open_sessions(
        &self,
        account: OwnerId,
        before: Option<Uuid>,
        sessions_max: i64,
    ) -> Result<Vec<OpenSession>, IdentityError> {
        self.answered(async {
            let rows = sqlx::query!(
                r#"select id, created_at as "created_at: Time",
                          coalesce(last_seen_at, refresh_expires_at - make_interval(secs => $4)) as "last_seen_at!: Time",
                          host(address) as address, user_agent
                   from identity.session
                   where account_id = $1 and ended_at is null and refresh_expires_at > clock_timestamp()
                     and ($2::uuid is null or id < $2)
                   order by id desc limit $3"#,
                account.0,
                before,
                sessions_max,
                f64::from(REFRESH_TOKEN_LIFETIME_S)
            )
            .fetch_all(self.pool())
            .await?;
            let session = rows.into_iter().map(|row| OpenSession {
                id: row.id,
                created_at: row.created_at,
                last_seen_at: row.last_seen_at,
                address: row.address.and_then(|address| address.parse().ok()),
                user_agent: row.user_agent,
            });
            Ok(session.collect())
        })
        .await
    }

    /// Ends a session of `account`, asked for by its session `by`: as [`Identity::logout`] does. One that has ended
    /// already stays as it is.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] when the account never had it, or it was deleted since; the database.
    pub async fn end_session(&self, account: OwnerId, session: Uuid, by: Uuid) -> Result<(), IdentityError> {
        self.answered(async {
            let mut transaction = self.pool().begin().await?;
            let ended = sqlx::query!(
                "update identity.session set ended_at = clock_timestamp()
                 where id = $1 and account_id = $2 and ended_at is null",
                session,
                account.0
            )
            .execute(&mut *transaction)
            .await?;
            if ended.rows_affected() == 0 {
                let known = sqlx::query_scalar!(
                    "select id from identity.session where id = $1 and account_id = $2",
                    session,
                    account.0
                );
                known.fetch_optional(&mut *transaction).await?.ok_or(IdentityError::NotFound)?;
                return Ok(());
            }
            let entry = if session == by {
                Entry::of(Act::LoggedOut)
            } else {
                Entry::of(Act::SessionEnded).detail(format!("by session {by}"))
            };
            entry.account(account).session(session).write(&mut transaction).await?;
            transaction.commit().await?;
            self.look_for_ended_sessions().await;
            Ok(())
        })
        .await
    }
}

/// Ends what an account has open beyond `sessions_max`, those seen least recently first.
pub(crate) async fn end_excess(
    transaction: &mut PgConnection,
    account: OwnerId,
    sessions_max: i64,
) -> Result<(), sqlx::Error> {
    let ended = sqlx::query_scalar!(
        "update identity.session set ended_at = clock_timestamp()
         where ended_at is null and id in (
             select id from identity.session
             where account_id = $1 and ended_at is null and refresh_expires_at > clock_timestamp()
             order by coalesce(last_seen_at, created_at) desc, id desc offset $2)
         returning id",
        account.0,
        sessions_max
    )
    .fetch_all(&mut *transaction)
    .await?;
    for session in ended {
        let excess = Entry::of(Act::SessionEnded).account(account).by_subject().session(session);
        excess.detail(format!("more than {sessions_max} sessions")).write(&mut *transaction).await?;
    }
    Ok(())
}
