//! A read model is thrown away and rebuilt from the log, while the old one keeps serving and commands go on.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::check::{everything_holds, read_model_rows};
use system_tests::client::Account;
use system_tests::cluster::{Cluster, pool};
use system_tests::ledger::{Ledger, Load};
use system_tests::server::{Config, Server};
use system_tests::wait::until;
use uuid::Uuid;

async fn started() -> (Server, Account) {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = server.api().account().await;
    (server, account)
}

/// Tasks of every kind: all fields, all stages, deleted ones.
async fn some_of_everything(account: &Account, tasks: u64) {
    let mut commands: Vec<Value> = Vec::new();
    for n in 0..tasks {
        let id = Uuid::from_u64_pair(9, n);
        let mut tell = |mut command: Value| {
            command["task_id"] = json!(id);
            commands.push(command);
        };
        tell(
            json!({"type": "CreateTask", "title": format!("Café {n}"), "description": "d", "priority": "high", "tags": ["a", "b"], "due_at": "2030-01-01T00:00:00Z"}),
        );
        tell(json!({"type": "UntagTask", "tag": "a"}));
        for step in ["StartTask", "CompleteTask", "ReopenTask", "CancelTask", "DeleteTask"].iter().take(n as usize % 6)
        {
            tell(json!({"type": step}));
        }
    }
    for batch in commands.chunks(5_000) {
        assert_eq!(account.batch(batch).await.expect(200).json()["failed"], 0);
    }
}

#[tokio::test]
async fn the_same_row_for_row() {
    let (server, account) = started().await;
    some_of_everything(&account, 600).await;
    server.caught_up().await;
    let pool = pool(server.database_url()).await;
    let before = read_model_rows(&pool).await;
    for _ in 0..2 {
        let report = server.cli(&["rebuild", "--expect-same", "--json"]).await.expect(0).json();
        assert_eq!(report["differences"], 0);
        assert_eq!(read_model_rows(&pool).await, before);
    }
    account.create(json!({"title": "after"})).await;
    assert_eq!(account.read("/api/v1/tasks?limit=1").await.json()["items"][0]["title"], "after");
    everything_holds(&server, &[]).await;
}

#[tokio::test]
async fn under_load_and_killed_half_way() {
    let (server, account) = started().await;
    some_of_everything(&account, 2_000).await;
    let etag = account.read("/api/v1/stats").await.must("ETag").to_owned();
    let ledger = Ledger::new(server.api().account().await);
    let load = Load::start(&ledger, 6);
    for _ in 0..2 {
        let rebuild = server.cli(&["rebuild"]);
        // dropping a run kills it; whatever it had done is no harm to the next one
        let _ = tokio::time::timeout(Duration::from_millis(150), rebuild).await;
    }
    let report = server.cli(&["rebuild", "--json"]).await.expect(0).json();
    assert_eq!(report["differences"], 0, "{report}");
    // another generation is another ETag, even where nothing else changed
    let answer = account.request("GET", "/api/v1/stats").header("If-None-Match", &etag).send().await;
    assert_eq!(answer.status, 200);
    load.stop().await;
    ledger.settle().await;
    everything_holds(&server, &[&ledger]).await;
}

/// A row that no fold would have made: the rebuild says how many differ, mends them, or refuses where told to.
#[tokio::test]
async fn differences_are_reported() {
    let (server, account) = started().await;
    let id = account.create(json!({"title": "right"})).await;
    server.caught_up().await;
    let pool = pool(server.database_url()).await;
    let spoil = "update read_model.task set title = 'wrong' where task_id = $1 \
        and generation = (select live_generation from read_model.projection)";
    sqlx::query(spoil).bind(id).execute(&pool).await.unwrap();
    let doctor = server.cli(&["doctor", "--json"]).await.expect(1).json();
    assert_eq!(doctor["ok"], false);
    assert!(!doctor["findings"].as_array().unwrap().is_empty());
    let refused = server.cli(&["rebuild", "--expect-same", "--json"]).await.expect(1).json();
    assert!(refused["differences"].as_u64().unwrap() >= 1, "{refused}");
    assert_eq!(account.task(id).await["title"], "wrong", "--expect-same does not switch");
    let mended = server.cli(&["rebuild", "--json"]).await.expect(0).json();
    assert!(mended["differences"].as_u64().unwrap() >= 1, "{mended}");
    until("the mended row is served", Duration::from_secs(5), || async {
        (account.task(id).await["title"] == "right").then_some(())
    })
    .await;
    everything_holds(&server, &[]).await;
}

