//! A message as a record of Kafka.

use std::panic::{AssertUnwindSafe, catch_unwind};

use messaging::{Message, Unreadable};
use rdkafka::Message as Record;
use rdkafka::message::{Header, Headers, OwnedHeaders};

/// The headers of a message.
#[must_use]
pub fn headers(message: &Message) -> OwnedHeaders {
    let headers = message.headers();
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value.as_ref()) }))
}

/// Reads a record, as [`Message::read`] does.
///
/// # Errors
/// It is not one of ours; with what could be read.
pub fn read(record: &impl Record) -> Result<Message, Box<Unreadable>> {
    Message::read(record.key(), found(record.headers()).as_deref(), record.payload())
}

/// `None`: the library has panicked, as it does at a header whose name is not UTF-8.
fn found<H: Headers>(headers: Option<&H>) -> Option<Vec<messaging::message::Header<'_>>> {
    let all = || headers.map(|headers| headers.iter().map(|header| (header.key, header.value)).collect());
    catch_unwind(AssertUnwindSafe(all)).ok().map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As rdkafka's own headers do it at a name that is not UTF-8.
    struct Panicking;

    impl Headers for Panicking {
        fn count(&self) -> usize {
            1
        }

        fn try_get(&self, _: usize) -> Option<Header<'_, &[u8]>> {
            panic!("the name of a header is not UTF-8")
        }
    }

    #[test]
    fn a_header_that_the_library_panics_at_is_an_error() {
        assert!(found(Some(&Panicking)).is_none());
        assert!(found::<Panicking>(None).is_some_and(|headers| headers.is_empty()));
    }
}
