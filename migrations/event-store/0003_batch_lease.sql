-- Who works on a batch that was sent under an Idempotency-Key, so that equal requests at several copies of the service do
-- not carry it out at the same time: a refusal that one of them answers would be no refusal to the other. An answer is
-- kept only by who holds the lease. Unlogged: after a crash of the database there is nothing under way, and whoever
-- believed to hold a lease finds none and keeps nothing.
create unlogged table event_store.batch_lease (
    owner_id uuid not null,
    command_id uuid not null,
    -- one request
    holder uuid not null,
    -- by this database's clock
    expires_at timestamptz not null,
    primary key (owner_id, command_id)
);
