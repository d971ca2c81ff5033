//! `GET /api/v1/stats`: counts, what is overdue, what was created and completed on each day, how long it took.

mod found;
mod tally;

use axum::extract::State;
use axum::response::Response;
use chrono::{Days, TimeDelta};
use chrono_tz::Tz;
use domain::{Priority, Status, Time};
use http_api::openapi::{Operation, count, reference, whole};
use http_api::query::StrictQuery;
use process::clock;
use serde_json::{Map, Value, json};
use sqlx::postgres::types::PgInterval;

use self::found::Found;
use self::tally::Tally;
use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::days::{DAYS_MAX, DaysRequest, Parameters, Period, described_zone, start_of_day};
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::list::ColumnCache;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{Query, ReadScope, Reads};
use crate::sources::planned;

/// Statistics with these days in the lists; beyond today where something was written with a later date, by a clock that ran
/// ahead.
struct StatsQuery {
    days: DaysRequest,
    columns: ColumnCache,
}

pub(crate) async fn stats(
    State(reads): State<Reads>,
    State(columns): State<ColumnCache>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let days = DaysRequest::parse(&parameters)?;
    days.period(clock::now())?;
    asked.answer(&reads, &StatsQuery { days, columns }).await
}

pub(crate) fn described() -> Operation {
    let date = || json!({"type": "string", "format": "date"});
    let day = json!([{"date": "2026-11-22", "count": 1}]);
    let stats = json!({
        "by_status": {"pending": 1, "in_progress": 0, "completed": 0, "cancelled": 0},
        "by_priority": {"low": 0, "medium": 1, "high": 0, "urgent": 0},
        "overdue": 0, "created_per_day": day, "completed_per_day": [{"date": "2026-11-22", "count": 0}],
        "completion_time_seconds": {"p50": null, "p90": null, "p99": null},
    });
    let read = read("showStats", "Count tasks, as they are and by day")
        .says(
            "`from` and `to` bound only the lists per day (both included, at most 366; by default the last 30, and beyond \
             today as far as events lie that a clock wrote which ran ahead). The rest is over all tasks, as they are now.",
        )
        .query("from", "The first day.", date())
        .query("to", "The last day.", date());
    described_zone(read).json(200, "The statistics.", &ANSWERED, &reference("Stats"), &stats)
}

pub(crate) fn schema() -> Value {
    let counts = |names: Vec<&str>| {
        whole(Value::Object(names.into_iter().map(|name| (name.to_owned(), count())).collect::<Map<_, _>>()))
    };
    let day = whole(json!({"date": {"type": "string", "format": "date"}, "count": count()}));
    let days = json!({"type": "array", "maxItems": DAYS_MAX, "items": day});
    let seconds = json!({"type": ["number", "null"], "minimum": 0});
    whole(json!({
        "by_status": counts(Status::ALL.iter().map(|status| status.as_str()).collect()),
        "by_priority": counts(Priority::ALL.iter().map(|priority| priority.as_str()).collect()),
        "overdue": count(),
        "created_per_day": days,
        "completed_per_day": days,
        "completion_time_seconds": whole(json!({"p50": seconds, "p90": seconds, "p99": seconds})),
    }))
}

impl Query for StatsQuery {
    const SHARED_MS_MAX: u64 = 10 * 60_000;

