-- The relay: who publishes the log to Kafka, and how far that has come. Rows that are updated many times a second have
-- a low fillfactor, so that the updates stay HOT.

create table event_store.relay (
    singleton boolean primary key default true check (singleton),
    -- Raised by whoever takes the lease, and by a republication: what an earlier holder still tries comes to nothing.
    epoch bigint not null default 0,
    holder uuid,
    -- by this database's clock
    expires_at timestamptz not null default '-infinity',
    publication bigint not null default 1,
    -- Where to. With another number of partitions owners would change theirs.
    topic text,
    partitions int,
    -- Whether the next holder may publish to another topic, or another number of partitions.
    may_move boolean not null default true
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
insert into event_store.relay default values;

-- Everything up to `position` is on the brokers.
create table event_store.relay_cursor (
    shard smallint primary key,
    position bigint not null check (position >= 0),
    -- what stands for the last position of a partition that has no row in relay_partition
    base bigint not null check (base >= 0)
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The last of these events in each partition: the next message there names it as the one before it.
create table event_store.relay_partition (
    shard smallint not null,
    partition int not null,
    position bigint not null check (position > 0),
    primary key (shard, partition)
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
