//! Walking a list while others write: what exists, matches and keeps its sort key throughout comes exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use system_tests::client::Account;
use system_tests::cluster::Cluster;
use system_tests::server::{Config, Server};
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";
const STEADY: usize = 120;
const PRIORITIES: [&str; 4] = ["low", "medium", "high", "urgent"];

/// Tasks that nobody touches: three times of creation, four priorities, two dates and none, so that every sort has ties.
fn steady() -> Vec<Value> {
    (0..STEADY)
        .map(|n| {
            let mut command = json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": format!("steady {n}"),
                "priority": PRIORITIES[n % 4], "tags": ["steady"],
                "occurred_at": format!("2023-01-0{}T00:00:00Z", 1 + n % 3)});
            if n % 3 > 0 {
                command["rank"] = json!(format!("m{}", n % 3));
                command["due_at"] = json!(format!("2030-01-0{}T00:00:00Z", n % 3));
            }
            command
        })
        .collect()
}

/// Creates, moves, completes and deletes other tasks, whose keys lie before, among and behind the steady ones.
async fn churn(account: Arc<Account>, stop: Arc<AtomicBool>) {
    let mut n = 0_usize;
    while !stop.load(Ordering::SeqCst) {
        let ids: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
        let mut commands: Vec<Value> = Vec::new();
        for id in &ids {
            n += 1;
            commands.push(
                json!({"type": "CreateTask", "task_id": id, "title": format!("churn {n}"), "tags": ["steady"],
                "priority": PRIORITIES[n % 4], "due_at": format!("2030-01-0{}T00:00:00Z", 1 + n % 3),
                "occurred_at": format!("2023-01-0{}T{:02}:00:00Z", 1 + n % 3, n % 24)}),
            );
        }
        for id in &ids[..6] {
            commands.push(json!({"type": "ReprioritizeTask", "task_id": id, "priority": "urgent"}));
            commands.push(json!({"type": "ScheduleTask", "task_id": id, "due_at": null}));
        }
        for id in &ids[1..] {
            commands.push(json!({"type": "DeleteTask", "task_id": id}));
        }
        account.batch(&commands).await.expect(200);
        // some ten of these between two pages: enough to move every key, not so much that the walk never ends
        account.read("/api/v1/stats").await.expect(200);
    }
}

#[tokio::test]
async fn every_steady_task_once_while_others_change() {
    let cluster = Cluster::shared();
    let server = Server::start(Config::new(cluster.url(&cluster.create_database().await))).await;
    let account = Arc::new(server.api().account().await);
    let answer = account.batch(&steady()).await.expect(200).json();
    assert_eq!(answer["failed"], 0, "{answer}");
    let stop = Arc::new(AtomicBool::new(false));
    let churn = tokio::spawn(churn(Arc::clone(&account), Arc::clone(&stop)));
    for sort in ["created_at", "due_at", "priority", "updated_at", "title", "rank"]
        .iter()
        .flat_map(|sort| [(*sort).to_owned(), format!("-{sort}")])
    {
        let sort = &sort;
        for filter in ["", "&tag=steady&status=pending", "&q=steady"] {
            let items = account.walk(&format!("{TASKS}?sort={sort}&limit=23{filter}")).await;
            let mut seen: HashMap<&str, u32> = HashMap::new();
            for task in &items {
                *seen.entry(task["title"].as_str().unwrap()).or_default() += 1;
            }
            for n in 0..STEADY {
                let times = seen.get(format!("steady {n}").as_str()).copied().unwrap_or(0);
                assert_eq!(times, 1, "steady {n} with sort={sort}{filter}");
            }
            assert_in_order(sort, &items);
        }
    }
    stop.store(true, Ordering::SeqCst);
    churn.await.expect("churn");
}

/// The steady ones come in the order of the sort, ties by id in its direction.
fn assert_in_order(sort: &str, items: &[Value]) {
    let (field, descending) = match sort.strip_prefix('-') {
        Some(field) => (field, true),
        None => (sort, false),
    };
    let rank = |task: &Value| {
        let key = match field {
            "priority" => {
                ["low", "medium", "high", "urgent"].iter().position(|p| task[field] == **p).unwrap().to_string()
            }
            _ => task[field].as_str().unwrap_or_default().to_owned(),
        };
        (task[field].is_null(), key, task["id"].as_str().unwrap().to_owned())
    };
    let steady: Vec<_> =
        items.iter().filter(|t| t["title"].as_str().unwrap().starts_with("steady")).map(rank).collect();
    for pair in steady.windows(2) {
        let ((null_a, key_a, id_a), (null_b, key_b, id_b)) = (&pair[0], &pair[1]);
        let ordered = match (null_a, null_b) {
            (false, true) => true,
            (true, false) => false,
            _ if descending => (key_a, id_a) > (key_b, id_b),
            _ => (key_a, id_a) < (key_b, id_b),
        };
        assert!(ordered, "{sort}: {:?} before {:?}", pair[0], pair[1]);
    }
}
