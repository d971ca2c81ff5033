use crate::here::api;
use serde_json::{Value, json};
use system_tests::client::Account;
use uuid::Uuid;

const STAGES: [&str; 4] = ["pending", "in_progress", "completed", "cancelled"];

async fn task_at(account: &Account, stage: &str) -> (Uuid, u64) {
    let id = account.create(json!({"title": stage})).await;
    let way: &[&str] = match stage {
        "in_progress" => &["start"],
        "completed" => &["start", "complete"],
        "cancelled" => &["cancel"],
        _ => &[],
    };
    for verb in way {
        account.act(id, verb).await.expect(200);
    }
    (id, 1 + way.len() as u64)
}

#[tokio::test]
async fn every_action_from_every_stage() {
    let account = api().await.account().await;
    for verb in ["start", "complete", "reopen", "cancel"] {
        for stage in STAGES {
            let (id, version) = task_at(&account, stage).await;
            let answer = account.act(id, verb).await;
            let (becomes, from): (&str, &[&str]) = match verb {
                "start" => ("in_progress", &["pending"]),
                "complete" => ("completed", &["pending", "in_progress"]),
                "cancel" => ("cancelled", &["pending", "in_progress"]),
                _ => ("pending", &["completed", "cancelled"]),
            };
            if stage == becomes {
                assert_eq!(answer.expect(200).number("/version"), version, "{verb} from {stage}");
            } else if from.contains(&stage) {
                assert_eq!(answer.expect(200).number("/version"), version + 1, "{verb} from {stage}");
                assert_eq!(account.task(id).await["status"], becomes);
            } else {
                answer.problem(409);
                assert_eq!(account.task(id).await["status"], stage);
            }
        }
    }
}

#[tokio::test]
async fn fields_change_at_every_stage() {
    let account = api().await.account().await;
    for stage in STAGES {
        let (id, version) = task_at(&account, stage).await;
        let patch = json!({"title": "new", "priority": "urgent", "tags": ["x"]});
        assert_eq!(account.patch(id, patch).await.expect(200).number("/version"), version + 3);
        assert_eq!(account.task(id).await["status"], stage);
    }
}

#[tokio::test]
async fn delete_from_every_stage() {
    let account = api().await.account().await;
    for stage in STAGES {
        let (id, _) = task_at(&account, stage).await;
        account.delete(id).await.expect(204);
        account.read(&format!("/api/v1/tasks/{id}")).await.problem(404);
    }
    let left = account.walk("/api/v1/tasks").await;
    assert_eq!(left, Vec::<Value>::new());
}

#[tokio::test]
async fn the_21st_tag_is_a_conflict() {
    let account = api().await.account().await;
    let tags: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let id = account.create(json!({"title": "full", "tags": tags})).await;
    let more: Vec<String> = (0..21).map(|n| format!("t{n}")).collect();
    account.patch(id, json!({"tags": more})).await.problem(409);
    let create = account.request("POST", "/api/v1/tasks").json(&json!({"title": "x", "tags": more}));
    create.send().await.problem(409);
    // equal ones collapse before they are counted
    let twice: Vec<String> = (0..20).flat_map(|n| [format!("T{n}"), format!(" t{n} ")]).collect();
    account.patch(id, json!({"tags": twice})).await.expect(200);
    let answer = account.batch(&[json!({"type": "TagTask", "task_id": id, "tag": "one-more"})]).await;
    assert_eq!(answer.expect(200).json()["results"][0]["status"], 409);
}
