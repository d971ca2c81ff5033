use std::time::Duration;

use crate::here::{admin, api, ops};
use serde_json::json;
use system_tests::wait::until;
use uuid::Uuid;

#[tokio::test]
async fn health() {
    for api in ops().await {
        api.get("/livez").send().await.expect(200);
        let ready = api.get("/readyz").send().await.expect(200).json();
        assert_eq!(ready["status"], "ready", "{ready}");
        let checks = ready["checks"].as_object().expect("checks");
        assert!(!checks.is_empty());
        assert!(checks.values().all(|check| check["status"].is_string()), "{ready}");
    }
    let [_, _, projector] = ops().await;
    let ready = projector.get("/readyz").send().await.json();
    assert!(ready["lag"]["events"].is_u64() && ready["lag"]["seconds"].is_number(), "{ready}");
}

#[tokio::test]
async fn metrics_count_requests() {
    let account = api().await.account().await;
    account.create(json!({"title": "counted"})).await;
    let [commands, ..] = ops().await;
    let metrics = commands.get("/metrics").send().await.expect(200);
    assert!(metrics.must("Content-Type").starts_with("text/plain"));
    let text = metrics.text();
    assert!(text.contains("# TYPE"), "{text:.300}");
    // cardinality is bounded: no ids in labels
    assert!(!text.contains(&account.id.to_string()));
}

#[tokio::test]
async fn projections_and_parked() {
    let admin = admin().await;
    let page = admin.request("GET", "/api/v1/admin/projections").send().await.expect(200).json();
    let items = page["items"].as_array().expect("items");
    assert!(!items.is_empty());
    for item in items {
        for field in ["name", "generation", "state", "position", "lag_events", "lag_seconds"] {
            assert!(!item[field].is_null(), "{field} in {item}");
        }
        assert!(item.as_object().unwrap().contains_key("rebuild"));
    }
    let relay = page["relay"].as_array().expect("relay");
    assert_eq!(relay.is_empty(), items[0]["feed"] == "store", "{page}");
    for shard in relay {
        for field in ["shard", "publication", "position", "lag_events", "lag_seconds"] {
            assert!(shard[field].is_number(), "{field} in {shard}");
        }
        assert!(shard["topic"].is_string(), "{shard}");
    }
    let parked = admin.request("GET", "/api/v1/admin/parked").send().await.expect(200).json();
    assert_eq!((&parked["items"], &parked["next_cursor"]), (&json!([]), &json!(null)));
    let retry = format!("/api/v1/admin/parked/{}/retry", Uuid::now_v7());
    admin.request("POST", &retry).send().await.problem(404);
    admin.request("POST", "/api/v1/admin/parked/x/retry").send().await.problem(400);
}

#[tokio::test]
async fn lag_returns_to_zero() {
    let account = api().await.account().await;
    let commands: Vec<_> =
        (0..2_000).map(|_| json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": "lag"})).collect();
    account.batch(&commands).await.expect(200);
    let [_, _, projector] = ops().await;
    until("lag 0", Duration::from_secs(30), || async {
        let ready = projector.get("/readyz").send().await.json();
        (ready["lag"]["events"] == 0).then_some(())
    })
    .await;
}
