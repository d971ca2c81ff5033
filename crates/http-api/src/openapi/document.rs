//! The document put together.

use serde_json::{Map, Value, json};

use super::components::{headers, parameters};
use super::routes::{Described, DescribedOperation, NamedSchema};
use super::schema::{reference, whole};
use super::tag::Tag;
use crate::body::{BATCH_BYTES_MAX, BODY_BYTES_MAX};
use crate::problem::ProblemCode;

/// The whole document.
#[must_use]
pub fn document(parts: Vec<Described>) -> Value {
    let (mut paths, mut refusals) = (Map::new(), Map::new());
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem()), ("FieldError".to_owned(), field_error())]);
    for part in parts {
        for DescribedOperation { method, path, describe } in part.operations {
            paths.entry(path).or_insert_with(|| json!({}))[method] = describe().write(method, &mut refusals);
        }
        schemas.extend(part.schemas.into_iter().map(|NamedSchema { name, schema }| (name.to_owned(), schema())));
    }
    let tags = Tag::ALL.map(|tag| json!({"name": tag.name(), "description": tag.explanation()}));
    let examples = ProblemCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), json!({"summary": code.title(), "value": example(*code)})));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "PrimeTrade",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Tasks whose truth is a log of events",
            "description": conventions(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": refusals,
            "parameters": parameters(),
            "headers": headers(),
            "examples": examples.collect::<Map<_, _>>(),
            "securitySchemes": {
                "access_token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "The `access_token` of `POST /api/v1/auth/login`, good for 15 minutes; or that of `POST /api/v1/auth/token`, \
                                    good for what the scopes of its API key cover: `tasks:read` all that is read of tasks, \
                                    changes, statistics and jobs, `tasks:write` all that changes something of them; nothing \
                                    under Accounts or of admins. An operation names the scope that it takes of an API \
                                    key's token; where it names none, such a token is refused.",
                },
                "api_key": {
                    "type": "http", "scheme": "bearer",
                    "description": "An API key, `ptk_…`, which an operator makes with `primetrade keys api create`.",
                },
                "session_cookie": {
                    "type": "apiKey", "in": "cookie", "name": "__Host-session",
                    "description": "The refresh token of a session that was begun with `\"session\": \"cookie\"`; over plain HTTP on \
                                    loopback the name is `session`. Taken only where `Origin` is the API's own or one of \
                                    `PRIMETRADE_CORS_ORIGINS`.",
                },
            },
        },
    })
}

fn conventions() -> String {
    format!(
        "JSON in UTF-8, times in RFC 3339, ids UUIDs. Unknown fields and unknown or repeated query parameters are \
         refused. A body has at most {} MiB, a batch {} MiB.\n\n\
         **Errors** are `application/problem+json` (RFC 9457). `code` is stable, `type` leads to a page that explains it, \
         `errors` points to the fields that are wrong, `trace_id` is what an operator asks for. 400: not understood; \
         422: understood, but it breaks a rule. A method that a path does not offer is 405 `method-not-allowed`, with \
         `Allow`.\n\n\
         **Limits.** `RateLimit-Policy` and `RateLimit` stand on every answer to which a limit applies, `Retry-After` on a \
         429 and a 503.",
        BODY_BYTES_MAX >> 20,
        BATCH_BYTES_MAX >> 20,
    )
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "An error (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "trace_id"],
        "properties": {
            "type": {
                "type": "string", "format": "uri-reference", "pattern": "^/problems/[a-z-]+$",
                "description": "Where the code is explained.",
            },
            "title": {"type": "string", "description": "The same for every occurrence."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is particular to this one, for a person."},
            "code": {"type": "string", "enum": ProblemCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>()},
            "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "The request's W3C trace id."},
            "errors": {"type": "array", "minItems": 1, "items": reference("FieldError")},
        },
    })
}

fn field_error() -> Value {
    let mut schema = whole(json!({
        "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) into the body."},
        "detail": {"type": "string"},
    }));
    schema["description"] = "A field that is wrong.".into();
    schema
}

fn example(code: ProblemCode) -> Value {
    let mut example = json!({
        "type": code.reference(), "title": code.title(), "status": code.status().as_u16(), "detail": code.explanation(),
        "code": code.as_str(), "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    if matches!(code, ProblemCode::InvalidFields | ProblemCode::MalformedBody) {
        example["errors"] = json!([{"pointer": "/title", "detail": "must not be blank"}]);
    }
    example
}
