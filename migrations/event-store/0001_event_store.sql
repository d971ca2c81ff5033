-- The log of events: the truth of the system. Only the crate event-store writes here.

-- Identity of this log. A log restored from a backup gets a new id (`primetrade` operators: update it by hand
-- after a restore), so that tokens handed out by the lost future are not believed.
create table event_store.log (
    singleton boolean primary key default true check (singleton),
    log_id uuid not null default gen_random_uuid()
);
insert into event_store.log default values;

-- One row per shard holds the position of the last event. Whoever appends locks the row: that makes positions
-- gapless and commit order position order. The row is updated with every batch: a low fillfactor keeps the
-- updates HOT, and the appender finds the row by its ctid, so that dead versions that a long-lived snapshot
-- keeps alive cost nothing.
create table event_store.head (
    shard smallint primary key,
    position bigint not null check (position >= 0)
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
insert into event_store.head (shard, position) values (0, 0);

create table event_store.event (
    position bigint not null,
    version bigint not null,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    owner_id uuid not null,
    task_id uuid not null,
    event_id uuid not null,
    command_id uuid not null,
    -- null: the system itself
    actor_id uuid,
    shard smallint not null,
    schema_version smallint not null,
    type text not null,
    actor_type text not null,
    correlation_id text not null,
    traceparent text not null,
    -- JSON as text: stored as sent, never searched; jsonb cost 2-3 microseconds of CPU a row
    data text not null,
    constraint event_position primary key (shard, position),
    constraint event_stream_version unique (owner_id, task_id, version)
);

-- One row for each command that carried an id of its own (command_id, or one made from an Idempotency-Key)
-- and succeeded, also without an event. Kept as long as the events.
create table event_store.command (
    owner_id uuid not null,
    command_id uuid not null,
    task_id uuid not null,
    version bigint not null,
    -- position of the task's last event after the command
    revision bigint not null,
    recorded_at timestamptz not null,
    -- SHA-256 of the request, first 16 bytes
    fingerprint uuid not null,
    -- HTTP status of the first answer
    status smallint not null,
    constraint command_id primary key (owner_id, command_id)
);

-- The whole answer of a batch that was sent under an Idempotency-Key. Kept for 24 hours at least.
create table event_store.batch_answer (
    owner_id uuid not null,
    command_id uuid not null,
    fingerprint uuid not null,
    recorded_at timestamptz not null,
    body text not null,
    primary key (owner_id, command_id)
);
create index batch_answer_recorded_at on event_store.batch_answer (recorded_at);

-- The careful append, for a batch that the fast one could not take: something in it was there before. Appends what
-- stands and says for each unit (the commands of one batch to one stream) what became of it:
--   0 appended, 1 conflict (the stream is not at the expected version), 2 known (a command id is there already),
--   3 appended by an earlier attempt of which the answer was lost.
-- Its first statement takes the lock; the later ones therefore have a snapshot from after the wait.
create function event_store.append_checked(
    p_shard smallint,
    -- u: units
    u_owner uuid[], u_task uuid[], u_expected bigint[],
    -- null: the unit has no event, only outcomes
    u_first_event uuid[],
    -- e: events, in order
    e_unit int[], e_owner uuid[], e_task uuid[], e_version bigint[], e_id uuid[], e_type text[], e_schema_version smallint[],
    e_occurred_at timestamptz[], e_actor_type text[], e_actor uuid[], e_command uuid[], e_correlation text[],
    e_traceparent text[], e_data text[],
    -- c: outcomes of commands with an id of their own; c_event is the number of the command's last event, 0 for none
    c_unit int[], c_owner uuid[], c_command uuid[], c_task uuid[], c_version bigint[], c_event bigint[], c_revision bigint[],
    c_fingerprint uuid[], c_status smallint[],
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
                    e_command, e_correlation, e_traceparent, e_data) with ordinality
            as e (unit, owner_id, task_id, version, event_id, type, schema_version, occurred_at, actor_type, actor_id,
                  command_id, correlation_id, traceparent, data, n)
        where outcomes[e.unit] = 0
    ), stored as (
        insert into event_store.event (shard, position, recorded_at, owner_id, task_id, version, event_id, type, schema_version,
            occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data)
        select p_shard, e.position, now(), e.owner_id, e.task_id, e.version, e.event_id, e.type, e.schema_version,
            e.occurred_at, e.actor_type, e.actor_id, e.command_id, e.correlation_id, e.traceparent, e.data
        from numbered e
        returning 1
    ), remembered as (
        insert into event_store.command (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint, status)
        select c.owner_id, c.command_id, c.task_id, c.version, coalesce(e.position, c.revision), now(), c.fingerprint, c.status
        from unnest(c_unit, c_owner, c_command, c_task, c_version, c_event, c_revision, c_fingerprint, c_status)
            as c (unit, owner_id, command_id, task_id, version, event, revision, fingerprint, status)
        left join numbered e on e.n = c.event
        where outcomes[c.unit] = 0
    )
    select count(*) into inserted from stored;

    update event_store.head h set position = h.position + inserted where h.shard = p_shard;
end $$;
