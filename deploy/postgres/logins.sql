-- Logins of the services, each a member of the roles that it needs (docs/operations.md, "Database roles"). For psql, after
-- `primetrade migrate`, as who may make roles; run again it gives each login its password once more. In the folder that the
-- variable LOGINS names is a file for each login, with its password. bin/stack and docker-compose.yml make both.
\set ON_ERROR_STOP on
\o /dev/null
-- For psql what cannot be read is an empty password, which no login gets in by.
\set complete `for login in commands announcements log_of_projector projector queries; do test -s "$LOGINS/$login" || { echo off; exit; }; done; echo on`
\if :complete
\else
do $$ begin raise exception 'the folder that the variable LOGINS names needs a file with a password for each of commands, announcements, log_of_projector, projector, queries'; end $$;
\endif
set client_min_messages = warning;
-- No password is to be in a log or in pg_stat_statements. Who may not set these has to see to that otherwise.
select set_config(s.name, s.value, false)
from (values
    ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
    ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), ('pg_stat_statements.track', 'none')
) as s (name, value)
where (select rolsuper from pg_roles where rolname = current_user);

select format('create role %I', l.name)
from (values ('commands'), ('announcements'), ('log_of_projector'), ('projector'), ('queries')) as l (name)
where l.name not in (select rolname from pg_roles)
\gexec

-- command-api: PRIMETRADE_DATABASE_URL, PRIMETRADE_READ_DATABASE_URL
\set password `cat "$LOGINS/commands"`
alter role commands login password :'password';
grant primetrade_append, primetrade_identity, primetrade_jobs to commands;
\set password `cat "$LOGINS/announcements"`
alter role announcements login password :'password';
grant primetrade_announce to announcements;

-- projector: PRIMETRADE_DATABASE_URL, PRIMETRADE_READ_DATABASE_URL
\set password `cat "$LOGINS/log_of_projector"`
alter role log_of_projector login password :'password';
grant primetrade_log_reader to log_of_projector;
\set password `cat "$LOGINS/projector"`
alter role projector login password :'password';
grant primetrade_fold to projector;

-- query-api: PRIMETRADE_READ_DATABASE_URL, PRIMETRADE_READ_REPLICA_URL
\set password `cat "$LOGINS/queries"`
alter role queries login password :'password';
grant primetrade_query to queries;
