//! What explains the API: `/problems/{code}`, `/openapi.json`, `/docs`. All of it is in the binary; nothing is fetched
//! from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::asset::Asset;
use crate::headers::IfNoneMatch;
use crate::openapi::{Described, Operation, Routes, Tag};
use crate::problem::{Problem, ProblemCode};

/// The document of all services, as [`crate::openapi::document`] makes it of their parts; a test of `primetrade` says
/// whether it is.
pub const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Of pages; browsers ask again after it.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// What the page of the API's reference may do: run the scripts of this origin and ask this origin, nothing else. The
/// reference styles itself as it goes.
const REFERENCE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The routes.
pub fn router() -> Router {
    routes().router
}

/// Their part of the document.
#[must_use]
pub fn described() -> Described {
    routes().described
}

fn routes() -> Routes<()> {
    Routes::new()
        .get("/problems/{code}", problem, problem_described)
        .get("/openapi.json", openapi, openapi_described)
        .get("/docs", reference, reference_described)
        .get("/docs/{file}", reference_file, reference_file_described)
        .get("/docs/operations.md", operations, operations_described)
        .without_query()
}

async fn problem(code: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let code = code.ok().and_then(|Path(code)| ProblemCode::parse(&code));
    let code = code.ok_or_else(|| Problem::new(ProblemCode::NotFound).detail("There is no such code."))?;
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (CACHE_CONTROL, CACHE)];
    Ok((headers, page(code)).into_response())
}

fn problem_described() -> Operation {
    Operation::new(Tag::Operations, "explainProblem", "Explain a code")
        .says("The page behind the `type` of an error: what it means, and what to do.")
        .path("code", "The `code` of an error.", json!({"type": "string"}), json!(ProblemCode::StaleVersion.as_str()))
        .answer(
            200,
            "The page.",
            &["Cache-Control"],
            "text/html",
            &json!({"type": "string"}),
            &json!("<!doctype html>…"),
        )
        .refuses(&[ProblemCode::NotFound])
}

/// Nothing in it comes from a request.
fn page(code: ProblemCode) -> String {
    let (title, status, explanation) = (code.title(), code.status(), in_html(code.explanation()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{code}: {title}</title>\n\
         <style>\n:root {{ color-scheme: light dark; font: 1.1rem/1.6 system-ui, sans-serif; }}\n\
         body {{ max-width: 42rem; margin: 4rem auto; padding: 0 1rem; }}\ncode {{ font-size: 0.95em; }}\n</style>\n\
         </head>\n<body>\n<p><code>{code}</code> · {status}</p>\n<h1>{title}</h1>\n<p>{explanation}</p>\n\
         <p>The <code>trace_id</code> of the answer tells an operator which request it was. \
         <a href=\"/docs\">All operations and their errors</a></p>\n</body>\n</html>\n"
    )
}

/// Text of the table in HTML: its backticks are code.
fn in_html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut html = String::with_capacity(escaped.len() + 32);
    for (index, part) in escaped.split('`').enumerate() {
        if index > 0 {
            html.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        html.push_str(part);
    }
    html
}

/// The page of all codes, as `docs/problems.md` has it.
#[must_use]
pub fn problems_page() -> String {
    let mut page = String::from(
        "# Problems\n\nEvery error is `application/problem+json` (RFC 9457): `code` is stable, `type` is `/problems/<code>`, where a \
         running\nserver shows what stands here, `errors` points to the fields that are wrong, `trace_id` is for the operator.\n\
         (This page is made from the table in `crates/http-api/src/problem.rs`.)\n\n\
         | status | code | what happened | what it means, and what to do |\n| --- | --- | --- | --- |\n",
    );
    for code in ProblemCode::ALL {
        let (status, title, explanation) = (code.status().as_u16(), code.title(), code.explanation());
        // writing to a string does not fail
        let _ = writeln!(page, "| {status} | `{code}` | {title} | {} |", explanation.replace('|', "\\|"));
    }
    page
}

async fn openapi(headers: HeaderMap, has: Option<IfNoneMatch>) -> Response {
    static ASSET: LazyLock<Asset> = LazyLock::new(|| {
        // without the indentation that the file has for its readers
        let document = serde_json::from_str::<Value>(OPENAPI).map(|document| document.to_string());
        Asset::new(document.unwrap_or_default(), "application/json", CACHE)
    });
    ASSET.answer(&headers, has.as_ref()).await
}

fn openapi_described() -> Operation {
    Operation::new(Tag::Operations, "openapi", "Get this document")
        .header("If-None-Match")
        .json(200, "OpenAPI 3.1.", &["ETag", "Cache-Control"], &json!({"type": "object"}), &json!({"openapi": "3.1.1"}))
        .empty(304, "The client has it.", &["ETag", "Cache-Control"])
}

/// Scalar's reference, which shows `/openapi.json` and can try it out.
async fn reference() -> Response {
    const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>PrimeTrade API</title>\n</head>\n\
        <body>\n<div id=\"app\"></div>\n<noscript>The same, for reading: <a href=\"/openapi.json\">/openapi.json</a></noscript>\n\
        <script src=\"/docs/scalar.js\"></script>\n<script src=\"/docs/start.js\"></script>\n</body>\n</html>\n";
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, CACHE),
        (CONTENT_SECURITY_POLICY, REFERENCE_POLICY),
    ];
    (headers, PAGE).into_response()
}

