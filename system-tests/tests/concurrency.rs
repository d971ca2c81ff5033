//! Many at once: duplicates, writers on one task, two processes with caches of their own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use system_tests::check::{events, everything_holds};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool};
use system_tests::server::{Config, Server};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

async fn one() -> (Server, Account) {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    (server, account)
}

/// Two processes on one database, and one account with a client at each.
async fn two() -> (Server, Server, Account, Account) {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database().await);
    let first = Server::start(Config::new(&url)).await;
    let second = Server::start(Config::new(&url)).await;
    let here = first.api().account().await;
    let there = here.at(second.api());
    (first, second, here, there)
}

async fn effects(server: &Server, title: &str) -> usize {
    let pool = pool(server.database_url()).await;
    let events = events(&pool).await;
    pool.close().await;
    events.iter().filter(|event| event.data["title"] == title).count()
}

/// Repetitions and conflicts are everyday life: an error for each would flood the log.
fn no_errors_in_the_database_log(server: &Server) {
    assert_eq!(Cluster::shared().errors(server.database_url()), [""; 0]);
}

#[tokio::test]
async fn a_thousand_duplicates_are_one() {
    let (server, account) = one().await;
    let body = json!({"title": "only once", "tags": ["a"]});
    let duplicates = (0..1_000).map(|_| account.request("POST", TASKS).key("the-same").json(&body).send());
    let answers = join_all(duplicates).await;
    let first = &answers[0];
    for answer in &answers {
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.text(), first.text());
        for header in ["ETag", "Location", "Consistency-Token"] {
            assert_eq!(answer.must(header), first.must(header));
        }
    }
    let replayed = answers.iter().filter(|a| a.header("Idempotent-Replayed") == Some("true")).count();
    assert_eq!(replayed, 999);
    assert_eq!(effects(&server, "only once").await, 1);
    everything_holds(&server, &[]).await;
    no_errors_in_the_database_log(&server);
}

#[tokio::test]
async fn duplicates_at_two_processes_are_one() {
    let (first, _second, here, there) = two().await;
    for round in 0..20 {
        let title = format!("round-{round}");
        let body = json!({"title": title});
        let duplicates = (0..20).map(|n| {
            let account = if n % 2 == 0 { &here } else { &there };
            account.request("POST", TASKS).key(&title).json(&body).send()
        });
        let answers = join_all(duplicates).await;
        for answer in &answers {
            assert_eq!((answer.status, answer.text()), (201, answers[0].text()), "{title}");
        }
        assert_eq!(effects(&first, &title).await, 1, "{title}");
    }
    everything_holds(&first, &[]).await;
    no_errors_in_the_database_log(&first);
}

/// Issue 10, 11: one request of twenty comes twice at once, at two processes, beside many others.
#[tokio::test]
async fn five_per_cent_of_duplicates_leave_no_error_in_the_database_log() {
    const CLIENTS: usize = 32;
    const EACH: usize = 40;
    const TWICE: usize = 20;
    let (first, _second, here, there) = two().await;
    let clients = (0..CLIENTS).map(|client| {
        let accounts = [&here, &there];
        async move {
            for n in 0..EACH {
                let title = format!("{client}-{n}");
                let body = json!({"title": title});
                let ask = |at: usize| accounts[at % 2].request("POST", TASKS).key(&title).json(&body).send();
                let answers = if n % TWICE == 0 { join_all([ask(n), ask(n + 1)]).await } else { vec![ask(n).await] };
                for answer in &answers {
                    assert_eq!((answer.status, answer.text()), (201, answers[0].text()), "{title}");
                }
            }
        }
    });
    join_all(clients).await;
    let pool = pool(first.database_url()).await;
    assert_eq!(events(&pool).await.len(), CLIENTS * EACH);
    pool.close().await;
    everything_holds(&first, &[]).await;
    no_errors_in_the_database_log(&first);
}

#[tokio::test]
async fn fifty_writers_on_one_task() {
    let (server, account) = one().await;
    let id = account.create(json!({"title": "contended"})).await;
    let renames = (0..50).map(|n| {
        let request = account.request("PATCH", &format!("{TASKS}/{id}"));
        request.json(&json!({"title": format!("writer {n}")})).send()
    });
    let answers = join_all(renames).await;
    let mut versions: Vec<u64> = Vec::new();
    for answer in answers {
        match answer.status {
            200 => versions.push(answer.number("/version")),
            _ => assert_eq!(answer.problem(503)["code"], "contended"),
        }
    }
    versions.sort_unstable();
    let expected: Vec<u64> = (2..2 + versions.len() as u64).collect();
    assert_eq!(versions, expected, "each of those that succeeded has a version of its own");
    assert_eq!(versions.len(), 50, "all can succeed: a title may change at every stage");
    server.caught_up().await;
    let history = account.walk(&format!("{TASKS}/{id}/history?limit=20")).await;
    let seen: Vec<u64> = history.iter().map(|item| item["version"].as_u64().unwrap()).collect();
    assert_eq!(seen, (1..=versions.len() as u64 + 1).collect::<Vec<_>>());
    everything_holds(&server, &[]).await;
    no_errors_in_the_database_log(&server);
}

