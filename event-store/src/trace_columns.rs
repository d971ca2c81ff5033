//! The columns `correlation_id` and `traceparent` of an event: what other columns of the row say already is left out. Of a
//! request that came with neither, which is most, both are empty, 87 bytes less of each event.
//!
//! These forms stand in the log: they may be added to, never changed.

use uuid::Uuid;

/// What begins a version 00 `traceparent`; the trace id follows.
const VERSION: &str = "00-";
/// What follows the trace id in one: `-`, 16 digits, `-`, 2 digits.
const REST_LENGTH: usize = 20;

/// The correlation id as it is stored: empty where it is the id of the change, in 32 digits.
pub(crate) fn stored_correlation_id(correlation_id: &str, change_id: Option<Uuid>) -> &str {
    let mut digits = [0; uuid::fmt::Simple::LENGTH];
    let is_the_change = change_id.is_some_and(|id| *id.simple().encode_lower(&mut digits) == *correlation_id);
    if is_the_change { "" } else { correlation_id }
}

/// The traceparent as it is stored: without the trace id where that is the correlation id, and empty where the rest follows
/// from it too.
pub(crate) fn stored_traceparent<'a>(traceparent: &'a str, correlation_id: &str) -> &'a str {
    let Some(tail) = tail_of_trace_id(correlation_id) else { return traceparent };
    match traceparent.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix(correlation_id)) {
        Some(rest) if rest.as_bytes() == own_rest(tail) => "",
        Some(rest) if is_rest(rest) => rest,
        Some(_) | None => traceparent,
    }
}

/// Both as they were before they were stored.
pub(crate) fn as_given(correlation_id: String, traceparent: String, change_id: Option<Uuid>) -> (String, String) {
    let correlation_id = match change_id {
        Some(change_id) if correlation_id.is_empty() => {
            change_id.simple().encode_lower(&mut [0; uuid::fmt::Simple::LENGTH]).to_owned()
        }
        Some(_) | None => correlation_id,
    };
    let traceparent = match tail_of_trace_id(&correlation_id) {
        Some(tail) if traceparent.is_empty() => whole_traceparent(&correlation_id, own_rest(tail).into_iter()),
        Some(_) if is_rest(&traceparent) => whole_traceparent(&correlation_id, traceparent.bytes()),
        Some(_) | None => traceparent,
    };
    (correlation_id, traceparent)
}

/// Of an ASCII rest.
fn whole_traceparent(trace_id: &str, rest: impl Iterator<Item = u8>) -> String {
    let mut text = String::with_capacity(VERSION.len() + trace_id.len() + REST_LENGTH);
    text.push_str(VERSION);
    text.push_str(trace_id);
    text.extend(rest.map(char::from));
    text
}

/// The second half of a correlation id that may be a trace id.
fn tail_of_trace_id(correlation_id: &str) -> Option<u64> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let may_be_one = correlation_id.len() == 32 && correlation_id.as_bytes().iter().all(is_digit);
    if may_be_one { u64::from_str_radix(correlation_id.get(16..)?, 16).ok() } else { None }
}

fn is_rest(text: &str) -> bool {
    text.len() == REST_LENGTH && text.starts_with('-') && text.is_ascii()
}

/// The rest of the traceparent of a request that came without one: the span that `RequestContext` makes of the trace id.
fn own_rest(tail: u64) -> [u8; REST_LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let span_id = (tail ^ (0x5a << 56)) | 1;
    let mut rest = *b"-................-01";
    for (place, digits) in rest[1..17].chunks_exact_mut(2).zip(span_id.to_be_bytes()) {
        place.copy_from_slice(&[DIGITS[usize::from(digits >> 4)], DIGITS[usize::from(digits & 15)]]);
    }
    rest
}

#[cfg(test)]
mod tests {
    use process::context::RequestContext;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn stored(correlation_id: &str, traceparent: &str, change_id: Option<Uuid>) -> (String, String) {
        let correlation_column = stored_correlation_id(correlation_id, change_id).to_owned();
        let traceparent_column = stored_traceparent(traceparent, correlation_id).to_owned();
        let given = as_given(correlation_column.clone(), traceparent_column.clone(), change_id);
        assert_eq!(given, (correlation_id.to_owned(), traceparent.to_owned()));
        (correlation_column, traceparent_column)
    }

    #[test]
    fn the_stored_forms_are_a_promise() {
        let change = Some(Uuid::from_u128(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        let own = format!("00-{TRACE}-f9ce929d0e0e4737-01");
        let of_others = format!("00-{TRACE}-00f067aa0ba902b7-00");
        for (correlation_id, traceparent, change_id, expected) in [
            (TRACE, own.as_str(), change, ("", "")),
            (TRACE, of_others.as_str(), change, ("", "-00f067aa0ba902b7-00")),
            (TRACE, own.as_str(), None, (TRACE, "")),
            (TRACE, of_others.as_str(), Some(Uuid::nil()), (TRACE, "-00f067aa0ba902b7-00")),
            ("a request", own.as_str(), change, ("a request", own.as_str())),
            ("a request", "", change, ("a request", "")),
        ] {
            let stored = stored(correlation_id, traceparent, change_id);
            assert_eq!((stored.0.as_str(), stored.1.as_str()), expected, "{correlation_id} {traceparent}");
        }
    }

    #[test]
    fn what_does_not_follow_from_other_columns_is_stored_as_it_is() {
        let upper_case = TRACE.to_uppercase();
        for (correlation_id, traceparent) in [
            (TRACE, format!("01-{TRACE}-00f067aa0ba902b7-01")),
            (TRACE, format!("00-{TRACE}-00f067aa0ba902b7-01-more")),
            (TRACE, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            (upper_case.as_str(), format!("00-{upper_case}-00f067aa0ba902b7-01")),
            // letters of more than one byte, as long as a trace id
            ("éééééééééééééééé", "00-éééééééééééééééé-00f067aa0ba902b7-01".to_owned()),
            ("+bf92f3577b34da6a3ce929d0e0e4736", "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ] {
            let expected = (correlation_id.to_owned(), traceparent.clone());
            assert_eq!(stored(correlation_id, &traceparent, Some(Uuid::nil())), expected);
        }
    }

    #[test]
    fn nothing_is_stored_of_a_request_that_came_without_ids() {
        let context = RequestContext::fresh();
        assert_eq!(
            stored(context.request_id(), &context.traceparent(), context.made_id()),
            (String::new(), String::new())
        );
    }

    #[test]
    fn an_id_that_a_client_sent_is_stored() {
        let context = RequestContext::of_earlier(TRACE, "");
        assert_eq!(context.made_id(), None);
        assert_eq!(stored(context.request_id(), &context.traceparent(), Some(Uuid::nil())).0, TRACE);
    }
}
