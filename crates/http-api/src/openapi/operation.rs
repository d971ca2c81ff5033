//! One method of one path, described.

use access::Scope;
use serde_json::{Map, Value, json};

use super::schema::{EXAMPLE_ID, reference};
use super::tag::Tag;
use crate::problem::ProblemCode;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anybody,
    TaskCaller,
    Account,
    AccountOrCookie,
    ApiKey,
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

    /// It takes an account for its tasks and what belongs to them (`TaskCaller`): an access token of a session, or one of an
    /// API key with the scope that its method takes.
    #[must_use]
    pub fn task_caller(self) -> Self {
        let mut operation = self.account();
        operation.access = Access::TaskCaller;
        operation
    }

    /// It takes an account, by an access token of a session: no scope covers it.
    #[must_use]
    pub fn account(mut self) -> Self {
        self.access = Access::Account;
        self.refuses(&[ProblemCode::Unauthenticated, ProblemCode::InsufficientScope])
    }

    /// It takes the session cookie in place of an access token.
    #[must_use]
    pub fn or_session_cookie(mut self) -> Self {
        self.access = Access::AccountOrCookie;
        self.refuses(&[ProblemCode::ForeignOrigin])
    }

    /// It takes an API key.
    #[must_use]
    pub fn api_key(mut self) -> Self {
        self.access = Access::ApiKey;
        self.refuses(&[ProblemCode::Unauthenticated, ProblemCode::InvalidApiKey])
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

    /// A body in JSON, or none and the session cookie.
    #[must_use]
    pub fn body_or_session_cookie(mut self, schema: &Value, example: &Value) -> Self {
        self.body = Some(json!({
            "required": false,
            "description": "Without it, the session cookie is taken.",
            "content": {"application/json": {"schema": schema, "example": example}},
        }));
        self.refuses(&OF_A_BODY).refuses(&[ProblemCode::ForeignOrigin])
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

    /// One more media type of an answer.
    #[must_use]
    pub fn answer_also(mut self, status: u16, media_type: &'static str, schema: &Value, example: &Value) -> Self {
        if let Some(answer) = self.answers.get_mut(&status.to_string()) {
            answer["content"][media_type] = json!({"schema": schema, "example": example});
        }
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
    pub(super) fn write(mut self, method: &str, refusals: &mut Map<String, Value>) -> Value {
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
            Access::AccountOrCookie => json!([{"access_token": []}, {"session_cookie": []}]),
            Access::ApiKey => json!([{"api_key": []}]),
            Access::Account | Access::Admin => json!([{"access_token": []}]),
            // as `TaskCaller` has it; the document has no other method that asks for no change
            Access::TaskCaller => {
                let scope = if method == "get" { Scope::TasksRead } else { Scope::TasksWrite };
                json!([{"access_token": [scope.as_str()]}])
            }
        };
        operation
    }
}

/// The answer of one status, which can be each of these.
fn refusal(codes: &[ProblemCode]) -> Value {
    let told: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}.", code.title())).collect();
    let headers: &[&'static str] = match codes.first().map_or(0, |code| code.status().as_u16()) {
        401 => &["WWW-Authenticate"],
        403 if codes.contains(&ProblemCode::InsufficientScope) => &["WWW-Authenticate"],
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

fn parameter_reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

/// Those of every answer, and these.
fn header_references(names: &[&str]) -> Value {
    let all = ["X-Request-Id", "RateLimit", "RateLimit-Policy"].iter().chain(names);
    let references = all.map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")})));
    Value::Object(references.collect())
}
