//! A message survives the way there and back, and what is not one of ours is told apart.

use domain::{OwnerId, StoredEvent, TaskId, Time};
use messaging::{Message, Unreadable};
use proptest::prelude::*;
use uuid::Uuid;

type Pairs = Vec<(String, Option<Vec<u8>>)>;

fn read(key: Option<Vec<u8>>, headers: &Pairs, payload: Option<Vec<u8>>) -> Result<Message, Box<Unreadable>> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    Message::read(key.as_deref(), Some(&headers), payload.as_deref())
}

fn parts(message: &Message) -> (Option<Vec<u8>>, Pairs, Option<Vec<u8>>) {
    let headers = message.headers().into_iter().map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec())));
    (Some(message.key().into_bytes()), headers.collect(), Some(message.event.data.clone().into_bytes()))
}

fn time() -> impl Strategy<Value = Time> {
    // the years 1 to 9999, to the microsecond
    (-62_135_596_800_000_000_i64..=253_402_300_799_999_999)
        .prop_map(|micros| Time::from_timestamp_micros(micros).expect("in range"))
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>().prop_filter("Postgres has no NUL", |c| *c != '\0'), 0..40)
        .prop_map(|chars| chars.into_iter().collect())
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

prop_compose! {
    fn messages()(
        (shard, position, back, version, publication) in
            (any::<i16>(), 1..=i64::MAX, any::<u32>(), 1..=i64::MAX, 1..=i64::MAX),
        (owner, task, event_id, command_id, log_id) in (id(), id(), id(), id(), id()),
        (actor_id, change_id, undoes) in (proptest::option::of(id()), proptest::option::of(id()), proptest::option::of(id())),
        (event_type, actor_type, correlation_id, traceparent, data) in (text(), text(), text(), text(), text()),
        (occurred_at, recorded_at, schema_version) in (time(), time(), any::<i16>()),
    ) -> Message {
        Message {
            event: StoredEvent {
                shard, position, owner_id: OwnerId(owner), task_id: TaskId(task), version, event_id, event_type,
                schema_version, occurred_at, recorded_at, actor_type, actor_id, command_id, correlation_id, traceparent,
                change_id, undoes, data,
            },
            log_id,
            publication,
            previous_position: (position - 1 - i64::from(back)).max(0),
        }
    }
}

fn example() -> Message {
    let id = Uuid::from_u128;
    let time = |text| domain::parse_time(text).expect("a time");
    Message {
        event: StoredEvent {
            shard: 0,
            position: 17,
            owner_id: OwnerId(id(1)),
            task_id: TaskId(id(2)),
            version: 3,
            event_id: id(4),
            event_type: "TaskRenamed".into(),
            schema_version: 1,
            occurred_at: time("2026-01-31T12:00:00.25Z"),
            recorded_at: time("2026-01-31T12:00:01Z"),
            actor_type: "user".into(),
            actor_id: Some(id(1)),
            command_id: id(5),
            correlation_id: "a request".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            change_id: Some(id(7)),
            undoes: None,
            data: r#"{"title":"Water the plants"}"#.into(),
        },
        log_id: id(6),
        publication: 1,
        previous_position: 12,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in messages()) {
        let (key, headers, payload) = parts(&message);
        prop_assert_eq!(read(key, &headers, payload), Ok(message));
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        values in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 20),
        payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
    ) {
        let (_, headers, _) = parts(&example());
        let headers = headers.into_iter().zip(values).map(|((name, _), value)| (name, value)).collect();
        let refused = read(key, &headers, payload).expect_err("never one of ours");
        prop_assert!(!refused.reason.contains('\0') && !refused.payload.contains('\0'));
    }

    #[test]
    fn a_broken_header_is_noticed_and_the_others_are_kept(at in 0_usize..20, broken in 0..4) {
        let message = example();
        let (key, mut headers, payload) = parts(&message);
        let name = headers[at].0.clone();
        match broken {
            0 => { headers.remove(at); }
            1 => headers.push(headers[at].clone()),
            2 => headers[at].1 = None,
            _ => headers[at].1 = Some(vec![0xff, 0xfe]),
        }
        let read = read(key, &headers, payload);
        if broken == 0 && name == "ce_actorid" {
            prop_assert_eq!(read.expect("the system has no id").event.actor_id, None);
            return Ok(());
        }
        if broken == 0 && name == "ce_changeid" {
            prop_assert_eq!(read.expect("it is older than changes").event.change_id, None);
            return Ok(());
        }
        let refused = read.expect_err("broken");
        prop_assert!(refused.reason.contains(&name), "{}: {}", name, refused.reason);
        let Message { event, log_id, publication, previous_position } = message;
        let unless = |broken: &str| (name != broken).then_some(());
        let reason = refused.reason.clone();
        prop_assert_eq!(*refused, Unreadable {
            reason,
            log_id: unless("ce_source").map(|()| log_id),
            shard: unless("ce_source").map(|()| event.shard),
            position: unless("ce_position").map(|()| event.position),
            previous_position: unless("ce_previousposition").map(|()| previous_position),
            publication: unless("ce_publication").map(|()| publication),
            // by the key
            owner_id: Some(event.owner_id),
            task_id: unless("ce_subject").map(|()| event.task_id),
            version: unless("ce_taskversion").map(|()| event.version),
            event_id: unless("ce_id").map(|()| event.event_id),
            event_type: unless("ce_type").map(|()| event.event_type),
            payload: event.data,
        });
    }
}

