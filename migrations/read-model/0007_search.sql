-- The lexemes of each task's texts (read_model::search::Lexemes): what search looks for. Of a deleted task there are none.

create table read_model.search (
    generation int not null,
    owner_id uuid not null,
    task_id uuid not null,
    lexemes tsvector not null
) partition by list (generation);

create function read_model.index_search(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.search%1$s (owner_id, task_id)', suffix);
    -- As that of read_model.task.
    execute format('create index on read_model.search%1$s using gin (owner_id, lexemes)
        with (gin_pending_list_limit = 256)', suffix);
end $$;

-- Generations below it were made before there was the table: they have rows of newer tasks alone, or none.
alter table read_model.projected_table add column if not exists complete_from int not null default 0;

select read_model.add_projected_table('search');
update read_model.projected_table
set complete_from = (select max(generation) + 1 from read_model.generation)
where name = 'search' and exists (select from read_model.owner);

-- The words of title and description, by which tasks were found before, are no longer written. (The column goes with the next
-- release: copies of this one's predecessor still read it while they are replaced.)
alter table read_model.task alter column search set default '';

create or replace function read_model.index_task(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.task%1$s (owner_id, task_id)', suffix);
    execute format('create index on read_model.task%1$s (owner_id, created_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, updated_at, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, priority, task_id) where not deleted', suffix);
    execute format('create index on read_model.task%1$s (owner_id, due_at, task_id) where not deleted', suffix);
    -- With the usual 4 MB of pending entries the planner shuns the index after a burst of writes (measured: 42 ms
    -- instead of 0.2 for a rare tag); 256 kB cost the writer nothing that could be measured, no list at all thrice.
    execute format('create index on read_model.task%1$s using gin (owner_id, status, priority, tags)
        with (gin_pending_list_limit = 256) where not deleted', suffix);
end $$;
