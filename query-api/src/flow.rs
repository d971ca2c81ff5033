//! `GET /api/v1/stats/flow`: how many tasks stood where at the end of each day.

use std::io::Write;

use axum::extract::State;
use axum::response::Response;
use chrono::{Days, NaiveDate, TimeDelta};
use domain::Status;
use http_api::openapi::{Operation, count, reference, whole};
use http_api::query::StrictQuery;
use process::clock;
use serde_json::{Value, json};

use crate::answer::{Content, Etag, Loaded};
use crate::asked::Asked;
use crate::days::{DAYS_MAX, DaysRequest, Parameters, Period, described_zone, start_of_day};
use crate::described::{ANSWERED, read};
use crate::error::ReadError;
use crate::past::Past;
use crate::reads::{Query, ReadScope, Reads};
use crate::task_json::{write_list, write_number};

struct FlowQuery {
    days: DaysRequest,
    past: Past,
}

pub(crate) async fn flow(
    State(reads): State<Reads>,
    State(past): State<Past>,
    asked: Asked,
    StrictQuery(parameters): StrictQuery<Parameters>,
) -> Result<Response, ReadError> {
    let days = DaysRequest::parse(&parameters)?;
    period(days)?;
    asked.answer(&reads, &FlowQuery { days, past }).await
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
    let read = read("showFlow", "Count tasks by status at the end of each day")
        .says("Tasks that were deleted since count on the days on which they were there.")
        .query("from", "The first day.", date())
        .query("to", "The last day: today at the latest.", date());
    described_zone(read).json(200, "The counts.", &ANSWERED, &reference("Flow"), &json!({"days": [day], "revision": 3}))
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
        [b"W".to_vec(), self.days.key()].concat()
    }

    async fn load(&self, scope: ReadScope<'_>) -> Result<Loaded, ReadError> {
        let (Period { from, to }, today) = period(self.days)?;
        let dates: Vec<NaiveDate> = from.iter_days().take_while(|day| *day <= to).collect();
        let next = |day: NaiveDate| day.checked_add_days(Days::new(1)).unwrap_or(day);
        // Today ends with what the log holds now, also where a clock that ran ahead wrote a later time.
        let ends_us = dates.iter().map(|day| match start_of_day(self.days.zone, next(*day)) {
            _ if *day == today => i64::MAX - 1,
            end => (end - TimeDelta::microseconds(1)).timestamp_micros(),
        });
        let (live_generation, row, counts) = self.past.count(scope, ends_us.collect()).await?;
        let etag = if to == today {
            Etag::OwnerVersionUntil(start_of_day(self.days.zone, next(today)))
        } else {
            Etag::OwnerVersion
        };
        let body = write(&dates, &counts, row.complete_until());
        Ok(Loaded { live_generation, row, content: Some(Content { body: body.into(), etag, link: None }) })
    }
}

fn write(dates: &[NaiveDate], counts: &[[i64; 4]], revision: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(100 + dates.len() * 90);
    out.extend_from_slice(b"{\"days\":");
    write_list(&mut out, dates.iter().zip(counts), |out, (date, counts)| {
        // Writing into a vector cannot fail.
        let _ = write!(out, "{{\"date\":\"{}\"", date.format("%Y-%m-%d"));
        for (status, count) in Status::ALL.iter().zip(counts) {
            let _ = write!(out, ",\"{}\":{count}", status.as_str());
        }
        out.push(b'}');
    });
    out.extend_from_slice(b",\"revision\":");
    write_number(&mut out, revision);
    out.push(b'}');
    out
}
