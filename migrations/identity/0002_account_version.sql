-- Another one with each change of what an account sees of itself. Random, so that it never comes again, whatever was
-- restored from a backup: what was cached under it is for ever what it is.
alter table identity.account add column version uuid not null default gen_random_uuid();
