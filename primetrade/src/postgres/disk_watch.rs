use std::convert::Infallible;
use std::time::{Duration, Instant};

use event_store::DiskSpace;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use super::cluster::{Cluster, WAL_BYTES_MIN};
use super::disk::{bytes_in, free_bytes};

/// How often it is looked what the disk has left, in milliseconds: an import writes some 150 MB a second.
const DISK_LOOKED_AT_EVERY_MS: u64 = 100;
/// What events may not take, beside what the write-ahead log may still grow to: read models go on until they have
/// caught up, people log in.
const SPARE_BYTES: u64 = 256 << 20;
/// So much more has to be free until events are taken again.
const SPARE_AGAIN_BYTES: u64 = 16 << 20;
/// While events are not taken, how often Postgres is asked for a checkpoint, which frees write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Watches what the disk has left, and says when events may not take any more of it.
pub(super) async fn watch(cluster: &Cluster, disk_space: &DiskSpace) -> Infallible {
    let mut is_short = false;
    let mut wal_bytes_max = None;
    let mut checkpoint: Option<Instant> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(DISK_LOOKED_AT_EVERY_MS)).await;
        let Some(free) = free_bytes(&cluster.path) else { continue };
        let wal_max = match wal_bytes_max {
            Some(bytes) => bytes,
            None => *wal_bytes_max.insert(current_wal_bytes_max(cluster).await.unwrap_or(WAL_BYTES_MIN)),
        };
        // looked at only where it may matter
        let wal_growth = match free < SPARE_BYTES + SPARE_AGAIN_BYTES + wal_max {
            true => wal_max.saturating_sub(bytes_in(&cluster.path.join("pg_wal"))),
            false => wal_max,
        };
        let floor = SPARE_BYTES + wal_growth;
        let needed = if is_short { floor + SPARE_AGAIN_BYTES } else { floor };
        is_short = free < needed;
        let reason = is_short.then(|| {
            let path = cluster.dir.path().display();
            format!("{path} has {} MB left, and {} MB must be free", free >> 20, needed >> 20)
        });
        disk_space.set_watched(reason);
        if !is_short {
            checkpoint = None;
        } else if checkpoint.is_none_or(|last| last.elapsed() > CHECKPOINT_EVERY) {
            checkpoint = Some(Instant::now());
            if let Err(error) = make_checkpoint(cluster).await {
                tracing::warn!(%error, "PostgreSQL made no checkpoint");
            }
        }
    }
}

async fn make_checkpoint(cluster: &Cluster) -> Result<(), sqlx::Error> {
    let mut connection: PgConnection = cluster.connect_options().connect().await?;
    sqlx::query!("checkpoint").execute(&mut connection).await?;
    connection.close().await
}

async fn current_wal_bytes_max(cluster: &Cluster) -> Result<u64, sqlx::Error> {
    let mut connection: PgConnection = cluster.connect_options().connect().await?;
    let bytes = sqlx::query_scalar!(r#"select pg_size_bytes(current_setting('max_wal_size')) as "bytes!""#)
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
