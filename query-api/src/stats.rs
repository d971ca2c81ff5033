//! `GET /api/v1/stats`: counts, what is overdue, what was created and completed on each day, how long it took.

use std::collections::HashMap;
use std::io::Write;

use axum::extract::State;
use axum::response::Response;
use backends::database::Pool;
use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};
use domain::{Priority, Status, Time};
use http_api::openapi::{Operation, count, reference, whole};
use http_api::query::StrictQuery;
use process::clock;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::owner_version::{VersionRow, version_row};
use crate::reads::{Query, ReadSource, Reads};
use crate::sources::planned;
use crate::task_json::write_number;

/// Days in the lists at most.
const DAYS_MAX: i64 = 366;
/// Days in the lists where nothing is said.
const DAYS_DEFAULT: i64 = 30;

/// The query string of statistics.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    from: Option<String>,
    to: Option<String>,
}

/// The days of the lists, both included; None: as today's date has it, and beyond it where something was written with a
/// later one, by a clock that ran ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StatsRequest {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

/// The days of the lists, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    from: NaiveDate,
    to: NaiveDate,
}

impl StatsRequest {
    fn parse(parameters: &Parameters) -> Result<Self, ReadError> {
        let day = |name, value: &Option<String>| match value {
            None => Ok(None),
            Some(value) => {
                date(value).map(Some).ok_or_else(|| ReadError::parameter(name, "must be a date such as 2026-01-31"))
            }
        };
        Ok(Self { from: day("from", &parameters.from)?, to: day("to", &parameters.to)? })
    }

    fn period(self, today: NaiveDate) -> Result<Period, ReadError> {
        let to = self.to.unwrap_or(today);
        let from = self.from.unwrap_or(to - TimeDelta::days(DAYS_DEFAULT - 1));
        if from > to {
            return Err(ReadError::Parameter("from must not be later than to".into()));
        }
        if (to - from).num_days() >= DAYS_MAX {
            return Err(ReadError::Parameter(format!("from and to must span at most {DAYS_MAX} days")));
        }
        Ok(Period { from, to })
    }
}

/// `YYYY-MM-DD`, exactly, in the years 1 to 9999.
fn date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes.iter().enumerate().all(|(n, b)| if n == 4 || n == 7 { *b == b'-' } else { b.is_ascii_digit() });
    let date = shaped.then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten();
    date.filter(|_| !text.starts_with("0000"))
}

pub(crate) async fn stats(
    State(reads): State<Reads>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let request = StatsRequest::parse(&parameters)?;
    request.period(clock::now().date_naive())?;
    let version = reads.owner_version(asked.owner, asked.minimum).await?;
    let answer = reads.answer(asked.owner, version, &request).await?;
    Ok(asked.respond(&answer))
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
    read("showStats", "Count tasks, as they are and by day")
        .says(
            "`from` and `to` bound only the lists per day (UTC days, both included, at most 366; by default the last 30, and \
             beyond today as far as events lie that a clock wrote which ran ahead). The rest is over all tasks, as they are now.",
        )
        .query("from", "The first day.", date())
        .query("to", "The last day.", date())
        .json(200, "The statistics.", &ANSWERED, &reference("Stats"), &stats)
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

impl Query for StatsRequest {
    const SHARED_MS_MAX: u64 = 10 * 60_000;

    fn key(&self) -> Vec<u8> {
        let day = |day: Option<NaiveDate>| day.map_or(i32::MIN, |day| day.num_days_from_ce()).to_be_bytes();
        [&b"S"[..], &day(self.from), &day(self.to)].concat()
    }

    async fn load(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
    ) -> Result<Loaded, ReadError> {
        load(reads.pool(source), shown.generation, owner, *self, clock::now()).await
    }
}

/// What the statement finds.
struct Found {
    /// (status, priority, tasks)
    counts: Vec<(i16, i16, i64)>,
    /// (day, created, completed)
    days: HashMap<NaiveDate, (i64, i64)>,
    overdue: i64,
    /// p50, p90, p99; empty where nothing is completed.
    completion_times_us: Vec<i64>,
}

async fn load(
    pool: &Pool,
    generation: i32,
    owner: Uuid,
    request: StatsRequest,
    now: Time,
) -> Result<Loaded, ReadError> {
    let mut period = request.period(now.date_naive())?;
    let last_day = match request.to {
        Some(to) => to,
        None => period.from.checked_add_days(Days::new(DAYS_MAX.unsigned_abs() - 1)).unwrap_or(period.to),
    };
    let mut transaction = planned(pool).await?;
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
               (select count(*) from read_model.task where generation = $1 and owner_id = $2 and not deleted
                     and status in (0, 1) and due_at < $5) as "overdue!",
               (select due_at from read_model.task where generation = $1 and owner_id = $2 and not deleted
                     and status in (0, 1) and due_at >= $5 order by due_at limit 1) as next_due_at,
               (select updated_at from read_model.task where generation = $1 and owner_id = $2 and not deleted
                     order by updated_at desc, task_id desc limit 1) as last_event_at,
               (select percentile_disc(array[0.5, 0.9, 0.99]) within group (order by completed_at - created_at)
                     from read_model.task where generation = $1 and owner_id = $2 and not deleted and status = 2)
                   as "completion_times?: Vec<PgInterval>"
           from read_model.projection p
           left join read_model.owner o on o.generation = $1 and o.owner_id = $2"#,
        generation,
        owner,
        period.from,
        last_day,
        now
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let version = version_row!(row, generation: generation);
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
        completion_times_us: row.completion_times.unwrap_or_default().iter().map(microseconds).collect(),
    };
    if let Some(last_event_at) = row.last_event_at.filter(|_| request.to.is_none()) {
        period.to = last_event_at.date_naive().clamp(period.to, last_day);
    }
    // The clock changes overdue just after the next due date, and the days, where today is the last, at midnight.
    let next_overdue = row.next_due_at.map(|due_at| due_at + TimeDelta::microseconds(1));
    let tomorrow = now.date_naive().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let next_day = tomorrow.filter(|_| request.to.is_none());
    let etag = match next_overdue.into_iter().chain(next_day).min() {
        Some(until) => Etag::OwnerVersionUntil(until),
        None => Etag::OwnerVersion,
    };
    let content = Content { body: found.write(period).into(), etag, link: None };
    Ok(Loaded { live_generation: row.live_generation, row: version, content: Some(content) })
}

