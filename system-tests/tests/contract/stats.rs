use crate::here::api;
use chrono::{Duration, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

const STATS: &str = "/api/v1/stats";

#[tokio::test]
async fn of_nothing() {
    let account = api().await.account().await;
    let stats = account.read(STATS).await.expect(200).json();
    assert_eq!(stats["by_status"], json!({"pending": 0, "in_progress": 0, "completed": 0, "cancelled": 0}));
    assert_eq!(stats["by_priority"], json!({"low": 0, "medium": 0, "high": 0, "urgent": 0}));
    assert_eq!(stats["overdue"], 0);
    assert_eq!(stats["completion_time_seconds"], json!({"p50": null, "p90": null, "p99": null}));
    for list in ["created_per_day", "completed_per_day"] {
        let days = stats[list].as_array().unwrap();
        assert_eq!(days.len(), 30);
        assert!(days.iter().all(|day| day["count"] == 0));
        let today = Utc::now().date_naive();
        let last = days[29]["date"].as_str().unwrap();
        assert!(last == today.to_string() || last == (today - Duration::days(1)).to_string());
    }
}

#[tokio::test]
async fn of_some() {
    let account = api().await.account().await;
    let mut commands = Vec::new();
    let mut add = |id: Uuid, kind: &str, at: &str, more: Value| {
        let mut command = json!({"type": kind, "task_id": id, "occurred_at": at});
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        commands.push(command);
    };
    // ten completed after 1 … 10 hours, created on the 1st; one of them on the next day in UTC
    for hours in 1..=10 {
        let id = Uuid::now_v7();
        add(id, "CreateTask", "2021-03-01T14:30:00Z", json!({"title": "t", "priority": "low"}));
        let done = format!("2021-03-{:02}T{:02}:30:00Z", 1 + (14 + hours) / 24, (14 + hours) % 24);
        add(id, "CompleteTask", &done, json!({}));
    }
    // a completion that does not stand, a cancelled and a deleted task
    let reopened = Uuid::now_v7();
    add(reopened, "CreateTask", "2021-03-02T00:00:00Z", json!({"title": "t", "due_at": "2021-03-03T00:00:00Z"}));
    add(reopened, "CompleteTask", "2021-03-02T01:00:00Z", json!({}));
    add(reopened, "ReopenTask", "2021-03-02T02:00:00Z", json!({}));
    let cancelled = Uuid::now_v7();
    add(cancelled, "CreateTask", "2021-03-02T00:00:00Z", json!({"title": "t", "due_at": "2021-03-03T00:00:00Z"}));
    add(cancelled, "CancelTask", "2021-03-04T00:00:00Z", json!({}));
    let deleted = Uuid::now_v7();
    add(deleted, "CreateTask", "2021-03-02T00:00:00Z", json!({"title": "t"}));
    add(deleted, "CompleteTask", "2021-03-02T00:00:00Z", json!({}));
    add(deleted, "DeleteTask", "2021-03-02T00:00:00Z", json!({}));
    let later = Uuid::now_v7();
    add(
        later,
        "CreateTask",
        "2021-03-03T00:00:00Z",
        json!({"title": "t", "due_at": "2999-01-01T00:00:00Z", "priority": "urgent"}),
    );
    add(later, "StartTask", "2021-03-03T00:00:00Z", json!({}));
    let body = account.batch(&commands).await.expect(200).json();
    assert_eq!(body["failed"], 0, "{body}");

    let stats = account.read(&format!("{STATS}?from=2021-02-28&to=2021-03-03")).await.expect(200).json();
    assert_eq!(stats["by_status"], json!({"pending": 1, "in_progress": 1, "completed": 10, "cancelled": 1}));
    assert_eq!(stats["by_priority"], json!({"low": 10, "medium": 2, "high": 0, "urgent": 1}));
    assert_eq!(stats["overdue"], 1);
    let day = |date: &str, count: u32| json!({"date": date, "count": count});
    assert_eq!(
        stats["created_per_day"],
        json!([day("2021-02-28", 0), day("2021-03-01", 10), day("2021-03-02", 2), day("2021-03-03", 1)])
    );
    assert_eq!(
        stats["completed_per_day"],
        json!([day("2021-02-28", 0), day("2021-03-01", 9), day("2021-03-02", 1), day("2021-03-03", 0)])
    );
    // nearest rank
    let seconds = |hours: f64| json!(hours * 3_600.0);
    let times = &stats["completion_time_seconds"];
    for (rank, hours) in [("p50", 5.0), ("p90", 9.0), ("p99", 10.0)] {
        assert_eq!(times[rank].as_f64(), seconds(hours).as_f64(), "{rank}: {times}");
    }
    // 366 days are allowed, both ends included
    let year = account.read(&format!("{STATS}?from=2020-01-01&to=2020-12-31")).await.expect(200).json();
    assert_eq!(year["created_per_day"].as_array().unwrap().len(), 366);
    account.read(&format!("{STATS}?from=2020-01-01&to=2021-01-01")).await.problem(400);
}

#[tokio::test]
async fn overdue_comes_with_the_clock() {
    let account = api().await.account().await;
    let due = (Utc::now() + Duration::seconds(2)).to_rfc3339();
    account.create(json!({"title": "soon", "due_at": due})).await;
    let before = account.read(STATS).await.expect(200);
    let etag = before.must("ETag").to_owned();
    assert_eq!(before.json()["overdue"], 0);
    // no event happens, and still the answer and its ETag change
    let after = system_tests::wait::until("overdue", std::time::Duration::from_secs(10), || async {
        let answer = account.request("GET", STATS).header("If-None-Match", &etag).send().await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(after.json()["overdue"], 1);
    assert_ne!(after.must("ETag"), etag);
}

#[tokio::test]
async fn days_of_a_time_zone() {
    let account = api().await.account().await;
    let mut commands = Vec::new();
    // either side of Samoa's leap over the 30th, and of midnight in Berlin before and after its clocks change
    for at in [
        "2011-12-30T09:59:59.999999Z",
        "2011-12-30T10:00:00Z",
        "2021-03-27T22:59:59Z",
        "2021-03-27T23:00:00Z",
        "2021-03-28T21:59:59Z",
        "2021-03-28T22:00:00Z",
    ] {
        let id = Uuid::now_v7();
        commands.push(json!({"type": "CreateTask", "task_id": id, "occurred_at": at, "title": "t"}));
        commands.push(json!({"type": "CompleteTask", "task_id": id, "occurred_at": at}));
    }
    assert_eq!(account.batch(&commands).await.expect(200).json()["failed"], 0);
    let day = |date: &str, count: u32| json!({"date": date, "count": count});
    for (query, days) in [
        (
            "time_zone=Pacific/Apia&from=2011-12-29&to=2011-12-31",
            [day("2011-12-29", 1), day("2011-12-30", 0), day("2011-12-31", 1)],
        ),
        (
            "time_zone=Europe%2FBerlin&from=2021-03-27&to=2021-03-29",
            [day("2021-03-27", 1), day("2021-03-28", 2), day("2021-03-29", 1)],
        ),
        ("from=2021-03-27&to=2021-03-29", [day("2021-03-27", 2), day("2021-03-28", 2), day("2021-03-29", 0)]),
        (
            "time_zone=UTC&from=2021-03-27&to=2021-03-29",
            [day("2021-03-27", 2), day("2021-03-28", 2), day("2021-03-29", 0)],
        ),
    ] {
        let stats = account.read(&format!("{STATS}?{query}")).await.expect(200).json();
        for list in ["created_per_day", "completed_per_day"] {
            assert_eq!(stats[list], json!(days), "{query}");
        }
    }
    // Somewhere it is another day always.
    let last = async |zone: &str| {
        let stats = account.read(&format!("{STATS}?time_zone={zone}")).await.expect(200).json();
        let days = stats["created_per_day"].as_array().unwrap().clone();
        assert_eq!(days.len(), 30);
        days[29]["date"].as_str().unwrap().to_owned()
    };
    assert!(last("Pacific/Kiritimati").await > last("Pacific/Niue").await);
    for bad in ["time_zone=Mars/Olympus", "time_zone=", "time_zone=UTC&from=2021-03-29&to=2021-03-27"] {
        account.read(&format!("{STATS}?{bad}")).await.problem(400);
    }
}
