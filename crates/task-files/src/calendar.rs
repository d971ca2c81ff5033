//! Tasks as a calendar (RFC 5545): a VTODO each, and for one with a due date a VEVENT too, for calendars that show no VTODOs.
//!
//! Written by hand: the crate `icalendar` folds some lines at 76 octets, in a time that grows with the square of their length.

use domain::{Priority, Status, Time};
use read_model::Task;
use uuid::Uuid;

/// Before all components. Lines end in CRLF.
pub(crate) const BEGIN: &str =
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//PrimeTrade//PrimeTrade//EN\r\nCALSCALE:GREGORIAN\r\n";
/// A calendar has to have a component.
pub(crate) const NOTHING: &str = "BEGIN:VTIMEZONE\r\nTZID:UTC\r\nBEGIN:STANDARD\r\nDTSTART:19700101T000000\r\n\
                                  TZOFFSETFROM:+0000\r\nTZOFFSETTO:+0000\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\n";
/// After all components.
pub(crate) const END: &str = "END:VCALENDAR\r\n";

/// Without the line end.
const LINE_OCTETS_MAX: usize = 75;

/// The components of a task. Their UIDs are of the task in this log, and stay.
pub(crate) fn components(task: &Task, log_id: Uuid) -> String {
    let mut lines = Lines::default();
    lines.push("BEGIN", "VTODO");
    lines.push("UID", &format!("{}@{log_id}", task.id));
    lines.push_what_it_is(task);
    lines.push("PRIORITY", priority(task.priority));
    lines.push("STATUS", status(task.status));
    if let Some(due_at) = task.due_at {
        lines.push("DUE", &date_time(due_at));
    }
    if let Some(completed_at) = task.completed_at {
        lines.push("COMPLETED", &date_time(completed_at));
        lines.push("PERCENT-COMPLETE", "100");
    }
    if !task.tags.is_empty() {
        let tags: Vec<String> = task.tags.iter().map(|tag| text(tag)).collect();
        lines.push("CATEGORIES", &tags.join(","));
    }
    lines.push("END", "VTODO");
    if let Some(due_at) = task.due_at {
        lines.push("BEGIN", "VEVENT");
        lines.push("UID", &format!("{}.due@{log_id}", task.id));
        lines.push_what_it_is(task);
        lines.push("DTSTART", &date_time(due_at));
        lines.push("STATUS", if task.status == Status::Cancelled { "CANCELLED" } else { "CONFIRMED" });
        // it takes no time
        lines.push("TRANSP", "TRANSPARENT");
        lines.push("END", "VEVENT");
    }
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push_what_it_is(&mut self, task: &Task) {
        self.push("DTSTAMP", &date_time(task.updated_at));
        self.push("CREATED", &date_time(task.created_at));
        self.push("LAST-MODIFIED", &date_time(task.updated_at));
        // goes up with each change
        self.push("SEQUENCE", &(task.version - 1).to_string());
        self.push("SUMMARY", &text(&task.title));
        if let Some(description) = &task.description {
            self.push("DESCRIPTION", &text(description));
        }
    }

    /// A content line, folded between two characters where it is too long.
    fn push(&mut self, name: &str, value: &str) {
        let mut octets = 0;
        for character in name.chars().chain([':']).chain(value.chars()) {
            if octets + character.len_utf8() > LINE_OCTETS_MAX {
                self.0.push_str("\r\n ");
                octets = 1;
            }
            self.0.push(character);
            octets += character.len_utf8();
        }
        self.0.push_str("\r\n");
    }
}

/// 1 is the highest, 9 the lowest.
fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Urgent => "1",
        Priority::High => "3",
        Priority::Medium => "5",
        Priority::Low => "9",
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Pending => "NEEDS-ACTION",
        Status::InProgress => "IN-PROCESS",
        Status::Completed => "COMPLETED",
        Status::Cancelled => "CANCELLED",
    }
}

fn date_time(time: Time) -> String {
    time.format("%Y%m%dT%H%M%SZ").to_string()
}

/// A TEXT: escaped, each line end as one character, without the control characters that it may not have.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.replace("\r\n", "\n").chars() {
        match character {
            '\\' | ';' | ',' => escaped.extend(['\\', character]),
            '\n' | '\r' => escaped.push_str("\\n"),
            '\t' => escaped.push('\t'),
            control if control.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task() -> Task {
        let time = |text| domain::parse_time(text).unwrap();
        let mut task = Task::blank(Uuid::from_u128(7), time("2030-01-02T03:04:05Z"));
        task.version = 3;
        task.title = format!("milk; eggs, \\ {}", "x".repeat(80));
        task.description = Some("one\r\ntwo\rthree\u{7}".to_owned());
        task.due_at = Some(time("2030-02-03T04:05:06.5Z"));
        task.tags = vec!["a".to_owned(), "b;c".to_owned()];
        task
    }

    #[test]
    fn a_task_is_a_todo_and_its_due_date_an_event() {
        let text = components(&task(), Uuid::from_u128(9));
        let unfolded = text.replace("\r\n ", "");
        for line in [
            "UID:00000000-0000-0000-0000-000000000007@00000000-0000-0000-0000-000000000009",
            "UID:00000000-0000-0000-0000-000000000007.due@00000000-0000-0000-0000-000000000009",
            "DUE:20300203T040506Z",
            "DTSTART:20300203T040506Z",
            "DTSTAMP:20300102T030405Z",
            "STATUS:NEEDS-ACTION",
            "STATUS:CONFIRMED",
            "PRIORITY:5",
            "SEQUENCE:2",
            "DESCRIPTION:one\\ntwo\\nthree",
            "CATEGORIES:a,b\\;c",
        ] {
            assert!(unfolded.split("\r\n").any(|found| found == line), "{line}: {unfolded}");
        }
        assert!(unfolded.contains("SUMMARY:milk\\; eggs\\, \\\\ xxx"), "{unfolded}");
    }

    #[test]
    fn a_task_without_a_due_date_is_no_event() {
        let text = components(&Task { due_at: None, ..task() }, Uuid::nil());
        assert_eq!((text.matches("BEGIN:").count(), text.matches("BEGIN:VTODO").count()), (1, 1));
    }

    proptest! {
        #[test]
        fn lines_are_short_and_unfold_to_what_they_were(description in "[a\\\\;, \n\r\tü会🚀\u{1}]{0,400}") {
            let text = components(&Task { description: Some(description.clone()), ..task() }, Uuid::nil());
            prop_assert!(text.split("\r\n").all(|line| line.len() <= LINE_OCTETS_MAX && !line.contains(['\n', '\r'])), "{}", text);
            let unfolded = text.replace("\r\n ", "");
            let value = unfolded.split("\r\n").find_map(|line| line.strip_prefix("DESCRIPTION:")).unwrap();
            let mut characters = value.chars();
            let mut read = String::new();
            while let Some(character) = characters.next() {
                read.push(match character {
                    '\\' => characters.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped }).unwrap(),
                    other => other,
                });
            }
            prop_assert_eq!(read, description.replace("\r\n", "\n").replace('\r', "\n").replace('\u{1}', ""));
        }
    }
}
