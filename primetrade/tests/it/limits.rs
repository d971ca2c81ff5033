//! Limits as texts tell them are what the code has. (Where a text is made when it is told, it is made of the constant.)

use std::collections::BTreeMap;

use command_api::UNDONE_AT_ONCE_MAX;
use commands::parse_error::COMMANDS_MAX;
use domain::{RESTORABLE_DAYS, TAGS_MAX};
use http_api::body::{BATCH_BYTES_MAX, BODY_BYTES_MAX, BODY_TIME_MAX, FILE_BYTES_EACH_SECOND_MIN};
use http_api::edge::{HEADER_BYTES_MAX, URI_BYTES_MAX};
use http_api::problem::ProblemCode;
use http_server::HEADER_TIME_MAX;
use identity::OPEN_SESSIONS_MAX;
use jobs::{FAILURES_MAX, QUEUED_EACH_MAX, RUNNING_EACH_MAX, SHOWN_DAYS, UPLOAD_BYTES_MAX};
use query_api::{STREAMS_EACH_MAX, TOKEN_WAIT_MS_MAX};

use crate::openapi::made;

fn grouped(number: usize) -> String {
    match (number / 1_000, number % 1_000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{},{rest:03}", grouped(thousands)),
    }
}

#[test]
fn problems_tell_the_limits_that_there_are() {
    let (body, batch, file) = (BODY_BYTES_MAX >> 20, BATCH_BYTES_MAX >> 20, UPLOAD_BYTES_MAX >> 20);
    for (code, told) in [
        (ProblemCode::TooManyTags, format!("at most {TAGS_MAX} tags")),
        (
            ProblemCode::BodyTooLarge,
            format!("at most {body} MiB, a batch {batch} MiB, the file of an import {file} MiB"),
        ),
        (ProblemCode::BatchTooLarge, format!("at most {} commands", grouped(COMMANDS_MAX))),
        (ProblemCode::UriTooLong, format!("at most {} KiB", URI_BYTES_MAX >> 10)),
        (ProblemCode::HeadersTooLarge, format!("at most {} KiB", HEADER_BYTES_MAX >> 10)),
        (ProblemCode::RequestTooSlow, format!("within {} seconds", HEADER_TIME_MAX.as_secs())),
        (ProblemCode::BodyTooSlow, format!("within {} seconds", BODY_TIME_MAX.as_secs())),
        (ProblemCode::BodyTooSlow, format!("{} KiB come each second", FILE_BYTES_EACH_SECOND_MIN >> 10)),
        (ProblemCode::TooManyStreams, format!("at most {STREAMS_EACH_MAX} streams")),
        (
            ProblemCode::TooManyJobs,
            format!("{RUNNING_EACH_MAX} jobs that are carried out, and {QUEUED_EACH_MAX} that wait"),
        ),
        (ProblemCode::NotCaughtUp, format!("within {} seconds", TOKEN_WAIT_MS_MAX / 1_000)),
        (ProblemCode::ResultExpired, format!("for {SHOWN_DAYS} days")),
    ] {
        let text = format!("{}. {}", code.title(), code.explanation());
        assert!(text.contains(&told), "{code}: {told:?} is not in {text:?}");
    }
}

#[test]
fn the_document_tells_the_limits_that_there_are() {
    let made = made();
    let paths = made["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|path| path.as_object().expect("operations").values());
    let by_name: BTreeMap<_, _> =
        operations.map(|operation| (operation["operationId"].as_str().expect("a name"), operation)).collect();
    let undone = format!("more than {} tasks", grouped(UNDONE_AT_ONCE_MAX));
    let failures = grouped(usize::try_from(FAILURES_MAX).expect("a count"));
    for (name, place, told) in [
        ("undoChange", "/description", format!("A change of {undone}")),
        ("undoChange", "/responses/202/description", undone),
        ("listJobErrors", "/description", format!("The first {failures}.")),
        ("importTasks", "/description", format!("up to {} MiB", UPLOAD_BYTES_MAX >> 20)),
        ("exportTasks", "/description", format!("for {SHOWN_DAYS} days")),
        ("deleteTask", "/description", format!("for {RESTORABLE_DAYS} days")),
        ("restoreTask", "/description", format!("more than {RESTORABLE_DAYS} days ago")),
        ("listDeletedTasks", "/description", format!("for {RESTORABLE_DAYS} days")),
        (
            "listSessions",
            "/description",
            format!("at most {};", grouped(usize::try_from(OPEN_SESSIONS_MAX).expect("a count"))),
        ),
        ("followTasks", "/description", format!("An account has {STREAMS_EACH_MAX} at once")),
    ] {
        let text = by_name[name].pointer(place).and_then(|text| text.as_str()).expect(place);
        assert!(text.contains(&told), "{name}: {told:?} is not in {text:?}");
    }
}
