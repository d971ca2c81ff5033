-- compatible-since: 6
-- API keys of services. What a key is exchanged for is an access token whose session (`sid`) is the key.

create table identity.api_key (
    -- UUID v7; no session's
    id uuid primary key,
    account_id uuid not null references identity.account (id),
    name text not null,
    -- SHA-256 of the key's random part: 32 bytes, so that nobody finds them by trying
    secret_hash bytea not null,
    -- what the access tokens are good for; crates/access/src/scopes.rs has the names
    scopes text[] not null check (cardinality(scopes) > 0),
    created_at timestamptz not null,
    -- null: never
    expires_at timestamptz,
    revoked_at timestamptz,
    -- a minute or so old, so that not each use is a write
    last_used_at timestamptz
);
create index api_key_account on identity.api_key (account_id, id);
create index api_key_revoked_at on identity.api_key (revoked_at) where revoked_at is not null;
