//! Values that JSON can say and a task cannot be, and strange ones that it can: these come back byte for byte.

use std::fs;

use serde_json::{Value, json};
use system_tests::client::Request;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::table::{Case, family, target};

const TASKS: &str = "/api/v1/tasks";

/// Field, what is wrong with the value, the value, status, code.
fn values() -> Vec<(&'static str, &'static str, Value, u16, &'static str)> {
    let title = |name, value: &str| ("title", name, json!(value), 422, "invalid-fields");
    let tag = |name, value: &str| ("tags", name, json!(["good", value]), 422, "invalid-fields");
    let due = |name, value: &str| ("due_at", name, json!(value), 422, "invalid-fields");
    let id = |name, value: &str| ("id", name, json!(value), 422, "invalid-fields");
    vec![
        title("empty", ""),
        title("a space", " "),
        title("line breaks", "\r\n\n"),
        title("a no-break space", "\u{a0}"),
        title("an ideographic space", "\u{3000}\u{3000}"),
        title("a zero-width space", "\u{200b}"),
        title("a zero-width joiner", "\u{200d}"),
        title("a word joiner", "\u{2060}"),
        title("a byte order mark", "\u{feff}"),
        title("a soft hyphen", "\u{ad}"),
        title("a Hangul filler", "\u{3164}\u{115f}\u{ffa0}"),
        title("a Braille blank", "\u{2800}"),
        title("directions", "\u{202e}\u{202c}\u{2066}"),
        title("a lone accent", "\u{301}"),
        title("a variation selector", "\u{fe0f}"),
        title("tags of a language", "\u{e0001}\u{e0065}"),
        title("a line break inside", "a\nb"),
        title("a carriage return inside", "a\rb"),
        title("a tab inside", "a\tb"),
        title("NUL", "a\u{0}b"),
        title("an escape sequence", "\u{1b}[31mred"),
        title("DEL", "a\u{7f}b"),
        title("a control character of Latin-1", "a\u{85}b"),
        title("201 letters", &"x".repeat(201)),
        title("201 letters of two bytes", &"é".repeat(201)),
        title("201 letters of four bytes", &"😀".repeat(201)),
        title("1,000,000 letters", &"x".repeat(1_000_000)),
        ("description", "10,001 letters", json!("x".repeat(10_001)), 422, "invalid-fields"),
        ("description", "10,001 letters of three bytes", json!("あ".repeat(10_001)), 422, "invalid-fields"),
        ("description", "NUL", json!("a\u{0}"), 422, "invalid-fields"),
        ("priority", "empty", json!(""), 422, "invalid-fields"),
        ("priority", "in capitals", json!("HIGH"), 422, "invalid-fields"),
        ("priority", "with a space", json!("high "), 422, "invalid-fields"),
        ("priority", "unknown", json!("critical"), 422, "invalid-fields"),
        tag("empty", ""),
        tag("spaces", "  "),
        tag("invisible", "\u{200b}"),
        tag("51 letters", &"x".repeat(51)),
        tag("26 letters that grow when made small", &"İ".repeat(26)),
        tag("a comma", "a,b"),
        tag("NUL", "a\u{0}b"),
        tag("a line break inside", "a\nb"),
        ("tags", "null among them", json!(["a", null]), 422, "invalid-fields"),
        ("tags", "21 of them", json!((0..21).map(|n| format!("t{n}")).collect::<Vec<_>>()), 409, "too-many-tags"),
        due("empty", ""),
        due("no day of any month", "2026-01-32T00:00:00Z"),
        due("no day of February", "2026-02-30T00:00:00Z"),
        due("no leap year", "2026-02-29T00:00:00Z"),
        due("no leap year either", "1900-02-29T00:00:00Z"),
        due("month 13", "2026-13-01T00:00:00Z"),
        due("month 0", "2026-00-01T00:00:00Z"),
        due("day 0", "2026-01-00T00:00:00Z"),
        due("hour 25", "2026-01-01T25:00:00Z"),
        due("minute 60", "2026-01-01T00:60:00Z"),
        due("second 61", "2026-01-01T00:00:61Z"),
        due("an offset of 25 hours", "2026-01-01T00:00:00+25:00"),
        due("no offset", "2026-01-01T00:00:00"),
        due("a day alone", "2026-01-01"),
        due("year 0", "0000-01-01T00:00:00Z"),
        due("before year 1, in UTC", "0001-01-01T00:00:00+01:00"),
        due("after year 9999, in UTC", "9999-12-31T23:59:59-01:00"),
        due("year 10000", "10000-01-01T00:00:00Z"),
        due("a year with a sign", "+2026-01-01T00:00:00Z"),
        due("seconds since 1970", "1700000000"),
        due("in words", "tomorrow"),
        due("a fraction of nothing", "2026-01-01T00:00:00.Z"),
        due("other digits", "２０２６-01-01T00:00:00Z"),
        due("infinity, as Postgres has it", "infinity"),
        due("an offset of seconds", "2026-01-01T00:00:00+00:00:01"),
        id("empty", ""),
        id("no UUID", "1"),
        id("without hyphens", "01932c6e7d3b7cc1a5ad0242ac120002"),
        id("in braces", "{01932c6e-7d3b-7cc1-a5ad-0242ac120002}"),
        id("a URN", "urn:uuid:01932c6e-7d3b-7cc1-a5ad-0242ac120002"),
        id("a digit too few", "01932c6e-7d3b-7cc1-a5ad-0242ac12000"),
        id("a digit too many", "01932c6e-7d3b-7cc1-a5ad-0242ac1200020"),
        id("a letter that is no digit", "01932c6e-7d3b-7cc1-a5ad-0242ac12000g"),
        id("other digits", "01932c6e-7d3b-7cc1-a5ad-0242ac12000２"),
        id("hyphens elsewhere", "01932c6e7-d3b-7cc1-a5ad-0242ac120002"),
        id("a space before it", " 01932c6e-7d3b-7cc1-a5ad-0242ac120002"),
        id("NUL after it", "01932c6e-7d3b-7cc1-a5ad-0242ac120002\u{0}"),
        id("SQL", "1' or '1'='1"),
    ]
}

