//! Days as a time zone has them: what `from`, `to` and `time_zone` ask for.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use domain::Time;
use http_api::openapi::Operation;
use serde::Deserialize;
use serde_json::json;

use crate::error::ReadError;

/// Days that are asked for at most.
pub(crate) const DAYS_MAX: i64 = 366;
/// Days where nothing is said.
const DAYS_DEFAULT: i64 = 30;
const DAY_US: i64 = 86_400_000_000;

/// The query string of counts by day.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    from: Option<String>,
    to: Option<String>,
    time_zone: Option<String>,
}

/// The parameter that says whose days they are.
pub(crate) fn described_zone(read: Operation) -> Operation {
    read.query(
        "time_zone",
        "Whose days they are: a name of the IANA time zone database.",
        json!({"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]}),
    )
}

/// The days that are asked for; None: as today's date has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DaysRequest {
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
    pub zone: Tz,
}

/// Days, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub from: NaiveDate,
    pub to: NaiveDate,
}

impl DaysRequest {
    /// # Errors
    /// [`ReadError::Parameter`] names what is not understood.
    pub fn parse(Parameters { from, to, time_zone }: &Parameters) -> Result<Self, ReadError> {
        let day = |name, value: &Option<String>| match value {
            None => Ok(None),
            Some(value) => {
                date(value).map(Some).ok_or_else(|| ReadError::parameter(name, "must be a date such as 2026-01-31"))
            }
        };
        let zone = time_zone.as_deref().map_or(Ok(Tz::UTC), str::parse);
        let zone = zone.map_err(|_| ReadError::parameter("time_zone", "must be a name such as Europe/Berlin"))?;
        Ok(Self { from: day("from", from)?, to: day("to", to)?, zone })
    }

    pub fn today(self, now: Time) -> NaiveDate {
        now.with_timezone(&self.zone).date_naive()
    }

    /// # Errors
    /// [`ReadError::Parameter`] where they are out of order or too many.
    pub fn period(self, now: Time) -> Result<Period, ReadError> {
        let to = self.to.unwrap_or_else(|| self.today(now));
        let from = self.from.unwrap_or(to - TimeDelta::days(DAYS_DEFAULT - 1));
        if from > to {
            return Err(ReadError::Parameter("from must not be later than to".into()));
        }
        if (to - from).num_days() >= DAYS_MAX {
            return Err(ReadError::Parameter(format!("from and to must span at most {DAYS_MAX} days")));
        }
        Ok(Period { from, to })
    }

