//! `GET /api/v1/stats/flow`: how many tasks stood where at the end of each day.

use std::io::Write;

use axum::extract::State;
use axum::response::Response;
use chrono::{Days, NaiveDate, TimeDelta};
use domain::Status;
use http_api::openapi::{Operation, count, reference, whole};
use http_api::query::StrictQuery;
use process::clock;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::days::{DAYS_MAX, DaysRequest, Period, start_of_day};
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::owner_version::VersionRow;
use crate::past::{MomentCounts, Past};
use crate::reads::{Query, ReadSource, Reads};
use crate::task_json::write_number;

/// The query string of a flow.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    from: Option<String>,
    to: Option<String>,
    time_zone: Option<String>,
}

struct FlowQuery {
    days: DaysRequest,
    past: Past,
}

pub(crate) async fn flow(
    State(reads): State<Reads>,
    State(past): State<Past>,
    asked: Asked,
    StrictQuery(Parameters { from, to, time_zone }): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let days = DaysRequest::parse(from.as_deref(), to.as_deref(), time_zone.as_deref())?;
    period(days)?;
    let version = reads.owner_version(asked.owner, asked.minimum).await?;
    let answer = reads.answer(asked.owner, version, &FlowQuery { days, past }).await?;
    Ok(asked.respond(&answer))
}

/// The days that are asked for, none of them after today; and today.
fn period(days: DaysRequest) -> Result<(Period, NaiveDate), ReadError> {
    let now = clock::now();
    let (period, today) = (days.period(now)?, days.today(now));
    if period.to > today {
        return Err(ReadError::Parameter("to must not be later than today".into()));
    }
    Ok((period, today))
}

pub(crate) fn described() -> Operation {
    let date = || json!({"type": "string", "format": "date"});
    let day = json!({"date": "2026-11-22", "pending": 1, "in_progress": 0, "completed": 0, "cancelled": 0});
    read("showFlow", "Count tasks by status at the end of each day")
        .says("Tasks that were deleted since count on the days on which they were there.")
        .query("from", "The first day.", date())
        .query("to", "The last day: today at the latest.", date())
        .query(
            "time_zone",
            "Whose days they are: a name of the IANA time zone database.",
            json!({"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]}),
        )
        .json(200, "The counts.", &ANSWERED, &reference("Flow"), &json!({"days": [day], "revision": 3}))
}

pub(crate) fn schema() -> Value {
    let mut day = json!({"date": {"type": "string", "format": "date"}});
    for status in Status::ALL {
        day[status.as_str()] = count();
    }
    let mut revision = count();
    revision["description"] = "What the counts show at least; the stream resumes from it.".into();
    whole(json!({"days": {"type": "array", "maxItems": DAYS_MAX, "items": whole(day)}, "revision": revision}))
}

impl Query for FlowQuery {
    fn key(&self) -> Vec<u8> {
        [b"F".to_vec(), self.days.key()].concat()
    }

    async fn load(
        &self,
        reads: &Reads,
        source: ReadSource,
        owner: Uuid,
        shown: &VersionRow,
    ) -> Result<Loaded, ReadError> {
        let (Period { from, to }, today) = period(self.days)?;
        let dates: Vec<NaiveDate> = from.iter_days().take_while(|day| *day <= to).collect();
        let next = |day: NaiveDate| day.checked_add_days(Days::new(1)).unwrap_or(day);
        // Today ends with what the log holds now, also where a clock that ran ahead wrote a later time.
        let ends_us = dates.iter().map(|day| match start_of_day(self.days.zone, next(*day)) {
            _ if *day == today => i64::MAX - 1,
            end => (end - TimeDelta::microseconds(1)).timestamp_micros(),
        });
        let counts = MomentCounts::new(ends_us.collect());
        let (live_generation, row, counts) = self.past.count(reads, source, owner, shown, counts).await?;
        let etag = if to == today {
            Etag::OwnerVersionUntil(start_of_day(self.days.zone, next(today)))
        } else {
            Etag::OwnerVersion
        };
        let body = write(&dates, &counts.finish(), row.complete_until());
        Ok(Loaded { live_generation, row, content: Some(Content { body: body.into(), etag, link: None }) })
    }
}

fn write(dates: &[NaiveDate], counts: &[[i64; 4]], revision: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(100 + dates.len() * 90);
    out.extend_from_slice(b"{\"days\":[");
    for (n, (date, counts)) in dates.iter().zip(counts).enumerate() {
        // Writing into a vector cannot fail.
        let _ = write!(out, "{}{{\"date\":\"{}\"", if n > 0 { "," } else { "" }, date.format("%Y-%m-%d"));
        for (status, count) in Status::ALL.iter().zip(counts) {
            let _ = write!(out, ",\"{}\":{count}", status.as_str());
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"revision\":");
    write_number(&mut out, revision);
    out.push(b'}');
    out
}
