use crate::here::api;
use serde_json::{Value, json};
use system_tests::client::Account;

const TASKS: &str = "/api/v1/tasks";

fn encoded(q: &str) -> String {
    q.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn titles(account: &Account, query: &str) -> Vec<String> {
    let items = account.walk(&format!("{TASKS}?{query}")).await;
    items.iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

async fn found(account: &Account, q: &str) -> String {
    titles(account, &format!("q={}&sort=created_at", encoded(q))).await.join("|")
}

async fn create(account: &Account, titles: &[&str]) {
    for title in titles {
        account.create(json!({"title": title})).await;
    }
}

#[tokio::test]
async fn what_was_not_found_before_is() {
    let account = api().await.account().await;
    create(
        &account,
        &[
            "Οδός",
            "Straße",
            "会議の準備をする",
            "Gesamt\u{ad}konzept",
            "Start 🚀",
            "ハン",
            "メロンパン",
            "Łódź",
            "İzmir",
        ],
    )
    .await;
    for (q, expected) in [
        ("ΟΔΟΣ", "Οδός"),
        ("STRASSE", "Straße"),
        ("準備", "会議の準備をする"),
        ("gesamtkonzept", "Gesamt\u{ad}konzept"),
        ("🚀", "Start 🚀"),
        ("パン", "メロンパン"),
        ("ﾊﾟﾝ", "メロンパン"),
        ("lodz", "Łódź"),
        ("izmir", "İzmir"),
    ] {
        assert_eq!(found(&account, q).await, expected, "{q}");
    }
}

#[tokio::test]
async fn terms_phrases_and_exclusions() {
    let account = api().await.account().await;
    for (title, tags, description) in [
        ("Plan the trip", json!(["home"]), Some("two words and more")),
        ("Planning", json!(["trip plan"]), Some("words two")),
        ("Trip, the plan", json!([]), None),
        ("東京2020年の会議", json!(["準備"]), Some("see www.example.com and don't stop")),
        ("👍🏽 approved", json!([]), Some("C++ by O’Reilly")),
    ] {
        account.create(json!({"title": title, "tags": tags, "description": description})).await;
    }
    let (plan, planning, trip, tokyo, thumb) =
        ("Plan the trip", "Planning", "Trip, the plan", "東京2020年の会議", "👍🏽 approved");
    let all = [plan, planning, trip, tokyo, thumb];
    for (q, expected) in [
        // all terms, in any of the texts
        ("plan trip", vec![plan, planning, trip]),
        ("home words", vec![plan]),
        ("home nothing", vec![]),
        // the last term is a prefix, unless quoted or followed by a space
        ("planni", vec![planning]),
        ("plan ", vec![plan, planning, trip]),
        ("the pla", vec![plan, trip]),
        ("\"planni\"", vec![]),
        ("pla trip", vec![]),
        // phrases, of one field
        ("\"two words\"", vec![plan]),
        ("\"trip plan\"", vec![planning]),
        ("\"the trip", vec![plan]),
        ("\"the trip two\"", vec![]),
        // exclusions are whole words
        ("trip -home", vec![planning, trip]),
        ("trip -pla", vec![plan, planning, trip]),
        ("words -\"two words\"", vec![planning]),
        ("-trip", vec![tokyo, thumb]),
        ("trip -", vec![plan, planning, trip]),
        ("trip-home", vec![plan]),
        // runs wherever they stand, cut where the script changes
        ("会議", vec![tokyo]),
        ("京20", vec![tokyo]),
        ("東京2020", vec![tokyo]),
        ("東京20", vec![tokyo]),
        ("2020年の", vec![tokyo]),
        ("東京会議", vec![]),
        ("備", vec![tokyo]),
        // parts of words
        ("example ", vec![tokyo]),
        ("www.exam", vec![tokyo]),
        ("don’t", vec![tokyo]),
        ("o'reilly ", vec![thumb]),
        // symbols and emoji
        ("c++", vec![thumb]),
        ("👍", vec![thumb]),
        ("👍🏿", vec![]),
        // nothing to search for
        (" ", vec![]),
        ("-", vec![]),
        ("?!…", vec![]),
        ("", all.to_vec()),
    ] {
        assert_eq!(found(&account, q).await, expected.join("|"), "{q}");
        for sort in ["relevance", "-due_at", "priority", "updated_at"] {
            if !q.is_empty() {
                let mut found = titles(&account, &format!("q={}&sort={sort}&limit=1", encoded(q))).await;
                found.sort_by_key(|title| all.iter().position(|of| of == title));
                assert_eq!(found, expected, "{q} by {sort}");
            }
        }
    }
}

#[tokio::test]
async fn texts_that_change_are_found_by_what_they_are_now() {
    let account = api().await.account().await;
    let task = account.create(json!({"title": "before", "description": "old", "tags": ["red"]})).await;
    account.patch(task, json!({"title": "after"})).await.expect(200);
    account.patch(task, json!({"tags": ["blue"]})).await.expect(200);
    for (q, expected) in [("before", ""), ("after", "after"), ("old", "after"), ("red", ""), ("blue", "after")] {
        assert_eq!(found(&account, q).await, expected, "{q}");
    }
    account.patch(task, json!({"description": null})).await.expect(200);
    assert_eq!(found(&account, "old").await, "");
    account.delete(task).await.expect(204);
    for q in ["after", "blue", "-nothing"] {
        assert_eq!(found(&account, q).await, "", "{q}");
    }
}

#[tokio::test]
async fn the_weakest_term_s_best_place_is_the_relevance() {
    let account = api().await.account().await;
    let task = |n: u32, title: &str, tag: &str, description: &str, day: u32| {
        json!({"type": "CreateTask", "task_id": format!("00000000-0000-7000-8000-00000000000{n}"), "title": title,
            "tags": [tag], "description": description, "occurred_at": format!("2022-01-0{day}T00:00:00Z")})
    };
    let tasks = [
        task(1, "a", "x", "plans", 1),
        task(2, "b", "x", "plan", 1),
        task(3, "c", "planned", "x", 1),
        task(4, "d", "plan", "x", 1),
        task(5, "planning", "x", "x", 1),
        task(6, "plan", "x", "x", 1),
        task(7, "plan new", "x", "x", 2),
        task(8, "plan as old", "x", "x", 1),
        task(9, "nothing", "x", "x", 3),
    ];
    account.batch(&tasks).await.expect(200);
    let by_relevance = |q: &str| format!("q={}&sort=relevance", encoded(q));
    for limit in ["", "&limit=1", "&limit=3"] {
        let found = titles(&account, &(by_relevance("plan") + limit)).await;
        assert_eq!(found, ["plan new", "plan", "plan as old", "planning", "d", "c", "b", "a"]);
    }
    for query in ["sort=relevance", "q=&sort=relevance", "q=plan&sort=-relevance"] {
        account.read(&format!("{TASKS}?{query}")).await.problem(400);
    }
}

#[tokio::test]
async fn matches_are_ranges_of_code_points() {
    let account = api().await.account().await;
    account
        .create(json!({"title": "Cafe\u{301} 🚀 plan", "description": "Planning: 会議の準備を準備する", "tags": ["tagged"]}))
        .await;
    for (q, expected) in [
        ("cafe ", json!([{"field": "title", "from": 0, "to": 5}])),
        ("🚀", json!([{"field": "title", "from": 6, "to": 7}])),
        ("plan", json!([{"field": "title", "from": 8, "to": 12}, {"field": "description", "from": 0, "to": 8}])),
        (
            "準備",
            json!([{"field": "description", "from": 13, "to": 15}, {"field": "description", "from": 16, "to": 18}]),
        ),
        ("\"🚀 plan\"", json!([{"field": "title", "from": 6, "to": 7}, {"field": "title", "from": 8, "to": 12}])),
        ("tagged", json!([])),
        ("-other", json!([])),
    ] {
        let page = account.read(&format!("{TASKS}?q={}", encoded(q))).await.expect(200).json();
        assert_eq!(page["items"][0]["matches"], expected, "{q}");
    }
    account.create(json!({"title": "many", "description": "a ".repeat(30)})).await;
    let page = account.read(&format!("{TASKS}?q=many+a")).await.expect(200).json();
    assert_eq!(page["items"][0]["matches"].as_array().map(Vec::len), Some(20));
    let page = account.read(TASKS).await.expect(200).json();
    assert_eq!(page["items"][0].get("matches"), None::<&Value>, "without q");
}

#[tokio::test]
async fn q_has_limits() {
    let account = api().await.account().await;
    for (q, status) in [
        ("a ".repeat(16), 200),
        ("a ".repeat(17), 400),
        ("é".repeat(200), 200),
        ("é".repeat(201), 400),
        (format!("\"{}\"", "a ".repeat(90)), 200),
    ] {
        account.read(&format!("{TASKS}?q={}", encoded(&q))).await.expect(status);
    }
}

/// A cursor of one `q` is good for no other.
#[tokio::test]
async fn a_cursor_is_bound_to_q() {
    let account = api().await.account().await;
    create(&account, &["plan one", "plan two"]).await;
    let page = account.read(&format!("{TASKS}?q=plan&limit=1&sort=relevance")).await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = |q: &str| format!("{TASKS}?q={q}&limit=1&sort=relevance&cursor={cursor}");
    assert_eq!(account.read(&next("plan")).await.expect(200).json()["items"][0]["title"], "plan one");
    account.read(&next("two")).await.problem(400);
}

#[tokio::test]
async fn suggestions() {
    let account = api().await.account().await;
    for (title, tags) in [
        ("Quarterly report", json!(["reports", "work"])),
        ("Report the leak", json!(["reports", "report card"])),
        ("Kitchens", json!(["home"])),
        ("東京2020年の会議", json!([])),
    ] {
        account.create(json!({"title": title, "tags": tags})).await;
    }
    let suggest = async |query: &str| account.read(&format!("{TASKS}/suggest?{query}")).await.expect(200).json();
    let titles = |found: &Value| {
        let tasks = found["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["title"].as_str().unwrap()).collect::<Vec<_>>().join("|")
    };

    let found = suggest("q=report").await;
    assert_eq!(titles(&found), "Report the leak|Quarterly report");
    assert_eq!(found["tasks"][0]["status"], "pending");
    assert_eq!(found["tasks"][0]["matches"], json!([{"field": "title", "from": 0, "to": 6}]));
    assert_eq!(found["tags"], json!([{"tag": "reports", "count": 2}, {"tag": "report card", "count": 1}]));
    assert!(found["revision"].as_u64().unwrap() > 0);
    let one = suggest("q=report&limit=1").await;
    assert_eq!((titles(&one).as_str(), one["tags"].as_array().unwrap().len()), ("Report the leak", 1));
    // the weakest term decides, and ties are by age
    assert_eq!(titles(&suggest("q=leak%20report").await), "Report the leak");
    assert_eq!(titles(&suggest(&format!("q={}", encoded("会議"))).await), "東京2020年の会議");

    // one mistake, in a long term that no task has
    for (q, expected) in [
        ("reprot ", "Report the leak|Quarterly report"),
        ("quartrly", "Quarterly report"),
        ("quartterly", "Quarterly report"),
        ("quarterly rexort", "Quarterly report"),
        ("kitcehn", "Kitchens"),
        // two mistakes; a word that begins like this; a short one
        ("qartrly", ""),
        ("kitchen ", ""),
        ("laek", ""),
    ] {
        assert_eq!(titles(&suggest(&format!("q={}", encoded(q))).await), expected, "{q}");
    }
    let found = suggest("q=reprot").await;
    assert_eq!(found["tasks"][0]["matches"], json!([{"field": "title", "from": 0, "to": 6}]));
    assert_eq!(found["tags"], json!([]), "in tasks only");

    for nothing in [" ", "-", "?!", "nowhere"] {
        let found = suggest(&format!("q={}", encoded(nothing))).await;
        assert_eq!((&found["tasks"], &found["tags"]), (&json!([]), &json!([])), "{nothing}");
    }
    let (long, many) = (format!("q={}", "a".repeat(201)), format!("q={}", "a+".repeat(17)));
    for bad in ["", "q=", "limit=1", "q=a&limit=0", "q=a&limit=21", "q=a&sort=relevance", "q=a&q=b", &long, &many] {
        account.read(&format!("{TASKS}/suggest?{bad}")).await.problem(400);
    }
    let answer = account.read(&format!("{TASKS}/suggest?q=report")).await.expect(200);
    let etag = answer.must("ETag");
    assert!(etag.starts_with("W/"), "{etag}");
    account.request("GET", &format!("{TASKS}/suggest?q=report")).header("If-None-Match", etag).send().await.expect(304);
    let nobody = account.api.account().await;
    assert_eq!(nobody.read(&format!("{TASKS}/suggest?q=report")).await.expect(200).json()["tasks"], json!([]));
}
