//! Lists as of a time.

use std::cmp::Reverse;
use std::fmt::Write;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};
use system_tests::client::Account;
use uuid::Uuid;

use crate::here::api;

const TASKS: &str = "/api/v1/tasks";
const PRIORITIES: [&str; 4] = ["low", "medium", "high", "urgent"];

fn titles(items: &[Value]) -> String {
    items.iter().map(|task| task["title"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

async fn listed(account: &Account, query: &str) -> String {
    titles(&account.walk(&format!("{TASKS}?{query}")).await)
}

async fn act(account: &Account, commands: &[Value]) {
    let body = account.batch(commands).await.expect(200).json();
    assert_eq!(body["failed"], 0, "{body}");
}

fn command(id: Uuid, kind: &str, time: &str, fields: Value) -> Value {
    let mut command = fields;
    command["type"] = json!(kind);
    command["task_id"] = json!(id);
    command["occurred_at"] = json!(time);
    command
}

#[tokio::test]
async fn a_list_is_as_it_was() {
    let account = api().await.account().await;
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let created = json!({"title": "one", "description": "first text", "tags": ["a"], "due_at": "2020-01-03T00:00:00Z"});
    let reverted = json!({"from": "completed", "to": "in_progress", "started_at": "2020-01-03T00:00:00Z"});
    act(
        &account,
        &[
            command(one, "CreateTask", "2020-01-01T00:00:00Z", created),
            command(two, "CreateTask", "2020-01-02T00:00:00Z", json!({"title": "two", "priority": "high"})),
            command(one, "StartTask", "2020-01-03T00:00:00Z", json!({})),
            command(one, "RenameTask", "2020-01-04T00:00:00Z", json!({"title": "uno"})),
            command(one, "DescribeTask", "2020-01-04T00:00:00Z", json!({"description": "second text"})),
            command(two, "TagTask", "2020-01-05T00:00:00Z", json!({"tag": "b"})),
            command(one, "CompleteTask", "2020-01-06T00:00:00Z", json!({})),
            command(two, "DeleteTask", "2020-01-07T00:00:00Z", json!({})),
            command(two, "RestoreTask", "2020-01-08T00:00:00Z", json!({})),
            command(one, "RevertStage", "2020-01-09T00:00:00Z", reverted),
            command(two, "DeleteTask", "2020-01-10T00:00:00Z", json!({})),
        ],
    )
    .await;
    for (query, expected) in [
        ("as_of=2019-12-31T23:59:59.999999Z", ""),
        ("as_of=2020-01-01T00:00:00Z", "one"),
        ("as_of=2020-01-02T01:00:00%2B01:00", "two one"),
        ("as_of=2020-01-04T00:00:00Z", "two uno"),
        ("as_of=2020-01-06T00:00:00Z&status=completed", "uno"),
        ("as_of=2020-01-05T23:00:00Z&status=completed", ""),
        ("as_of=2020-01-04T00:00:00Z&tag=b", ""),
        ("as_of=2020-01-05T00:00:00Z&tag=b", "two"),
        // deleted since, and at its deletion
        ("as_of=2020-01-06T23:59:59.999999Z", "two uno"),
        ("as_of=2020-01-07T00:00:00Z", "uno"),
        // until it is restored, as it was
        ("as_of=2020-01-07T23:59:59.999999Z", "uno"),
        ("as_of=2020-01-08T00:00:00Z", "two uno"),
        ("as_of=2020-01-08T00:00:00Z&tag=b", "two"),
        ("as_of=2020-01-10T00:00:00Z", "uno"),
        // completed until that was undone
        ("as_of=2020-01-08T23:59:59.999999Z&status=completed", "uno"),
        ("as_of=2020-01-09T00:00:00Z&status=completed", ""),
        ("as_of=2020-01-09T00:00:00Z&status=in_progress", "uno"),
        ("as_of=2020-01-09T00:00:00Z&overdue=true", "uno"),
        // overdue as seen from then: due at the start of the third day
        ("as_of=2020-01-03T00:00:00Z&overdue=true", ""),
        ("as_of=2020-01-03T00:00:00.000001Z&overdue=true", "one"),
        ("as_of=2020-01-06T00:00:00Z&overdue=true", ""),
        // the texts of then
        ("as_of=2020-01-03T00:00:00Z&q=first", "one"),
        ("as_of=2020-01-03T00:00:00Z&q=second", ""),
        ("as_of=2020-01-04T00:00:00Z&q=second", "uno"),
        ("as_of=2020-01-06T00:00:00Z&sort=updated_at", "two uno"),
        ("as_of=2020-01-06T00:00:00Z&sort=-priority", "two uno"),
    ] {
        assert_eq!(listed(&account, query).await, expected, "{query}");
        assert_eq!(listed(&account, &format!("{query}&limit=1")).await, expected, "{query}, in pages");
        if !query.contains("sort=") {
            let facets = account.read(&format!("{TASKS}/facets?{query}")).await.expect(200).json();
            assert_eq!(facets["total"], expected.split_whitespace().count(), "{query}");
        }
    }
    // a task that is gone, as it was
    let two = format!("{TASKS}/{two}");
    account.read(&two).await.problem(404);
    assert_eq!(
        account.read(&format!("{two}?as_of=2020-01-06T00:00:00Z")).await.expect(200).json()["tags"],
        json!(["b"])
    );
    for (time, status) in [("07T00:00:00Z", 404), ("07T23:59:59.999999Z", 404), ("08T00:00:00Z", 200)] {
        account.read(&format!("{two}?as_of=2020-01-{time}")).await.expect(status);
    }
}

#[tokio::test]
async fn a_cursor_is_bound_to_its_time_and_a_past_list_to_no_clock() {
    let account = api().await.account().await;
    let tasks: Vec<Value> = (1..=3)
        .map(|n| command(Uuid::from_u128(n), "CreateTask", "2020-01-01T00:00:00Z", json!({"title": format!("{n}")})))
        .collect();
    act(&account, &tasks).await;
    let path = format!("{TASKS}?as_of=2020-01-02T00:00:00Z&overdue=true");
    let first = account.read(&path).await.expect(200);
    let again = account.read(&path).await.expect(200);
    assert_eq!(first.must("ETag"), again.must("ETag"));
    account.request("GET", &path).header("If-None-Match", first.must("ETag")).send().await.expect(304);

    let path = format!("{TASKS}?limit=2&as_of=2020-01-02T00:00:00Z");
    let page = account.read(&path).await.expect(200);
    assert!(
        page.must("Link").contains("as_of=2020-01-02T00%3A00%3A00Z")
            || page.must("Link").contains("as_of=2020-01-02T00:00:00Z")
    );
    let cursor = page.string("/next_cursor");
    account.read(&format!("{path}&cursor={cursor}")).await.expect(200);
    for other in ["limit=2", "limit=2&as_of=2020-01-03T00:00:00Z"] {
        let problem = account.read(&format!("{TASKS}?{other}&cursor={cursor}")).await.problem(400);
        assert_eq!(problem["code"], "invalid-cursor", "{other}");
    }
    let ahead = |seconds| (Utc::now() + Duration::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Secs, true);
    assert_eq!(listed(&account, &format!("as_of={}", ahead(30))).await, "3 2 1");
    for bad in [ahead(90), "yesterday".to_owned(), String::new()] {
        account.read(&format!("{TASKS}?as_of={bad}")).await.problem(400);
    }
}

/// A random walk through what a task may go through; which seed is told by a failure.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

const RANKS: [&str; 3] = ["Z", "a", "a1"];
const START: &str = "2021-06-01T00:00:00Z";

fn minutes(count: u64) -> DateTime<Utc> {
    START.parse::<DateTime<Utc>>().unwrap() + Duration::minutes(i64::try_from(count).unwrap())
}

fn rfc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// What reverts what a command has done, as an undo does.
fn reverting(kind: &str, time: u64) -> Option<(&'static str, Value)> {
    let at = || rfc(minutes(time));
    Some(match kind {
        "DeleteTask" => ("RestoreTask", json!({})),
        "StartTask" => ("RevertStage", json!({"from": "in_progress", "to": "pending"})),
        "CompleteTask" => ("RevertStage", json!({"from": "completed", "to": "in_progress", "started_at": at()})),
        "ReopenTask" => ("RevertStage", json!({"from": "pending", "to": "completed", "completed_at": at()})),
        "CancelTask" => ("RevertStage", json!({"from": "cancelled", "to": "pending"})),
        _ => return None,
    })
}

/// Commands for a dozen tasks, each with times that do not decrease; what is refused is refused.
fn random_log(random: &mut Random) -> Vec<Value> {
    let mut commands = Vec::new();
    for task in 1..=12 {
        let (id, mut time) = (Uuid::from_u128(task), random.below(10));
        let fields =
            json!({"title": format!("t{}", random.below(4)), "priority": PRIORITIES[random.below(4) as usize]});
        commands.push(command(id, "CreateTask", &rfc(minutes(time)), fields));
        for _ in 0..random.below(12) {
            time += random.below(4);
            let (kind, fields) = match random.below(24) {
                0 | 23 => ("DeleteTask", json!({})),
                1..=3 => ("StartTask", json!({})),
                4..=6 => ("CompleteTask", json!({})),
                7 | 8 => ("ReopenTask", json!({})),
                9 => ("CancelTask", json!({})),
                10 | 11 => ("RenameTask", json!({"title": format!("t{}", random.below(4))})),
                12 => ("DescribeTask", json!({"description": format!("d{}", random.below(4))})),
                13 | 14 => ("ReprioritizeTask", json!({"priority": PRIORITIES[random.below(4) as usize]})),
                15 => ("ScheduleTask", json!({"due_at": null})),
                16 => ("ScheduleTask", json!({"due_at": rfc(minutes(random.below(40)))})),
                20 => ("RankTask", json!({"rank": null})),
                21 | 22 => ("RankTask", json!({"rank": RANKS[random.below(3) as usize]})),
                17 | 18 => ("TagTask", json!({"tag": format!("g{}", random.below(3))})),
                _ => ("UntagTask", json!({"tag": format!("g{}", random.below(3))})),
            };
            commands.push(command(id, kind, &rfc(minutes(time)), fields));
            if let Some((kind, fields)) = reverting(kind, time).filter(|_| random.below(2) == 0) {
                time += random.below(4);
                commands.push(command(id, kind, &rfc(minutes(time)), fields));
            }
        }
    }
    commands
}

/// In the order of a sort that is not descending: what the key is not, and what it is.
fn key(task: &Value, sort: &str) -> (bool, String) {
    let number = |name: &Value| PRIORITIES.iter().position(|priority| name == priority).unwrap();
    match sort {
        "priority" => (false, number(&task["priority"]).to_string()),
        field => (task[field].is_null(), task[field].as_str().unwrap_or_default().to_owned()),
    }
}

fn sorted(tasks: &[Value], sort: &str, descending: bool) -> Vec<Value> {
    let mut tasks = tasks.to_vec();
    let id = |task: &Value| task["id"].as_str().unwrap().to_owned();
    if descending {
        tasks.sort_by_key(|task| (key(task, sort).0, Reverse((key(task, sort).1, id(task)))));
    } else {
        tasks.sort_by_key(|task| (key(task, sort), id(task)));
    }
    tasks
}

/// What facets without a filter say of these tasks, of which none is due later than a day after that time.
fn facets(tasks: &[Value], time: DateTime<Utc>) -> Value {
    let count = |matches: &dyn Fn(&Value) -> bool| tasks.iter().filter(|task| matches(task)).count();
    let by = |field: &str, names: [&str; 4]| -> Value {
        names.into_iter().map(|name| (name, count(&|task| task[field] == name))).collect()
    };
    let mut tags: Vec<(String, usize)> = (0..3)
        .map(|n| format!("g{n}"))
        .map(|tag| (tag.clone(), count(&|task| task["tags"].as_array().unwrap().iter().any(|its| *its == tag))))
        .filter(|(_, count)| *count > 0)
        .collect();
    tags.sort_by_key(|(_, count)| Reverse(*count));
    let due = |matches: &dyn Fn(Option<DateTime<Utc>>) -> bool| count(&|task| is_open(task) && matches(due(task)));
    json!({
        "total": tasks.len(),
        "by_status": by("status", ["pending", "in_progress", "completed", "cancelled"]),
        "by_priority": by("priority", PRIORITIES),
        "by_tag": tags.into_iter().map(|(tag, count)| json!({"tag": tag, "count": count})).collect::<Vec<_>>(),
        "by_due": {
            "overdue": due(&|due| due.is_some_and(|due| due < time)),
            "next_24_hours": due(&|due| due.is_some_and(|due| due >= time)),
            "later": 0,
            "none": due(&|due| due.is_none()),
        },
    })
}

fn is_open(task: &Value) -> bool {
    task["status"] == "pending" || task["status"] == "in_progress"
}

fn due(task: &Value) -> Option<DateTime<Utc>> {
    task["due_at"].as_str().map(|due| due.parse().unwrap())
}

/// For random logs and times: the list holds the tasks that each are as the fold of their own history up to then, and
/// facets count them.
#[tokio::test]
async fn a_list_as_of_a_time_is_the_fold_up_to_it() {
    let seed = u64::from(Utc::now().timestamp_subsec_nanos());
    let mut random = Random(seed);
    for _ in 0..3 {
        let account = api().await.account().await;
        account.batch(&random_log(&mut random)).await.expect(200);
        for _ in 0..8 {
            let time = minutes(random.below(40)) + Duration::microseconds(i64::try_from(random.below(2)).unwrap() - 1);
            let mut tasks = Vec::new();
            for id in (1..=12).map(Uuid::from_u128) {
                let task = account.read(&format!("{TASKS}/{id}?as_of={}", rfc(time))).await;
                if task.status == 200 {
                    tasks.push(task.json());
                }
            }
            type Matches<'a> = &'a dyn Fn(&Value) -> bool;
            let filters: [(&str, Matches<'_>); 5] = [
                ("", &|_| true),
                ("&status=pending,completed", &|task| task["status"] == "pending" || task["status"] == "completed"),
                ("&tag=g0,g1", &|task| task["tags"].as_array().unwrap().iter().any(|tag| tag == "g0" || tag == "g1")),
                ("&overdue=true", &|task| is_open(task) && due(task).is_some_and(|due| due < time)),
                ("&q=t1", &|task| task["title"] == "t1"),
            ];
            for (filter, matches) in filters {
                let mut matching: Vec<Value> = tasks.iter().filter(|task| matches(task)).cloned().collect();
                let query = format!("as_of={}{filter}", rfc(time));
                let mut counted = account.read(&format!("{TASKS}/facets?{query}")).await.expect(200).json();
                assert_eq!(counted["total"], matching.len(), "seed {seed}: {query}");
                if filter.is_empty() {
                    counted.as_object_mut().unwrap().remove("revision");
                    assert_eq!(counted, facets(&tasks, time), "seed {seed}: {query}");
                }
                if filter.contains("q=") {
                    let title = json!([{"field": "title", "from": 0, "to": 2}]);
                    matching.iter_mut().for_each(|task| task["matches"] = title.clone());
                }
                for (sort, descending) in [
                    ("created_at", true),
                    ("updated_at", false),
                    ("due_at", true),
                    ("priority", false),
                    ("title", true),
                    ("rank", false),
                    ("rank", true),
                ] {
                    let mut query = format!("as_of={}&limit=3{filter}&sort=", rfc(time));
                    write!(query, "{}{sort}", if descending { "-" } else { "" }).unwrap();
                    let listed = account.walk(&format!("{TASKS}?{query}")).await;
                    assert_eq!(listed, sorted(&matching, sort, descending), "seed {seed}: {query}");
                }
            }
        }
    }
}

const FLOW: &str = "/api/v1/stats/flow";

/// The counts of each day: pending, in progress, completed, cancelled.
fn counts(flow: &Value) -> Vec<[u64; 4]> {
    let count =
        |day: &Value| ["pending", "in_progress", "completed", "cancelled"].map(|status| day[status].as_u64().unwrap());
    flow["days"].as_array().unwrap().iter().map(count).collect()
}

#[tokio::test]
async fn flow_tells_what_stood_where_at_the_end_of_each_day() {
    let account = api().await.account().await;
    let of_nothing = account.read(FLOW).await.expect(200).json();
    assert_eq!(counts(&of_nothing), vec![[0; 4]; 30]);
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let title = || json!({"title": "t"});
    act(
        &account,
        &[
            command(one, "CreateTask", "2011-12-28T12:00:00Z", title()),
            command(one, "StartTask", "2011-12-29T00:00:00Z", json!({})),
            command(two, "CreateTask", "2011-12-29T12:00:00Z", title()),
            // Both within the same day: only the last counts at its end.
            command(one, "CompleteTask", "2011-12-30T08:00:00Z", json!({})),
            command(one, "ReopenTask", "2011-12-30T10:30:00Z", json!({})),
            command(two, "CancelTask", "2011-12-31T23:59:59.999999Z", json!({})),
            command(two, "DeleteTask", "2012-01-02T00:00:00Z", json!({})),
        ],
    )
    .await;
    let flow = account.read(&format!("{FLOW}?from=2011-12-27&to=2012-01-02")).await.expect(200).json();
    let expected = [[0; 4], [1, 0, 0, 0], [1, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]];
    assert_eq!(counts(&flow), expected);
    assert_eq!(flow["days"][0]["date"], "2011-12-27");
    for (day, expected) in expected.iter().enumerate() {
        let end =
            "2011-12-28T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + Duration::days(i64::try_from(day).unwrap());
        let end = rfc(end - Duration::microseconds(1));
        for (status, count) in ["pending", "in_progress", "completed", "cancelled"].iter().zip(expected) {
            let listed = account.walk(&format!("{TASKS}?as_of={end}&status={status}")).await;
            assert_eq!(listed.len() as u64, *count, "{status} as of {end}");
        }
    }
    // Samoa left out the 30th, at 10:00Z: it is as the day before, which ended then.
    let samoa = format!("{FLOW}?from=2011-12-28&to=2011-12-31&time_zone=Pacific/Apia");
    let samoa = account.read(&samoa).await.expect(200).json();
    assert_eq!(counts(&samoa), [[0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [2, 0, 0, 0]]);
    let today = account.read(FLOW).await.expect(200);
    assert_eq!(counts(&today.json())[29], [1, 0, 0, 0]);
    account.request("GET", FLOW).header("If-None-Match", today.must("ETag")).send().await.expect(304);
    let soon = (Utc::now() + Duration::days(2)).date_naive();
    for bad in [
        format!("to={soon}"),
        "from=2020-01-02&to=2020-01-01".to_owned(),
        "time_zone=Mars/Olympus".to_owned(),
        "from=2020-01-01&to=2021-01-01".to_owned(),
        "as_of=2020-01-01T00:00:00Z".to_owned(),
    ] {
        account.read(&format!("{FLOW}?{bad}")).await.problem(400);
    }
    account.read(&format!("{FLOW}?from=2019-01-01&to=2019-12-31")).await.expect(200);
}
