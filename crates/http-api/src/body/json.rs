//! JSON objects of bodies, strictly; see the top of [`super`] for what fails how.

use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// One JSON object, strictly; see the top of [`crate::body`] for what fails how.
///
/// # Errors
/// 400 `malformed-body` or 422 `invalid-fields`, with the pointer where it is known.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde takes a list of the fields' values for a struct as well
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte != b'{') {
        return Err(Problem::new(ProblemCode::MalformedBody).detail("a JSON object is needed"));
    }
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// Parses once more, slowly, to learn where it failed.
#[cold]
fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    if !error.is_data() {
        let what = if bytes.iter().all(u8::is_ascii_whitespace) {
            "a JSON body is needed".to_owned()
        } else if error.is_eof() {
            "the JSON breaks off".to_owned()
        } else {
            // names what is expected, never what is there
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("{text} at {place}")
        };
        return Problem::new(ProblemCode::MalformedBody).detail(what);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let (path, message) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => (pointer(error.path()), error.inner().to_string()),
        Ok(_) => (String::new(), error.to_string()),
    };
    let message = message.split(" at line ").next().unwrap_or_default();
    let (code, field, detail) = classify(message);
    let pointer = match field {
        // the path ends at the object, the message names its member
        Some(field) if !path.ends_with(&format!("/{}", escape(field))) => format!("{path}/{}", escape(field)),
        Some(_) | None => path,
    };
    Problem::new(code).error(pointer, detail)
}

/// What serde's own messages mean. (A test pins those of the version in use.)
fn classify(message: &str) -> (ProblemCode, Option<&str>, String) {
    let named = |rest: &'static str| message.strip_prefix(rest).and_then(|rest| rest.split('`').next());
    let expected = || message.rsplit_once("expected ").map_or("another value", |(_, expected)| expected);
    if let Some(field) = named("unknown field `") {
        (ProblemCode::MalformedBody, Some(field), "there is no such field".into())
    } else if let Some(field) = named("duplicate field `") {
        (ProblemCode::MalformedBody, Some(field), "appears more than once".into())
    } else if let Some(field) = named("missing field `") {
        (ProblemCode::InvalidFields, Some(field), "is missing".into())
    } else if message.starts_with("invalid type: null") {
        (ProblemCode::InvalidFields, None, format!("must not be null, expected {}", expected()))
    } else if message.starts_with("invalid type") || message.starts_with("invalid length") {
        (ProblemCode::MalformedBody, None, format!("has the wrong JSON type, expected {}", expected()))
    } else if message.starts_with("invalid value") || message.starts_with("unknown variant") {
        (ProblemCode::InvalidFields, None, format!("expected {}", expected()))
    } else {
        // what a Deserialize of ours said; bounded all the same
        (ProblemCode::InvalidFields, None, message.chars().take(200).collect())
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&escape(key));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

/// A member's name in a JSON pointer, bounded.
fn escape(name: &str) -> String {
    name.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "read by Debug only")]
    struct Sample {
        title: String,
        #[serde(default)]
        tags: Option<Vec<String>>,
        #[serde(default)]
        count: u8,
        #[serde(default)]
        id: Option<Uuid>,
        #[serde(default)]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
    }

    fn failure(json: &[u8]) -> (u16, String) {
        let problem = parse_json::<Sample>(json).map(|_| ()).expect_err("refused");
        let pointer = problem.errors().first().map(|e| e.pointer.to_string()).unwrap_or_default();
        (problem.status().as_u16(), pointer)
    }

    #[test]
    fn what_is_not_understood_is_400_and_what_breaks_a_rule_is_422() {
        let case = |json: &str| failure(json.as_bytes());
        for broken in [
            "",
            " ",
            "{",
            "{\"title\":\"a\"",
            "{\"title\":\"a\"}x",
            "{'title':1}",
            "\u{feff}{\"title\":\"a\"}",
            "{\"title\":1e999}",
            "{\"title\":NaN}",
            "{\"title\":\"a\",}",
            "{/*c*/}",
            "{\"title\":\"\\ud800\"}",
            "{\"title\":\"\\udc00x\"}",
        ] {
            assert_eq!(case(broken), (400, String::new()), "{broken}");
        }
        assert_eq!(failure(b"{\"title\":\"\xff\"}").0, 400);
        assert_eq!(failure(format!("{{\"title\":{}", "[".repeat(100_000)).as_bytes()).0, 400);
        for no_object in ["[]", "[\"a\"]", "[\"a\",null,0,null,null]", "null", "\"a\"", "1"] {
            assert_eq!(case(no_object), (400, String::new()), "{no_object}");
        }
        assert_eq!(case("null").0, 400);
        assert_eq!(case("{\"title\":1}"), (400, "/title".into()));
        assert_eq!(case("{\"title\":\"a\",\"tags\":[\"x\",2]}"), (400, "/tags/1".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":1.5}"), (400, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"no/such~\":1}"), (400, "/no~1such~0".into()));
        assert_eq!(case("{\"title\":\"a\",\"title\":\"b\"}"), (400, "/title".into()));
        assert_eq!(case("{}"), (422, "/title".into()));
        assert_eq!(case("{\"title\":null}"), (422, "/title".into()));
        assert_eq!(case("{\"title\":\"a\",\"tags\":[null]}"), (422, "/tags/0".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":-1}"), (422, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"count\":300}"), (422, "/count".into()));
        assert_eq!(case("{\"title\":\"a\",\"id\":\"x\"}"), (422, "/id".into()));
        assert_eq!(case("{\"title\":\"a\",\"kind\":\"two\"}"), (422, "/kind".into()));
    }

    #[test]
    fn no_value_of_the_body_comes_back() {
        for json in [
            "{\"title\":12345678}",
            "{\"title\":\"a\",\"count\":\"12345678\"}",
            "{\"title\":\"a\",\"count\":12345678}",
            "{\"title\":\"a\",\"kind\":\"12345678\"}",
            "{\"title\":[\"12345678\"]}",
            "{\"title\":\"12345678",
        ] {
            let problem = parse_json::<Sample>(json.as_bytes()).map(|_| ()).expect_err("refused");
            assert!(!serde_json::to_string(&problem).expect("serialises").contains("12345678"), "{json}: {problem}");
        }
    }
}
