-- Changes: what one request did. A row for each, with what it is made of; who did it and when is what the history says of
-- its last event.

alter table read_model.history
    -- null: applied by a program that knew of none
    add column change_id uuid,
    -- the change that the event undoes
    add column undoes uuid;

create table read_model.change (
    generation int not null,
    tasks int not null,
    owner_id uuid not null,
    change_id uuid not null,
    -- of its first and last event
    position bigint not null,
    last_position bigint not null,
    undoes uuid,
    -- the number of its events by type
    types jsonb not null
) partition by list (generation);

create function read_model.index_change(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.change%1$s (owner_id, change_id)', suffix);
    execute format('create index on read_model.change%1$s (owner_id, position)', suffix);
    execute format('create index on read_model.change%1$s (owner_id, undoes) where undoes is not null', suffix);
end $$;

-- The changes that a history is made of.
create function read_model.changes_of(history regclass, g int)
returns table (
    owner_id uuid, change_id uuid, tasks int, "position" bigint, last_position bigint, undoes uuid, types jsonb
) language plpgsql stable as $$
begin
    return query execute format($q$
        select owner_id, change_id, t.tasks::int, e.position, e.last_position, e.undoes::uuid, e.types
        from (
            select owner_id, change_id, min(position) as position, max(last_position) as last_position,
                min(undoes) as undoes, jsonb_object_agg(type, events) as types
            from (
                select owner_id, change_id, type, count(*) as events, min(position) as position,
                    max(position) as last_position, min(undoes::text) as undoes
                from %1$s where generation = $1 group by owner_id, change_id, type
            ) as by_type
            group by owner_id, change_id
        ) as e
        join (
            select owner_id, change_id, count(*) as tasks
            from (select distinct owner_id, change_id, task_id from %1$s where generation = $1) as task
            group by owner_id, change_id
        ) as t using (owner_id, change_id)
    $q$, history) using g;
end $$;

create function read_model.count_change(g int) returns void language plpgsql as $$
begin
    truncate read_model.change_building;
    insert into read_model.change_building (generation, owner_id, change_id, tasks, position, last_position, undoes, types)
    select g, c.owner_id, c.change_id, c.tasks, c.position, c.last_position, c.undoes, c.types
    from read_model.changes_of('read_model.history_building', g) as c;
end $$;

select read_model.add_projected_table('change');
update read_model.projected_table
set complete_from = (select max(generation) + 1 from read_model.generation)
where name = 'change' and exists (select from read_model.owner);
