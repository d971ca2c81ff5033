//! Database roles, one for each kind of connection: what they may do, and that the services can live with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool, temp_dir};
use system_tests::kafka::Kafka;
use system_tests::ledger::{Ledger, Load};
use system_tests::redis::Redis;
use system_tests::server::{cli, run};
use system_tests::services::{Parts, Services};

const APPEND: &str = "primetrade_append";
const LOG_READER: &str = "primetrade_log_reader";
const IDENTITY: &str = "primetrade_identity";
const JOBS: &str = "primetrade_jobs";
const FOLD: &str = "primetrade_fold";
const QUERY: &str = "primetrade_query";
const ANNOUNCE: &str = "primetrade_announce";
const ROLES: [&str; 7] = [APPEND, LOG_READER, IDENTITY, JOBS, FOLD, QUERY, ANNOUNCE];
const SCHEMAS: [&str; 4] = ["event_store", "identity", "jobs", "read_model"];

const READ: &str = "select";
const ADD: &str = "select insert";
const CHANGE: &str = "select update";
const ADD_AND_CHANGE: &str = "select insert update";
const ADD_AND_DROP: &str = "select insert delete";
const ALL: &str = "select insert update delete";

/// What a role may do with a table.
type Right = (&'static str, &'static str);

/// Every table, and who may do what there. The tables of generations are not named: see `of_generations`.
const TABLES: &[(&str, &[Right])] = &[
    ("event_store._migrations", &[(APPEND, READ), (LOG_READER, READ)]),
    ("event_store.compatibility", &[(APPEND, READ), (LOG_READER, READ)]),
    ("event_store.log", &[(APPEND, CHANGE), (LOG_READER, READ)]),
    ("event_store.head", &[(APPEND, CHANGE), (LOG_READER, READ)]),
    ("event_store.event", &[(APPEND, ADD), (LOG_READER, READ)]),
    ("event_store.command", &[(APPEND, ADD)]),
    ("event_store.batch_answer", &[(APPEND, ADD_AND_DROP)]),
    ("event_store.batch_lease", &[(APPEND, ALL)]),
    ("event_store.purge", &[(APPEND, ADD_AND_CHANGE)]),
    ("event_store.purge_left", &[(APPEND, ADD_AND_DROP)]),
    ("event_store.relay", &[(APPEND, CHANGE), (LOG_READER, READ)]),
    ("event_store.relay_cursor", &[(APPEND, ADD_AND_CHANGE), (LOG_READER, READ)]),
    ("event_store.relay_partition", &[(APPEND, ALL), (LOG_READER, READ)]),
    ("identity._migrations", &[(IDENTITY, READ)]),
    ("identity.compatibility", &[(IDENTITY, READ)]),
    ("identity.account", &[(IDENTITY, ADD_AND_CHANGE)]),
    ("identity.session", &[(IDENTITY, ALL)]),
    ("identity.signing_key", &[(IDENTITY, ALL)]),
    ("identity.api_key", &[(IDENTITY, ALL)]),
    ("identity.audit_event", &[(IDENTITY, ADD_AND_DROP)]),
    ("jobs._migrations", &[(JOBS, READ)]),
    ("jobs.compatibility", &[(JOBS, READ)]),
    ("jobs.job", &[(JOBS, ALL)]),
    ("jobs.error", &[(JOBS, ADD_AND_DROP)]),
    ("jobs.turn", &[(JOBS, CHANGE)]),
    ("read_model._migrations", &[(FOLD, READ), (QUERY, READ)]),
    ("read_model.compatibility", &[(FOLD, READ), (QUERY, READ)]),
    ("read_model.projected_table", &[(FOLD, READ), (QUERY, READ)]),
    ("read_model.projection", &[(FOLD, CHANGE), (QUERY, READ), (ANNOUNCE, READ)]),
    ("read_model.generation", &[(FOLD, CHANGE)]),
    ("read_model.checkpoint", &[(FOLD, ADD_AND_CHANGE), (QUERY, READ), (ANNOUNCE, READ)]),
    ("read_model.kafka_partition", &[(FOLD, ADD_AND_CHANGE), (QUERY, READ)]),
    ("read_model.kafka_position", &[(FOLD, ALL), (ANNOUNCE, READ)]),
    ("read_model.parked", &[(FOLD, ALL)]),
    ("read_model.ended_session", &[(FOLD, READ), (QUERY, READ), (ANNOUNCE, ADD_AND_DROP)]),
    ("read_model.admin_act", &[(FOLD, "insert"), (ANNOUNCE, "select delete")]),
    ("read_model.job", &[(QUERY, READ), (ANNOUNCE, ALL)]),
];

