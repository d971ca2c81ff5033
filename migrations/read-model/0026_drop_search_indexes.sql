-- compatible-since: 21
-- What only grows at the end. Nobody waits for that.
do $$
declare
    growing regclass;
begin
    for growing in
        select indexrelid::regclass from pg_index as i join pg_class as c on c.oid = indrelid
        where c.relnamespace = 'read_model'::regnamespace and c.relkind = 'r'
            and (
                (c.relname ~ '^task_([0-9]+|building)$' and pg_get_indexdef(indexrelid) !~ ' WHERE \(deleted')
                or (c.relname ~ '^search_([0-9]+|building)$' and indisunique)
                or (c.relname ~ '^history_([0-9]+|building)$' and not indisunique)
                or (c.relname ~ '^change_([0-9]+|building)$' and indpred is null)
            )
    loop
        execute format('alter index %s set (fillfactor = 100)', growing);
    end loop;
end $$;

-- As 0025, of lexemes: last, since reads wait from here on.
do $$
declare
    lexemes regclass;
    old regclass;
begin
    for lexemes in
        select oid::regclass from pg_class
        where relnamespace = 'read_model'::regnamespace and relkind = 'r' and relname ~ '^search_([0-9]+|building)$'
        order by relname <> 'search_building', length(relname), relname
    loop
        execute format('lock table %s in access exclusive mode', lexemes);
        for old in select indexrelid::regclass from pg_index where indrelid = lexemes and not indisunique loop
            execute format('drop index %s', old);
        end loop;
    end loop;
end $$;
