//! Whatever a body holds: nothing panics, and what is equal as JSON has one fingerprint.

use commands::identity::fingerprint;
use commands::json::{Json, parse};
use commands::{ParseError, line};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_000..1_000).prop_map(|n| Value::from(f64::from(n) + 0.5)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..5).prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

/// The same value spelled otherwise: members from the end, every character escaped, spaces wherever they may be.
fn respelled(value: &Value, out: &mut String) {
    let text = |text: &str, out: &mut String| {
        out.push('"');
        for unit in text.encode_utf16() {
            out.push_str(&format!("\\u{unit:04X}"));
        }
        out.push('"');
    };
    match value {
        Value::String(string) => text(string, out),
        Value::Array(items) => {
            out.push_str("[ ");
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { " ,\n" });
                respelled(item, out);
            }
            out.push_str("\t]");
        }
        Value::Object(members) => {
            out.push_str("{\r\n");
            for (index, (name, value)) in members.iter().rev().enumerate() {
                out.push_str(if index == 0 { "" } else { " , " });
                text(name, out);
                out.push_str(" : ");
                respelled(value, out);
            }
            out.push('}');
        }
        Value::Number(number) if number.is_i64() => out.push_str(&number.to_string()),
        Value::Number(number) => out.push_str(&format!("{number}00e0")),
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

fn print_of(text: &str) -> uuid::Uuid {
    let json: Json<'_> = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    fingerprint("POST", "/", Some(&json))
}

proptest! {
    #[test]
    fn equal_values_have_one_fingerprint_however_they_are_spelled(value in value()) {
        let mut other = String::new();
        respelled(&value, &mut other);
        prop_assert_eq!(print_of(&value.to_string()), print_of(&other), "{}", other);
    }

    #[test]
    fn different_values_have_different_ones(a in value(), b in value()) {
        prop_assert_eq!(a == b, print_of(&a.to_string()) == print_of(&b.to_string()));
    }

    #[test]
    fn no_bytes_make_a_line_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = line::parse(&bytes);
    }

    #[test]
    fn no_json_makes_a_line_panic(
        kind in prop::sample::select(vec!["CreateTask", "RenameTask", "ScheduleTask", "TagTask", "UntagTask", "DeleteTask"]),
        members in btree_map(
            prop::sample::select(vec![
                "task_id", "command_id", "occurred_at", "expected_version", "title", "due_at", "tag", "tags", "priority", "id",
            ]),
            value(),
            0..6,
        ),
    ) {
        let mut line = Map::from_iter(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
        line.insert("type".into(), kind.into());
        if let Err(error) = line::parse(Value::Object(line).to_string().as_bytes()) {
            prop_assert!(matches!(error, ParseError::NotJson(_) | ParseError::Fields(_)), "{}", error);
        }
    }
}
