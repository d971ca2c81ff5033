//! The links of the services to Postgres, Kafka and Redis: encrypted, and both ends show who they are.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use system_tests::authority::{Authority, Guarded};
use system_tests::cluster::{Cluster, pool};
use system_tests::ledger::{Ledger, Load};
use system_tests::server::cli;
use system_tests::services::{Parts, Services};

const LOGIN: &str = "services";
const ROLES: &str = "primetrade_append, primetrade_identity, primetrade_jobs, primetrade_announce, \
                     primetrade_log_reader, primetrade_fold, primetrade_query";

/// Postgres, Kafka and Redis let nobody in who shows no certificate of the authority, Kafka nobody without a password (SCRAM)
/// either. The test itself comes by other listeners.
#[tokio::test]
async fn the_services_show_certificates_to_postgres_kafka_and_redis() {
    let authority = Authority::new();
    let cluster = Cluster::start(&[]);
    let (kafka, Guarded { brokers, username, password }) = authority.guarded_kafka();
    let (redis, redis_url) = authority.guarded_redis();
    let mut parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let owner = parts.database_url.clone();
    cli(Path::new("/"), Some(&owner), &["migrate"], "").await.expect(0);
    let db = pool(&owner).await;
    let make = AssertSqlSafe(format!("create role {LOGIN} login in role {ROLES}"));
    sqlx::raw_sql(make).execute(&db).await.expect("a login");
    authority.guard(&cluster, LOGIN).await;

    let ours = authority.certificate(LOGIN);
    let text = |file: &Path| file.to_str().expect("UTF-8").to_owned();
    let (ca, cert, key) = (text(&authority.file()), text(&ours.cert_file), text(&ours.key_file));
    let database = owner.replace("//primetrade@", &format!("//{LOGIN}@"));
    // what has no TLS is turned away, so what follows has it
    assert!(PgConnection::connect(&database).await.is_err(), "{LOGIN} got in without a certificate");
    let database = format!("{database}?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}");
    for program in ["command-api", "projector", "query-api"] {
        for (name, value) in [
            ("PRIMETRADE_DATABASE_URL", &*database),
            ("PRIMETRADE_REDIS_URL", &*redis_url),
            ("PRIMETRADE_REDIS_CA_FILE", &*ca),
            ("PRIMETRADE_REDIS_CERT_FILE", &*cert),
            ("PRIMETRADE_REDIS_KEY_FILE", &*key),
            ("PRIMETRADE_KAFKA_BROKERS", &*brokers),
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
            ("PRIMETRADE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
            ("PRIMETRADE_KAFKA_SASL_USERNAME", username),
            ("PRIMETRADE_KAFKA_SASL_PASSWORD", password),
            ("PRIMETRADE_KAFKA_CA_FILE", &*ca),
            ("PRIMETRADE_KAFKA_CERT_FILE", &*cert),
            ("PRIMETRADE_KAFKA_KEY_FILE", &*key),
        ] {
            parts = parts.with_of(program, name, value);
        }
    }
    let services = Services::start(parts).await;
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, 2);
    ledger.progress(50).await;
    load.stop().await;
    ledger.settle().await;
    services.everything_holds(&[&ledger]).await;

    let sessions = "select count(*) filter (where s.client_dn like '%CN=services'),
                           count(*) filter (where (s.client_dn like '%CN=services') is not true)
                    from pg_stat_activity a join pg_stat_ssl s using (pid) where a.usename = 'services'";
    let (with, without): (i64, i64) = sqlx::query_as(sessions).fetch_one(&db).await.expect("sessions");
    assert!(with > 0 && without == 0, "{with} sessions show a certificate, {without} none");
    db.close().await;
    let tls_port = redis_url.rsplit(':').next().expect("a port");
    let clients = redis.ask(&["CLIENT", "LIST"]);
    assert!(clients.contains(&format!("laddr=127.0.0.1:{tls_port} ")), "nobody comes to Redis by TLS: {clients}");
}