#[tokio::test]
async fn new_tasks() {
    family("values of a new task", async |target| {
        let case = |(field, name, value, status, code): (&str, &str, Value, u16, &'static str)| {
            let mut body = json!({"title": "good"});
            body[field] = value;
            let request = target.account.request("POST", TASKS).json(&body);
            Case::new(format!("{field}: {name}"), request, status, code)
        };
        values().into_iter().map(case).collect()
    })
    .await;
}

#[tokio::test]
async fn patches() {
    family("values of a patch", async |target| {
        let id = target.account.create(json!({"title": "kept"})).await;
        let values = values().into_iter().filter(|(field, ..)| *field != "id");
        let case = |(field, name, value, status, code): (&str, &str, Value, u16, &'static str)| {
            let request = target.account.request("PATCH", &format!("{TASKS}/{id}")).json(&json!({ field: value }));
            Case::new(format!("{field}: {name}"), request, status, code)
        };
        values.map(case).collect()
    })
    .await;
}

#[tokio::test]
async fn paths_and_queries() {
    family("values of paths and queries", async |target| {
        let get = |path: &str| -> Request { target.account.request("GET", path) };
        let id = Uuid::now_v7();
        [
            ("an id without hyphens", format!("{TASKS}/{}", id.simple())),
            ("an id in braces", format!("{TASKS}/%7B{id}%7D")),
            ("a URN for an id", format!("{TASKS}/urn:uuid:{id}")),
            ("other digits in an id", format!("{TASKS}/01932c6e-7d3b-7cc1-a5ad-0242ac12000%EF%BC%92")),
            ("NUL after an id", format!("{TASKS}/{id}%00")),
            ("bytes that are no text", format!("{TASKS}/%ff%fe")),
            ("a path in a path", format!("{TASKS}/..%2f..%2fetc%2fpasswd")),
            ("as of no day of February", format!("{TASKS}/{id}?as_of=2026-02-30T00:00:00Z")),
            ("as of year 0", format!("{TASKS}/{id}?as_of=0000-01-01T00:00:00Z")),
            ("as of the future", format!("{TASKS}/{id}?as_of=9999-01-01T00:00:00Z")),
            ("as of nothing", format!("{TASKS}/{id}?as_of=")),
            ("a plus that became a space", format!("{TASKS}?due_after=2026-01-01T00:00:00+01:00")),
            ("due before infinity", format!("{TASKS}?due_before=infinity")),
            ("a limit of 2^64", format!("{TASKS}?limit=18446744073709551616")),
            ("a limit of 1e2", format!("{TASKS}?limit=1e2")),
            ("a limit with a sign", format!("{TASKS}?limit=%2B5")),
            ("a limit of nothing", format!("{TASKS}?limit=")),
            ("a limit in other digits", format!("{TASKS}?limit=%EF%BC%95")),
            ("words with NUL", format!("{TASKS}?q=a%00b")),
            ("words that are no text", format!("{TASKS}?q=%ff")),
            ("half an escape", format!("{TASKS}?q=%4")),
            ("words of 201 characters", format!("{TASKS}?q={}", "%C3%A9".repeat(201))),
            ("an empty status among others", format!("{TASKS}?status=pending,,completed")),
            ("a status with a space", format!("{TASKS}?status=pending,%20completed")),
            ("51 tags", format!("{TASKS}?tag={}", (0..51).map(|n| format!("t{n}")).collect::<Vec<_>>().join(","))),
            ("two sorts", format!("{TASKS}?sort=due_at,priority")),
            ("an SQL sort", format!("{TASKS}?sort=id;drop%20table%20task")),
            ("a parameter twice, once escaped", format!("{TASKS}?limit=5&lim%69t=5")),
            ("a parameter of an array", format!("{TASKS}?status[]=pending")),
            ("no day of February, from", "/api/v1/stats?from=2026-02-30".to_owned()),
            ("day 0, to", "/api/v1/stats?to=2026-01-00".to_owned()),
            ("a short year", "/api/v1/stats?from=26-01-01".to_owned()),
            ("a time for a day", "/api/v1/stats?from=2026-01-01T00:00:00Z".to_owned()),
            ("from after to", "/api/v1/stats?from=2026-01-02&to=2026-01-01".to_owned()),
            ("367 days", "/api/v1/stats?from=2025-01-01&to=2026-01-02".to_owned()),
        ]
        .map(|(name, path)| Case::new(name, get(&path), 400, "invalid-parameter"))
        .into()
    })
    .await;
}