    fn key(&self) -> Vec<u8> {
        [b"S".to_vec(), self.days.key()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        let now = clock::now();
        let mut period = self.days.period(now)?;
        // As far as the lists may reach.
        let last_day = match self.days.to {
            Some(to) => to,
            None => period.from.checked_add_days(Days::new(DAYS_MAX.unsigned_abs() - 1)).unwrap_or(period.to),
        };
        let by_columns = scope.is_nearest() && self.columns.has(scope.owner);
        let counted = if self.days.zone == Tz::UTC && !by_columns {
            let counted = from_tables(scope, Period { to: last_day, ..period }, now).await?;
            if scope.is_nearest() {
                let tasks: i64 = counted.found.counts.iter().map(|(_, _, count)| count).sum();
                self.columns.request(scope.generation(), scope.owner, tasks, false);
            }
            counted
        } else {
            let mut tally = Tally::new(self.days.zone, Period { to: last_day, ..period }, now);
            let (live_generation, row) = self.columns.count(scope, None, |columns| tally.add(columns)).await?;
            Counted { live_generation, row, found: tally.finish() }
        };
        let Counted { live_generation, row, found } = counted;
        if let Some(last_event_at) = found.last_event_at.filter(|_| self.days.to.is_none()) {
            period.to = self.days.today(last_event_at).clamp(period.to, last_day);
        }
        // The clock changes overdue just after the next due date, and the days, where today is the last, at midnight.
        let next_overdue = found.next_due_at.map(|due_at| due_at + TimeDelta::microseconds(1));
        let tomorrow = self.days.today(now).checked_add_days(Days::new(1));
        let next_day = tomorrow.filter(|_| self.days.to.is_none()).map(|day| start_of_day(self.days.zone, day));
        let etag = match next_overdue.into_iter().chain(next_day).min() {
            Some(until) => Etag::OwnerVersionUntil(until),
            None => Etag::OwnerVersion,
        };
        let content = Content { body: found.write(period).into(), etag, link: None };
        Ok(Loaded { live_generation, row, content: Some(content) })
    }
}

/// What was counted in one snapshot.
struct Counted {
    live_generation: i32,
    row: VersionRow,
    found: Found,
}

/// Statistics by UTC days, which the tables have. All else is found in one pass over the owner's tasks.
async fn from_tables(scope: ReadScope<'_>, period: Period, now: Time) -> Result<Counted, ReadError> {
    let mut transaction = planned(scope.pool()).await?;
    let row = sqlx::query!(
        r#"select p.log_id, p.live_generation, o.shard as "shard?", o.revision as "revision?",
               o.change_counter as "change_counter?", o.parked_position as "parked_position?",
               array(select status from read_model.task_count where generation = $1 and owner_id = $2
                     order by status, priority) as "statuses!",
               array(select priority from read_model.task_count where generation = $1 and owner_id = $2
                     order by status, priority) as "priorities!",
               array(select count from read_model.task_count where generation = $1 and owner_id = $2
                     order by status, priority) as "counts!",
               array(select day from read_model.day_count where generation = $1 and owner_id = $2 and day between $3 and $4
                     order by day) as "days!",
               array(select created from read_model.day_count where generation = $1 and owner_id = $2 and day between $3 and $4
                     order by day) as "created!",
               array(select completed from read_model.day_count where generation = $1 and owner_id = $2 and day between $3 and $4
                     order by day) as "completed!",
               t.overdue as "overdue!", t.next_due_at as "next_due_at?", t.last_event_at as "last_event_at?",
               t.completion_times as "completion_times?: Vec<PgInterval>"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2
           cross join lateral (
               select count(*) filter (where status in (0, 1) and due_at < $5) as overdue,
                   min(due_at) filter (where status in (0, 1) and due_at >= $5) as next_due_at,
                   max(updated_at) as last_event_at,
                   percentile_disc(array[0.5, 0.9, 0.99]) within group (order by completed_at - created_at)
                       filter (where status = 2) as completion_times
               from read_model.task
               where generation = $1 and owner_id = $2 and not deleted
           ) t"#,
        scope.generation(),
        scope.owner,
        period.from,
        period.to,
        now
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let version = version_row!(row, generation: scope.generation());
    let found = Found {
        counts: row
            .statuses
            .into_iter()
            .zip(row.priorities)
            .zip(row.counts)
            .map(|((s, p), count)| (s, p, count))
            .collect(),
        days: row.days.into_iter().zip(row.created.into_iter().zip(row.completed)).collect(),
        overdue: row.overdue,
        next_due_at: row.next_due_at,
        last_event_at: row.last_event_at,
        completion_times_us: row.completion_times.unwrap_or_default().iter().map(microseconds).collect(),
    };
    Ok(Counted { live_generation: row.live_generation, row: version, found })
}

/// A difference of two times: it has days and less, no months.
fn microseconds(interval: &PgInterval) -> i64 {
    i64::from(interval.days) * 86_400_000_000 + interval.microseconds
}
