//! The OpenAPI 3.1 document, from what routes say about themselves.
//!
//! A route is registered together with its description, so that there is neither without the other:
//!
//! ```text
//! Routes::new()
//!     .post("/api/v1/tasks", create::create, create::described)
//!     .schema("NewTask", create::schema)
//! ```
//!
//! The description stands beside the handler, its schemas beside the code that reads or writes the bodies, with the same
//! limits. Errors are named by their codes; what goes without saying (limits of the edge, request id, rate limits) is
//! added to all. [`document`] puts the parts of all services together; `docs/openapi.json` is that, committed, so that each
//! service can serve the whole of it.

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_extractor;
use axum::routing::{self, MethodRouter};
use serde_json::{Map, Value, json};

use crate::body::{BATCH_BYTES_MAX, BODY_BYTES_MAX};
use crate::headers::IDEMPOTENCY_KEY_LENGTH_MAX;
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::problem::ProblemCode;
use crate::query::NoQuery;

/// An id, wherever an example needs one.
pub const EXAMPLE_ID: &str = "01a20530-d423-75ae-8522-766cb71a70c2";
/// A time, wherever an example needs one.
pub const EXAMPLE_TIME: &str = "2026-11-22T21:36:55.715402Z";

/// Routes, and what the document says about them.
pub struct Routes<S> {
    /// The routes.
    pub router: Router<S>,
    /// Their part of the document.
    pub described: Described,
}

/// A part of the document.
#[derive(Default)]
pub struct Described {
    operations: Vec<DescribedOperation>,
    schemas: Vec<NamedSchema>,
}

struct DescribedOperation {
    method: &'static str,
    path: &'static str,
    describe: fn() -> Operation,
}

struct NamedSchema {
    name: &'static str,
    schema: fn() -> Value,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), described: Described::default() }
    }

    /// `GET` of a path, and `HEAD`.
    #[must_use]
    pub fn get<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("get", path, routing::get(handler), described)
    }

    /// `POST` to a path.
    #[must_use]
    pub fn post<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("post", path, routing::post(handler), described)
    }

    /// `PATCH` of a path.
    #[must_use]
    pub fn patch<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("patch", path, routing::patch(handler), described)
    }

    /// `DELETE` of a path.
    #[must_use]
    pub fn delete<H, T>(self, path: &'static str, handler: H, described: fn() -> Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.route("delete", path, routing::delete(handler), described)
    }

    /// Those so far take no parameters in the query.
    #[must_use]
    pub fn without_query(mut self) -> Self {
        self.router = self.router.route_layer(from_extractor::<NoQuery>());
        self
    }

    /// Both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.described.operations.extend(other.described.operations);
        self.described.schemas.extend(other.described.schemas);
        Self { router: self.router.merge(other.router), described: self.described }
    }

    /// A schema that descriptions refer to by its name.
    #[must_use]
    pub fn schema(mut self, name: &'static str, schema: fn() -> Value) -> Self {
        self.described.schemas.push(NamedSchema { name, schema });
        self
    }

    fn route(
        mut self,
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<S>,
        describe: fn() -> Operation,
    ) -> Self {
        self.described.operations.push(DescribedOperation { method, path, describe });
        Self { router: self.router.route(path, handler), described: self.described }
    }
}

/// The groups of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// What changes tasks.
    Commands,
    /// What shows them.
    Queries,
    /// Who somebody is.
    Accounts,
    /// For admins.
    Administration,
    /// For operators, and what explains the API.
    Operations,
}

impl Tag {
    const ALL: [Self; 5] = [Self::Commands, Self::Queries, Self::Accounts, Self::Administration, Self::Operations];

    const fn name(self) -> &'static str {
        match self {
            Self::Commands => "Commands",
            Self::Queries => "Queries",
            Self::Accounts => "Accounts",
            Self::Administration => "Administration",
            Self::Operations => "Operations",
        }
    }

    const fn explanation(self) -> &'static str {
        match self {
            Self::Commands => {
                "Each write answers with the task's new version (`ETag`) and a `Consistency-Token`. What a task is \
                 already succeeds without an event. With an `Idempotency-Key` a request can be repeated safely."
            }
            Self::Queries => {
                "Reads come from read models, which follow the writes by milliseconds. A read that sends the \
                 `Consistency-Token` of a write shows at least that write."
            }
            Self::Accounts => {
                "Register, log in, and send the access token with everything else; refresh it before it ends."
            }
            Self::Administration => "What takes the role `admin`.",
            Self::Operations => {
                "These need no token. `/livez`, `/readyz` and `/metrics` are not passed on by the gateway, and may be at \
                 an address of their own."
            }
        }
    }
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anybody,
    Account,
    Admin,
}

