-- A change is what one request did: its events, and the outcomes of its commands, have its id. Null in what is older: the
-- command is the change.
alter table event_store.event
    add column change_id uuid,
    -- the change that this event undoes
    add column undoes uuid;
-- null: the command made no event
alter table event_store.command add column change_id uuid;
-- The events of a change: of one with an id, and of an older one. Ids are made in the order of time, so new entries come at
-- the index's end; none comes to the second index any more.
create index event_change on event_store.event (change_id) where change_id is not null;
create index event_command on event_store.event (command_id) where change_id is null;
-- Whether a change is still being made.
alter table event_store.batch_lease add column change_id uuid;

-- As in the first migration, and with changes. Programs from before call the one without.
create function event_store.append_checked(
    p_shard smallint,
    -- u: units
    u_owner uuid[], u_task uuid[], u_expected bigint[],
    -- null: the unit has no event, only outcomes
    u_first_event uuid[],
    -- e: events, in order
    e_unit int[], e_owner uuid[], e_task uuid[], e_version bigint[], e_id uuid[], e_type text[], e_schema_version smallint[],
    e_occurred_at timestamptz[], e_actor_type text[], e_actor uuid[], e_command uuid[], e_correlation text[],
    e_traceparent text[], e_data text[], e_change uuid[], e_undoes uuid[],
    -- c: outcomes of commands with an id of their own; c_event is the number of the command's last event, 0 for none
    c_unit int[], c_owner uuid[], c_command uuid[], c_task uuid[], c_version bigint[], c_event bigint[], c_revision bigint[],
    c_fingerprint uuid[], c_status smallint[], c_change uuid[],
    out base bigint, out outcomes smallint[], out positions bigint[]
) language plpgsql as $$
#variable_conflict use_column
declare
    known int[];
    inserted bigint;
begin
    select h.position into strict base from event_store.head h where h.shard = p_shard for update;

    known := array(
        select distinct c.unit
        from unnest(c_unit, c_owner, c_command) as c (unit, owner_id, command_id)
        where exists (
            select from event_store.command k where k.owner_id = c.owner_id and k.command_id = c.command_id));

    select array_agg(judged.outcome order by judged.n), array_agg(judged.position order by judged.n)
    into outcomes, positions
    from (
        select u.n, mine.position,
            (case
                when mine.position is not null then 3
                when u.n = any (known) then 2
                when u.first_event is not null and coalesce(latest.version, 0) <> u.expected then 1
                else 0
            end)::smallint as outcome
        from unnest(u_owner, u_task, u_expected, u_first_event) with ordinality as u (owner_id, task_id, expected, first_event, n)
        left join lateral (
            select e.position from event_store.event e
            where e.owner_id = u.owner_id and e.task_id = u.task_id and e.version = u.expected + 1
              and e.event_id = u.first_event
        ) mine on true
        left join lateral (
            select e.version from event_store.event e
            where e.owner_id = u.owner_id and e.task_id = u.task_id
            order by e.version desc limit 1
        ) latest on true
    ) judged;

    with numbered as materialized (
        select e.*, base + row_number() over (order by e.n) as position
        from unnest(e_unit, e_owner, e_task, e_version, e_id, e_type, e_schema_version, e_occurred_at, e_actor_type, e_actor,
                    e_command, e_correlation, e_traceparent, e_data, e_change, e_undoes) with ordinality
            as e (unit, owner_id, task_id, version, event_id, type, schema_version, occurred_at, actor_type, actor_id,
                  command_id, correlation_id, traceparent, data, change_id, undoes, n)
        where outcomes[e.unit] = 0
    ), stored as (
        insert into event_store.event (shard, position, recorded_at, owner_id, task_id, version, event_id, type, schema_version,
            occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data, change_id, undoes)
        select p_shard, e.position, now(), e.owner_id, e.task_id, e.version, e.event_id, e.type, e.schema_version,
            e.occurred_at, e.actor_type, e.actor_id, e.command_id, e.correlation_id, e.traceparent, e.data,
            e.change_id, e.undoes
        from numbered e
        returning 1
    ), remembered as (
        insert into event_store.command (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint, status, change_id)
        select c.owner_id, c.command_id, c.task_id, c.version, coalesce(e.position, c.revision), now(), c.fingerprint, c.status,
            c.change_id
        from unnest(c_unit, c_owner, c_command, c_task, c_version, c_event, c_revision, c_fingerprint, c_status, c_change)
            as c (unit, owner_id, command_id, task_id, version, event, revision, fingerprint, status, change_id)
        left join numbered e on e.n = c.event
        where outcomes[c.unit] = 0
    )
    select count(*) into inserted from stored;

    update event_store.head h set position = h.position + inserted where h.shard = p_shard;
end $$;
