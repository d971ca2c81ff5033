-- Sessions that have ended while access tokens of theirs may still be about: how logout, a new password or a disabled
-- account reach the services without the identity database. command-api writes it, projector and query-api look at it
-- every second; the code of both sides is in service-kit (revocations).

create table read_model.ended_session (
    session_id uuid primary key,
    -- its last access token has expired by then, and the row may go
    known_until timestamptz not null
);
create index ended_session_known_until on read_model.ended_session (known_until);