/// What the edge, or a gateway before it, may answer to any request.
const OF_THE_EDGE: [ProblemCode; 10] = [
    ProblemCode::BadRequest,
    ProblemCode::InvalidParameter,
    ProblemCode::RequestTooSlow,
    ProblemCode::UriTooLong,
    ProblemCode::UnsupportedContentEncoding,
    ProblemCode::RateLimited,
    ProblemCode::HeadersTooLarge,
    ProblemCode::Internal,
    ProblemCode::Overloaded,
    ProblemCode::Unavailable,
];

/// What every body may be refused for.
const OF_A_BODY: [ProblemCode; 5] = [
    ProblemCode::MalformedBody,
    ProblemCode::BodyTooSlow,
    ProblemCode::BodyTooLarge,
    ProblemCode::UnsupportedMediaType,
    ProblemCode::InvalidFields,
];

/// One method of one path.
pub struct Operation {
    tag: Tag,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    access: Access,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    problems: Vec<ProblemCode>,
}

impl Operation {
    /// For anybody, unless it is said otherwise. `id` is unique in the document; generated clients call it so.
    #[must_use]
    pub fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: "",
            access: Access::Anybody,
            parameters: vec![parameter_reference("X-Request-Id"), parameter_reference("traceparent")],
            body: None,
            answers: Map::new(),
            problems: OF_THE_EDGE.to_vec(),
        }
    }

    /// What the summary does not say, in Markdown.
    #[must_use]
    pub fn says(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// It takes an account.
    #[must_use]
    pub fn account(mut self) -> Self {
        self.access = Access::Account;
        self.refuses(&[ProblemCode::Unauthenticated])
    }

    /// It takes the role `admin`.
    #[must_use]
    pub fn admin(self) -> Self {
        let mut operation = self.account().refuses(&[ProblemCode::Forbidden]);
        operation.access = Access::Admin;
        operation
    }

    /// A UUID in the path.
    #[must_use]
    pub fn path_id(mut self, description: &'static str) -> Self {
        self.parameters.push(json!({
            "name": "id", "in": "path", "required": true, "description": description,
            "schema": {"type": "string", "format": "uuid"}, "example": EXAMPLE_ID,
        }));
        self
    }

    /// A segment of the path.
    #[must_use]
    pub fn path(mut self, name: &'static str, description: &'static str, schema: Value, example: Value) -> Self {
        self.parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": schema, "example": example,
        }));
        self
    }

    /// A parameter of the query.
    #[must_use]
    pub fn query(mut self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameters.push(json!({"name": name, "in": "query", "description": description, "schema": schema}));
        self
    }

    /// `limit` and `cursor`.
    #[must_use]
    pub fn pages(mut self) -> Self {
        self.parameters.extend([parameter_reference("limit"), parameter_reference("cursor")]);
        self.refuses(&[ProblemCode::InvalidCursor])
    }

    /// A header of the request, of those under `components`.
    #[must_use]
    pub fn header(mut self, name: &'static str) -> Self {
        self.parameters.push(parameter_reference(name));
        self
    }

    /// A body in one of these media types, the first one with the example.
    #[must_use]
    pub fn body(mut self, media_types: &[&str], schema: &Value, example: &Value) -> Self {
        let content = media_types
            .iter()
            .map(|media_type| ((*media_type).to_owned(), json!({"schema": schema, "example": example})));
        self.body = Some(json!({"required": true, "content": content.collect::<Map<_, _>>()}));
        self.refuses(&OF_A_BODY)
    }

    /// No body, or `{}`.
    #[must_use]
    pub fn empty_body(mut self) -> Self {
        let schema = json!({"type": "object", "additionalProperties": false});
        self.body = Some(json!({
            "required": false,
            "description": "None, or an empty object.",
            "content": {"application/json": {"schema": schema, "example": {}}},
        }));
        self.refuses(&OF_A_BODY)
    }

    /// One more media type of the body, with what is particular to it.
    #[must_use]
    pub fn body_also(mut self, media_type: &'static str, schema: &Value, example: &Value) -> Self {
        if let Some(body) = &mut self.body {
            body["content"][media_type] = json!({"schema": schema, "example": example});
        }
        self
    }

    /// An answer in JSON, with these headers.
    #[must_use]
    pub fn json(
        self,
        status: u16,
        description: &'static str,
        headers: &[&'static str],
        schema: &Value,
        example: &Value,
    ) -> Self {
        self.answer(status, description, headers, "application/json", schema, example)
    }

    /// An answer in another media type.
    #[must_use]
    pub fn answer(
        mut self,
        status: u16,
        description: &'static str,
        headers: &[&'static str],
        media_type: &'static str,
        schema: &Value,
        example: &Value,
    ) -> Self {
        let content = json!({media_type: {"schema": schema, "example": example}});
        let answer = json!({"description": description, "headers": header_references(headers), "content": content});
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(mut self, status: u16, description: &'static str, headers: &[&'static str]) -> Self {
        let answer = json!({"description": description, "headers": header_references(headers)});
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// What else it may be refused for.
    #[must_use]
    pub fn refuses(mut self, codes: &[ProblemCode]) -> Self {
        self.problems.extend_from_slice(codes);
        self
    }

    /// Answers that are nothing but problems go into `refusals`, each kind once.
    fn write(mut self, refusals: &mut Map<String, Value>) -> Value {
        for status in 400..600 {
            // in the order of the table, each once
            let codes: Vec<_> = ProblemCode::ALL
                .iter()
                .filter(|code| code.status().as_u16() == status && self.problems.contains(code))
                .copied()
                .collect();
            let status = status.to_string();
            match self.answers.get_mut(&status) {
                _ if codes.is_empty() => {}
                Some(answer) => answer["content"]["application/problem+json"] = problems(&codes),
                None => {
                    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
                    let name = format!("{status}.{}", names.join("."));
                    self.answers.insert(status, json!({"$ref": format!("#/components/responses/{name}")}));
                    refusals.entry(name).or_insert_with(|| refusal(&codes));
                }
            }
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag.name()],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": self.answers,
        });
        if !self.description.is_empty() {
            operation["description"] = self.description.into();
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation["security"] = match self.access {
            Access::Anybody => json!([]),
            Access::Account | Access::Admin => json!([{"access_token": []}]),
        };
        operation
    }
}

/// The answer of one status, which can be each of these.
fn refusal(codes: &[ProblemCode]) -> Value {
    let told: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}.", code.title())).collect();
    let headers: &[&'static str] = match codes.first().map_or(0, |code| code.status().as_u16()) {
        401 => &["WWW-Authenticate"],
        409 | 429 | 503 => &["Retry-After"],
        _ => &[],
    };
    json!({
        "description": told.join(" "),
        "headers": header_references(headers),
        "content": {"application/problem+json": problems(codes)},
    })
}

