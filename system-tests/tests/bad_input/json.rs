//! Bodies that are not JSON, or not the JSON that was asked for.

use serde_json::{Value, json};
use uuid::Uuid;

use super::table::{Case, Target, family, target};

const TASKS: &str = "/api/v1/tasks";
const COMMANDS: &str = "/api/v1/commands";
const JSON: &str = "application/json";

/// Bodies that no parser may take, by what is wrong with them.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let text = |name, body: &str| (name, body.as_bytes().to_vec());
    let nested = |open: &str, depth: usize| format!(r#"{{"title":{}"#, open.repeat(depth)).into_bytes();
    let closed =
        |depth: usize| format!(r#"{{"title":"a","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let utf16 = r#"{"title":"a"}"#.encode_utf16();
    vec![
        text("empty", ""),
        text("white space", " \r\n\t "),
        text("an open object", "{"),
        text("an open string", r#"{"title":"a"#),
        text("no value", r#"{"title":}"#),
        text("no colon", r#"{"title" "a"}"#),
        text("two values", r#"{"title":"a"}{"title":"b"}"#),
        text("something after it", r#"{"title":"a"} x"#),
        text("a trailing comma", r#"{"title":"a",}"#),
        text("a trailing comma in a list", r#"{"title":"a","tags":["x",]}"#),
        text("a leading comma", r#"{,"title":"a"}"#),
        text("single quotes", r"{'title':'a'}"),
        text("a bare key", r#"{title:"a"}"#),
        text("a comment", r#"{"title":"a"/* why */}"#),
        text("a comment to the end of the line", "{\"title\":\"a\" // why\n}"),
        text("a comment as of a shell", "# why\n{\"title\":\"a\"}"),
        text("NaN", r#"{"title":NaN}"#),
        text("Infinity", r#"{"title":Infinity}"#),
        text("-Infinity", r#"{"title":-Infinity}"#),
        text("undefined", r#"{"title":undefined}"#),
        text("True", r#"{"title":True}"#),
        text("a leading zero", r#"{"title":01}"#),
        text("a plus sign", r#"{"title":+1}"#),
        text("a number that ends with its point", r#"{"title":1.}"#),
        text("a number that begins with its point", r#"{"title":.5}"#),
        text("a number in hexadecimal", r#"{"title":0x10}"#),
        text("an exponent of nothing", r#"{"title":1e}"#),
        text("an escape that is none", r#"{"title":"\x41"}"#),
        text("half an escape", r#"{"title":"\u12"}"#),
        text("an escape with braces", r#"{"title":"\u{41}"}"#),
        text("a lone high surrogate", r#"{"title":"\ud800"}"#),
        text("a lone low surrogate", r#"{"title":"\udc00"}"#),
        text("surrogates in the wrong order", r#"{"title":"\udc00\ud800"}"#),
        text("a high surrogate before a letter", r#"{"title":"a","description":"\ud83da"}"#),
        text("a lone surrogate in a tag", r#"{"title":"a","tags":["\ud83d"]}"#),
        text("a lone surrogate in a key", r#"{"title":"a","\ud800":1}"#),
        text("a raw line break", "{\"title\":\"a\nb\"}"),
        text("a raw tab", "{\"title\":\"a\tb\"}"),
        text("a raw NUL", "{\"title\":\"a\0b\"}"),
        text("a NUL after it", "{\"title\":\"a\"}\0"),
        text("a byte order mark", "\u{feff}{\"title\":\"a\"}"),
        text("a key twice", r#"{"title":"a","title":"b"}"#),
        text("a key twice, with the same value", r#"{"title":"a","title":"a"}"#),
        text("a key twice, once escaped", r#"{"title":"a","t\u0069tle":"b"}"#),
        text("a key twice, in an object that is none of ours", r#"{"title":"a","x":{"y":1,"y":2}}"#),
        ("UTF-16, little end first", utf16.clone().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16, big end first", utf16.flat_map(u16::to_be_bytes).collect()),
        ("bytes that are no text", b"{\"title\":\"\xff\xfe\"}".to_vec()),
        ("an overlong slash", b"{\"title\":\"\xc0\xaf\"}".to_vec()),
        ("an overlong NUL", b"{\"title\":\"\xc0\x80\"}".to_vec()),
        ("a surrogate in UTF-8", b"{\"title\":\"\xed\xa0\x80\"}".to_vec()),
        ("half a character", b"{\"title\":\"\xe2\x82\"}".to_vec()),
        ("a character beyond the last", b"{\"title\":\"\xf4\x90\x80\x80\"}".to_vec()),
        ("bytes that are no text, in a key", b"{\"title\":\"a\",\"\xff\":1}".to_vec()),
        ("100,000 lists", nested("[", 100_000)),
        ("100,000 objects", nested(r#"{"a":"#, 100_000)),
        ("1,000 lists, closed", closed(1_000)),
        ("300,000 lists, closed", closed(300_000)),
    ]
}

/// Bodies that are JSON, but nothing that makes a task: status, code.
fn other_json() -> Vec<(&'static str, String, u16, &'static str)> {
    let unknown_long = format!(r#"{{"title":"a","{}":1}}"#, "k".repeat(100_000));
    let many = (0..10_000).map(|n| format!(r#""k{n}":1"#)).collect::<Vec<_>>().join(",");
    [
        ("null", "null", 400, "malformed-body"),
        ("true", "true", 400, "malformed-body"),
        ("a number", "7", 400, "malformed-body"),
        ("a string", r#""title""#, 400, "malformed-body"),
        ("a list", r#"[{"title":"a"}]"#, 400, "malformed-body"),
        ("no field", "{}", 422, "invalid-fields"),
        ("an empty key", r#"{"title":"a","":1}"#, 400, "malformed-body"),
        ("a prototype", r#"{"title":"a","__proto__":{"admin":true}}"#, 400, "malformed-body"),
        ("a key in capitals", r#"{"Title":"a"}"#, 400, "malformed-body"),
        ("a field of the answer", r#"{"title":"a","status":"completed"}"#, 400, "malformed-body"),
        (
            "somebody else's",
            r#"{"title":"a","owner_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#,
            400,
            "malformed-body",
        ),
        ("1e999", r#"{"title":1e999}"#, 400, "malformed-body"),
        ("-1e999", r#"{"title":"a","priority":-1e999}"#, 400, "malformed-body"),
        ("2^64", r#"{"title":18446744073709551616}"#, 400, "malformed-body"),
        ("-2^63 - 1", r#"{"title":"a","due_at":-9223372036854775809}"#, 400, "malformed-body"),
        ("a number of 10,000 digits", &format!(r#"{{"title":{}}}"#, "9".repeat(10_000)), 400, "malformed-body"),
        ("an object for a title", r#"{"title":{"$ne":null}}"#, 400, "malformed-body"),
        ("a list for a title", r#"{"title":["a"]}"#, 400, "malformed-body"),
        ("tags in an object", r#"{"title":"a","tags":{"0":"x"}}"#, 400, "malformed-body"),
        ("tags in tags", r#"{"title":"a","tags":[["x"]]}"#, 400, "malformed-body"),
        ("an escaped NUL", r#"{"title":"a\u0000b"}"#, 422, "invalid-fields"),
        ("a key of 100,000 characters", &unknown_long, 400, "malformed-body"),
        ("10,000 keys", &format!("{{{many}}}"), 400, "malformed-body"),
    ]
    .map(|(name, body, status, code)| (name, body.to_owned(), status, code))
    .into()
}

#[tokio::test]
async fn bodies_of_a_task() {
    family("JSON of a new task", async |target| {
        let post = |body: Vec<u8>| target.account.request("POST", TASKS).body(JSON, body);
        let broken = broken().into_iter().map(|(name, body)| Case::new(name, post(body), 400, "malformed-body"));
        let other = other_json().into_iter();
        let other = other.map(|(name, body, status, code)| Case::new(name, post(body.into_bytes()), status, code));
        broken.chain(other).collect()
    })
    .await;
}

#[tokio::test]
async fn bodies_of_a_patch() {
    family("JSON of a patch", async |target| {
        let id = target.account.create(json!({"title": "kept"})).await;
        let patch = |body: Vec<u8>| {
            let request = target.account.request("PATCH", &format!("{TASKS}/{id}"));
            request.body("application/merge-patch+json", body)
        };
        let broken = broken().into_iter().map(|(name, body)| Case::new(name, patch(body), 400, "malformed-body"));
        let more = [
            (
                "a list of operations (RFC 6902)",
                r#"[{"op":"replace","path":"/title","value":"b"}]"#,
                400,
                "malformed-body",
            ),
            ("an id", r#"{"id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#, 400, "malformed-body"),
            ("a version", r#"{"version":7}"#, 400, "malformed-body"),
            ("no title any more", r#"{"title":null}"#, 422, "invalid-fields"),
            ("no priority any more", r#"{"priority":null}"#, 422, "invalid-fields"),
        ];
        let more = more.map(|(name, body, status, code)| Case::new(name, patch(body.into()), status, code));
        broken.chain(more).collect()
    })
    .await;
}

#[tokio::test]
async fn bodies_of_an_action() {
    family("JSON of an action", async |target| {
        let id = target.account.create(json!({"title": "pending"})).await;
        let start = |body: &str| target.account.request("POST", &format!("{TASKS}/{id}/start")).body(JSON, body);
        [
            ("a field", r#"{"now":true}"#),
            ("a list", "[]"),
            ("two values", "{}{}"),
            ("no JSON", "start"),
            ("1e999", "1e999"),
            ("a byte order mark", "\u{feff}{}"),
        ]
        .map(|(name, body)| Case::new(name, start(body), 400, "malformed-body"))
        .into()
    })
    .await;
}

/// What fails as a whole: only a body that is not the list it should be.
#[tokio::test]
async fn bodies_of_a_batch() {
    family("JSON of a batch", async |target| {
        let send = |body: &str| target.account.request("POST", COMMANDS).body(JSON, body);
        let lines = |body: &str| target.account.request("POST", COMMANDS).body("application/x-ndjson", body);
        let command = json!({"type": "CreateTask", "task_id": Uuid::now_v7(), "title": "a"}).to_string();
        let many = format!(r#"{{"commands":[{}]}}"#, vec!["1"; 10_001].join(","));
        let mut cases: Vec<Case> = [
            ("empty", String::new(), 400, "malformed-body"),
            ("a list", format!("[{command}]"), 400, "malformed-body"),
            ("one command", command.clone(), 400, "malformed-body"),
            ("commands are an object", format!(r#"{{"commands":{command}}}"#), 400, "malformed-body"),
            ("commands are a string", r#"{"commands":"all"}"#.into(), 400, "malformed-body"),
            ("commands twice", format!(r#"{{"commands":[{command}],"commands":[]}}"#), 400, "malformed-body"),
            ("one more member", format!(r#"{{"commands":[{command}],"dry_run":true}}"#), 400, "malformed-body"),
            ("a list that does not end", format!(r#"{{"commands":[{command}"#), 400, "malformed-body"),
            ("a list without commas", format!(r#"{{"commands":[{command} {command}]}}"#), 400, "malformed-body"),
            (
                "a comment between commands",
                format!(r#"{{"commands":[{command},/**/{command}]}}"#),
                400,
                "malformed-body",
            ),
            ("something after it", format!(r#"{{"commands":[{command}]}} x"#), 400, "malformed-body"),
            ("no commands", r#"{"commands":[]}"#.into(), 422, "invalid-fields"),
            ("commands are null", r#"{"commands":null}"#.into(), 422, "invalid-fields"),
            ("nothing named", "{}".into(), 422, "invalid-fields"),
            ("10,001 of them", many, 413, "batch-too-large"),
        ]
        .into_iter()
        .map(|(name, body, status, code)| Case::new(name, send(&body), status, code))
        .collect();
        cases.push(Case::new("no line", lines(""), 422, "invalid-fields"));
        cases.push(Case::new("empty lines", lines("\n\n\r\n"), 422, "invalid-fields"));
        cases.push(Case::new("10,001 lines", lines(&"1\n".repeat(10_001)), 413, "batch-too-large"));
        cases
    })
    .await;
}

/// A command that is wrong in itself fails alone: all others commit, in both forms of a batch.
#[tokio::test]
async fn a_bad_command_fails_alone() {
    let target = target().await;
    let bad = [
        ("an escaped NUL", r#""title":"a\u0000b""#, 422, "invalid-fields"),
        ("a lone surrogate", r#""title":"\ud800""#, 400, "malformed-body"),
        ("a key twice", r#""title":"a","title":"b""#, 400, "malformed-body"),
        ("NaN", r#""title":NaN"#, 400, "malformed-body"),
        ("1e999", r#""title":"a","expected_version":1e999"#, 400, "malformed-body"),
        ("2^64", r#""title":"a","expected_version":18446744073709551616"#, 400, "malformed-body"),
        ("a negative version", r#""title":"a","expected_version":-1"#, 422, "invalid-fields"),
        ("an unknown field", r#""title":"a","colour":"red""#, 400, "malformed-body"),
        ("a blank title", r#""title":" ""#, 422, "invalid-fields"),
        ("an impossible day", r#""title":"a","due_at":"2026-02-30T00:00:00Z""#, 422, "invalid-fields"),
        ("a future event", r#""title":"a","occurred_at":"2999-01-01T00:00:00Z""#, 422, "occurred-at-refused"),
        ("an id that is none", r#""title":"a","command_id":"{}""#, 422, "invalid-fields"),
    ];
    for as_lines in [false, true] {
        let good: Vec<Uuid> = (0..=bad.len()).map(|_| Uuid::now_v7()).collect();
        let mut commands = Vec::new();
        for (index, id) in good.iter().enumerate() {
            commands.push(format!(r#"{{"type":"CreateTask","task_id":"{id}","title":"good"}}"#));
            // after NaN nobody knows where a list goes on; a line ends with its line
            if let Some((_, members, ..)) = bad.get(index).filter(|(name, ..)| as_lines || *name != "NaN") {
                commands.push(format!(r#"{{"type":"CreateTask","task_id":"{}",{members}}}"#, Uuid::now_v7()));
            }
        }
        let answer = send(&target, &commands, as_lines).await;
        let results = answer["results"].as_array().unwrap();
        let failed: Vec<(u64, String)> = results
            .iter()
            .filter(|result| result.get("problem").is_some())
            .map(|result| (result["status"].as_u64().unwrap(), result["problem"]["code"].as_str().unwrap().to_owned()))
            .collect();
        let expected: Vec<(u64, String)> = bad
            .iter()
            .filter(|(name, ..)| as_lines || *name != "NaN")
            .map(|(_, _, status, code)| (*status, (*code).to_owned()))
            .collect();
        assert_eq!(failed, expected, "as lines: {as_lines}");
        assert_eq!(answer["succeeded"], good.len(), "as lines: {as_lines}");
        for id in good {
            assert_eq!(target.account.task(id).await["title"], "good");
        }
    }
    assert_eq!(target.account.walk(TASKS).await.len(), 2 * (bad.len() + 1));
}

async fn send(target: &Target, commands: &[String], as_lines: bool) -> Value {
    let request = target.account.request("POST", COMMANDS);
    let request = if as_lines {
        request.body("application/x-ndjson", commands.join("\n"))
    } else {
        request.body(JSON, format!(r#"{{"commands":[{}]}}"#, commands.join(",")))
    };
    request.send().await.expect(200).json()
}
