//! Ended sessions, from the identity database to the services without it: `read_model.ended_session`, which these two
//! functions own. From a logout to the last copy of the last service it takes two looks, each a second apart.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backends::database::{Pool, in_time};
use process::periodic::Periodic;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look or a change that takes longer is broken off and tried again.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(2);
/// What is published already is published again this often: the read database may be a new one.
const AGAIN_EVERY_LOOKS: u32 = 30;

/// The sessions that have ended while tokens of theirs may still be about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revoked(pub HashSet<Uuid>);

impl Revoked {
    /// Whether this session has ended.
    #[must_use]
    pub fn contains(&self, session: Uuid) -> bool {
        self.0.contains(&session)
    }
}

/// Writes what `revoked` has to the read database, at each change and until `shutdown`. A session is known there for
/// `known_for`, which has to be longer than its access tokens are good.
pub async fn publish(
    read_pool: Pool,
    mut revoked: watch::Receiver<Arc<Revoked>>,
    known_for: Duration,
    shutdown: CancellationToken,
) {
    let mut publishing = Periodic::every(LOOK_INTERVAL, "publishing ended sessions", shutdown);
    let mut published: HashSet<Uuid> = HashSet::new();
    let mut looks: u32 = 0;
    while let Some(due) = publishing.due_or(changed(&mut revoked)).await {
        if due.is_none() {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(AGAIN_EVERY_LOOKS) {
                published.clear();
            }
        }
        let ended = revoked.borrow_and_update().clone();
        let news: Vec<Uuid> = ended.0.difference(&published).copied().collect();
        if news.is_empty() {
            continue;
        }
        if publishing.seen(in_time(STATEMENT_TIME_MAX, write(&read_pool, &news, known_for)).await).is_some() {
            published.clone_from(&ended.0);
        }
    }
}

/// Never, once nobody is left to change it.
async fn changed(revoked: &mut watch::Receiver<Arc<Revoked>>) {
    if revoked.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn write(pool: &Pool, ended: &[Uuid], known_for: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into read_model.ended_session (session_id, known_until)
         select unnest($1::uuid[]), now() + make_interval(secs => $2) on conflict (session_id) do nothing",
        ended,
        known_for.as_secs_f64()
    )
    .execute(pool)
    .await?;
    sqlx::query!("delete from read_model.ended_session where known_until < now()").execute(pool).await?;
    Ok(())
}

/// Looks at the read database now and then every second until `shutdown`, by the future that it gives back beside what
/// it sees.
///
/// # Errors
/// The first look fails.
pub async fn follow(
    read_pool: Pool,
    shutdown: CancellationToken,
) -> Result<(watch::Receiver<Arc<Revoked>>, impl Future<Output = ()> + Send), sqlx::Error> {
    let (sender, receiver) = watch::channel(Arc::new(in_time(STATEMENT_TIME_MAX, look(&read_pool)).await?));
    let following = async move {
        let mut looking = Periodic::every(LOOK_INTERVAL, "looking for ended sessions", shutdown);
        while looking.due().await {
            if let Some(seen) = looking.seen(in_time(STATEMENT_TIME_MAX, look(&read_pool)).await) {
                sender.send_if_modified(|known| {
                    let changed = **known != seen;
                    if changed {
                        *known = Arc::new(seen);
                    }
                    changed
                });
            }
        }
    };
    Ok((receiver, following))
}

async fn look(pool: &Pool) -> Result<Revoked, sqlx::Error> {
    let ended = sqlx::query_scalar!("select session_id from read_model.ended_session where known_until > now()");
    Ok(Revoked(ended.fetch_all(pool).await?.into_iter().collect()))
}
