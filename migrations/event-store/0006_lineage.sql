-- compatible-since: 5
-- On which line of history the log was last written: of a restored database, of a database in another cluster and of a
-- standby that was promoted it is another one. Whoever appends looks at it on each connection, and writes nothing where the
-- two differ, until a check has shown that no event is missing, or the log has got another id.
create function event_store.lineage() returns text language sql volatile as $$
    select concat_ws('/',
        (select system_identifier from pg_control_system()),
        -- the timeline: pg_control_checkpoint() has it only from the next checkpoint on
        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
        (select oid from pg_database where datname = current_database()))
$$;
alter table event_store.log add column lineage text;
-- A log that has events may be a backup of before this migration: it is null there, and is checked once.
update event_store.log set lineage = event_store.lineage() where not exists (select from event_store.event);
