//! A rebuild takes about as much of the disk as the read models that there are. Where the disk is known, which is the one of
//! the managed PostgreSQL, it is begun and goes on only while that leaves room for everything else.

use projector::rebuild::{self, RebuildError};

use crate::database::Databases;

/// Makes a generation of the read models while there is room; where there is none, nothing that is not finished stays.
///
/// # Errors
/// [`RebuildError::NoRoom`], and those of what makes it.
pub async fn while_there_is_room<T>(
    databases: &Databases,
    making: impl Future<Output = Result<T, RebuildError>>,
) -> Result<T, RebuildError> {
    let Some(managed) = databases.managed() else { return making.await };
    let bytes_min = rebuild::bytes_min(&databases.read).await?;
    let reason = match managed.no_room_for_rebuild(bytes_min).await {
        Some(reason) => reason,
        None => tokio::select! {
            made = making => return made,
            reason = managed.rebuild_has_to_end() => reason,
        },
    };
    // also where an earlier run has left it
    if let Err(error) = rebuild::discard(&databases.read).await {
        tracing::warn!(%error, "what was made of a new generation of the read models is left to the next rebuild");
    }
    Err(RebuildError::NoRoom(reason))
}
