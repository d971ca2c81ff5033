-- Jobs: what a request asks for and takes longer than an answer may. Only the crate jobs writes here.

create table jobs.job (
    -- version 7: in the order of the requests
    id uuid primary key,
    owner_id uuid not null,
    shard smallint not null,
    kind text not null,
    -- what is to be done, JSON
    request text not null,
    dry_run boolean not null,
    -- made from the Idempotency-Key of the request, and the fingerprint of the request
    command_id uuid,
    fingerprint uuid,
    -- of the request: what events carry on
    correlation_id text not null,
    traceparent text not null,
    created_at timestamptz not null,

    state text not null check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    is_cancel_requested boolean not null default false,
    -- Who carries it out knows the epoch; what a former holder of the lease writes has no effect. By this database's clock.
    epoch bigint not null default 0,
    lease_expires_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    -- from then on there is no result and there are no errors any more
    expires_at timestamptz,

    -- everything up to this line is done
    line bigint not null default 0,
    total bigint,
    succeeded bigint not null default 0,
    failed bigint not null default 0,
    -- how many events it appended
    events bigint not null default 0,
    -- position of the last event that what is done stands for
    revision bigint,
    result_bytes bigint,
    -- why it failed: a problem, JSON
    problem text,

    constraint job_command_id unique (owner_id, command_id),
    check ((state = 'running') = (lease_expires_at is not null)),
    check ((finished_at is null) = (state in ('queued', 'running')))
);
create index job_owner on jobs.job (owner_id, id);
create index job_unfinished on jobs.job (state, owner_id) where state in ('queued', 'running');
create index job_expires_at on jobs.job (expires_at);

-- Why lines failed: the first ones of each job.
create table jobs.error (
    job_id uuid not null references jobs.job on delete cascade,
    -- from 1
    number bigint not null,
    line bigint,
    task_id uuid,
    -- JSON
    problem text not null,
    primary key (job_id, number)
);

-- Locked by whoever adds a job or takes one, so that the numbers of an account's jobs hold.
create table jobs.turn (
    singleton boolean primary key default true check (singleton)
);
insert into jobs.turn default values;
