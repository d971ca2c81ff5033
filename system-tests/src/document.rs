//! Every answer that a test gets is held against the OpenAPI document: a status that it names for this operation, a media
//! type, a body and headers as it has them. Members that it does not know are drift, too, though clients must bear them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

/// Larger bodies are many times the same; an unoptimised validator would take a second for them.
const BODY_BYTES_MAX: usize = 128 << 10;

/// Headers that the document must name wherever they stand.
const HEADERS: [&str; 10] = [
    "ETag",
    "Consistency-Token",
    "Location",
    "Link",
    "Idempotent-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).expect("docs/openapi.json");
    close(&mut document["components"]["schemas"]);
    document
});

/// Validators by the JSON pointer of their schema.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// The document as it is committed, with every schema of an object closed to members that it does not name.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// What is wrong with an answer, if anything is.
pub fn check(method: &str, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let operation = template(path).and_then(|template| {
        let method = if method == "HEAD" { "get" } else { &method.to_ascii_lowercase() };
        let pointer = format!("/paths/{}/{method}", template.replace('~', "~0").replace('/', "~1"));
        DOCUMENT.pointer(&pointer).map(|operation| (pointer, operation))
    });
    let Some((pointer, operation)) = operation else {
        // no such path or method: a problem, or a preflight
        return if status < 400 || body.is_empty() {
            Ok(())
        } else {
            valid("/components/schemas/Problem", &parse(body)?)
        };
    };
    let answer = &operation["responses"][status.to_string()];
    let place = match answer["$ref"].as_str() {
        Some(reference) => reference.trim_start_matches('#').to_owned(),
        None => format!("{pointer}/responses/{status}"),
    };
    let answer = resolved(answer);
    if answer.is_null() {
        return Err(format!("status {status} is not among those documented"));
    }
    check_headers(&answer["headers"], headers)?;
    let content = answer["content"].as_object();
    if method == "HEAD" || body.is_empty() && content.is_none() {
        return Ok(());
    }
    let media_type = headers.get("Content-Type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !content.is_some_and(|content| content.contains_key(media_type)) {
        return Err(format!("media type {media_type:?} is not documented for status {status}"));
    }
    let is_json = media_type.ends_with("json") && !media_type.ends_with("ndjson");
    if !is_json || body.len() > BODY_BYTES_MAX || headers.contains_key("Content-Encoding") {
        return Ok(());
    }
    let place = format!("{place}/content/{}/schema", media_type.replace('/', "~1"));
    valid(&place, &parse(body)?)
}

/// The path of the document that this one is an instance of: literal segments before parameters.
fn template(path: &str) -> Option<&'static String> {
    let fits = |template: &str| {
        let (mut theirs, mut ours) = (template.split('/'), path.split('/'));
        loop {
            match (theirs.next(), ours.next()) {
                (None, None) => return true,
                (Some(their), Some(our)) if their == our || (their.starts_with('{') && !our.is_empty()) => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object()?;
    paths.keys().filter(|template| fits(template)).min_by_key(|template| template.matches('{').count())
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn check_headers(documented: &Value, headers: &HeaderMap) -> Result<(), String> {
    for name in HEADERS {
        let header = resolved(&documented[name]);
        match headers.get(name) {
            Some(_) if header.is_null() => return Err(format!("the header {name} is not documented")),
            Some(value) => {
                let text = value.to_str().map_err(|error| format!("{name}: {error}"))?;
                let value = match header["schema"]["type"].as_str() {
                    Some("integer") => text.parse::<i64>().map_or(Value::Null, Value::from),
                    _ => Value::from(text),
                };
                valid(&format!("/components/headers/{name}/schema"), &value).map_err(|e| format!("{name}: {e}"))?;
            }
            None if header["required"] == true => return Err(format!("the header {name} is missing")),
            None => {}
        }
    }
    Ok(())
}

fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null),
        None => value,
    }
}

/// Whether a value is as the schema at this place of the document has it.
pub fn valid(place: &str, value: &Value) -> Result<(), String> {
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(validators.entry(place.to_owned()).or_insert_with(|| {
            let schema = DOCUMENT.pointer(place).unwrap_or_else(|| panic!("{place} is not in the document"));
            let schema = json!({"allOf": [schema], "components": DOCUMENT["components"]});
            Arc::new(jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema"))
        }))
    };
    let wrong: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as {place} has it: {}", wrong.join("; "))) }
}

/// Closes objects that name their members.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let names_members = members.get("properties").is_some_and(Value::is_object) && members.contains_key("type");
            if names_members && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All operations: method, path, what the document says.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths: &'static Map<String, Value> = DOCUMENT["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .into_iter()
            .flatten()
            .map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}
