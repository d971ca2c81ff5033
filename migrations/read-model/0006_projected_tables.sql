-- The tables of a generation, from one catalogue. What makes, counts, indexes, analyses, attaches and drops a generation
-- goes through it and names no table itself. A migration that adds a table T to the read models
--
--   creates read_model.T (generation int not null, …) partition by list (generation),
--   defines read_model.index_T(suffix text): the indexes and storage parameters of read_model.T<suffix>,
--   defines read_model.count_T(generation int), if its rows are counted after the bulk phase of a rebuild (from the
--   other tables that are called *_building then) instead of copied, or beside that,
--   and calls read_model.add_projected_table('T').

create table read_model.projected_table (
    name text primary key,
    -- In this order they are made and dropped. The projector writes to `owner` first of all: whoever drops a generation
    -- in the same order waits for it there, and the two never wait for each other.
    ordinal int not null unique generated always as identity
);

-- The tables that are there already: the partitions of their generations are, too.
insert into read_model.projected_table (name) values ('owner'), ('task'), ('history'), ('task_count'), ('day_count');

create function read_model.index_owner(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.owner%1$s (owner_id)', suffix);
    execute format('alter table read_model.owner%1$s set (fillfactor = 50)', suffix);
end $$;

create function read_model.index_task(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.task%1$s (owner_id, task_id)', suffix);
    execute format('create index on read_model.task%1$s (owner_id, created_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, updated_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, priority, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, due_at, task_id) where not deleted', suffix);
    -- With the usual 4 MB of pending entries the planner shuns the index after a burst of writes (measured: 42 ms
    -- instead of 0.2 for a rare tag); 256 kB cost the writer nothing that could be measured, no list at all thrice.
    execute format('create index on read_model.task%1$s using gin (owner_id, status, priority, tags, search)
        with (gin_pending_list_limit = 256) where not deleted', suffix);
end $$;

create function read_model.index_history(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.history%1$s (owner_id, task_id, version)', suffix);
    execute format('create index on read_model.history%1$s (owner_id, position)', suffix);
end $$;

create function read_model.index_task_count(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.task_count%1$s (owner_id, status, priority)', suffix);
    execute format('alter table read_model.task_count%1$s set (fillfactor = 50)', suffix);
end $$;

create function read_model.index_day_count(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.day_count%1$s (owner_id, day)', suffix);
    execute format('alter table read_model.day_count%1$s set (fillfactor = 50)', suffix);
end $$;

-- Rows of building owners exist, with their shard.
create function read_model.count_owner(g int) returns void language plpgsql as $$
begin
    update read_model.owner_building as o set revision = h.revision, change_counter = h.events
    from (
        select owner_id, max(position) as revision, count(*) as events from read_model.history_building group by owner_id
    ) as h
    where h.owner_id = o.owner_id;
    update read_model.owner_building as o set parked_position = p.position
    from (
        select owner_id, min(position) as position from read_model.parked where generation = g group by owner_id
    ) as p
    where p.owner_id = o.owner_id;
end $$;

create function read_model.count_task_count(g int) returns void language plpgsql as $$
begin
    truncate read_model.task_count_building;
    insert into read_model.task_count_building (generation, owner_id, status, priority, count)
    select g, owner_id, status, priority, count(*)
    from read_model.task_building
    where not deleted
    group by owner_id, status, priority;
end $$;

create function read_model.count_day_count(g int) returns void language plpgsql as $$
begin
    truncate read_model.day_count_building;
    insert into read_model.day_count_building (generation, owner_id, day, created, completed)
    select g, owner_id, day, sum(created), sum(completed)
    from (
        select owner_id, (created_at at time zone 'UTC')::date as day, count(*) as created, 0 as completed
        from read_model.task_building
        where not deleted
        group by 1, 2
        union all
        select owner_id, (completed_at at time zone 'UTC')::date, 0, count(*)
        from read_model.task_building
        where not deleted and completed_at is not null
        group by 1, 2
    ) as d
    group by owner_id, day;
end $$;

-- The tables of the generation that is being built, not attached yet. One at a time.
create or replace function read_model.create_building(g int) returns void language plpgsql as $$
declare
    t text;
begin
    for t in select name from read_model.projected_table order by ordinal loop
        execute format('create table read_model.%1$s_building (like read_model.%1$s including defaults, check (generation = %2$s))', t, g);
    end loop;
end $$;

-- After the bulk phase: what is counted instead of folded.
create or replace function read_model.count_building(g int) returns void language plpgsql as $$
declare
    t text;
begin
    for t in
        select name from read_model.projected_table
        where to_regprocedure(format('read_model.count_%s(int)', name)) is not null order by ordinal
    loop
        execute format('select read_model.count_%s($1)', t) using g;
    end loop;
end $$;

-- Indexes of the tables owner<suffix>, task<suffix> … ("_building" or "_<generation>").
create or replace function read_model.index_tables(suffix text) returns void language plpgsql as $$
declare
    t text;
begin
    for t in select name from read_model.projected_table order by ordinal loop
        execute format('select read_model.index_%s($1)', t) using suffix;
    end loop;
end $$;

create or replace function read_model.analyze_building() returns void language plpgsql as $$
declare
    t text;
begin
    for t in select name from read_model.projected_table order by ordinal loop
        execute format('analyze read_model.%s_building', t);
    end loop;
end $$;

-- The check constraint spares ATTACH the scan; its lock (SHARE UPDATE EXCLUSIVE) lets reads and writes go on.
create function read_model.attach_table(t text, g int) returns void language plpgsql as $$
begin
    execute format('alter table read_model.%1$s_building rename to %1$s_%2$s', t, g);
    execute format('alter table read_model.%1$s attach partition read_model.%1$s_%2$s for values in (%2$s)', t, g);
end $$;

create or replace function read_model.attach_building(g int) returns void language plpgsql as $$
begin
    perform read_model.attach_table(name, g) from (select name from read_model.projected_table order by ordinal) as t;
    update read_model.generation set attached = true where generation = g;
end $$;

-- Dropping a partition locks the whole table for a moment: callers set lock_timeout.
create or replace function read_model.drop_generation(g int) returns void language plpgsql as $$
declare
    t text;
    suffix text := case when (select attached from read_model.generation where generation = g) then '_' || g else '_building' end;
begin
    for t in select name from read_model.projected_table order by ordinal loop
        execute format('drop table if exists read_model.%s', t || suffix);
    end loop;
    delete from read_model.checkpoint where generation = g;
    delete from read_model.parked where generation = g;
    delete from read_model.generation where generation = g;
end $$;

-- Adds a table to the read models, empty in the generations that there are: a rebuild fills it.
create function read_model.add_projected_table(t text) returns void language plpgsql as $$
declare
    g record;
begin
    insert into read_model.projected_table (name) values (t);
    -- The attached ones first: each is called *_building until it is a partition.
    for g in select generation, attached, phase from read_model.generation order by attached desc, generation loop
        execute format('create table read_model.%1$s_building (like read_model.%1$s including defaults, check (generation = %2$s))', t, g.generation);
        if g.attached or g.phase = 'attach' then
            execute format('select read_model.index_%s($1)', t) using '_building';
        end if;
        if g.attached then
            perform read_model.attach_table(t, g.generation);
        end if;
    end loop;
end $$;
