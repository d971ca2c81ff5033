-- Settings of sessions that log in as primetrade_query itself. query-api makes them too (query-api/src/connect.rs), but behind
-- a pooler that shares sessions it cannot.
do $$
declare
    setting record;
begin
    for setting in
        select * from (values
            ('plan_cache_mode', 'force_generic_plan'),
            ('enable_seqscan', 'off'),
            ('enable_bitmapscan', 'off'),
            ('enable_sort', 'off'),
            ('enable_hashjoin', 'off'),
            ('enable_mergejoin', 'off'),
            ('jit', 'off'),
            ('default_transaction_read_only', 'on'),
            ('statement_timeout', '10s')
        ) as s (name, value)
    loop
        execute format('alter role primetrade_query in database %I set %I = %L', current_database(), setting.name, setting.value);
    end loop;
end $$;
