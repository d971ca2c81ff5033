-- The projector fed from Kafka. (The numbers below belong to the live generation, whichever that is.)

-- What feeds the live generation. Whoever starts the other feed takes over: it raises the turns of the first one, whose
-- batch in flight is so lost, and which then finds out.
alter table read_model.projection add column feed text not null default 'store' check (feed in ('store', 'kafka'));

-- What is read of each partition. It moves in the transaction that writes the effect.
create table read_model.kafka_partition (
    topic text not null,
    partition int not null,
    -- partitions that the topic had when this one was assigned last: with another number an owner's events are in
    -- another partition, and kafka_position means nothing
    partitions int not null,
    -- as in checkpoint: raised by every transaction that changes rows of this partition's owners or anything here, an
    -- assignment to a copy of the projector and a switch of generations included. Who folds knows it from the
    -- assignment and their last batch, and writes only if it has not moved since.
    turn bigint not null,
    -- null: nothing is read, or it is to be read again from the beginning
    next_offset bigint,
    -- of the last message: see `publication` in the relay's messages
    publication bigint not null default 0,
    -- why nothing is read of it; null: nothing is wrong
    trouble text,
    primary key (topic, partition)
) with (fillfactor = 10);

-- The live generation has every event of the shard up to this position that belongs into this partition; and up to the
-- position in its checkpoint every event of the shard, whatever the partition.
create table read_model.kafka_position (
    topic text not null,
    partition int not null,
    shard smallint not null,
    position bigint not null,
    primary key (topic, partition, shard)
) with (fillfactor = 10);

-- A message that nobody can read has no position: its place is in the topic.
alter table read_model.parked alter column shard drop not null;
alter table read_model.parked alter column position drop not null;
alter table read_model.parked add column topic text;
alter table read_model.parked add column partition int;
alter table read_model.parked add column message_offset bigint;
alter table read_model.parked add constraint parked_place check (
    (shard is null) = (position is null) and (position is null) = (topic is not null)
    and (topic is null) = (partition is null) and (topic is null) = (message_offset is null));
create unique index parked_message on read_model.parked (generation, topic, partition, message_offset) where topic is not null;