/// The tables that a rebuild fills: nobody has a right on their partitions.
async fn of_generations(db: &PgPool) -> Vec<String> {
    let names = sqlx::query_scalar("select 'read_model.' || name from read_model.projected_table");
    names.fetch_all(db).await.expect("the catalogue of tables")
}

async fn strings(db: &PgPool, sql: &'static str) -> Vec<String> {
    let found = sqlx::query_scalar(sql).bind(ROLES.to_vec()).bind(SCHEMAS.to_vec());
    found.fetch_all(db).await.expect(sql)
}

/// A table that is added and forgotten in `migrations/roles/` or here fails this by its name.
#[tokio::test]
async fn each_role_may_do_what_it_needs_and_nothing_else() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    cli(Path::new("/"), Some(&url), &["migrate"], "").await.expect(0);
    // whoever runs it again changes nothing
    let again = cli(Path::new("/"), Some(&url), &["migrate", "--json"], "").await.expect(0).json();
    let granted = again["roles"].as_array().expect("roles");
    assert!(granted.len() == 4 && granted.iter().all(|granted| granted["left"].is_null()), "{again}");
    let db = pool(&url).await;

    let of_generations = of_generations(&db).await;
    let mut expected: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut expect = |table: &str, rights: &[Right]| {
        for (role, right) in rights {
            expected.insert((table.to_owned(), (*role).to_owned()), (*right).to_owned());
        }
    };
    TABLES.iter().for_each(|(table, rights)| expect(table, rights));
    of_generations.iter().for_each(|table| expect(table, &[(FOLD, ADD_AND_CHANGE), (QUERY, READ)]));

    let tables = strings(
        &db,
        "select format('%s.%s', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where $1::text[] is not null and n.nspname::text = any ($2::text[]) and c.relkind in ('r', 'p', 'v', 'm', 'f')
             and not c.relispartition",
    );
    let tables: BTreeSet<String> = tables.await.into_iter().collect();
    let known: BTreeSet<String> =
        TABLES.iter().map(|(table, _)| (*table).to_owned()).chain(of_generations.iter().cloned()).collect();
    assert_eq!(tables, known, "tables that there are, and tables of which it is said who may do what");

    let found: Vec<(String, String, String)> = sqlx::query_as(
        "select format('%s.%s', n.nspname, c.relname), r.rolname::text, rights.found
         from pg_roles r cross join pg_class c join pg_namespace n on n.oid = c.relnamespace
         cross join lateral (
             select string_agg(p.name, ' ' order by p.number) as found
             from unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger'])
                 with ordinality as p (name, number)
             where has_table_privilege(r.oid, c.oid, p.name)
         ) as rights
         where r.rolname::text = any ($1::text[]) and n.nspname::text = any ($2::text[])
             and c.relkind in ('r', 'p', 'v', 'm', 'f') and rights.found is not null",
    )
    .bind(ROLES.to_vec())
    .bind(SCHEMAS.to_vec())
    .fetch_all(&db)
    .await
    .expect("rights");
    let found: BTreeMap<(String, String), String> =
        found.into_iter().map(|(table, role, rights)| ((table, role), rights)).collect();
    assert_eq!(found, expected);

    // what else there is to have a right on
    let schemas = expected.keys().map(|(table, role)| format!("{role} {}", schema_of(table)));
    let schemas: BTreeSet<String> = schemas.collect();
    let usable = strings(
        &db,
        "select r.rolname || ' ' || n.nspname from pg_roles r cross join pg_namespace n
         where r.rolname::text = any ($1::text[]) and n.nspname::text = any ($2::text[])
             and has_schema_privilege(r.oid, n.oid, 'usage')",
    );
    assert_eq!(usable.await.into_iter().collect::<BTreeSet<_>>(), schemas);
    for (what, sql) in [
        (
            "makes tables",
            "select r.rolname || ' ' || n.nspname from pg_roles r cross join pg_namespace n
             where r.rolname::text = any ($1::text[]) and n.nspname::text = any ($2::text[])
                 and has_schema_privilege(r.oid, n.oid, 'create')",
        ),
        (
            "uses a sequence",
            "select r.rolname || ' ' || c.relname from pg_roles r cross join pg_class c
             join pg_namespace n on n.oid = c.relnamespace
             where r.rolname::text = any ($1::text[]) and n.nspname::text = any ($2::text[])
                 and case when c.relkind = 'S' then has_sequence_privilege(r.oid, c.oid, 'usage, select, update') end",
        ),
        (
            "may do something with a column alone",
            "select format('%s.%s', a.attrelid::regclass, a.attname) from pg_attribute a
             join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
             where $1::text[] is not null and n.nspname::text = any ($2::text[]) and a.attacl is not null",
        ),
        (
            "does what the owner may by a function",
            "select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
             where $1::text[] is not null and n.nspname::text = any ($2::text[]) and p.prosecdef",
        ),
        (
            "is more than a role without login",
            "select r.rolname::text from pg_roles r
             where r.rolname::text = any ($1::text[]) and $2::text[] is not null
                 and (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolcanlogin or r.rolreplication
                     or r.rolbypassrls or exists (select from pg_auth_members m where m.member = r.oid))",
        ),
    ] {
        assert_eq!(strings(&db, sql).await, [""; 0], "{what}");
    }
    db.close().await;
    try_what_is_not_allowed(&url).await;
}

