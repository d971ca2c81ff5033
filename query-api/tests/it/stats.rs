//! Counts against a recount.

use std::time::Duration;

use chrono::{NaiveDate, TimeDelta};
use chrono_tz::Tz;
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
            let days = days_equal_a_recount(&body, &there, Tz::UTC);
            assert_eq!(days, if query.is_empty() { 30 } else { 366 });
            for zone in [Tz::Etc__UTC, Tz::Asia__Kathmandu, Tz::America__St_Johns, Tz::Pacific__Kiritimati] {
                let sign = if query.is_empty() { "?" } else { "&" };
                let path = format!("/api/v1/stats{query}{sign}time_zone={}", zone.name());
                let mut by_zone = world.get(owner, &path).await.ok().json();
                assert_eq!(days_equal_a_recount(&by_zone, &there, zone), days);
                for list in ["created_per_day", "completed_per_day"] {
                    by_zone[list] = body[list].clone();
                }
                assert_eq!(by_zone, body, "all but the days");
            }
        }
    }
}

/// Compares the lists per day; returns how many days they have. Without `to` the last one is today.
fn days_equal_a_recount(body: &Value, there: &[&Task], zone: Tz) -> usize {
    let on = |at: crate::world::Time, day: NaiveDate| at.with_timezone(&zone).date_naive() == day;
    let created = |day| there.iter().filter(|task| on(task.created_at, day)).count();
    let completed = |day| there.iter().filter(|task| task.completed_at.is_some_and(|at| on(at, day))).count();
    let days = body["created_per_day"].as_array().unwrap();
    for (n, entry) in days.iter().enumerate() {
        let day: NaiveDate = entry["date"].as_str().unwrap().parse().unwrap();
        assert_eq!(entry["count"], created(day), "{day} {zone}");
        assert_eq!(body["completed_per_day"][n], json!({"date": entry["date"], "count": completed(day)}), "{zone}");
    }
    if days.len() == 30 {
        let today = process::clock::now().with_timezone(&zone).date_naive();
        assert_eq!(days[29]["date"], today.to_string(), "unless midnight has just passed");
    }
    days.len()
}

/// Read in parts at first, then from columns in memory that keep up with events.
#[tokio::test]
async fn statistics_of_many_tasks_equal_a_recount_by_any_zones_days() {
    let world = World::new().await;
    let mut runner = TestRunner::new(Config::default());
    let (owner, now) = (Uuid::new_v4(), process::clock::now());
    let mut tasks = proptest::collection::vec(random_task(now), 4_500).new_tree(&mut runner).unwrap().current();
    world.put(owner, &tasks).await;
    for round in 0..6 {
        let there: Vec<&Task> = tasks.iter().filter(|task| !task.deleted).collect();
        for zone in [Tz::UTC, Tz::Europe__Berlin, Tz::America__Los_Angeles] {
            let token = world.token(owner, world.last_position());
            let path = format!("/api/v1/stats?time_zone={}", zone.name());
            let headers = [("consistency-token", token.as_str())];
            let body = world.send(&world.router, owner, &path, &headers).await.ok().json();
            days_equal_a_recount(&body, &there, zone);
            assert_eq!(body["by_status"]["completed"], there.iter().filter(|task| task.status == 2).count());
        }
        if round == 1 {
            // Time for the columns to be loaded.
            tokio::time::sleep(Duration::from_millis(1_000)).await;
        }
        for n in 0..20 {
            let task = &mut tasks[n * 7 + round];
            task.version += 1;
            task.status = (task.status + 1) % 4;
            task.completed_at = (task.status == 2).then_some(now - TimeDelta::hours(i64::try_from(n).unwrap()));
            task.deleted = n % 5 == 0;
            world.event(owner, task, "TaskChanged", Value::Null).await;
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
        "time_zone=Europe/Atlantis",
        "time_zone=",
        "time_zone=%2B01:00",
        "time_zone=Asia/Tokyo&from=2026-01-02&to=2026-01-01",
    ] {
        world.get(Uuid::new_v4(), &format!("/api/v1/stats?{query}")).await.refused(400, "invalid-parameter");
    }
}