/// Strings that have broken others; each is a title, a description and (but for commas) a tag.
fn naughty() -> Vec<String> {
    let many = [
        "undefined",
        "null",
        "NULL",
        "(null)",
        "true",
        "NaN",
        "\\",
        "\\\\",
        "\\u0000",
        "%00",
        "%s%s%s%n",
        "${jndi:ldap://127.0.0.1/a}",
        "{{7*7}}",
        "<%= 7*7 %>",
        "$(reboot)",
        "`reboot`",
        "| ls",
        "../../../etc/passwd",
        "'; drop table task; --",
        "' or '1'='1",
        "\" or \"\"=\"",
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "javascript:alert(1)",
        "<!--",
        "]]>",
        "&lt;b&gt; &amp; &#0;",
        "=1+1",
        "@SUM(A1:A9)",
        "Ω≈ç√∫˜µ≤≥÷",
        "田中さんにあげて下さい",
        "﷽",
        "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪",
        "e\u{301} \u{e9} ﬁ ﬀ",
        "Z\u{351}\u{36b}a\u{343}\u{36a}l\u{302}g\u{348}o\u{334}",
        "a\u{202e}cba\u{202c}",
        "ثم نفس سقطت",
        "İ i I ı ß ẞ ſ K",
        "\u{feff}a\u{200b}b\u{2060}c\u{ad}d",
        "\u{10ffff}\u{e000}\u{fffd}\u{fffe}",
        "𝕿𝖍𝖊 𝖖𝖚𝖎𝖈𝖐",
        "-9223372036854775809",
        "1e999",
        "0x1p-1074",
        "１２３",
        "1.0/0.0",
        "CON",
        "💩💩💩💩💩💩💩💩💩💩",
    ];
    many.map(str::to_owned).into()
}

