//! Programs of two versions on one database: what a newer one has migrated is served by the one before it, and back.

use std::path::Path;

use sqlx::{AssertSqlSafe, PgPool};
use system_tests::cluster::{Cluster, pool};
use system_tests::kafka::Kafka;
use system_tests::ledger::{Ledger, Load};
use system_tests::process::Process;
use system_tests::redis::Redis;
use system_tests::server::cli;
use system_tests::services::{Parts, Services};

const WORKERS: usize = 8;
/// Higher than any that there is.
const NEWER: i64 = 9_000;

/// What a newer program would add, and who of the services looks at the schema when it starts.
const SCHEMAS: [(&str, &str, &str); 4] = [
    ("event_store", "alter table event_store.event add column newer text", "command-api"),
    ("identity", "alter table identity.account add column newer text", "command-api"),
    ("jobs", "alter table jobs.job add column newer text", "command-api"),
    ("read_model", "alter table read_model.owner add column newer text", "query-api"),
];

async fn run(db: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.expect("a statement of the newer program");
}

/// As a newer program's `migrate` leaves the schemas.
async fn migrate_by_a_newer_program(db: &PgPool) {
    for (schema, change, _) in SCHEMAS {
        run(db, change.to_owned()).await;
        run(
            db,
            format!(
                "insert into {schema}._migrations (version, description, success, checksum, execution_time)
                values ({NEWER}, 'newer', true, 'x', 1);
                insert into {schema}.compatibility (migration, since)
                select {NEWER}, max(version) from {schema}._migrations where version < {NEWER}"
            ),
        )
        .await;
    }
}

/// Each copy is started anew in turn, as by a rolling update, while the others serve.
async fn roll(services: &Services, ledger: &Ledger) {
    for copy in services.commands.iter().chain(&services.projectors).chain(&services.queries) {
        copy.restart().await;
        ledger.progress(20).await;
    }
}

#[tokio::test]
async fn the_version_before_runs_on_the_new_schema_under_load() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, WORKERS);
    ledger.progress(50).await;

    let db = pool(&services.parts.database_url).await;
    migrate_by_a_newer_program(&db).await;
    ledger.progress(50).await;
    roll(&services, &ledger).await;
    let migrate = async |more: &[&str]| services.cli(&[&["migrate", "--json"], more].concat(), "").await;
    let planned = migrate(&["--dry-run"]).await.expect(0).json();
    assert_eq!(planned["schemas"].as_array().map(Vec::len), Some(4), "{planned}");
    migrate(&[]).await.expect(0);
    load.stop().await;
    ledger.settle().await;
    ledger.replay(50).await;
    services.everything_holds(&[&ledger]).await;

    // a schema that took something away, one at a time
    let variables = services.parts.variables();
    for (schema, _, program) in SCHEMAS {
        let set = |since: i64| format!("update {schema}.compatibility set since = {since} where migration = {NEWER}");
        run(&db, set(NEWER)).await;
        let named = format!("the schema {schema} was migrated by a newer version of primetrade: its migration {NEWER}");
        let refused = cli(Path::new("/"), Some(&services.parts.database_url), &["doctor"], "").await.expect(2);
        assert!(refused.err.contains(&named), "{}", refused.err);
        let copy = Process::start(program, Vec::new(), variables.clone());
        assert_eq!(copy.ended().await.code(), Some(2), "{}", copy.log_tail());
        assert!(copy.log().contains(&named), "{}", copy.log_tail());
        run(&db, set(1)).await;
    }
    db.close().await;
}
