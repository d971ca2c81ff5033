//! `docs/openapi.json` is what the routes say about themselves.

use std::collections::HashSet;

use http_api::openapi::document;
use serde_json::{Value, json};

/// The document of all services.
pub fn made() -> Value {
    document(vec![
        command_api::described(),
        accounts_api::described(),
        query_api::described(),
        projector::described(),
        http_api::health::described(),
        http_api::documents::described(),
    ])
}

/// `UPDATE_DOCUMENTS=1` writes it.
#[test]
fn the_committed_document_is_what_the_routes_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let made = serde_json::to_string_pretty(&made()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(path, &made).expect("docs/openapi.json");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == made, "docs/openapi.json is not as the code has it: run this test with UPDATE_DOCUMENTS=1");
}

/// Every object of the document below a place, with its JSON pointer.
fn walk<'a>(value: &'a Value, pointer: String, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(&pointer, value);
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| walk(value, format!("{pointer}/{}", escaped(name)), visit));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| walk(value, format!("{pointer}/{index}"), visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn what_it_refers_to_is_there_and_is_used() {
    let made = made();
    let mut used = HashSet::new();
    walk(&made, String::new(), &mut |pointer, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(made.pointer(reference.trim_start_matches('#')).is_some(), "{pointer}: {reference}");
            used.insert(reference.to_owned());
        }
    });
    for kind in ["schemas", "parameters", "headers", "responses"] {
        for name in made["components"][kind].as_object().expect(kind).keys() {
            // a line of x-ndjson is one, which no schema can say
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "nothing refers to {kind}/{name}");
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_and_every_error_its_code() {
    let made = made();
    let mut names = HashSet::new();
    let mut count = 0;
    for (path, item) in made["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            count += 1;
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} twice");
            let parameters = path.matches('{').count();
            let described = operation["parameters"].as_array().expect("parameters");
            assert_eq!(described.iter().filter(|p| p["in"] == "path").count(), parameters, "{method} {path}");
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                let reference = answer["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
                let answer = reference.map_or(answer, |place| made.pointer(place).expect(place));
                let problem = &answer["content"]["application/problem+json"];
                assert_eq!(problem.is_object(), status.as_str() >= "400", "{method} {path} {status}");
                for (code, _) in problem["examples"].as_object().into_iter().flatten() {
                    let example = &made["components"]["examples"][code]["value"];
                    assert_eq!(example["status"].to_string(), *status, "{method} {path} {code}");
                }
            }
            let takes_token = operation["security"] != json!([]) || ["login", "refresh"].contains(&name);
            assert_eq!(operation["responses"].get("401").is_some(), takes_token, "{name}");
        }
    }
    assert!(count >= 30, "{count} operations");
}

#[test]
fn every_example_is_as_its_schema_has_it() {
    let made = made();
    let mut checked = 0;
    let mut check = |pointer: &str, schema: &Value, example: &Value| {
        let schema = json!({"allOf": [schema], "components": made["components"]});
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        let validator = validator.unwrap_or_else(|error| panic!("{pointer}: {error}"));
        let wrong: Vec<String> =
            validator.iter_errors(example).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{pointer}: {example}: {wrong:?}");
        checked += 1;
    };
    walk(&made, String::new(), &mut |pointer, value| {
        let Some(schema) = value.get("schema") else { return };
        // headers and parameters are text on the wire
        if let Some(example) = value.get("example").filter(|_| schema["type"] != "integer") {
            check(pointer, schema, example);
        }
        for (name, example) in value.get("examples").and_then(Value::as_object).into_iter().flatten() {
            let place = example["$ref"].as_str().unwrap_or_default().trim_start_matches('#');
            check(&format!("{pointer}/examples/{name}"), schema, &made.pointer(place).expect(place)["value"]);
        }
    });
    assert!(checked > 100, "{checked} examples");
}
