-- Part of every key in Redis (docs/redis.md): read models made anew beside an old Redis, or two installations on one
-- Redis, never see each other's. To have nothing believed that any Redis holds: update it to gen_random_uuid().
alter table read_model.projection add column cache_id uuid not null default gen_random_uuid();
