-- By what an account tells its sessions apart: when and from where each was begun or refreshed last. Null until a session
-- of before is refreshed.

alter table identity.session
    add column last_seen_at timestamptz,
    add column address inet,
    -- cleaned, at most 256 characters
    add column user_agent text;

-- The sessions of an account that have not ended, in the order in which they began.
create index session_account_open on identity.session (account_id, id) where ended_at is null;
drop index identity.session_account;