fn refused_with(name: &str, value: &str) -> String {
    let (key, mut headers, payload) = parts(&example());
    let header = headers.iter_mut().find(|(key, _)| key == name).expect("there");
    header.1 = Some(value.as_bytes().to_vec());
    read(key, &headers, payload).expect_err("refused").reason
}

#[test]
fn of_the_spellings_of_a_value_only_ours_is_taken() {
    for (name, value) in [
        ("ce_specversion", "0.3"),
        ("content-type", "text/plain"),
        ("ce_position", "+17"),
        ("ce_position", "017"),
        ("ce_position", "0"),
        ("ce_position", "12"), // the one before it is 12 too
        ("ce_position", "9223372036854775808"),
        ("ce_previousposition", "-1"),
        ("ce_previousposition", "17"),
        ("ce_publication", "0"),
        ("ce_taskversion", "0"),
        ("ce_schemaversion", "1.0"),
        ("ce_id", "{00000000-0000-0000-0000-000000000004}"),
        ("ce_subject", "00000000000000000000000000000002"),
        ("ce_owner", "00000000-0000-0000-0000-000000000009"), // not the key
        ("ce_source", "/primetrade/00000000-0000-0000-0000-000000000006"),
        ("ce_source", "/primetrade/00000000-0000-0000-0000-000000000006/0/0"),
        ("ce_source", "/other/00000000-0000-0000-0000-000000000006/0"),
        ("ce_time", "yesterday"),
        ("ce_time", "2026-01-31T12:00:00"),
        ("ce_correlationid", "a\0b"),
    ] {
        let reason = refused_with(name, value);
        assert!(!reason.is_empty(), "{name} {value}");
    }
}

#[test]
fn a_message_of_somebody_else_is_refused_with_what_it_has() {
    let refused = read(None, &Pairs::new(), Some(vec![b'h', b'i', 0, 0xff])).expect_err("not ours");
    assert_eq!(refused.payload, "hi\u{fffd}\u{fffd}");
    assert_eq!((refused.position, refused.owner_id, refused.shard), (None, None, None));
    assert_eq!(read(None, &Pairs::new(), None).expect_err("not ours").payload, "");
    let unnamed = Message::read(None, None, Some(b"hi")).expect_err("not ours");
    assert_eq!((unnamed.reason.as_str(), unnamed.payload.as_str()), ("the name of a header is not UTF-8", "hi"));
}
