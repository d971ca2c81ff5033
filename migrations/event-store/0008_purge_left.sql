-- compatible-since: 5
-- Deletions whose turn to be purged has come and whose tasks could not be read: each is tried again, and none holds up those
-- after it.
create table event_store.purge_left (
    shard smallint not null,
    position bigint not null,
    owner_id uuid not null,
    task_id uuid not null,
    version bigint not null,
    primary key (shard, position)
);
