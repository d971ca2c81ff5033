-- Read models. Written by the projector, read by query-api: the two share these tables and no Rust type.
-- Every table is partitioned by generation. A rebuild fills a new generation beside the live one (without
-- indexes, by COPY), indexes it, attaches it, lets it catch up, compares it, and switches by one update of
-- read_model.projection.
--
-- Codes: status 0 pending, 1 in_progress, 2 completed, 3 cancelled; priority 0 low, 1 medium, 2 high, 3 urgent.

create extension if not exists btree_gin;

-- Numbers of generations are never used twice: they are part of every ETag.
create sequence read_model.generation_number as int start 2;

create table read_model.projection (
    singleton boolean primary key default true check (singleton),
    -- identity of the log that these models were made from; null until a projector has run
    log_id uuid,
    live_generation int not null
);

create table read_model.generation (
    generation int primary key,
    -- building, live, kept (the one before)
    state text not null check (state in ('building', 'live', 'kept')),
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    -- While a generation is filled in bulk its tables are called *_building and are no partitions yet; they are
    -- attached once they are indexed. (A cached plan locks every partition: a table that is one would let
    -- CREATE INDEX and the live projector wait for each other.)
    attached boolean not null,
    -- what a rebuild that goes on must have in common with the one that was stopped: the log and the fold
    log_id uuid,
    fold_id uuid,
    -- made only to be compared and dropped
    throwaway boolean not null default false,
    -- progress of a rebuild
    phase text not null default '',
    events_done bigint not null default 0,
    events_total bigint not null default 0,
    events_per_second bigint not null default 0
);

-- How far a generation has been folded, per shard. It moves in the transaction that writes the effect.
create table read_model.checkpoint (
    generation int not null,
    shard smallint not null,
    position bigint not null,
    -- raised by every transaction that changes rows of this shard, a retry of what is parked included: who folds
    -- reads it first, and writes only if it has not moved since
    turn bigint not null default 0,
    -- of the last event applied
    recorded_at timestamptz,
    -- bulk phase of a rebuild: the last event that is written, in (owner, task, version) order, and the position
    -- up to which streams are read; bulk_until is null after it
    bulk_owner_id uuid,
    bulk_task_id uuid,
    bulk_version bigint,
    bulk_until bigint,
    primary key (generation, shard)
) with (fillfactor = 10);

create table read_model.owner (
    generation int not null,
    owner_id uuid not null,
    shard smallint not null,
    -- position of the last event applied for this owner
    revision bigint not null,
    -- Never the same for two contents: it counts the owner's events that are applied, and goes up by 2^32 when an
    -- event is parked or a parked one is applied. The projector commits without waiting for the disk, so a crash
    -- of Postgres may set these rows back together with their checkpoint; what is folded again then passes
    -- through the same numbers with the same contents, and an ETag handed out before stays true.
    change_counter bigint not null,
    -- position of the first event of this owner that is parked, if any
    parked_position bigint
) partition by list (generation);

create table read_model.task (
    generation int not null,
    owner_id uuid not null,
    task_id uuid not null,
    -- of the last event applied to this task
    position bigint not null,
    version bigint not null,
    -- a tombstone: keeps a replay from bringing the task back; its content is blanked
    deleted boolean not null,
    status smallint not null,
    priority smallint not null,
    title text not null,
    description text,
    -- sorted
    tags text[] not null,
    due_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    started_at timestamptz,
    completed_at timestamptz,
    -- The words of title and description, without positions: the text in NFKD, without combining marks
    -- (general category M), each character in lower case (by itself: no final-sigma rule), split at whatever is
    -- not alphanumeric (Unicode Alphabetic or Numeric); of each word the first 64 characters. Tombstones: empty.
    -- The projector (words) and query-api (the words of q) both keep to this rule.
    search tsvector not null
) partition by list (generation);

-- One row per event: what GET /tasks/{id}/history, as_of and the stream are made from.
create table read_model.history (
    generation int not null,
    owner_id uuid not null,
    task_id uuid not null,
    version bigint not null,
    position bigint not null,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    type text not null,
    actor_type text not null,
    actor_id uuid,
    -- JSON object {field: {"from": …, "to": …}}: the fields of the task (as the API shows it) that the event
    -- changed, but for id, version, created_at and updated_at. The first event changes from null (tags: from []).
    -- Folding the "to"s of versions 1..n gives the task as of version n.
    changes text not null
) partition by list (generation);

create table read_model.task_count (
    generation int not null,
    owner_id uuid not null,
    status smallint not null,
    priority smallint not null,
    count bigint not null
) partition by list (generation);

-- Creations, and completions that stand, of tasks not deleted, by UTC day.
create table read_model.day_count (
    generation int not null,
    owner_id uuid not null,
    day date not null,
    created bigint not null,
    completed bigint not null
) partition by list (generation);

