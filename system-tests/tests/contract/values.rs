use crate::here::api;
use serde_json::{Value, json};

/// Field, value, status of a create with it, and the pointer that a refusal names.
fn table() -> Vec<(&'static str, Value, u16)> {
    vec![
        ("title", json!("x"), 201),
        ("title", json!("x".repeat(200)), 201),
        ("title", json!("é".repeat(200)), 201),
        ("title", json!("😀".repeat(200)), 201),
        ("title", json!(format!("  {}  ", "x".repeat(200))), 201),
        ("title", json!("x".repeat(201)), 422),
        ("title", json!(""), 422),
        ("title", json!("   "), 422),
        ("title", json!("\u{200b}\u{2060}"), 422),
        ("title", json!("line\nbreak"), 422),
        ("title", json!("bell\u{7}"), 422),
        ("title", json!("nul\u{0}"), 422),
        ("title", json!(null), 422),
        ("title", json!(7), 400),
        ("title", json!(["a"]), 400),
        ("description", json!(null), 201),
        ("description", json!("lines\nand\ttabs"), 201),
        ("description", json!("x".repeat(10_000)), 201),
        ("description", json!("x".repeat(10_001)), 422),
        ("description", json!("nul\u{0}"), 422),
        ("description", json!({}), 400),
        ("priority", json!("low"), 201),
        ("priority", json!("urgent"), 201),
        ("priority", json!(null), 201),
        ("priority", json!("highest"), 422),
        ("priority", json!(1), 400),
        ("due_at", json!(null), 201),
        ("due_at", json!("2026-02-28T23:59:59.123456+05:30"), 201),
        ("due_at", json!("2024-02-29T00:00:00Z"), 201),
        ("due_at", json!("2026-02-29T00:00:00Z"), 422),
        ("due_at", json!("2026-13-01T00:00:00Z"), 422),
        ("due_at", json!("2026-01-01"), 422),
        ("due_at", json!("tomorrow"), 422),
        ("due_at", json!(1_700_000_000), 400),
        ("tags", json!(null), 201),
        ("tags", json!([]), 201),
        ("tags", json!(["x".repeat(50)]), 201),
        ("tags", json!(["x".repeat(51)]), 422),
        ("tags", json!([""]), 422),
        ("tags", json!(["  "]), 422),
        ("tags", json!(["a,b"]), 422),
        ("tags", json!(["a\u{0}b"]), 422),
        ("tags", json!([null]), 422),
        ("tags", json!("a"), 400),
        ("tags", json!([1]), 400),
        ("id", json!(null), 201),
        ("id", json!("not-a-uuid"), 422),
        ("id", json!(5), 400),
        ("titel", json!("unknown"), 400),
    ]
}

#[tokio::test]
async fn creates() {
    let account = api().await.account().await;
    for (field, value, status) in table() {
        let mut body = json!({"title": "valid"});
        body[field] = value.clone();
        let answer = account.request("POST", "/api/v1/tasks").json(&body).send().await;
        let case = format!("{field}: {}", value.to_string().chars().take(60).collect::<String>());
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        if status != 201 {
            let problem = answer.problem(status);
            if status == 422 {
                let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{case}: {problem}"));
                let named = |e: &Value| e["pointer"].as_str().is_some_and(|p| p.starts_with(&format!("/{field}")));
                assert!(errors.iter().any(named), "{case}: {problem}");
            }
        }
    }
    account.request("POST", "/api/v1/tasks").json(&json!({})).send().await.problem(422);
}

#[tokio::test]
async fn patches() {
    let account = api().await.account().await;
    let id = account.create(json!({"title": "valid"})).await;
    for (field, value, status) in table() {
        // null empties these three, and is no value for the others; an id is not changed
        let status = match (field, &value) {
            ("id", _) => 400,
            ("title" | "priority", Value::Null) => 422,
            _ if status == 201 => 200,
            _ => status,
        };
        let answer = account.patch(id, json!({ field: value })).await;
        let case = format!("{field}: {}", value.to_string().chars().take(60).collect::<String>());
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        if status != 200 {
            answer.problem(status);
        }
    }
    account.patch(id, json!({})).await.expect(200);
    account.patch(id, json!([])).await.problem(400);
    account.patch(id, json!({"status": "completed"})).await.problem(400);
}

#[tokio::test]
async fn strings_come_back_as_sent() {
    let account = api().await.account().await;
    for text in [
        "<script>alert(1)</script>",
        "'; drop table task; --",
        "Ωμέγα ﷽ 田中さんにあげて 👩‍👩‍👧‍👦 e\u{301}",
        "\u{202e}backwards\u{202c}",
        "=1+1",
        "\\u0000 %00 \\0",
        "null",
    ] {
        let id = account.create(json!({"title": text, "description": text, "tags": ["t"]})).await;
        let task = account.task(id).await;
        assert_eq!((&task["title"], &task["description"]), (&json!(text), &json!(text)));
    }
}

#[tokio::test]
async fn times_are_kept_to_the_microsecond() {
    let account = api().await.account().await;
    for (sent, answered) in [
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        ("2030-01-01T00:00:00.5+01:00", "2029-12-31T23:00:00.500Z"),
        ("2030-01-01T00:00:00.123456789Z", "2030-01-01T00:00:00.123456Z"),
    ] {
        let id = account.create(json!({"title": "t", "due_at": sent})).await;
        let due = account.task(id).await["due_at"].as_str().unwrap().to_owned();
        let at = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        assert_eq!(at(&due), at(answered));
        assert!(due.ends_with('Z'));
    }
}