fn schema_of(table: &str) -> &str {
    table.split('.').next().unwrap_or_default()
}

/// What Postgres says of it, and not its catalogue.
async fn try_what_is_not_allowed(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("connect");
    for (role, statement) in [
        (APPEND, "update event_store.event set data = ''"),
        (APPEND, "delete from event_store.event"),
        (APPEND, "truncate event_store.event"),
        (APPEND, "select from identity.account"),
        (LOG_READER, "update event_store.head set position = 0"),
        (LOG_READER, "select from event_store.command"),
        (IDENTITY, "select from event_store.event"),
        (JOBS, "select from identity.account"),
        (FOLD, "select from event_store.event"),
        (FOLD, "delete from read_model.task"),
        (FOLD, "select from read_model.task_1"),
        (FOLD, "select read_model.drop_generation(1)"),
        (FOLD, "create table read_model.mine ()"),
        (QUERY, "select from identity.account"),
        (QUERY, "update read_model.task set title = ''"),
        (ANNOUNCE, "select from read_model.task"),
    ] {
        let become_role = AssertSqlSafe(format!("set role {role}"));
        sqlx::raw_sql(become_role).execute(&mut connection).await.expect("set role");
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await.expect_err(statement);
        let code = refused.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{role}: {statement}: {refused}");
        sqlx::raw_sql("reset role").execute(&mut connection).await.expect("reset role");
    }
}

/// As docs/operations.md has it: a service, a variable, and of which roles its login is a member.
const LOGINS: [(&str, &str, &str, &str); 5] = [
    ("command-api", "PRIMETRADE_DATABASE_URL", "commands", "primetrade_append, primetrade_identity, primetrade_jobs"),
    ("command-api", "PRIMETRADE_READ_DATABASE_URL", "announce", "primetrade_announce"),
    ("projector", "PRIMETRADE_DATABASE_URL", "log", "primetrade_log_reader"),
    ("projector", "PRIMETRADE_READ_DATABASE_URL", "fold", "primetrade_fold"),
    ("query-api", "PRIMETRADE_READ_DATABASE_URL", "query", "primetrade_query"),
];

#[tokio::test]
async fn the_services_work_as_logins_with_no_more_rights_than_they_need() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::start());
    let objects = format!("file://{}", temp_dir("objects").display());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let mut parts = parts.with("PRIMETRADE_OBJECT_STORE_URL", &objects);
    let owner = parts.database_url.clone();
    cli(Path::new("/"), Some(&owner), &["migrate"], "").await.expect(0);
    let db = pool(&owner).await;
    let database = owner.rsplit('/').next().expect("a database").to_owned();
    for (program, variable, name, roles) in LOGINS {
        let login = format!("{database}_{name}");
        let make = AssertSqlSafe(format!("create role {login} login in role {roles}"));
        sqlx::raw_sql(make).execute(&db).await.expect("a login");
        parts = parts.with_of(program, variable, &owner.replace("//primetrade@", &format!("//{login}@")));
    }
    db.close().await;

    let services = Services::start(parts).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, 4);
    ledger.progress(100).await;
    use_accounts(&services).await;
    let account = services.api().account().await;
    use_tasks(&account).await;
    use_jobs(&account).await;
    load.stop().await;
    ledger.settle().await;
    ledger.replay(20).await;
    services.everything_holds(&[&ledger]).await;

    // what runs in the background tells nobody else
    let refused = |line: &String| line.contains("permission denied") || line.contains("must be owner");
    let refused: Vec<String> = cluster.errors(&owner).into_iter().filter(refused).collect();
    assert_eq!(refused, [""; 0]);
}