-- Events that could not be applied, and those of the same task that wait behind them.
create table read_model.parked (
    id uuid primary key,
    generation int not null,
    shard smallint not null,
    position bigint not null,
    owner_id uuid,
    task_id uuid,
    version bigint,
    type text,
    -- null: waits behind an earlier event of its task
    reason text,
    parked_at timestamptz not null,
    -- set by POST /api/v1/admin/parked/{id}/retry
    retry_at timestamptz,
    -- the event as it was read, JSON
    event text not null
);
create unique index parked_position on read_model.parked (generation, shard, position);
create index parked_task on read_model.parked (generation, owner_id, task_id);
create index parked_retry on read_model.parked (generation, shard) where retry_at is not null;

-- The tables of the generation that is being built, not attached yet. One at a time.
create function read_model.create_building(g int) returns void language plpgsql as $$
declare
    t text;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('create table read_model.%1$s_building (like read_model.%1$s including defaults, check (generation = %2$s))', t, g);
    end loop;
end $$;

-- After the bulk phase: what is counted instead of folded. Rows of building owners exist, with their shard.
create function read_model.count_building(g int) returns void language plpgsql as $$
begin
    execute 'truncate read_model.task_count_building, read_model.day_count_building';
    execute 'insert into read_model.task_count_building (generation, owner_id, status, priority, count)
        select $1, owner_id, status, priority, count(*) from read_model.task_building where not deleted
        group by owner_id, status, priority' using g;
    execute 'insert into read_model.day_count_building (generation, owner_id, day, created, completed)
        select $1, owner_id, day, sum(created), sum(completed) from (
            select owner_id, (created_at at time zone ''UTC'')::date as day, count(*) as created, 0 as completed
                from read_model.task_building where not deleted group by 1, 2
            union all
            select owner_id, (completed_at at time zone ''UTC'')::date, 0, count(*)
                from read_model.task_building where not deleted and completed_at is not null group by 1, 2) as d
        group by owner_id, day' using g;
    execute 'update read_model.owner_building as o set revision = h.revision, change_counter = h.events
        from (select owner_id, max(position) as revision, count(*) as events from read_model.history_building group by owner_id) as h
        where h.owner_id = o.owner_id';
    execute 'update read_model.owner_building as o set parked_position = p.position
        from (select owner_id, min(position) as position from read_model.parked where generation = $1 group by owner_id) as p
        where p.owner_id = o.owner_id' using g;
end $$;

-- Indexes of the tables owner<suffix>, task<suffix> … ("_building" or "_<generation>").
create function read_model.index_tables(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.owner%1$s (owner_id)', suffix);
    execute format('create unique index on read_model.task%1$s (owner_id, task_id)', suffix);
    execute format('create index on read_model.task%1$s (owner_id, created_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, updated_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, priority, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, due_at, task_id) where not deleted', suffix);
    -- With the usual 4 MB of pending entries the planner shuns the index after a burst of writes (measured: 42 ms
    -- instead of 0.2 for a rare tag); 256 kB cost the writer nothing that could be measured, no list at all thrice.
    execute format('create index on read_model.task%1$s using gin (owner_id, status, priority, tags, search)
        with (gin_pending_list_limit = 256) where not deleted', suffix);
    execute format('create unique index on read_model.history%1$s (owner_id, task_id, version)', suffix);
    execute format('create index on read_model.history%1$s (owner_id, position)', suffix);
    execute format('create unique index on read_model.task_count%1$s (owner_id, status, priority)', suffix);
    execute format('create unique index on read_model.day_count%1$s (owner_id, day)', suffix);
    execute format('alter table read_model.owner%1$s set (fillfactor = 50)', suffix);
    execute format('alter table read_model.task_count%1$s set (fillfactor = 50)', suffix);
    execute format('alter table read_model.day_count%1$s set (fillfactor = 50)', suffix);
end $$;

create function read_model.analyze_building() returns void language plpgsql as $$
declare
    t text;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('analyze read_model.%s_building', t);
    end loop;
end $$;

-- The check constraint spares ATTACH the scan; its lock (SHARE UPDATE EXCLUSIVE) lets reads and writes go on.
create function read_model.attach_building(g int) returns void language plpgsql as $$
declare
    t text;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('alter table read_model.%1$s_building rename to %1$s_%2$s', t, g);
        execute format('alter table read_model.%1$s attach partition read_model.%1$s_%2$s for values in (%2$s)', t, g);
    end loop;
    update read_model.generation set attached = true where generation = g;
end $$;

-- Dropping a partition locks the whole table for a moment: callers set lock_timeout.
create function read_model.drop_generation(g int) returns void language plpgsql as $$
declare
    t text;
    suffix text := case when (select attached from read_model.generation where generation = g) then '_' || g else '_building' end;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('drop table if exists read_model.%s', t || suffix);
    end loop;
    delete from read_model.checkpoint where generation = g;
    delete from read_model.parked where generation = g;
    delete from read_model.generation where generation = g;
end $$;

insert into read_model.generation (generation, state, attached, finished_at) values (1, 'live', false, now());
select read_model.create_building(1);
select read_model.index_tables('_building');
select read_model.attach_building(1);
insert into read_model.projection (live_generation) values (1);