fn problems(codes: &[ProblemCode]) -> Value {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let examples =
        names.iter().map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/examples/{name}")})));
    json!({
        "schema": {"allOf": [reference("Problem"), {"type": "object", "properties": {"code": {"enum": names}}}]},
        "examples": examples.collect::<Map<_, _>>(),
    })
}

/// `$ref` to a schema by its name.
#[must_use]
pub fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// An object of an answer: all of its members are always there.
#[must_use]
pub fn whole(properties: Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// A page of a list.
#[must_use]
pub fn page_of(schema: &str) -> Value {
    whole(json!({
        "items": {"type": "array", "items": reference(schema)},
        "next_cursor": {"type": ["string", "null"], "description": "For the next page; `null` at the end."},
    }))
}

/// One of these names, or several of them with commas between.
#[must_use]
pub fn one_of(names: &[&str]) -> Value {
    let name = names.join("|");
    json!({"type": "string", "pattern": format!("^({name})(,({name}))*$")})
}

/// A whole number, 0 or more.
#[must_use]
pub fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// A time as it is answered: RFC 3339 in `Z`.
#[must_use]
pub fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn parameter_reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

/// Those of every answer, and these.
fn header_references(names: &[&str]) -> Value {
    let all = ["X-Request-Id", "RateLimit", "RateLimit-Policy"].iter().chain(names);
    let references = all.map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")})));
    Value::Object(references.collect())
}

/// The whole document.
#[must_use]
pub fn document(parts: Vec<Described>) -> Value {
    let (mut paths, mut refusals) = (Map::new(), Map::new());
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem()), ("FieldError".to_owned(), field_error())]);
    for part in parts {
        for DescribedOperation { method, path, describe } in part.operations {
            paths.entry(path).or_insert_with(|| json!({}))[method] = describe().write(&mut refusals);
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
                    "description": "The `access_token` of `POST /api/v1/auth/login`, good for 15 minutes.",
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

/// By name: headers of requests, and what pages take.
fn parameters() -> Value {
    let parameter = |place: &str, name: &str, description: &str, schema: Value| {
        // without examples: what a client has to take from an earlier answer cannot be made up
        (name.to_owned(), json!({"name": name, "in": place, "description": description, "schema": schema}))
    };
    let tags = json!({"type": "string", "pattern": TAGS});
    let text = json!({"type": "string"});
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX, "pattern": "^[!-~]+$",
    });
    let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT});
    Value::Object(Map::from_iter([
        parameter(
            "header",
            "Idempotency-Key",
            "Of the account's own choice, such as a UUID. The same key and request again give the same answer, with \
             `Idempotent-Replayed: true`, and have no further effect; with another request it is refused. Kept for 24 hours \
             or more.",
            key,
        ),
        parameter(
            "header",
            "If-Match",
            "The versions of which the task must have one, as `ETag`s (`\"3\"`), or `*`.",
            tags.clone(),
        ),
        parameter("header", "If-None-Match", "`ETag`s that the client has: 304 if one still stands.", tags),
        parameter(
            "header",
            "Consistency-Token",
            "Of an earlier answer: this one shows at least as much. It waits for at most 2 s.",
            text.clone(),
        ),
        parameter(
            "header",
            "Last-Event-ID",
            "The `id` of the last message that was seen, or a list's `revision`: what came after it follows.",
            count(),
        ),
        parameter(
            "header",
            "X-Request-Id",
            "Taken, and returned, if it has 1 to 128 characters of `A-Za-z0-9._-`; else one is made.",
            text.clone(),
        ),
        parameter(
            "header",
            "traceparent",
            "W3C trace context, carried through to the read models. A bad one is replaced.",
            text.clone(),
        ),
        parameter("query", "limit", "How many items at most.", limit),
        parameter("query", "cursor", "The `next_cursor` of the page before, with the same filters and sort.", text),
    ]))
}

