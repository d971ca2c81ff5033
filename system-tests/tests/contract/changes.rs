//! The id of a change, and the rank of a task.

use serde_json::{Value, json};
use system_tests::client::Answer;
use uuid::Uuid;

use crate::here::api;

const TASKS: &str = "/api/v1/tasks";

fn change(answer: &Answer) -> Option<Uuid> {
    answer.header("Change-Id").map(|id| id.parse().expect("a UUID"))
}

#[tokio::test]
async fn each_write_that_made_an_event_names_its_change() {
    let account = api().await.account().await;
    let create = || account.request("POST", TASKS).key("create").json(&json!({"title": "a"}));
    let created = create().send().await.expect(201);
    let id = created.uuid("/id");
    let started = account.act(id, "start").await.expect(200);
    assert!(change(&created).is_some() && change(&started).is_some());
    assert_ne!(change(&created), change(&started));
    assert_eq!(change(&create().send().await.expect(201)), change(&created), "a replay");
    // without an event, or refused
    let again = account.act(id, "start").await.expect(200);
    let refused = account.act(id, "reopen").await;
    refused.problem(409);
    assert_eq!((change(&again), change(&refused)), (None, None));
    let deleted = account.delete(id).await.expect(204);
    assert!(change(&deleted).is_some());
}

#[tokio::test]
async fn a_batch_is_one_change() {
    let account = api().await.account().await;
    let id = Uuid::new_v4();
    let start = |command_id: Uuid| json!({"type": "StartTask", "task_id": id, "command_id": command_id});
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let create = json!({"type": "CreateTask", "task_id": id, "title": "a"});
    let send = async |commands: &[Value], key: &str| {
        let request = account.request("POST", "/api/v1/commands").key(key);
        request.json(&json!({"commands": commands})).send().await.expect(200)
    };
    let first = send(&[create, start(one)], "first").await;
    let of_first = change(&first).expect("a change");
    assert_eq!(first.json()["change_id"], json!(of_first));
    // a replay of the whole, and one of its commands
    let replayed = send(&[json!({"type": "CreateTask", "task_id": id, "title": "a"}), start(one)], "first").await;
    assert_eq!(change(&replayed), Some(of_first));
    assert_eq!(change(&send(&[start(one)], "second").await), Some(of_first));
    // only some commands make events: a change of just those
    let rename = json!({"type": "RenameTask", "task_id": id, "title": "b"});
    let some = send(&[start(one), rename], "third").await;
    assert!(change(&some).is_some_and(|change| change != of_first));
    // none does
    let none = send(&[start(two)], "fourth").await;
    assert_eq!((change(&none), &none.json()["change_id"]), (None, &Value::Null));
}

#[tokio::test]
async fn a_rank_is_set_changed_and_taken_away() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "a", "rank": "Zz9"})).await;
    let rank = async || account.task(id).await["rank"].clone();
    assert_eq!(rank().await, "Zz9");
    account.patch(id, json!({"rank": "a"})).await.expect(200);
    assert_eq!(rank().await, "a");
    account.patch(id, json!({"rank": null})).await.expect(200);
    assert_eq!(rank().await, Value::Null);
    let ranked = json!({"type": "RankTask", "task_id": id, "rank": "m1"});
    account.batch(&[ranked.clone(), ranked]).await.expect(200);
    assert_eq!(rank().await, "m1");
    let history = account.walk(&format!("{TASKS}/{id}/history")).await;
    let ranks: Vec<Value> = history.iter().map(|item| item["changes"]["rank"].clone()).collect();
    assert_eq!(
        ranks,
        [
            json!({"from": null, "to": "Zz9"}),
            json!({"from": "Zz9", "to": "a"}),
            json!({"from": "a", "to": null}),
            json!({"from": null, "to": "m1"}),
        ]
    );
    // digits and letters, not ending in 0, 64 at most
    for bad in ["", "a0", "0", "a-", "\u{e4}", " a", &"a".repeat(65)] {
        account.patch(id, json!({"rank": bad})).await.problem(422);
        account.request("POST", TASKS).json(&json!({"title": "a", "rank": bad})).send().await.problem(422);
    }
    account.patch(id, json!({"rank": "a".repeat(64)})).await.expect(200);
    account.patch(id, json!({"rank": 7})).await.problem(400);
}
