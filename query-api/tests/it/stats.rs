//! Counts against a recount.

use chrono::{NaiveDate, TimeDelta};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Task, World};

fn random_task(now: crate::world::Time) -> impl Strategy<Value = Task> {
    let life = (0_i64..40 * 86_400, 0_i64..1_000_000_000, any::<bool>());
    (0_i16..4, 0_i16..4, life, proptest::option::of(-100_000_i64..100_000), 0_u8..10).prop_map(
        move |(status, priority, (age_s, took_us, soon), due_s, deleted)| {
            let created_at = now - TimeDelta::seconds(age_s);
            let took = TimeDelta::microseconds(if soon { took_us % 5_000_000 } else { took_us * 1000 });
            Task {
                status,
                priority,
                created_at,
                updated_at: now,
                completed_at: (status == 2).then(|| created_at + took),
                due_at: due_s.map(|s| now + TimeDelta::seconds(s)),
                deleted: deleted == 0,
                ..Task::new("x")
            }
        },
    )
}

fn nearest_rank(sorted_us: &[i64], percent: usize) -> Value {
    if sorted_us.is_empty() {
        return Value::Null;
    }
    let rank = (percent * sorted_us.len()).div_ceil(100).max(1);
    json!(sorted_us[rank - 1])
}

fn microseconds(value: &Value) -> Value {
    value.as_f64().map_or(Value::Null, |seconds| json!((seconds * 1e6).round() as i64))
}

#[tokio::test]
async fn statistics_equal_a_recount() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    for size in [0_usize, 1, 2, 99, 100, 101, 400] {
        let now = process::clock::now();
        let owner = Uuid::new_v4();
        let tasks = proptest::collection::vec(random_task(now), size).new_tree(&mut runner).unwrap().current();
        world.put(owner, &tasks).await;
        let body = world.get(owner, "/api/v1/stats").await.ok().json();
        let there: Vec<&Task> = tasks.iter().filter(|task| !task.deleted).collect();
        for (code, name) in [(0, "pending"), (1, "in_progress"), (2, "completed"), (3, "cancelled")] {
            assert_eq!(body["by_status"][name], there.iter().filter(|task| task.status == code).count());
        }
        for (code, name) in [(0, "low"), (1, "medium"), (2, "high"), (3, "urgent")] {
            assert_eq!(body["by_priority"][name], there.iter().filter(|task| task.priority == code).count());
        }
        assert_eq!(
            body["overdue"],
            there.iter().filter(|task| task.status < 2 && task.due_at.is_some_and(|due| due < now)).count()
        );
        let mut took: Vec<i64> =
            there.iter().filter_map(|task| (task.completed_at? - task.created_at).num_microseconds()).collect();
        took.sort_unstable();
        for (percent, name) in [(50, "p50"), (90, "p90"), (99, "p99")] {
            assert_eq!(
                microseconds(&body["completion_time_seconds"][name]),
                nearest_rank(&took, percent),
                "{name} of {size}"
            );
        }
        for query in ["", "?from=2025-11-23&to=2026-11-23"] {
            let body = world.get(owner, &format!("/api/v1/stats{query}")).await.ok().json();
            let created = |day: NaiveDate| there.iter().filter(|task| task.created_at.date_naive() == day).count();
            let completed = |day: NaiveDate| {
                there.iter().filter(|t| t.completed_at.is_some_and(|at| at.date_naive() == day)).count()
            };
            let days = body["created_per_day"].as_array().unwrap();
            assert_eq!(days.len(), if query.is_empty() { 30 } else { 366 });
            for (n, entry) in days.iter().enumerate() {
                let day: NaiveDate = entry["date"].as_str().unwrap().parse().unwrap();
                assert_eq!(entry["count"], created(day), "{day}");
                assert_eq!(body["completed_per_day"][n], json!({"date": entry["date"], "count": completed(day)}));
            }
            if query.is_empty() {
                assert_eq!(
                    days[29]["date"],
                    process::clock::now().date_naive().to_string(),
                    "unless midnight has just passed"
                );
            }
        }
    }
}

/// As after a clock that ran three days ahead, or three years.
#[tokio::test]
async fn days_in_the_future_are_not_lost() {
    let world = World::new().await;
    let now = process::clock::now();
    for (ahead_days, listed) in [(0, 30), (3, 33), (1_000, 366)] {
        let owner = Uuid::new_v4();
        let at = now + TimeDelta::days(ahead_days);
        let done = Task { status: 2, created_at: at, updated_at: at, completed_at: Some(at), ..Task::new("x") };
        let old = Task { created_at: now, updated_at: now, ..Task::new("y") };
        world.put(owner, &[old, done]).await;
        let body = world.get(owner, "/api/v1/stats").await.ok().json();
        for list in ["created_per_day", "completed_per_day"] {
            let days = body[list].as_array().unwrap();
            assert_eq!(days.len(), listed, "unless midnight has just passed");
            assert_eq!(days[29]["date"], now.date_naive().to_string());
            if listed < 366 {
                assert_eq!(
                    (&days[listed - 1]["date"], days[listed - 1]["count"].as_i64() > Some(0)),
                    (&json!(at.date_naive().to_string()), true)
                );
            }
        }
        let until_today = world.get(owner, &format!("/api/v1/stats?to={}", now.date_naive())).await.ok().json();
        assert_eq!(until_today["created_per_day"].as_array().unwrap().len(), 30);
    }
}

#[tokio::test]
async fn periods_out_of_bounds_are_refused() {
    let world = World::new().await;
    for query in [
        "from=2026-01-02&to=2026-01-01",
        "from=2025-01-01&to=2026-01-02",
        "from=2026-1-1",
        "to=2026-01-01T00:00:00Z",
        "day=2026-01-01",
        "from=2026-01-01&from=2026-01-01",
    ] {
        world.get(Uuid::new_v4(), &format!("/api/v1/stats?{query}")).await.refused(400, "invalid-parameter");
    }
}
