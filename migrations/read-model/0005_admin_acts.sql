-- What admins did at the services without the identity database, on its way there: the projector writes it, in the
-- transaction of what was done; command-api takes it each second. The code of both sides is in service-kit (admin_acts).

create table read_model.admin_act (
    id uuid primary key,
    occurred_at timestamptz not null,
    act text not null,
    actor_id uuid not null,
    session_id uuid not null,
    client_address inet,
    trace_id text,
    detail text
);