/// A difference of two times: it has days and less, no months.
fn microseconds(interval: &PgInterval) -> i64 {
    i64::from(interval.days) * 86_400_000_000 + interval.microseconds
}

impl Found {
    fn write(&self, period: Period) -> Vec<u8> {
        let mut out = Vec::with_capacity(400 + self.days.len() * 80);
        out.extend_from_slice(b"{\"by_status\":");
        let by_status = Status::ALL.iter().map(|s| (s.as_str(), self.sum(|status, _| status == s.code())));
        write_object(&mut out, by_status);
        out.extend_from_slice(b",\"by_priority\":");
        let by_priority = Priority::ALL.iter().map(|p| (p.as_str(), self.sum(|_, priority| priority == p.code())));
        write_object(&mut out, by_priority);
        out.extend_from_slice(b",\"overdue\":");
        write_number(&mut out, self.overdue);
        out.extend_from_slice(b",\"created_per_day\":");
        self.write_days(&mut out, period, |(created, _)| created);
        out.extend_from_slice(b",\"completed_per_day\":");
        self.write_days(&mut out, period, |(_, completed)| completed);
        out.extend_from_slice(b",\"completion_time_seconds\":{");
        for (n, name) in ["p50", "p90", "p99"].into_iter().enumerate() {
            let _ = write!(out, "{}\"{name}\":", if n > 0 { "," } else { "" });
            match self.completion_times_us.get(n) {
                Some(time_us) => write_seconds(&mut out, *time_us),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"}}");
        out
    }

    fn sum(&self, wanted: impl Fn(i16, i16) -> bool) -> i64 {
        self.counts.iter().filter(|(status, priority, _)| wanted(*status, *priority)).map(|(_, _, count)| count).sum()
    }

    fn write_days(&self, out: &mut Vec<u8>, period: Period, count: impl Fn((i64, i64)) -> i64) {
        for (n, day) in period.from.iter_days().take_while(|day| *day <= period.to).enumerate() {
            let count = self.days.get(&day).copied().map_or(0, &count);
            // Writing into a vector cannot fail.
            let _ = write!(
                out,
                "{}{{\"date\":\"{}\",\"count\":{count}}}",
                if n > 0 { "," } else { "[" },
                day.format("%Y-%m-%d")
            );
        }
        out.push(b']');
    }
}

fn write_object(out: &mut Vec<u8>, counts: impl Iterator<Item = (&'static str, i64)>) {
    for (n, (name, count)) in counts.enumerate() {
        let _ = write!(out, "{}\"{name}\":{count}", if n > 0 { "," } else { "{" });
    }
    out.push(b'}');
}

/// Seconds with as many digits as it needs, exactly.
fn write_seconds(out: &mut Vec<u8>, time_us: i64) {
    let (whole, rest) = (time_us / 1_000_000, time_us.rem_euclid(1_000_000));
    let _ = write!(out, "{whole}");
    if rest > 0 {
        let digits = format!(".{rest:06}");
        out.extend_from_slice(digits.trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use http_api::problem::Problem;
    use http_api::query::parse_query;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        date(text).unwrap()
    }

    fn period(query: &str) -> Result<Period, Problem> {
        let parameters = parse_query(query)?;
        Ok(StatsRequest::parse(&parameters)?.period(day("2026-03-10"))?)
    }

    #[test]
    fn periods() {
        assert_eq!(period(""), Ok(Period { from: day("2026-02-09"), to: day("2026-03-10") }));
        assert_eq!(period("to=2026-01-30"), Ok(Period { from: day("2026-01-01"), to: day("2026-01-30") }));
        assert_eq!(period("from=2026-03-10"), Ok(Period { from: day("2026-03-10"), to: day("2026-03-10") }));
        assert!(period("from=2025-01-01&to=2026-01-01").is_ok());
        for bad in [
            "from=2025-01-01&to=2026-01-02",
            "from=2026-03-11",
            "from=2026-02-30",
            "to=2026-2-3",
            "to=0000-01-01",
            "to=",
            "day=1",
        ] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_exact() {
        for (time_us, text) in [(0, "0"), (1_500_000, "1.5"), (60_000_001, "60.000001"), (86_400_000_000, "86400")] {
            let mut out = Vec::new();
            write_seconds(&mut out, time_us);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn every_key_and_day_is_there() {
        let found = Found { counts: vec![], days: HashMap::new(), overdue: 0, completion_times_us: vec![] };
        let body = found.write(Period { from: day("2026-02-28"), to: day("2026-03-01") });
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({
                "by_status": {"pending": 0, "in_progress": 0, "completed": 0, "cancelled": 0},
                "by_priority": {"low": 0, "medium": 0, "high": 0, "urgent": 0},
                "overdue": 0,
                "created_per_day": [{"date": "2026-02-28", "count": 0}, {"date": "2026-03-01", "count": 0}],
                "completed_per_day": [{"date": "2026-02-28", "count": 0}, {"date": "2026-03-01", "count": 0}],
                "completion_time_seconds": {"p50": null, "p90": null, "p99": null},
            })
        );
    }
}
