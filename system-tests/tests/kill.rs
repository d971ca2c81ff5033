//! Things are killed and cut under load; after each, what always holds is asked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use system_tests::check::{events, everything_holds};
use system_tests::cluster::{Cluster, pool};
use system_tests::ledger::{Ledger, Load};
use system_tests::proxy::{Cut, Proxy};
use system_tests::server::{Config, Server};
use system_tests::wait::until;
use uuid::Uuid;

const PROGRESS_MS_MAX: u64 = 60_000;

async fn ledger_on(server: &Server) -> Arc<Ledger> {
    Ledger::new(server.api().account().await)
}

async fn settled(server: &Server, ledger: &Ledger) {
    ledger.settle().await;
    ledger.replay(200).await;
    everything_holds(server, &[ledger]).await;
}

#[tokio::test]
async fn the_server_is_killed_under_load() {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let ledger = ledger_on(&server).await;
    let load = Load::start(&ledger, 16);
    for _ in 0..4 {
        ledger.progress(150).await;
        server.kill();
        server.restart().await;
    }
    ledger.progress(50).await;
    load.stop().await;
    assert!(ledger.unknown() > 0, "no attempt was under way when the server was killed");
    settled(&server, &ledger).await;
}

#[tokio::test]
async fn postgres_is_killed_under_load() {
    let cluster = Cluster::start(&["max_wal_size=64MB"]);
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let ledger = ledger_on(&server).await;
    let load = Load::start(&ledger, 16);
    for _ in 0..3 {
        ledger.progress(150).await;
        cluster.kill();
        // commands are refused with 503 while it is away, not answered 2xx and not kept waiting
        let away = until("503", Duration::from_secs(30), || async {
            let create = ledger.account().request("POST", "/api/v1/tasks").json(&json!({"title": "away"}));
            let answer = create.try_send().await.ok()?;
            (answer.status == 503).then_some(answer)
        })
        .await;
        away.problem(503);
        away.must("Retry-After");
        cluster.restart().await;
    }
    // the same process goes on by itself
    ledger.progress(50).await;
    load.stop().await;
    settled(&server, &ledger).await;
}

#[tokio::test]
async fn the_connection_is_cut_before_the_append() {
    cut_under_load(Cut::Before).await;
}

#[tokio::test]
async fn the_connection_is_cut_after_the_commit() {
    cut_under_load(Cut::After).await;
}

async fn cut_under_load(cut: Cut) {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let proxy = Proxy::start(cluster.address()).await;
    let server = Server::start(Config::new(proxy.url(&database))).await;
    let ledger = ledger_on(&server).await;
    let load = Load::start(&ledger, 16);
    for times in [1, 1, 2, 1, 3, 1] {
        ledger.progress(40).await;
        let before = proxy.cuts();
        proxy.cut(cut, times);
        until("the connection was cut", Duration::from_millis(PROGRESS_MS_MAX), || async {
            (proxy.cuts() == before + times).then_some(())
        })
        .await;
    }
    ledger.progress(40).await;
    load.stop().await;
    assert!(proxy.appends() > 20, "the proxy recognises appends");
    settled(&server, &ledger).await;
}

/// The appender itself finds out what became of its batch: the client of a cut one gets its 2xx, once in the store.
#[tokio::test]
async fn a_commit_that_nobody_heard_of_is_found_again() {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let proxy = Proxy::start(cluster.address()).await;
    let server = Server::start(Config::new(proxy.url(&database))).await;
    let account = server.api().account().await;
    for cut in [Cut::After, Cut::Before] {
        let id = Uuid::now_v7();
        proxy.cut(cut, 1);
        // without a key: the command id that the server gave it is what the retry is recognised by
        let create = account.request("POST", "/api/v1/tasks").json(&json!({"id": id, "title": "cut"}));
        let answer = create.send().await;
        assert!([201, 503].contains(&answer.status), "{cut:?}: {}", answer.text());
        let known = answer.status == 201;
        let pool = pool(&cluster.url(&database)).await;
        let found = events(&pool).await.iter().filter(|event| event.task == id).count();
        match (cut, known) {
            (_, true) | (Cut::After, false) => assert_eq!(found, 1, "{cut:?}: {}", answer.text()),
            (Cut::Before, false) => assert!(found <= 1),
        }
        pool.close().await;
    }
    everything_holds(&server, &[]).await;
}

#[tokio::test]
async fn a_second_process_appends_to_the_same_shard() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let first = Server::start(Config::new(&url)).await;
    let second = Server::start(Config::new(&url)).await;
    let here = ledger_on(&first).await;
    let there = ledger_on(&second).await;
    let loads = [Load::start(&here, 12), Load::start(&there, 12)];
    here.progress(200).await;
    there.progress(200).await;
    // one of them dies, the other does not notice
    first.kill();
    there.progress(100).await;
    first.restart().await;
    here.progress(100).await;
    for load in loads {
        load.stop().await;
    }
    here.settle().await;
    there.settle().await;
    everything_holds(&first, &[&here, &there]).await;
    everything_holds(&second, &[&here, &there]).await;
}

#[tokio::test]
async fn sigterm_ends_it_in_good_order() {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let ledger = ledger_on(&server).await;
    let load = Load::start(&ledger, 8);
    ledger.progress(100).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}: {}", server.log_tail());
    load.stop().await;
    server.restart().await;
    settled(&server, &ledger).await;
}
