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
