//! The log is read over connections that may die.

use backends::database;
use domain::OwnerId;
use event_store::TailReader;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use system_tests::proxy::Proxy;
use uuid::Uuid;

#[sqlx::test(migrations = false)]
async fn a_page_that_does_not_come_is_an_error(pool: PgPool) {
    let options = PgConnectOptions::clone(&pool.connect_options());
    event_store::migrate(&database::pool(1, options.clone())).await.expect("migrations run");
    let server = tokio::net::lookup_host((options.get_host(), options.get_port())).await;
    let proxy = Proxy::start(server.expect("a host").next().expect("an address")).await;
    let through = options.host(&proxy.address().ip().to_string()).port(proxy.address().port());
    let reader = TailReader::new(database::pool(2, through), None);
    let page = async || reader.read_owner_streams_after(OwnerId(Uuid::nil()), None, i64::MAX, 10).await;
    page().await.expect("a page");
    proxy.freeze();
    // nothing comes, so the time that is waited passes at once
    tokio::time::pause();
    page().await.expect_err("not waited for without an end");
    tokio::time::resume();
    page().await.expect("a page, by another connection");
}
