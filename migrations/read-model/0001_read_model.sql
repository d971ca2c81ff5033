-- Read models. Written by the projector, read by query-api: the two share these tables and no Rust type.
-- Every table is partitioned by generation. A rebuild fills a new generation beside the live one (without
-- indexes, by COPY), indexes it, and switches by one update of read_model.projection.
--
-- Codes: status 0 pending, 1 in_progress, 2 completed, 3 cancelled; priority 0 low, 1 medium, 2 high, 3 urgent.

create extension if not exists btree_gin;

create table read_model.projection (
    singleton boolean primary key default true check (singleton),
    -- identity of the log that these models were made from; null until the first event is applied
    log_id uuid,
    live_generation int not null
);

create table read_model.generation (
    generation int primary key,
    -- building, live, kept (the one before), 
    state text not null check (state in ('building', 'live', 'kept')),
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    -- progress of a rebuild
    events_done bigint not null default 0,
    events_total bigint not null default 0,
    events_per_second bigint not null default 0
);

-- How far a generation has been folded, per shard. It moves in the transaction that writes the effect.
create table read_model.checkpoint (
    generation int not null,
    shard smallint not null,
    position bigint not null,
    -- of the last event applied
    recorded_at timestamptz,
    -- bulk phase of a rebuild: the last stream that is done, in (owner, task) order, and the position it reads up to
    bulk_owner_id uuid,
    bulk_task_id uuid,
    bulk_until bigint,
    primary key (generation, shard)
) with (fillfactor = 10);

create table read_model.owner (
    generation int not null,
    owner_id uuid not null,
    shard smallint not null,
    -- position of the last event applied for this owner
    revision bigint not null,
    -- raised by every transaction that touches the owner's rows
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
    -- words of title and description: NFKD without marks, lower case
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

create function read_model.create_generation(g int) returns void language plpgsql as $$
declare
    t text;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('create table read_model.%I partition of read_model.%I for values in (%s)', t || '_' || g, t, g);
    end loop;
    execute format('alter table read_model.owner_%s set (fillfactor = 50)', g);
    insert into read_model.generation (generation, state) values (g, 'building');
end $$;

create function read_model.index_generation(g int) returns void language plpgsql as $$
begin
    execute format('create unique index if not exists owner_%1$s_key on read_model.owner_%1$s (owner_id)', g);
    execute format('create unique index if not exists task_%1$s_key on read_model.task_%1$s (owner_id, task_id)', g);
    execute format('create index if not exists task_%1$s_created on read_model.task_%1$s (owner_id, created_at, task_id) where not deleted', g);
    execute format('create index if not exists task_%1$s_updated on read_model.task_%1$s (owner_id, updated_at, task_id) where not deleted', g);
    execute format('create index if not exists task_%1$s_priority on read_model.task_%1$s (owner_id, priority, task_id) where not deleted', g);
    execute format('create index if not exists task_%1$s_due on read_model.task_%1$s (owner_id, due_at, task_id) where not deleted', g);
    execute format('create index if not exists task_%1$s_filter on read_model.task_%1$s using gin (owner_id, status, priority, tags, search) where not deleted', g);
    execute format('create unique index if not exists history_%1$s_key on read_model.history_%1$s (owner_id, task_id, version)', g);
    execute format('create index if not exists history_%1$s_position on read_model.history_%1$s (owner_id, position)', g);
    execute format('create unique index if not exists task_count_%1$s_key on read_model.task_count_%1$s (owner_id, status, priority)', g);
    execute format('create unique index if not exists day_count_%1$s_key on read_model.day_count_%1$s (owner_id, day)', g);
end $$;

create function read_model.drop_generation(g int) returns void language plpgsql as $$
declare
    t text;
begin
    foreach t in array array['owner', 'task', 'history', 'task_count', 'day_count'] loop
        execute format('drop table if exists read_model.%I', t || '_' || g);
    end loop;
    delete from read_model.checkpoint where generation = g;
    delete from read_model.parked where generation = g;
    delete from read_model.generation where generation = g;
end $$;

select read_model.create_generation(1);
select read_model.index_generation(1);
update read_model.generation set state = 'live', finished_at = now() where generation = 1;
insert into read_model.projection (live_generation) values (1);
