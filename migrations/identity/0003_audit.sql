-- What happened to accounts, sessions and keys, and what admins looked at: who, what, from where, when. Never what was
-- typed, no token, nothing of a task. Written in the transaction of what it tells about (identity/src/audit.rs says how
-- long it is kept).

create table identity.audit_event (
    -- UUID v7: in the order in which it happened
    id uuid primary key,
    occurred_at timestamptz not null,
    act text not null,
    -- what happens all the time is kept for a shorter time, and cannot push out what is rare
    routine boolean not null,
    -- account: somebody with an access token, or who has just shown a password; anonymous: neither; operator: the
    -- command line
    actor_type text not null check (actor_type in ('account', 'anonymous', 'operator')),
    actor_id uuid,
    -- whose account it was done to
    account_id uuid,
    session_id uuid,
    client_address inet,
    trace_id text,
    detail text
);
create index audit_event_account on identity.audit_event (account_id, id);
create index audit_event_actor on identity.audit_event (actor_id, id);
create index audit_event_act on identity.audit_event (act, id);
create index audit_event_routine on identity.audit_event (routine, id);
