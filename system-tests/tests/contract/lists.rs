use crate::here::api;
use serde_json::{Value, json};
use system_tests::client::Account;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

async fn titles(account: &Account, query: &str) -> Vec<String> {
    let items = account.walk(&format!("{TASKS}?{query}")).await;
    items.iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

const RANKS: [Option<&str>; 6] = [Some("b"), Some("a1"), None, Some("Z"), None, None];

/// Six tasks whose sort keys have ties and gaps.
async fn some(account: &Account) {
    let task = |n: u32, title: &str, priority: &str, due: Value, tags: Value| {
        json!({"type": "CreateTask", "task_id": format!("00000000-0000-7000-8000-00000000000{n}"),
            "occurred_at": format!("2022-01-0{}T00:00:00Z", n.div_ceil(2)), "title": title, "priority": priority,
            "due_at": due, "tags": tags, "rank": RANKS[n as usize - 1]})
    };
    let act = |n: u32, kind: &str| {
        json!({"type": kind, "task_id": format!("00000000-0000-7000-8000-00000000000{n}"),
        "occurred_at": "2022-02-01T00:00:00Z"})
    };
    let body = account
        .batch(&[
            task(1, "one", "low", json!("2022-03-01T00:00:00Z"), json!(["red"])),
            task(2, "two", "urgent", json!("2022-03-01T00:00:00Z"), json!(["red", "blue"])),
            task(3, "three", "high", json!(null), json!(["blue"])),
            task(4, "four", "high", json!("2022-03-02T00:00:00Z"), json!([])),
            task(5, "five", "medium", json!(null), json!(["green"])),
            task(6, "six", "low", json!("2022-02-28T00:00:00Z"), json!(["red"])),
            act(1, "StartTask"),
            act(2, "CompleteTask"),
            act(3, "CancelTask"),
        ])
        .await
        .expect(200)
        .json();
    assert_eq!(body["failed"], 0, "{body}");
}

#[tokio::test]
async fn sorts() {
    let account = api().await.account().await;
    some(&account).await;
    for (sort, expected) in [
        ("", "six five four three two one"),
        ("sort=-created_at", "six five four three two one"),
        ("sort=created_at", "one two three four five six"),
        ("sort=due_at", "six one two four three five"),
        ("sort=-due_at", "four two one six five three"),
        ("sort=priority", "one six five three four two"),
        ("sort=-priority", "two four three five six one"),
        ("sort=updated_at", "four five six one two three"),
        ("sort=-updated_at", "three two one six five four"),
        ("sort=title", "five four one six three two"),
        ("sort=-title", "two three six one four five"),
        ("sort=rank", "four two one three five six"),
        ("sort=-rank", "one two four six five three"),
    ] {
        assert_eq!(titles(&account, sort).await.join(" "), expected, "{sort}");
        for limit in 1..=3 {
            let query = format!("{sort}&limit={limit}").trim_start_matches('&').to_owned();
            assert_eq!(titles(&account, &query).await.join(" "), expected, "{query}");
        }
    }
}

#[tokio::test]
async fn filters() {
    let account = api().await.account().await;
    some(&account).await;
    for (filter, expected) in [
        ("status=pending", "four five six"),
        ("status=in_progress,completed", "one two"),
        ("priority=high", "three four"),
        ("priority=low,urgent", "one two six"),
        ("tag=red", "one two six"),
        ("tag=red,green", "one two five six"),
        ("tag=RED", "one two six"),
        ("tag=red&status=pending&priority=low", "six"),
        ("due_after=2022-03-01T00:00:00Z", "one two four"),
        ("due_before=2022-03-01T00:00:00Z", "six"),
        ("due_after=2022-03-01T00:00:00Z&due_before=2022-03-01T00:00:01Z", "one two"),
        ("tag=none", ""),
        ("overdue=true", "one four six"),
        ("overdue=true&status=in_progress,completed", "one"),
        ("overdue=true&due_after=2022-03-01T00:00:00Z&priority=high", "four"),
        ("overdue=true&status=completed", ""),
    ] {
        let query = format!("{filter}&sort=created_at");
        assert_eq!(titles(&account, &query).await.join(" "), expected, "{filter}");
        assert_eq!(titles(&account, &format!("{query}&limit=1")).await.join(" "), expected, "{filter}");
    }
}

#[tokio::test]
async fn search() {
    let account = api().await.account().await;
    for (title, description) in [
        ("Café crème", "für Zoë"),
        ("Broken pump", "the Pump in hall 7 leaks oil"),
        ("Pumpkin soup", "for the autumn party"),
        ("100% done", "a_b under_score"),
    ] {
        account.create(json!({"title": title, "description": description})).await;
    }
    for (q, expected) in [
        ("cafe", "Café crème"),
        ("CAFÉ creme", "Café crème"),
        ("zoe caf", "Café crème"),
        ("pump", "Broken pump, Pumpkin soup"),
        ("pump hall", "Broken pump"),
        // only the last word is a prefix
        ("pum hall", ""),
        ("hall pum", "Broken pump"),
        ("pump leaks oil hall", "Broken pump"),
        ("soup pump", "Pumpkin soup"),
        ("nothing", ""),
        ("' | ! & ( :*", "100% done, Broken pump, Café crème, Pumpkin soup"),
    ] {
        let encoded: String = q.bytes().map(|b| format!("%{b:02X}")).collect();
        let mut found = titles(&account, &format!("q={encoded}")).await;
        found.sort();
        if q.starts_with('\'') {
            // signs alone are no words: everything or nothing, but never an error
            assert!(found.is_empty() || found.join(", ") == expected, "{q}: {found:?}");
        } else {
            assert_eq!(found.join(", "), expected, "{q}");
        }
    }
}

#[tokio::test]
async fn pages() {
    let account = api().await.account().await;
    let commands: Vec<Value> =
        (0..60).map(|n| json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": format!("t{n}")})).collect();
    account.batch(&commands).await.expect(200);
    let first = account.read(TASKS).await.expect(200);
    let page = first.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 50, "50 by default");
    assert!(page["revision"].as_u64().unwrap() > 0);
    let cursor = page["next_cursor"].as_str().unwrap();
    let link = first.must("Link");
    assert!(link.starts_with("</api/v1/tasks?") && link.ends_with(">; rel=\"next\""), "{link}");
    let next = &link[1..link.find('>').unwrap()];
    let last = account.read(next).await.expect(200);
    assert_eq!(last.json()["items"].as_array().unwrap().len(), 10);
    assert_eq!(last.json()["next_cursor"], json!(null));
    assert_eq!(last.header("Link"), None);
    assert_eq!(account.read(&format!("{TASKS}?limit=200")).await.json()["items"].as_array().unwrap().len(), 60);

    // a cursor is bound to its owner, filters and sort
    let stranger = account.api.account().await;
    stranger.read(&format!("{TASKS}?cursor={cursor}")).await.problem(400);
    account.read(&format!("{TASKS}?cursor={cursor}&sort=due_at")).await.problem(400);
    account.read(&format!("{TASKS}?cursor={cursor}&status=pending")).await.problem(400);
    // not to the size of a page
    account.read(&format!("{TASKS}?cursor={cursor}&limit=7")).await.expect(200);
    let mut forged = cursor.as_bytes().to_vec();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    account.read(&format!("{TASKS}?cursor={}", String::from_utf8(forged).unwrap())).await.problem(400);
}

#[tokio::test]
async fn facets() {
    let account = api().await.account().await;
    some(&account).await;
    let facets = async |query: &str| account.read(&format!("{TASKS}/facets?{query}")).await.expect(200).json();
    let tag = |tag: &str, count: u32| json!({"tag": tag, "count": count});
    let all = facets("").await;
    assert_eq!(all["total"], 6);
    assert_eq!(all["by_status"], json!({"pending": 3, "in_progress": 1, "completed": 1, "cancelled": 1}));
    assert_eq!(all["by_priority"], json!({"low": 2, "medium": 1, "high": 2, "urgent": 1}));
    assert_eq!(all["by_tag"], json!([tag("red", 3), tag("blue", 2), tag("green", 1)]));
    assert_eq!(all["by_due"], json!({"overdue": 3, "next_24_hours": 0, "later": 0, "none": 1}));
    assert!(all["revision"].as_u64().unwrap() > 0);
    // each under all filters but its own
    let some = facets("status=pending&priority=low,medium&tag=red&overdue=true").await;
    assert_eq!(some["total"], 1);
    assert_eq!(some["by_status"], json!({"pending": 1, "in_progress": 1, "completed": 0, "cancelled": 0}));
    assert_eq!(some["by_priority"], json!({"low": 1, "medium": 0, "high": 0, "urgent": 0}));
    assert_eq!(some["by_tag"], json!([tag("red", 1)]));
    assert_eq!(some["by_due"], json!({"overdue": 1, "next_24_hours": 0, "later": 0, "none": 0}));
    let found = facets("q=three").await;
    assert_eq!((&found["total"], &found["by_tag"]), (&json!(1), &json!([tag("blue", 1)])));
    let soon = chrono::Utc::now() + chrono::Duration::hours(23);
    account.create(json!({"title": "soon", "due_at": soon.to_rfc3339()})).await;
    account.create(json!({"title": "later", "due_at": (soon + chrono::Duration::hours(2)).to_rfc3339()})).await;
    let by_due = facets("q=soon").await["by_due"].clone();
    assert_eq!(by_due, json!({"overdue": 0, "next_24_hours": 1, "later": 0, "none": 0}));
    assert_eq!(facets("").await["by_due"], json!({"overdue": 3, "next_24_hours": 1, "later": 1, "none": 1}));

    let answer = account.read(&format!("{TASKS}/facets")).await.expect(200);
    let etag = answer.must("ETag");
    assert!(etag.starts_with("W/"), "{etag}");
    account.request("GET", &format!("{TASKS}/facets")).header("If-None-Match", etag).send().await.expect(304);
    for bad in ["limit=1", "sort=due_at", "cursor=x", "overdue=no", "status=none"] {
        account.read(&format!("{TASKS}/facets?{bad}")).await.problem(400);
    }
    let post = account.request("POST", &format!("{TASKS}/facets")).send().await;
    assert_eq!((post.status, post.must("Allow")), (405, "GET,HEAD"));
    let nobody = account.api.account().await;
    assert_eq!(nobody.read(&format!("{TASKS}/facets")).await.expect(200).json()["total"], 0);
}