async fn use_accounts(services: &Services) {
    let api = services.api();
    let account = api.account().await;
    account.request("GET", "/api/v1/auth/sessions").send().await.expect(200);
    account.request("PATCH", "/api/v1/auth/me").json(&json!({"name": "Another"})).send().await.expect(200);
    let credentials = json!({"email": account.email, "password": account.password});
    let tokens = api.post("/api/v1/auth/login", &credentials).send().await.expect(200);
    let refresh = json!({"refresh_token": tokens.string("/refresh_token")});
    api.post("/api/v1/auth/refresh", &refresh).send().await.expect(200);
    let passwords = json!({"current": account.password, "new": "another long password"});
    account.request("POST", "/api/v1/auth/password").json(&passwords).send().await.expect(204);
    account.request("POST", "/api/v1/auth/logout").send().await.expect(204);

    let admin = services.admin().await;
    let path = format!("/api/v1/users/{}", account.id);
    admin.request("PATCH", &path).json(&json!({"disabled": true})).send().await.expect(200);
    for path in ["/api/v1/users", "/api/v1/users/audit", "/api/v1/admin/parked", "/api/v1/admin/projections"] {
        admin.request("GET", path).send().await.expect(200);
    }
}

async fn use_tasks(account: &Account) {
    let task = account.create(json!({"title": "a task", "tags": ["one"]})).await;
    let started = account.act(task, "start").await.expect(200);
    account.patch(task, json!({"title": "a task of another name"})).await.expect(200);
    let undo = format!("/api/v1/changes/{}/undo", started.must("Change-Id"));
    account.request("POST", &undo).send().await.expect(200);
    account.delete(task).await.expect(204);
    account.act(task, "restore").await.expect(200);
    let commands = json!({"commands": [{"type": "CompleteTask", "task_id": task}]});
    for _ in 0..2 {
        account.request("POST", "/api/v1/commands").key("a-batch").json(&commands).send().await.expect(200);
    }
    for path in [
        "/api/v1/tasks?q=name&sort=relevance",
        "/api/v1/tasks?status=completed&tag=one&sort=title",
        "/api/v1/tasks?as_of=2020-01-01T00:00:00Z",
        "/api/v1/tasks/facets",
        "/api/v1/tasks/suggest?q=nam",
        "/api/v1/tasks/deleted",
        "/api/v1/stats",
        "/api/v1/stats/flow",
        "/api/v1/changes",
        &format!("/api/v1/changes?task_id={task}"),
        &format!("/api/v1/tasks/{task}/history"),
    ] {
        account.read(path).await.expect(200);
    }
}

async fn use_jobs(account: &Account) {
    let export = account.request("POST", "/api/v1/exports").json(&json!({"format": "csv"})).send().await.expect(202);
    let import = account.request("POST", "/api/v1/imports?format=csv");
    let import = import.body("text/csv", "title\nof a file\n\" \"\n").send().await.expect(202);
    let bulk = json!({"filter": {"status": "pending"}, "command": {"type": "StartTask"}});
    for asked in [&export, &import] {
        assert_eq!(account.job_ended(asked).await["state"], "succeeded");
    }
    let errors = format!("{}/errors", import.must("Location"));
    account.read(&errors).await.expect(200);
    let changed = account.request("POST", "/api/v1/tasks/bulk").json(&bulk).send().await.expect(202);
    assert_eq!(account.job_ended(&changed).await["state"], "succeeded");
    account.read("/api/v1/jobs").await.expect(200);
    account.request("DELETE", export.must("Location")).send().await.expect(204);
}

