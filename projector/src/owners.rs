//! `read_model.owner`: the version of each owner. It is no projection: its change counter is raised by whatever any of them
//! changes, and by parking.

use std::collections::{BTreeMap, HashSet};

use domain::{OwnerId, StoredEvent};
use read_model::OwnerRow;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::columns;

/// Added to an owner's change counter when an event is parked, or a parked one applied: see the migration.
const PARKING_STEP: i64 = 1 << 32;

/// What a batch changes of owners.
#[derive(Debug, Default)]
pub(crate) struct OwnerChanges(BTreeMap<OwnerId, OwnerChange>);

#[derive(Debug)]
pub(crate) struct OwnerChange {
    shard: i16,
    revision: i64,
    counter: i64,
    parked_position: Option<i64>,
}

columns!(OwnerColumns for<'r> of (owner, change): (&'r OwnerId, &'r OwnerChange) {
    owner_id: Uuid = owner.0,
    shard: i16 = change.shard,
    revision: i64 = change.revision,
    counter: i64 = change.counter,
    parked_position: Option<i64> = change.parked_position,
});

impl OwnerChanges {
    fn of(&mut self, event: &StoredEvent) -> &mut OwnerChange {
        self.0.entry(event.owner_id).or_insert(OwnerChange {
            shard: event.shard,
            revision: 0,
            counter: 0,
            parked_position: None,
        })
    }

    /// The event was applied.
    pub(crate) fn applied(&mut self, event: &StoredEvent) {
        let owner = self.of(event);
        owner.revision = owner.revision.max(event.position);
        owner.counter += 1;
    }

    /// The stream of this event begins to be parked, or a parked event of it is applied.
    pub(crate) fn parking(&mut self, event: &StoredEvent) {
        self.of(event).counter += PARKING_STEP;
    }

    /// The event is parked.
    pub(crate) fn parked(&mut self, event: &StoredEvent) {
        let owner = self.of(event);
        owner.parked_position = Some(owner.parked_position.map_or(event.position, |first| first.min(event.position)));
    }

    /// As columns, for the statement that changes the rows that are there.
    pub(crate) fn columns(&self) -> OwnerColumns {
        OwnerColumns::of(&self.0)
    }

    /// Inserts the rows that are not among those that were changed, and adds them to these.
    pub(crate) async fn insert_new(
        &self,
        changed: &mut Vec<OwnerRow>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        if changed.len() == self.0.len() {
            return Ok(());
        }
        let known: HashSet<OwnerId> = changed.iter().map(|row| row.owner_id).collect();
        let new = OwnerColumns::of(self.0.iter().filter(|(owner, _)| !known.contains(owner)));
        let rows = sqlx::query!(
            r#"
            insert into read_model.owner (generation, owner_id, shard, revision, change_counter, parked_position)
            select $1, n.*
            from unnest($2::uuid[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[]) as n
            returning owner_id, revision, change_counter, parked_position
            "#,
            generation,
            &new.owner_id,
            &new.shard,
            &new.revision,
            &new.counter,
            &new.parked_position as &[Option<i64>],
        )
        .fetch_all(connection)
        .await?;
        changed.extend(rows.into_iter().map(|row| OwnerRow {
            owner_id: OwnerId(row.owner_id),
            revision: row.revision,
            change_counter: row.change_counter,
            parked_position: row.parked_position,
        }));
        Ok(())
    }
}
