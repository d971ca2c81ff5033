-- What each kind of connection may do in event_store. `primetrade migrate` runs this after the migrations, each time: a right
-- that a role no longer needs is revoked here by name.
grant usage on schema event_store to primetrade_append, primetrade_log_reader;

-- The log as its readers have it; whether the schema is for the program; how far each shard is published.
grant select on
    event_store._migrations, event_store.compatibility,
    event_store.log, event_store.head, event_store.event,
    event_store.relay, event_store.relay_cursor, event_store.relay_partition
to primetrade_append, primetrade_log_reader;

-- Events and outcomes are added, never changed or deleted.
grant insert on event_store.event to primetrade_append;
grant select, insert on event_store.command to primetrade_append;
grant update on event_store.head, event_store.log to primetrade_append;
grant select, insert, delete on event_store.batch_answer to primetrade_append;
grant select, insert, update, delete on event_store.batch_lease to primetrade_append;
grant select, insert, update on event_store.purge to primetrade_append;
grant select, insert, delete on event_store.purge_left to primetrade_append;

-- The relay.
grant update on event_store.relay to primetrade_append;
grant insert, update on event_store.relay_cursor to primetrade_append;
grant insert, update, delete on event_store.relay_partition to primetrade_append;