/// Entity tags, or a star.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;

/// By name: headers of answers.
fn headers() -> Value {
    let header = |name: &str, description: &str, schema: Value, example: Value| {
        (name.to_owned(), json!({"description": description, "schema": schema, "example": example}))
    };
    let text = || json!({"type": "string"});
    let mut headers = Map::from_iter([
        header(
            "ETag",
            "Of a task: its version, strong. Else weak.",
            json!({"type": "string", "pattern": "^(W/)?\"[!#-~]*\"$"}),
            json!("\"3\""),
        ),
        header(
            "Consistency-Token",
            "Sent back with a read, it shows at least this.",
            text(),
            json!("EUVUpEm1Q7uiuYULn7xy6AAAAAAAAAAAAAFW44a0lI2I1D0HSzXYr7Bd"),
        ),
        header(
            "Location",
            "Where the task is.",
            json!({"type": "string", "format": "uri-reference"}),
            json!(format!("/api/v1/tasks/{EXAMPLE_ID}")),
        ),
        header(
            "Link",
            "The next page, where there is one: `rel=\"next\"`.",
            text(),
            json!("</api/v1/tasks?limit=50&cursor=AbC>; rel=\"next\""),
        ),
        header(
            "Idempotent-Replayed",
            "The answer of an earlier request with this key.",
            json!({"const": "true"}),
            json!("true"),
        ),
        header(
            "X-Request-Id",
            "The request's own, or a made one.",
            json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}),
            json!("checkout-4711"),
        ),
        header(
            "RateLimit-Policy",
            "The limits that apply: how many (`q`) in how many seconds (`w`).",
            text(),
            json!("\"account\";q=1200;w=60"),
        ),
        header(
            "RateLimit",
            "What is left of the nearest limit (`r`), and for how many seconds (`t`).",
            text(),
            json!("\"account\";r=1199;t=1"),
        ),
        header("Retry-After", "When to try again, in seconds.", json!({"type": "integer", "minimum": 0}), json!(1)),
        header(
            "WWW-Authenticate",
            "The challenge.",
            json!({"type": "string", "pattern": "^Bearer"}),
            json!("Bearer realm=\"primetrade\""),
        ),
        header("Cache-Control", "For how long, and by whom, it may be kept.", text(), json!("public, max-age=5")),
    ]);
    headers["X-Request-Id"]["required"] = true.into();
    Value::Object(headers)
}
