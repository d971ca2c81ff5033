-- Accounts, sessions and signing keys. Only the crate identity writes here.

create table identity.account (
    id uuid primary key,
    -- in lower case
    email text not null constraint account_email unique,
    name text not null,
    role text not null check (role in ('user', 'admin')),
    disabled boolean not null default false,
    -- where the owner's events live: chosen by hash when the account is made, and stored
    shard smallint not null,
    -- PHC string, Argon2id
    password_hash text not null,
    created_at timestamptz not null
);

create table identity.session (
    id uuid primary key,
    account_id uuid not null references identity.account (id),
    -- SHA-256 of the refresh token that is good now, and of the one before it
    refresh_hash bytea not null,
    spent_hash bytea,
    -- when the refresh that spent it was answered: a request that arrived earlier is no reuse
    answered_at timestamptz,
    created_at timestamptz not null,
    refresh_expires_at timestamptz not null,
    ended_at timestamptz
);
create index session_account on identity.session (account_id);
create index session_ended_at on identity.session (ended_at) where ended_at is not null;
create index session_refresh_expires_at on identity.session (refresh_expires_at);

create table identity.signing_key (
    kid text primary key,
    -- the seed of the Ed25519 key, encrypted with XChaCha20-Poly1305 (nonce first, the kid authenticated with it)
    private_key bytea not null,
    public_key bytea not null,
    created_at timestamptz not null,
    -- signs from here on, so that verifiers have seen it before
    signs_from timestamptz not null,
    -- null: in use; after it the key is not shown in JWKS any more
    retired_at timestamptz
);