    /// The same bytes for equal requests.
    pub fn key(self) -> Vec<u8> {
        let day = |day: Option<NaiveDate>| day.map_or(i32::MIN, |day| day.num_days_from_ce()).to_be_bytes();
        [&day(self.from)[..], &day(self.to), self.zone.name().as_bytes()].concat()
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

/// When a day begins in a zone: for one that the zone skipped, when the next one does.
pub(crate) fn start_of_day(zone: Tz, day: NaiveDate) -> Time {
    let noon_us = days_since_epoch(day) * DAY_US + DAY_US / 2;
    // No zone is two days away from UTC.
    let start_us = first(noon_us - 2 * DAY_US, noon_us + 2 * DAY_US, |us| {
        (us + offset_us(zone, us)).div_euclid(DAY_US) >= days_since_epoch(day)
    });
    DateTime::from_timestamp_micros(start_us).unwrap_or_default()
}

/// Tells on which day of a zone something happened, for the days from one on.
pub(crate) struct DayNumbers {
    /// Day 0, in days since 1970.
    first_day: i64,
    /// From when on which offset holds, microseconds; the latest first.
    offsets_us: Vec<(i64, i64)>,
}

impl DayNumbers {
    /// For up to [`DAYS_MAX`] days.
    pub fn new(zone: Tz, first: NaiveDate) -> Self {
        let first_day = days_since_epoch(first);
        let mut offsets_us = vec![(i64::MIN, offset_us(zone, (first_day - 2) * DAY_US))];
        for day in first_day - 2..first_day + DAYS_MAX + 2 {
            let (from, until) = (day * DAY_US, (day + 1) * DAY_US);
            let (before, after) = (offset_us(zone, from), offset_us(zone, until));
            if before != after {
                offsets_us.push((self::first(from, until, |us| offset_us(zone, us) == after), after));
            }
        }
        offsets_us.reverse();
        Self { first_day, offsets_us }
    }

    /// The number of the day; None before the first one.
    pub fn of(&self, time_us: i64) -> Option<usize> {
        let (_, offset_us) = self.offsets_us.iter().find(|(from, _)| *from <= time_us)?;
        usize::try_from((time_us + offset_us).div_euclid(DAY_US) - self.first_day).ok()
    }
}

fn days_since_epoch(day: NaiveDate) -> i64 {
    (day - DateTime::<Utc>::UNIX_EPOCH.date_naive()).num_days()
}

fn offset_us(zone: Tz, time_us: i64) -> i64 {
    let time = DateTime::from_timestamp_micros(time_us).unwrap_or_default();
    i64::from(zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()) * 1_000_000
}

/// The first number after `low` and up to `high` from which on it holds.
fn first(mut low: i64, mut high: i64, holds: impl Fn(i64) -> bool) -> i64 {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use http_api::problem::Problem;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        date(text).unwrap()
    }

    fn time(text: &str) -> Time {
        domain::parse_time(text).unwrap()
    }

    fn said(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn period(from: &str, to: &str) -> Result<Period, Problem> {
        let parameters = Parameters { from: said(from), to: said(to), time_zone: None };
        Ok(DaysRequest::parse(&parameters)?.period(time("2026-03-10T23:59:59Z"))?)
    }

    fn in_zone(name: &str) -> Result<DaysRequest, ReadError> {
        DaysRequest::parse(&Parameters { time_zone: Some(name.to_owned()), ..Parameters::default() })
    }

    #[test]
    fn periods() {
        assert_eq!(period("", ""), Ok(Period { from: day("2026-02-09"), to: day("2026-03-10") }));
        assert_eq!(period("", "2026-01-30"), Ok(Period { from: day("2026-01-01"), to: day("2026-01-30") }));
        assert_eq!(period("2026-03-10", ""), Ok(Period { from: day("2026-03-10"), to: day("2026-03-10") }));
        assert!(period("2025-01-01", "2026-01-01").is_ok());
        for (from, to) in [
            ("2025-01-01", "2026-01-02"),
            ("2026-03-11", ""),
            ("2026-02-30", ""),
            ("", "2026-2-3"),
            ("", "0000-01-01"),
            ("", " "),
        ] {
            assert!(period(from, to).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn today_is_the_zones() {
        let now = time("2026-03-10T11:30:00Z");
        for (zone, today) in [("UTC", "2026-03-10"), ("Pacific/Kiritimati", "2026-03-11"), ("Etc/GMT+12", "2026-03-09")]
        {
            let request = in_zone(zone).unwrap();
            assert_eq!(request.period(now).unwrap().to, day(today), "{zone}");
        }
        for unknown in ["", "Berlin", "Europe/Berlin ", "+01:00", "../etc/passwd"] {
            assert!(in_zone(unknown).is_err(), "{unknown}");
        }
    }

    /// Over years with changes, with days that were skipped, and with days that began twice.
    #[test]
    fn every_instant_has_the_day_of_the_zones_calendar() {
        for (zone, first, every_s) in [
            ("UTC", "2026-01-01", 900),
            ("Europe/Berlin", "2026-01-01", 900),
            ("Europe/Berlin", "1892-06-01", 60),
            ("Asia/Kolkata", "2026-01-01", 900),
            ("Australia/Lord_Howe", "2026-01-01", 900),
            ("Pacific/Apia", "2011-06-01", 900),
            ("America/St_Johns", "2006-01-01", 60),
            ("America/Sao_Paulo", "2018-06-01", 900),
            ("Africa/Casablanca", "2026-01-01", 900),
            ("Africa/Monrovia", "1971-06-01", 60),
        ] {
            let (zone, first): (Tz, _) = (zone.parse().unwrap(), day(first));
            let numbers = DayNumbers::new(zone, first);
            let (first_us, step_us) = (days_since_epoch(first) * DAY_US - DAY_US, every_s * 1_000_000);
            for time_us in (first_us..first_us + DAYS_MAX * DAY_US).step_by(usize::try_from(step_us).unwrap()) {
                for time_us in [time_us - 1, time_us] {
                    let date = DateTime::from_timestamp_micros(time_us).unwrap().with_timezone(&zone).date_naive();
                    let expected = usize::try_from((date - first).num_days()).ok();
                    assert_eq!(numbers.of(time_us), expected, "{zone} {time_us}");
                }
            }
        }
    }

    #[test]
    fn days_begin_when_the_zone_says() {
        for (zone, date, begins) in [
            ("UTC", "2026-01-01", "2026-01-01T00:00:00Z"),
            ("Europe/Berlin", "2026-07-01", "2026-06-30T22:00:00Z"),
            ("Pacific/Kiritimati", "2026-01-01", "2025-12-31T10:00:00Z"),
            // no midnight on that day
            ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
            // skipped, and the day after
            ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z"),
        ] {
            assert_eq!(start_of_day(zone.parse().unwrap(), day(date)), time(begins), "{zone} {date}");
        }
    }
}
