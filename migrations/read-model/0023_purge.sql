-- compatible-since: 21
-- A task that was purged has left nothing but where it stood, and when. In its versions there is no priority any more: they
-- are counted, and in no list.
alter table read_model.task_version alter column priority drop not null;

-- A rebuild folds events one by one. What they have left of tasks that were purged later is blanked afterwards.
create function read_model.count_history(g int) returns void language plpgsql as $$
begin
    if exists (select from read_model.task_building where deleted and title = '') then
        update read_model.history_building as h set changes = '{}'
        from (select owner_id, task_id from read_model.task_building where deleted and title = '') as p
        where h.owner_id = p.owner_id and h.task_id = p.task_id and h.changes <> '{}';
    end if;
end $$;

create function read_model.count_task_version(g int) returns void language plpgsql as $$
begin
    if exists (select from read_model.task_building where deleted and title = '') then
        update read_model.task_version_building as v
        set priority = null, due_at = null, tags = '{}', title_key = null, rank = null
        from (select owner_id, task_id from read_model.task_building where deleted and title = '') as p
        where v.owner_id = p.owner_id and v.task_id = p.task_id;
    end if;
end $$;