fn reference_described() -> Operation {
    Operation::new(Tag::Operations, "docs", "Show these pages").answer(
        200,
        "A page for browsers.",
        &["Cache-Control"],
        "text/html",
        &json!({"type": "string"}),
        &json!("<!doctype html>…"),
    )
}

/// Nothing of it may go elsewhere: no fonts, no telemetry, no services of others.
const START: &str = "Scalar.createApiReference('#app', {
  url: '/openapi.json',
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: 'never',
  hideClientButton: true,
  persistAuth: false,
  authentication: { preferredSecurityScheme: 'access_token' },
})
";

async fn reference_file(
    headers: HeaderMap,
    has: Option<IfNoneMatch>,
    file: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    const JAVASCRIPT: &str = "application/javascript";
    static SCALAR: LazyLock<Asset> = LazyLock::new(|| {
        Asset::new(scalar_api_reference::get_asset("scalar.js").unwrap_or_default(), JAVASCRIPT, CACHE)
    });
    static STARTED: LazyLock<Asset> = LazyLock::new(|| Asset::new(START, JAVASCRIPT, CACHE));
    match file.as_ref().map(|Path(file)| file.as_str()) {
        Ok("scalar.js") => Ok(SCALAR.answer(&headers, has.as_ref()).await),
        Ok("start.js") => Ok(STARTED.answer(&headers, has.as_ref()).await),
        Ok(_) | Err(_) => Err(Problem::new(ProblemCode::NotFound)),
    }
}

/// For operators: the dashboard leads here.
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

async fn operations(headers: HeaderMap, has: Option<IfNoneMatch>) -> Response {
    // browsers show plain text, and save Markdown
    static ASSET: LazyLock<Asset> = LazyLock::new(|| Asset::new(OPERATIONS, "text/plain; charset=utf-8", CACHE));
    ASSET.answer(&headers, has.as_ref()).await
}

fn operations_described() -> Operation {
    Operation::new(Tag::Operations, "operationsGuide", "Get the guide for operators")
        .says("What goes wrong, what it looks like, and what to do; in Markdown.")
        .header("If-None-Match")
        .answer(
            200,
            "The guide.",
            &["ETag", "Cache-Control"],
            "text/plain",
            &json!({"type": "string"}),
            &json!("# Operations\n\n…"),
        )
        .empty(304, "The client has it.", &["ETag", "Cache-Control"])
}

