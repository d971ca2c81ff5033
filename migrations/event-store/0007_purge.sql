-- compatible-since: 5
-- Purge: tasks that were deleted 30 days ago. Deletions are found by an index of their own, and each shard knows up to which
-- position it has dealt with them.
create index event_deletion on event_store.event (shard, position) where type = 'TaskDeleted';

create table event_store.purge (
    shard smallint primary key,
    -- of the last deletion that is dealt with: its task is purged, or was restored
    position bigint not null
);
