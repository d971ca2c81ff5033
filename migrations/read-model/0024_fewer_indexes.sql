-- compatible-since: 21
-- Indexes of tasks that answers can do without. Lists of owners with few tasks are sorted from their rows, those of owners with
-- many from columns that query-api keeps in memory. What is left is the identity, the order that lists have unless they are
-- asked for another one, and what can be restored. No column of these changes when a task is completed or moved, so that such
-- an update adds no entry to any of them, if there is room for the new row on its page.
create or replace function read_model.index_task(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.task%1$s (owner_id, task_id)', suffix);
    execute format('create index on read_model.task%1$s (owner_id, created_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, task_id) where deleted and title <> ''''', suffix);
    -- Room for two or three rows on each page. What is updated leaves room itself once nobody sees the old row any more.
    execute format('alter table read_model.task%1$s set (fillfactor = 90)', suffix);
end $$;

do $$
declare
    tasks regclass;
    old regclass;
begin
    -- Partitions, and the table of a generation that is being built, which has no index before it is filled.
    for tasks in
        select oid::regclass from pg_class
        where relnamespace = 'read_model'::regnamespace and relkind = 'r' and relname ~ '^task_([0-9]+|building)$'
    loop
        continue when not exists (select from pg_index where indrelid = tasks);
        for old in
            select indexrelid::regclass from pg_index as i
            where indrelid = tasks and not indisunique
                and 'created_at' not in (
                    select attname from pg_attribute where attrelid = i.indrelid and attnum = any(i.indkey::int2[])
                )
        loop
            execute format('drop index %s', old);
        end loop;
        execute format('create index on %s (owner_id, task_id) where deleted and title <> ''''', tasks);
        execute format('alter table %s set (fillfactor = 90)', tasks);
    end loop;
end $$;

-- Which tasks of an owner have the lexemes that are looked for is found by a pass over the owner's rows; many are searched in
-- memory. An index of lexemes would take more of the write-ahead log than the rows themselves: an entry for each word of each
-- task, written to the list of pending ones first and to its place later.
create or replace function read_model.index_search(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.search%1$s (owner_id, task_id)', suffix);
end $$;

do $$
declare
    old regclass;
begin
    for old in
        select indexrelid::regclass from pg_index join pg_class as c on c.oid = indrelid
        where c.relnamespace = 'read_model'::regnamespace and c.relkind = 'r' and c.relname ~ '^search_([0-9]+|building)$'
            and not indisunique
    loop
        execute format('drop index %s', old);
    end loop;
end $$;