/// What `doctor` is for: each kind of damage in the log is found and named.
#[tokio::test]
async fn doctor_finds_gaps() {
    let (server, account) = started().await;
    some_of_everything(&account, 30).await;
    server.caught_up().await;
    server.kill();
    let pool = pool(server.database_url()).await;
    for (damage, mend, told) in [
        (
            "update event_store.head set position = position + 1",
            "update event_store.head set position = position - 1",
            "the head says",
        ),
        (
            "update event_store.event set version = version + 1000 where position = 7",
            "update event_store.event set version = version - 1000 where position = 7",
            "version",
        ),
        (
            "update event_store.event set position = position + 100000 where position = 5",
            "update event_store.event set position = position - 100000 where position = 100005",
            "position",
        ),
        (
            "update read_model.task_count set count = count + 1",
            "update read_model.task_count set count = count - 1",
            "task_count",
        ),
        (
            "update read_model.task_version set held_from = held_from - interval '1 day' where version = 2",
            "update read_model.task_version set held_from = held_from + interval '1 day' where version = 2",
            "after version 1",
        ),
        (
            "update read_model.change set tasks = tasks + 1",
            "update read_model.change set tasks = tasks - 1",
            "not as its events make it",
        ),
        (
            "insert into jobs.job (id, owner_id, shard, kind, request, dry_run, correlation_id, traceparent, created_at, state) \
             values (gen_random_uuid(), gen_random_uuid(), 0, 'import', '{}', false, '', '', now() - interval '1 hour', 'queued')",
            "delete from jobs.job",
            "nobody takes it",
        ),
        (
            "insert into jobs.job (id, owner_id, shard, kind, request, dry_run, correlation_id, traceparent, created_at, state) \
             values (gen_random_uuid(), gen_random_uuid(), 0, 'import', '{}', false, '', '', now(), 'queued')",
            "delete from jobs.job",
            "there is no such account",
        ),
        (
            "insert into jobs.job (id, owner_id, shard, kind, request, dry_run, correlation_id, traceparent, created_at, state, \
             lease_expires_at) select gen_random_uuid(), id, 0, 'import', '{}', false, '', '', now(), 'running', \
             now() - interval '1 hour' from identity.account limit 1",
            "delete from jobs.job",
            "nobody goes on with it",
        ),
        (
            "update event_store.event set recorded_at = recorded_at - interval '40 days'",
            "update event_store.event set recorded_at = recorded_at + interval '40 days'",
            "is not purged",
        ),
        ("update read_model.history set changes = '{}' where version = 2", "", "changes"),
        ("delete from read_model.task_version where version = 2", "", "has version 3"),
    ] {
        sqlx::query(damage).execute(&pool).await.unwrap();
        let found = server.cli(&["doctor", "--json"]).await.expect(1).json();
        assert_eq!(found["ok"], false, "{damage}");
        let findings = found["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding.as_str().unwrap().contains(told)), "{damage}: {findings:?}");
        if !mend.is_empty() {
            sqlx::query(mend).execute(&pool).await.unwrap();
            server.cli(&["doctor", "--json"]).await.expect(0);
        }
    }
}

/// An event that cannot be applied waits, its task's later events behind it, and nobody else does.
#[tokio::test]
async fn an_unreadable_event_is_parked() {
    let (server, account) = started().await;
    let stuck = account.create(json!({"title": "stuck"})).await;
    let free = account.create(json!({"title": "free"})).await;
    server.caught_up().await;
    server.kill();
    // as if a newer version of the program had written it
    let pool = pool(server.database_url()).await;
    let strange = "with h as (update event_store.head set position = position + 1 returning shard, position) \
        insert into event_store.event (shard, position, owner_id, task_id, version, occurred_at, recorded_at, event_id, \
        command_id, actor_id, schema_version, type, actor_type, correlation_id, traceparent, data) \
        select h.shard, h.position, $1, $2, 2, now(), now(), gen_random_uuid(), gen_random_uuid(), $1, 1, 'TaskPainted', \
        'user', 'c', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', '{}' from h";
    sqlx::query(strange).bind(account.id).bind(stuck).execute(&pool).await.unwrap();
    server.restart().await;
    let admin_email = "admin@example.com";
    server
        .cli_with_input(
            &["user", "create", "--email", admin_email, "--name", "A", "--admin", "--password-stdin"],
            "an admin's password",
        )
        .await
        .expect(0);
    let admin = server.api().log_in(Uuid::nil(), admin_email, "an admin's password").await;
    let parked = until("it is parked", Duration::from_secs(10), || async {
        let page = admin.request("GET", "/api/v1/admin/parked").send().await.expect(200).json();
        (page["items"].as_array()?.len() == 1).then_some(page)
    })
    .await;
    let item = &parked["items"][0];
    assert_eq!((&item["task_id"], &item["version"]), (&json!(stuck), &json!(2)));
    assert!(item["reason"].is_string() && item["waiting"].is_number(), "{item}");
    // commands on that stream are refused, others are not, and their events are applied
    account.act(stuck, "start").await.problem(503);
    let answer = account.act(free, "start").await.expect(200);
    let token = answer.must("Consistency-Token").to_owned();
    until("the other task goes on", Duration::from_secs(5), || async {
        let task = account.request("GET", &format!("/api/v1/tasks/{free}")).send().await.expect(200).json();
        (task["status"] == "in_progress").then_some(())
    })
    .await;
    // a read that asks for what is parked is told so at once
    let started = std::time::Instant::now();
    let read = account.request("GET", "/api/v1/tasks").header("Consistency-Token", &token).send().await;
    assert_eq!(read.problem(503)["code"], "projection-parked");
    read.must("Retry-After");
    assert!(started.elapsed() < Duration::from_millis(1_500));
    account.request("GET", "/api/v1/tasks").send().await.expect(200);
    // mended, it is retried in order
    sqlx::query("update event_store.event set type = 'TaskStarted' where task_id = $1 and version = 2")
        .bind(stuck)
        .execute(&pool)
        .await
        .unwrap();
    let id = item["id"].as_str().unwrap();
    admin.request("POST", &format!("/api/v1/admin/parked/{id}/retry")).send().await.expect(202);
    until("nothing is parked", Duration::from_secs(10), || async {
        let page = admin.request("GET", "/api/v1/admin/parked").send().await.expect(200).json();
        page["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    assert_eq!(account.act(stuck, "complete").await.expect(200).number("/version"), 3);
    assert_eq!(account.task(stuck).await["status"], "completed");
    everything_holds(&server, &[]).await;
}
