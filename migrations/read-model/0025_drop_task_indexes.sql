-- compatible-since: 21
-- Those that 0024 has no use for. Each table is locked against reads for a moment, in the order in which reads lock them; that of
-- a generation that is being built first, since its indexes may be in the making.
do $$
declare
    tasks regclass;
    old regclass;
begin
    for tasks in
        select oid::regclass from pg_class
        where relnamespace = 'read_model'::regnamespace and relkind = 'r' and relname ~ '^task_([0-9]+|building)$'
        order by relname <> 'task_building', length(relname), relname
    loop
        execute format('lock table %s in access exclusive mode', tasks);
        for old in
            select indexrelid::regclass from pg_index
            where indrelid = tasks and not indisunique and pg_get_indexdef(indexrelid) !~ 'created_at|title'
        loop
            execute format('drop index %s', old);
        end loop;
    end loop;
end $$;
