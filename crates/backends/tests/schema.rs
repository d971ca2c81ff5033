//! A schema that programs of different ages run on.

use std::time::Duration;

use backends::database::{DatabaseError, Granted, Plan, Pool, Roles, Schema, pool};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, SqlSafeStr};

const SCHEMA: &str = "aged";
const WAIT: Duration = Duration::from_millis(300);

const FIRST: &str = "-- compatible-since: 1
create table aged.compatibility (migration bigint primary key, since bigint not null);
create table aged.thing (id int);";
const ADDS: &str = "-- compatible-since: 1
alter table aged.thing add column note text;";
const TAKES_AWAY: &str = "-- compatible-since: 3
alter table aged.thing drop column note;";
const SAYS_NOTHING: &str = "alter table aged.thing add column other text;";

/// A program with these migrations.
fn program(migrations: &[(i64, &str)]) -> Schema {
    let migrations = migrations.iter().map(|(version, sql)| {
        let sql = AssertSqlSafe((*sql).to_owned()).into_sql_str();
        Migration::new(*version, "".into(), MigrationType::Simple, sql, false)
    });
    Schema::new(SCHEMA, Migrator::with_migrations(migrations.collect()))
}

fn shared(db: &PgPool) -> Pool {
    pool(2, PgConnectOptions::clone(&db.connect_options()))
}

async fn migrate(program: &Schema, db: &PgPool) -> Result<(), DatabaseError> {
    program.migrate(&mut db.acquire().await.expect("a connection")).await
}

async fn plan(program: &Schema, db: &PgPool) -> Plan {
    program.plan(&mut db.acquire().await.expect("a connection")).await.expect("a plan")
}

/// Neither as who migrates nor as a service, and it says what is the matter.
async fn refuses(program: &Schema, db: &PgPool, told: &[&str]) {
    let (migrated, waited) = (migrate(program, db).await, program.wait(&shared(db), WAIT).await);
    for refused in [migrated, waited] {
        let refused = refused.expect_err("refused").to_string();
        assert!(told.iter().all(|told| refused.contains(told)), "{refused}");
    }
}

async fn starts(program: &Schema, db: &PgPool) {
    migrate(program, db).await.expect("starts as who migrates");
    program.wait(&shared(db), WAIT).await.expect("starts as a service");
}

#[sqlx::test(migrations = false)]
async fn a_program_starts_on_a_newer_schema_that_allows_it(db: PgPool) {
    let (old, new) = (program(&[(1, FIRST)]), program(&[(1, FIRST), (2, ADDS)]));
    migrate(&old, &db).await.expect("the first");
    let expected = Plan { schema: SCHEMA, applied: 1, pending: vec![2], compatible_since: 1 };
    assert_eq!(plan(&new, &db).await, expected);
    assert!(!expected.breaks_programs());
    assert!(matches!(new.wait(&shared(&db), WAIT).await, Err(DatabaseError::NotMigrated { .. })));
    starts(&new, &db).await;
    // forth and back, in any order
    starts(&old, &db).await;
    starts(&new, &db).await;
    assert_eq!(plan(&old, &db).await, Plan { applied: 2, pending: Vec::new(), ..expected });
}

/// Programs of two branches: a migration with a lower number comes later.
#[sqlx::test(migrations = false)]
async fn what_is_missing_in_the_middle_is_applied(db: PgPool) {
    let (one, other) =
        (program(&[(1, FIRST), (7, SAYS_NOTHING)]), program(&[(1, FIRST), (2, ADDS), (7, SAYS_NOTHING)]));
    starts(&one, &db).await;
    starts(&other, &db).await;
    starts(&one, &db).await;
}

#[sqlx::test(migrations = false)]
async fn a_program_does_not_start_on_a_schema_that_took_away_what_it_needs(db: PgPool) {
    let first = program(&[(1, FIRST)]);
    let second = program(&[(1, FIRST), (2, ADDS)]);
    let third = program(&[(1, FIRST), (2, ADDS), (3, TAKES_AWAY)]);
    starts(&second, &db).await;
    let planned = plan(&third, &db).await;
    assert!(planned.breaks_programs(), "{planned:?}");
    assert_eq!((planned.applied, planned.compatible_since), (2, 3));
    // asking changes nothing
    starts(&second, &db).await;
    starts(&third, &db).await;
    refuses(&first, &db, &[SCHEMA, "migration 3", "the newest that this one knows is 1"]).await;
    refuses(&second, &db, &[SCHEMA, "migration 3", "the newest that this one knows is 2"]).await;
}

#[sqlx::test(migrations = false)]
async fn what_says_nothing_allows_no_older_program(db: PgPool) {
    let (old, new) = (program(&[(1, FIRST)]), program(&[(1, FIRST), (2, SAYS_NOTHING)]));
    starts(&new, &db).await;
    refuses(&old, &db, &[SCHEMA, "migration 2"]).await;
}

#[sqlx::test(migrations = false)]
async fn another_build_is_refused(db: PgPool) {
    starts(&program(&[(1, FIRST), (2, ADDS)]), &db).await;
    refuses(&program(&[(1, FIRST), (2, TAKES_AWAY)]), &db, &[SCHEMA, "migration 2", "another build"]).await;
}

/// It was killed after the last migration and before the rest.
#[sqlx::test(migrations = false)]
async fn what_was_not_declared_is_declared_by_the_next_run(db: PgPool) {
    let (old, new) = (program(&[(1, FIRST)]), program(&[(1, FIRST), (2, ADDS)]));
    starts(&new, &db).await;
    sqlx::query("delete from aged.compatibility").execute(&db).await.expect("deleted");
    refuses(&old, &db, &["migration 2"]).await;
    starts(&new, &db).await;
    starts(&old, &db).await;
}

#[sqlx::test(migrations = false)]
async fn rights_and_settings_of_roles_are_given_by_one_program_after_the_other(db: PgPool) {
    const ALONE: &str = "do $$ begin
        if not exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted) then
            raise exception 'another program may do it at the same time';
        end if;
    end $$";
    let program = program(&[(1, FIRST)]).with_roles(Roles { names: &[], grants: ALONE, settings: Some(ALONE) });
    migrate(&program, &db).await.expect("the first");
    let granted = program.grant(&mut db.acquire().await.expect("a connection")).await.expect("grants");
    assert_eq!(granted, Some(Granted { schema: SCHEMA, roles: &[], left: None }));
}