/// Who may not make roles migrates all the same, and is told what is left; once somebody has made them it grants. A login
/// as `primetrade_query` itself has the settings that it needs behind a pooler.
#[tokio::test]
async fn who_may_not_make_roles_is_told_who_may() {
    let cluster = Cluster::start(&[]);
    let database = cluster.create_database().await;
    let admin = pool(&cluster.url(&database)).await;
    let run = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&admin).await.expect("a statement of the administrator");
    };
    run(format!("create role steward login; alter database {database} owner to steward")).await;
    let url_of = |login: &str| cluster.url(&database).replace("//primetrade@", &format!("//{login}@"));
    let migrate = async || cli(Path::new("/"), Some(&url_of("steward")), &["migrate"], "").await.expect(0).out;

    let told = migrate().await;
    for role in ROLES {
        assert!(told.contains(&format!("create role {role}")), "{told}");
    }
    run(ROLES.map(|role| format!("create role {role};")).concat()).await;
    let told = migrate().await;
    assert!(told.contains("may not change their settings"), "{told}");
    // a newer Postgres lets only administrators of a role change it, an older one who may make roles
    run("alter role steward superuser; alter role primetrade_query login".to_owned()).await;
    let told = migrate().await;
    assert!(!told.contains("may not"), "{told}");
    admin.close().await;

    let mut query = PgConnection::connect(&url_of(QUERY)).await.expect("a login");
    for (name, value) in [
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "10s"),
    ] {
        let set: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&mut query).await.expect("a setting");
        assert_eq!(set, value, "{name}");
    }
}

/// `deploy/postgres/logins.sql`, as bin/stack and Compose run it: again and again, each time with the passwords that the files
/// have by then, and not without them. None is in Postgres' log, whatever is logged.
#[tokio::test]
async fn the_script_makes_logins_whose_passwords_are_in_no_log() {
    let cluster = Cluster::start(&["log_statement=all", "log_min_duration_statement=0"]);
    let url = cluster.url(&cluster.create_database().await);
    cli(Path::new("/"), Some(&url), &["migrate"], "").await.expect(0);
    let db = pool(&url).await;
    let folder = temp_dir("logins");
    let logins = ["announcements", "commands", "log_of_projector", "projector", "queries"];
    let script = async || {
        let mut psql = Command::new(cluster.bin("psql"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/postgres/logins.sql");
        psql.args([url.as_str(), "-X", "-q", "-f", script]).env("LOGINS", &folder);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(psql, "").await
    };
    let refused = script().await.expect(3);
    assert!(refused.err.contains("a password for each of commands"), "{refused:?}");
    let make = async |password: &str| {
        for login in logins {
            fs::write(folder.join(login), format!("{password} of '{login}'\n")).expect("a password");
        }
        let made = script().await.expect(0);
        assert_eq!((made.out.as_str(), made.err.as_str()), ("", ""));
        let hashes =
            "select rolname::text, rolpassword from pg_authid where rolcanlogin and rolname <> 'primetrade' order by 1";
        let hashes: Vec<(String, String)> = sqlx::query_as(hashes).fetch_all(&db).await.expect("logins");
        assert_eq!(hashes.iter().map(|(login, _)| login.as_str()).collect::<Vec<_>>(), logins);
        assert!(hashes.iter().all(|(_, hash)| hash.starts_with("SCRAM-SHA-256$")), "{hashes:?}");
        hashes
    };
    let (first, second) = (make("former-secret").await, make("later-secret").await);
    assert!(first.iter().zip(&second).all(|(first, second)| first != second), "{first:?}");
    let members = "select l.rolname || ' ' || r.rolname from pg_auth_members m join pg_roles l on l.oid = m.member
                   join pg_roles r on r.oid = m.roleid where l.rolcanlogin and l.rolname <> 'primetrade' order by 1";
    let members: Vec<String> = sqlx::query_scalar(members).fetch_all(&db).await.expect("members");
    let expected = [
        "announcements primetrade_announce",
        "commands primetrade_append",
        "commands primetrade_identity",
        "commands primetrade_jobs",
        "log_of_projector primetrade_log_reader",
        "projector primetrade_fold",
        "queries primetrade_query",
    ];
    assert_eq!(members, expected);
    db.close().await;
    let log = fs::read_to_string(cluster.dir().join("log")).expect("Postgres' log");
    assert!(log.contains("create role"), "statements are logged");
    assert!(!log.contains("former-secret") && !log.contains("later-secret"), "passwords are logged");
}
