-- compatible-since: 21
-- Indexes of tasks that answers can do without. Lists of owners with few tasks are sorted from their rows, those of owners with
-- many from columns that query-api keeps in memory. What is left is the identity, the order that lists have unless they are
-- asked for another one, and what can be restored. No column of these changes when a task is completed or moved, so that such
-- an update adds no entry to any of them, if there is room for the new row on its page.
create or replace function read_model.index_task(suffix text) returns void language plpgsql as $$
begin
    -- Of an owner they grow at the end, as ids and times do: no room is left between.
    execute format('create unique index on read_model.task%1$s (owner_id, task_id) with (fillfactor = 100)', suffix);
    execute format('create index on read_model.task%1$s (owner_id, created_at, task_id) with (fillfactor = 100)
        where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, task_id) where deleted and title <> ''''', suffix);
    -- Room for two or three rows on each page. What is updated leaves room itself once nobody sees the old row any more.
    execute format('alter table read_model.task%1$s set (fillfactor = 90)', suffix);
end $$;

-- The new index alone, while tasks can be read. What is dropped locks a table against reads, so that is left to the next
-- migrations, one for each table: who holds one of these locks must not wait for another one that a read has.
do $$
declare
    tasks regclass;
begin
    -- The table of a generation that is being built first: where its indexes are being made, that is waited for, and nothing else
    -- is locked meanwhile. Before that it has none.
    for tasks in
        select oid::regclass from pg_class
        where relnamespace = 'read_model'::regnamespace and relkind = 'r' and relname ~ '^task_([0-9]+|building)$'
        order by relname <> 'task_building', length(relname), relname
    loop
        execute format('lock table %s in share update exclusive mode', tasks);
        continue when not exists (select from pg_index where indrelid = tasks);
        execute format('create index on %s (owner_id, task_id) where deleted and title <> ''''', tasks);
        execute format('alter table %s set (fillfactor = 90)', tasks);
    end loop;
end $$;

-- Which tasks of an owner have the lexemes that are looked for is found by a pass over the owner's rows; many are searched in
-- memory. An index of lexemes would take more of the write-ahead log than the rows themselves: an entry for each word of each
-- task, written to the list of pending ones first and to its place later.
create or replace function read_model.index_search(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.search%1$s (owner_id, task_id) with (fillfactor = 100)', suffix);
end $$;

-- What only grows at the end; 0026 sets it for the indexes that there are. (The versions of a task come between those of others:
-- these indexes keep room for them.)
create or replace function read_model.index_history(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.history%1$s (owner_id, task_id, version)', suffix);
    execute format('create index on read_model.history%1$s (owner_id, position) with (fillfactor = 100)', suffix);
end $$;

create or replace function read_model.index_change(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.change%1$s (owner_id, change_id) with (fillfactor = 100)', suffix);
    execute format('create index on read_model.change%1$s (owner_id, position) with (fillfactor = 100)', suffix);
    execute format('create index on read_model.change%1$s (owner_id, undoes) where undoes is not null', suffix);
end $$;
