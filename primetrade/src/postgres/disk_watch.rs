use std::convert::Infallible;
use std::time::{Duration, Instant};

use backends::database::DiskSpace;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time::sleep;

use super::cluster::{Cluster, WAL_BYTES_MIN};
use super::disk::{bytes_in, free_bytes};

/// How often it is looked what the disk has left: an import writes some 150 MB a second.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(100);
/// What events may not take, beside what the write-ahead log may still grow to: read models go on until they have
/// caught up, people log in.
const SPARE_BYTES: u64 = 256 << 20;
/// So much more has to be free until events are taken again.
const SPARE_AGAIN_BYTES: u64 = 16 << 20;
/// So much more has to be free for a second generation of the read models: it ends before events are refused, whatever it
/// writes between two looks.
const SPARE_FROM_REBUILD_BYTES: u64 = 64 << 20;
/// While events are not taken, how often Postgres is asked for a checkpoint, which frees write-ahead log.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Watches what the disk has left, and says when events may not take any more of it.
pub(super) async fn watch(cluster: &Cluster, disk_space: &DiskSpace) -> Infallible {
    let mut floor = Floor::default();
    let mut is_short = false;
    let mut checkpoint: Option<Instant> = None;
    loop {
        let reason = floor.shortage(cluster, if is_short { SPARE_AGAIN_BYTES } else { 0 }).await;
        is_short = reason.is_some();
        disk_space.set_watched(reason);
        if !is_short {
            checkpoint = None;
        } else if checkpoint.is_none_or(|last| last.elapsed() > CHECKPOINT_EVERY) {
            checkpoint = Some(Instant::now());
            if let Err(error) = make_checkpoint(cluster).await {
                tracing::warn!(%error, "PostgreSQL made no checkpoint");
            }
        }
        sleep(LOOKED_AT_EVERY).await;
    }
}

/// One look, before the first event.
pub(super) async fn look(cluster: &Cluster, disk_space: &DiskSpace) {
    disk_space.set_watched(Floor::default().shortage(cluster, 0).await);
}

/// Why a rebuild that takes so many bytes at least is not to begin; none: there is room.
pub(super) async fn no_room_for_rebuild(cluster: &Cluster, bytes_min: u64) -> Option<String> {
    Floor::default().shortage(cluster, SPARE_FROM_REBUILD_BYTES.saturating_add(bytes_min)).await
}

/// Watches what the disk has left, and returns, with the reason, once a rebuild may not take any more of it.
pub(super) async fn rebuild_has_to_end(cluster: &Cluster) -> String {
    let mut floor = Floor::default();
    loop {
        if let Some(reason) = floor.shortage(cluster, SPARE_FROM_REBUILD_BYTES).await {
            return reason;
        }
        sleep(LOOKED_AT_EVERY).await;
    }
}

/// What has to stay free.
#[derive(Default)]
struct Floor {
    /// Of the running server, once it is known.
    wal_bytes_max: Option<u64>,
}

impl Floor {
    /// What is wrong, where less is free than the floor and so much `beside` it.
    async fn shortage(&mut self, cluster: &Cluster, beside: u64) -> Option<String> {
        let free = free_bytes(&cluster.path)?;
        let wal_max = match self.wal_bytes_max {
            Some(bytes) => bytes,
            None => current_wal_bytes_max(cluster).await.unwrap_or(WAL_BYTES_MIN),
        };
        self.wal_bytes_max = Some(wal_max);
        let spare = SPARE_BYTES.saturating_add(beside);
        // looked at only where it may matter
        let wal_growth = match free < spare.saturating_add(wal_max) {
            true => wal_max.saturating_sub(bytes_in(&cluster.path.join("pg_wal"))),
            false => wal_max,
        };
        let needed = spare.saturating_add(wal_growth);
        let path = cluster.dir.path().display();
        (free < needed).then(|| format!("{path} has {} MB left, and {} MB must be free", free >> 20, needed >> 20))
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
