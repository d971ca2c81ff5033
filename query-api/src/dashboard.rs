//! The dashboard: `/`, `/assets/{file}`, `/sw.js`, and its page under every address that is one of its views. Made from `web/`; all of it
//! is in the binary.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http_api::asset::Asset;
use http_api::headers::IfNoneMatch;
use http_api::problem::{Problem, ProblemCode};
use http_api::{Api, RouteKind};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../web/dist/"]
struct Files;

/// The page names its files by their hashes, so only the page itself is asked for again.
const PAGE_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const ASSET_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// What the page may do: run what is in files of this origin and ask this origin, nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; \
     connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'",
);

/// First segments of paths that are no views: of the API, its pages and operations. `gateway.conf` has them too.
const NOT_VIEWS: [&str; 9] =
    ["api", "assets", "docs", "problems", "openapi.json", ".well-known", "livez", "readyz", "metrics"];

/// The routes. They are no part of the API, and the document does not name them.
#[must_use]
pub fn router() -> Api {
    let router = Router::new()
        .route("/", get(page))
        .route("/assets/{file}", get(asset))
        .route("/sw.js", get(worker))
        .route("/{*view}", any(view));
    Api::from(router).of_kind(RouteKind::Always, ["/", "/assets/{file}", "/sw.js"])
}

async fn page(headers: HeaderMap, has: Option<IfNoneMatch>) -> Response {
    static PAGE: LazyLock<Asset> = LazyLock::new(|| {
        let page = Files::get("index.html").map(|file| file.data.into_owned());
        Asset::new(page.unwrap_or_default(), "text/html; charset=utf-8", PAGE_CACHE)
    });
    let mut response = PAGE.answer(&headers, has.as_ref()).await;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

async fn asset(
    headers: HeaderMap,
    has: Option<IfNoneMatch>,
    file: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    static ASSETS: LazyLock<HashMap<String, Asset>> = LazyLock::new(|| {
        let assets = Files::iter().filter_map(|path| {
            let (name, file) = (path.strip_prefix("assets/")?, Files::get(&path)?);
            Some((name.to_owned(), Asset::new(file.data.into_owned(), media_type(name), ASSET_CACHE)))
        });
        assets.collect()
    });
    let asset = file.ok().and_then(|Path(file)| ASSETS.get(&file));
    let asset = asset.ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    Ok(asset.answer(&headers, has.as_ref()).await)
}

/// The service worker. It is asked for again each time, as the page is: it names the files of its version.
async fn worker(headers: HeaderMap, has: Option<IfNoneMatch>) -> Response {
    static WORKER: LazyLock<Asset> = LazyLock::new(|| {
        let worker = Files::get("sw.js").map(|file| file.data.into_owned());
        Asset::new(worker.unwrap_or_default(), media_type("sw.js"), PAGE_CACHE)
    });
    let mut response = WORKER.answer(&headers, has.as_ref()).await;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// The page, to a browser that opens a view by its address; to all others there is nothing.
async fn view(method: Method, uri: Uri, headers: HeaderMap, has: Option<IfNoneMatch>) -> Result<Response, Problem> {
    let first_segment = uri.path().split('/').nth(1).unwrap_or_default();
    let is_read = method == Method::GET || method == Method::HEAD;
    if !is_read || NOT_VIEWS.contains(&first_segment) || !takes_html(&headers) {
        return Err(Problem::new(ProblemCode::NotFound));
    }
    let mut response = page(headers, has).await;
    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    Ok(response.into_response())
}

/// Named, as browsers do it: `*/*` asks for anything but a page.
fn takes_html(headers: &HeaderMap) -> bool {
    let listed = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|entry| {
        let media_type = entry.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("text/html")
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "application/javascript",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        Some(_) | None => "application/octet-stream",
    }
}
