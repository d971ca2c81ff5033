-- Each task as it was after each of its events, but for its texts: what lists and counts as of a time are made from.
-- A row holds from its `held_from` until that of its task's next row. Of several with one `held_from` the last one holds,
-- the others never did. The end is not stored, so a row is never changed, and there is no gap and no overlap to repair.

create table read_model.task_version (
    generation int not null,
    -- null: the task is deleted
    status smallint,
    priority smallint not null,
    owner_id uuid not null,
    task_id uuid not null,
    version bigint not null,
    position bigint not null,
    -- when the event happened; it never decreases within a task
    held_from timestamptz not null,
    created_at timestamptz not null,
    due_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    -- sorted
    tags text[] not null,
    -- the title as it is compared, where the event changed it; null: as in the row before
    title_key text
) partition by list (generation);

create function read_model.index_task_version(suffix text) returns void language plpgsql as $$
begin
    execute format('create unique index on read_model.task_version%1$s (owner_id, task_id, version)', suffix);
end $$;

-- Generations below it were made before there was the table: they have rows of newer events alone, or none.
alter table read_model.projected_table add column if not exists complete_from int not null default 0;

select read_model.add_projected_table('task_version');
update read_model.projected_table
set complete_from = (select max(generation) + 1 from read_model.generation)
where name = 'task_version' and exists (select from read_model.owner);
