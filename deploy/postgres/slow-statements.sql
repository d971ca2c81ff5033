-- The twenty statements that have taken most time since the counters began (docs/operations.md, "Statements that take long"),
-- by whose login they came: for who owns the database, which has the extension pg_stat_statements. Times are milliseconds of the
-- server; blocks are 8 KiB each, read from outside of Postgres' own memory.
select
    r.rolname::text as login,
    s.calls,
    round(s.total_exec_time)::bigint as total_ms,
    round(s.mean_exec_time::numeric, 2)::float8 as mean_ms,
    round(s.max_exec_time)::bigint as max_ms,
    s.rows,
    s.shared_blks_read as blocks_read,
    left(regexp_replace(s.query, '\s+', ' ', 'g'), 300) as statement
from pg_stat_statements s
join pg_roles r on r.oid = s.userid
where s.dbid = (select d.oid from pg_database d where d.datname = current_database())
order by s.total_exec_time desc
limit 20;