#[tokio::test]
async fn one_of_many_creates_with_the_same_id() {
    let (server, account) = one().await;
    for round in 0..10 {
        let id = Uuid::now_v7();
        let creates = (0..20).map(|n| {
            let body = json!({"id": id, "title": format!("round {round} writer {n}")});
            account.request("POST", TASKS).json(&body).send()
        });
        let answers = join_all(creates).await;
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        let refused = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((created, refused), (1, 19));
    }
    everything_holds(&server, &[]).await;
}

/// Each step is taken at one process and asked about at the other, whose cache is then stale: success, no-op and
/// refusal are all decided on what is committed.
#[tokio::test]
async fn a_stale_cache_never_answers() {
    let (first, second, here, there) = two().await;
    for round in 0..10 {
        let title = format!("t{round}");
        let id = here.create(json!({"title": title})).await;
        // both know the task as pending
        let path = format!("{TASKS}/{id}");
        let act = |at: &Account, verb: &str| at.request("POST", &format!("{path}/{verb}")).send();
        let rename = |at: &Account, title: &str| at.request("PATCH", &path).json(&json!({"title": title})).send();
        assert_eq!(rename(&there, &title).await.expect(200).number("/version"), 1);
        assert_eq!(act(&here, "start").await.expect(200).number("/version"), 2);
        // a no-op decided on the stale state would say version 1 and change nothing
        assert_eq!(act(&there, "start").await.expect(200).number("/version"), 2);
        assert_eq!(act(&here, "complete").await.expect(200).number("/version"), 3);
        // a refusal here, an event there: start from pending would append, from completed it is 409
        act(&there, "start").await.problem(409);
        assert_eq!(act(&there, "reopen").await.expect(200).number("/version"), 4);
        // `here` has completed in its cache: a no-op that is none
        assert_eq!(act(&here, "complete").await.expect(200).number("/version"), 5);
        // `there` has pending in its cache: a refusal that is none
        assert_eq!(act(&there, "reopen").await.expect(200).number("/version"), 6);
        assert_eq!(rename(&here, "other").await.expect(200).number("/version"), 7);
        // a rename back to what the stale state has is an event
        assert_eq!(rename(&there, &title).await.expect(200).number("/version"), 8);
        // If-Match is held against what is committed, both ways
        let patch = |at: &Account, version| {
            at.request("PATCH", &path).if_version(version).json(&json!({"priority": "high"})).send()
        };
        patch(&here, 7).await.problem(412);
        assert_eq!(patch(&here, 8).await.expect(200).number("/version"), 9);
        there.request("DELETE", &path).send().await.expect(204);
        // deleted there, still alive in the cache here
        act(&here, "start").await.problem(404);
        rename(&here, &title).await.problem(404);
        let again = json!({"id": id, "title": title});
        here.request("POST", TASKS).json(&again).send().await.problem(409);
        // unknown in the cache there, made here
        let late = Uuid::now_v7();
        let start = format!("{TASKS}/{late}/start");
        there.request("POST", &start).send().await.problem(404);
        let body = json!({"id": late, "title": title});
        here.request("POST", TASKS).json(&body).send().await.expect(201);
        there.request("POST", &start).send().await.expect(200);
        there.request("POST", TASKS).json(&body).send().await.expect(200);
    }
    everything_holds(&first, &[]).await;
    everything_holds(&second, &[]).await;
    no_errors_in_the_database_log(&first);
}

/// A read with a token is right at either process, whichever projector applied it.
#[tokio::test]
async fn a_session_never_goes_back_in_time() {
    let (_first, _second, here, there) = two().await;
    for n in 0..40 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let create = writer.request("POST", TASKS).json(&json!({"title": format!("t{n}")}));
        let mut token = create.send().await.expect(201).must("Consistency-Token").to_owned();
        // each read hands its token to the next one, at the other process
        for account in [reader, writer, reader] {
            let request = account.request("GET", "/api/v1/stats").header("Consistency-Token", &token);
            let answer = request.send().await.expect(200);
            assert_eq!(answer.json()["by_status"]["pending"], n + 1);
            token = answer.must("Consistency-Token").to_owned();
        }
        let list = reader.request("GET", &format!("{TASKS}?limit=1")).header("Consistency-Token", &token);
        let list: Value = list.send().await.expect(200).json();
        assert_eq!(list["items"][0]["title"], format!("t{n}"));
    }
}

/// Somebody else's open snapshot (a dump) stops neither commands nor the projector.
#[tokio::test]
async fn an_open_snapshot_stops_nobody() {
    let (server, account) = one().await;
    let pool = pool(server.database_url()).await;
    let mut snapshot = pool.begin().await.expect("transaction");
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *snapshot).await.unwrap();
    sqlx::query("select count(*) from event_store.event").execute(&mut *snapshot).await.unwrap();
    let account = Arc::new(account);
    for _ in 0..20 {
        let creates = (0..20).map(|_| account.request("POST", TASKS).json(&json!({"title": "meanwhile"})).send());
        for answer in join_all(creates).await {
            answer.expect(201);
        }
    }
    tokio::time::timeout(Duration::from_secs(5), server.caught_up()).await.expect("the projector goes on");
    snapshot.rollback().await.expect("rollback");
    everything_holds(&server, &[]).await;
}