fn reference_file_described() -> Operation {
    Operation::new(Tag::Operations, "docsFile", "Get a file of these pages")
        .path("file", "A script.", json!({"type": "string"}), json!("start.js"))
        .header("If-None-Match")
        .answer(
            200,
            "The file.",
            &["ETag", "Cache-Control"],
            "application/javascript",
            &json!({"type": "string"}),
            &json!("Scalar.createApiReference('#app', {…})"),
        )
        .empty(304, "The client has it.", &["ETag", "Cache-Control"])
        .refuses(&[ProblemCode::NotFound])
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::ETAG;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::edge::{Edge, edge};

    async fn get(path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = edge(router(), Edge::default()).oneshot(request).await.expect("never fails");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// `UPDATE_DOCUMENTS=1` writes it.
    #[test]
    fn the_page_of_codes_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/problems.md");
        if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
            std::fs::write(path, problems_page()).expect("docs/problems.md");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, problems_page(), "run the test with UPDATE_DOCUMENTS=1");
    }

    #[tokio::test]
    async fn every_code_has_its_page() {
        for code in ProblemCode::ALL {
            let (status, headers, page) = get(code.reference()).await;
            assert_eq!(status, StatusCode::OK, "{code}");
            assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
            assert!(headers[CACHE_CONTROL].to_str().is_ok_and(|value| value.starts_with("public")), "{code}");
            assert!(
                headers[CONTENT_SECURITY_POLICY].to_str().is_ok_and(|value| value.starts_with("default-src 'none'"))
            );
            assert!(page.contains(code.title()) && page.contains(&in_html(code.explanation())), "{page}");
        }
        for path in ["/problems/nothing-like-it", "/problems/%ff", "/problems/%3Cscript%3E"] {
            let (status, headers, body) = get(path).await;
            assert_eq!(
                (status, &headers[CONTENT_TYPE]),
                (StatusCode::NOT_FOUND, &crate::problem::PROBLEM_JSON),
                "{path}"
            );
            assert!(!body.contains("<script>"), "{body}");
        }
    }

    #[test]
    fn text_of_the_table_is_text_in_html() {
        assert_eq!(in_html("a `b` <c> & `d`"), "a <code>b</code> &lt;c&gt; &amp; <code>d</code>");
    }

    #[tokio::test]
    async fn the_reference_runs_only_scripts_of_its_own() {
        let (status, headers, page) = get("/docs").await;
        assert_eq!(status, StatusCode::OK);
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().expect("text");
        let scripts = policy.split("; ").find(|part| part.starts_with("script-src"));
        assert_eq!(scripts, Some("script-src 'self'"));
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self';"), "{policy}");
        // no inline script, no handler, nothing from elsewhere
        for script in page.split("<script").skip(1) {
            let source = script.strip_prefix(" src=\"").and_then(|rest| rest.split_once("\"></script>"));
            let (source, _) = source.unwrap_or_else(|| panic!("{script}"));
            let (status, headers, body) = get(source).await;
            assert_eq!((status, headers[CONTENT_TYPE].as_bytes()), (StatusCode::OK, &b"application/javascript"[..]));
            assert!(body.contains("Scalar") || body.contains("createApiReference"), "{source}");
        }
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains(" on"), "{page}");
    }

    #[tokio::test]
    async fn the_guide_for_operators_is_text_that_browsers_show() {
        let (status, headers, guide) = get("/docs/operations.md").await;
        assert_eq!((status, headers[CONTENT_TYPE].as_bytes()), (StatusCode::OK, &b"text/plain; charset=utf-8"[..]));
        assert!(guide.starts_with("# Operations\n"), "{guide}");
    }

    #[tokio::test]
    async fn what_is_compressed_for_all_is_sent_to_who_takes_it() {
        let asked = async |accepts: &str| {
            let request = Request::get("/openapi.json").header("accept-encoding", accepts).body(Body::empty());
            let answer = edge(router(), Edge::default()).oneshot(request.expect("a request")).await;
            let (parts, body) = answer.expect("never fails").into_parts();
            assert_eq!(parts.headers.get_all("vary").iter().count(), 1);
            (parts.headers.get("content-encoding").cloned(), body.collect().await.expect("a body").to_bytes().len())
        };
        let (gzip, packed_bytes) = asked("deflate, gzip").await;
        let (none, plain_bytes) = asked("deflate").await;
        assert_eq!((gzip.as_ref().map(HeaderValue::as_bytes), none), (Some(&b"gzip"[..]), None));
        assert!(packed_bytes < plain_bytes / 4, "{packed_bytes} of {plain_bytes}");
    }

    #[tokio::test]
    async fn what_a_browser_has_is_not_sent_again() {
        let (_, headers, body) = get("/openapi.json").await;
        let document: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(document["openapi"], "3.1.1");
        let request = Request::get("/openapi.json").header("if-none-match", &headers[ETAG]).body(Body::empty());
        let again = edge(router(), Edge::default()).oneshot(request.expect("a request")).await.expect("never fails");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}