#[tokio::test]
async fn strange_strings_come_back_byte_for_byte() {
    let target = target().await;
    let strings = naughty();
    for text in &strings {
        let tag: String = text.replace(',', ";").chars().take(50).collect();
        // in capitals nothing is compared: tags are made small
        let tag = tag.trim().to_lowercase();
        let tag: String = tag.chars().take(50).collect();
        let id = target.account.create(json!({"title": text, "description": text, "tags": [tag]})).await;
        let task = target.account.task(id).await;
        assert_eq!(task["title"].as_str().unwrap().as_bytes(), text.as_bytes());
        assert_eq!(task["description"].as_str().unwrap().as_bytes(), text.as_bytes());
        // and composed
        assert_eq!(task["tags"], json!([tag.nfc().to_string()]), "{text}");
        let answer = target.account.read(&format!("{TASKS}/{id}")).await;
        assert_eq!(answer.must("X-Content-Type-Options"), "nosniff");
        assert_eq!(answer.must("Content-Type"), "application/json");
    }
    // in lists too, and in the log
    let listed = target.account.walk(TASKS).await;
    let mut titles: Vec<&str> = listed.iter().map(|task| task["title"].as_str().unwrap()).collect();
    let mut sent: Vec<&str> = strings.iter().map(String::as_str).collect();
    titles.sort_unstable();
    sent.sort_unstable();
    assert_eq!(titles, sent);
    // what somebody sent is in no page, and would not run there
    for page in ["/docs", "/problems/invalid-fields"] {
        let answer = target.api.get(page).send().await.expect(200);
        assert!(!answer.text().contains("alert(1)"), "{page}");
        let policy = answer.must("Content-Security-Policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let scripts = policy.split(';').find(|part| part.trim().starts_with("script-src"));
        assert!(scripts.is_none_or(|scripts| scripts.trim() == "script-src 'self'"), "{policy}");
    }
}

/// Limits from the inside.
#[tokio::test]
async fn the_longest_of_everything_is_taken() {
    let target = target().await;
    for (field, value, answered) in [
        ("title", json!("😀".repeat(200)), json!("😀".repeat(200))),
        ("title", json!(format!(" \t{}\r\n", "x".repeat(200))), json!("x".repeat(200))),
        ("title", json!("\u{200b}.\u{200b}"), json!("\u{200b}.\u{200b}")),
        ("description", json!("あ".repeat(10_000)), json!("あ".repeat(10_000))),
        ("description", json!(" \n\u{200b}\t "), json!(" \n\u{200b}\t ")),
        ("description", json!(""), json!("")),
        ("tags", json!(["Ä".repeat(50)]), json!(["ä".repeat(50)])),
        ("tags", json!((0..40).map(|n| format!("T{}", n % 20)).collect::<Vec<_>>()), json!(twenty())),
        ("due_at", json!("0001-01-01T00:00:00Z"), json!("0001-01-01T00:00:00Z")),
        ("due_at", json!("9999-12-31T23:59:59.999999Z"), json!("9999-12-31T23:59:59.999999Z")),
        ("due_at", json!("2024-02-29T00:00:00+14:00"), json!("2024-02-28T10:00:00Z")),
        ("id", json!("FFFFFFFF-ffff-4fff-8fff-ffffffffffff"), json!("ffffffff-ffff-4fff-8fff-ffffffffffff")),
    ] {
        let mut body = json!({"title": "good"});
        body[field] = value;
        let id = target.account.create(body).await;
        assert_eq!(target.account.task(id).await[field], answered, "{field}");
    }
}

fn twenty() -> Vec<String> {
    let mut tags: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    tags.sort();
    tags
}

/// A spreadsheet that opens an export runs nothing, and an import makes of it what was there.
#[tokio::test]
async fn formulas_in_an_export() {
    let target = target().await;
    let formulas = [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "'=1",
        "=cmd|' /C calc'!A0",
        "=HYPERLINK(\"http://127.0.0.1/?x=\"&A1,\"click\")",
        "a=1",
    ];
    for text in formulas {
        let lead = format!("\t{text}");
        target.account.create(json!({"title": text, "description": lead, "tags": ["=tag"]})).await;
    }
    target.server.caught_up().await;
    let file = target.server.dir().join("formulas.csv");
    let file = file.to_str().unwrap();
    target.server.cli(&["export", file, "--owner", &target.account.email, "--format", "csv"]).await.expect(0);
    let text = fs::read_to_string(file).unwrap();
    let mut rows = 0;
    for row in text.split("\n").skip(1).filter(|row| !row.is_empty()) {
        rows += 1;
        for cell in cells(row) {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?} in {row}");
        }
    }
    assert_eq!(rows, formulas.len(), "{text}");
    let other = target.api.account().await;
    target.server.cli(&["import", file, "--owner", &other.email, "--format", "csv", "--json"]).await.expect(0);
    target.server.caught_up().await;
    let mut imported: Vec<Value> = other.walk(TASKS).await.iter().map(seen).collect();
    let mut made: Vec<Value> = target.account.walk(TASKS).await.iter().map(seen).collect();
    imported.sort_by_key(Value::to_string);
    made.sort_by_key(Value::to_string);
    assert_eq!(imported, made);
}

fn seen(task: &Value) -> Value {
    json!([task["title"], task["description"], task["tags"]])
}

/// The cells of a row of CSV; nothing here has a line break in it.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = row.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cells.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}
