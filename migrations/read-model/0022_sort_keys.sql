-- compatible-since: 21
-- What lists are sorted by beside times and priorities: the title as it is compared, of each task as it is, and the rank of
-- each task as it was. Bytes decide both orders.
alter table read_model.task add column title_key text collate "C" not null default '';
alter table read_model.task_version add column rank text collate "C";

-- Generations below were made before there were the columns.
update read_model.projected_table
set complete_from = (select max(generation) + 1 from read_model.generation)
where name in ('task', 'task_version') and exists (select from read_model.owner);
