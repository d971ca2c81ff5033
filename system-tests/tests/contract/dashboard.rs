//! The dashboard: its page, its files, and its views, which are addresses for browsers only.

use std::collections::BTreeSet;

use system_tests::client::{check_problem, http};

use crate::here::api;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// The pages are no part of the API, so no document says what they answer.
async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = http().request(method.parse().expect("a method"), format!("{}{path}", api().await.base()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The files that the page names.
fn named_files(page: &str) -> BTreeSet<String> {
    let names = page.split('"').filter(|text| text.starts_with("/assets/"));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_page_may_do_only_what_its_policy_says() {
    let page = ask("GET", "/", &[]).await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(
        header(&page, "content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; \
         connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    let text = page.text().await.expect("text");
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains(" on"), "{text}");
    for script in text.split("<script").skip(1) {
        assert!(script.contains(" src=\"/assets/") && script.contains("></script>"), "none within the page: {script}");
    }
    assert!(!text.contains("http:") && !text.contains("https:"), "nothing from elsewhere: {text}");
}

#[tokio::test]
async fn the_page_is_asked_for_again_and_its_files_never() {
    let page = ask("GET", "/", &[]).await;
    assert_eq!(header(&page, "cache-control"), "no-cache");
    let etag = header(&page, "etag").to_owned();
    assert_eq!(ask("GET", "/", &[("if-none-match", &etag)]).await.status().as_u16(), 304);
    let files = named_files(&page.text().await.expect("text"));
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        let answer = ask("GET", file, &[]).await;
        assert_eq!(answer.status().as_u16(), 200, "{file}");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=31536000, immutable", "{file}");
        let media_type = header(&answer, "content-type");
        let expected = match file.rsplit('.').next() {
            Some("js") => "application/javascript",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(media_type, expected, "{file}");
    }
}

/// It names all files of its version, of which the page names a part.
#[tokio::test]
async fn the_service_worker_is_asked_for_again_and_names_the_files() {
    let worker = ask("GET", "/sw.js", &[]).await;
    assert_eq!((worker.status().as_u16(), header(&worker, "content-type")), (200, "application/javascript"));
    assert_eq!(header(&worker, "cache-control"), "no-cache");
    assert!(header(&worker, "content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
    let etag = header(&worker, "etag").to_owned();
    assert_eq!(ask("GET", "/sw.js", &[("if-none-match", &etag)]).await.status().as_u16(), 304);
    let kept = named_files(&worker.text().await.expect("text"));
    let named = named_files(&ask("GET", "/", &[]).await.text().await.expect("text"));
    assert!(kept.len() > named.len() && named.is_subset(&kept), "{named:?} of {kept:?}");
    for file in &kept {
        assert_eq!(ask("GET", file, &[]).await.status().as_u16(), 200, "{file}");
    }
}

#[tokio::test]
async fn files_come_compressed_to_who_takes_them_so() {
    let page = ask("GET", "/", &[]).await.text().await.expect("text");
    let files = named_files(&page);
    let script = files.iter().find(|file| file.ends_with(".js") && file.contains("index")).expect("a script");
    let plain = ask("GET", script, &[("accept-encoding", "identity")]).await.bytes().await.expect("bytes").len();
    for coding in ["br", "zstd", "gzip"] {
        let answer = ask("GET", script, &[("accept-encoding", coding)]).await;
        assert_eq!(header(&answer, "content-encoding"), coding);
        assert!(header(&answer, "vary").contains("accept-encoding"), "{coding}");
        let bytes = answer.bytes().await.expect("bytes").len();
        assert!(bytes > 0 && bytes < plain / 2, "{coding}: {bytes} of {plain}");
    }
    let all = ask("GET", script, &[("accept-encoding", "gzip, deflate, br, zstd")]).await;
    assert_eq!(header(&all, "content-encoding"), "br");
}

#[tokio::test]
async fn a_view_is_an_address_for_browsers_only() {
    for path in ["/list", "/board?priority=high", "/trash", "/a/view/of/later"] {
        for method in ["GET", "HEAD"] {
            let answer = ask(method, path, &[("accept", BROWSER)]).await;
            assert_eq!(
                (answer.status().as_u16(), header(&answer, "cache-control")),
                (200, "no-cache"),
                "{method} {path}"
            );
            assert!(header(&answer, "content-security-policy").contains("script-src 'self'"), "{path}");
            assert!(header(&answer, "vary").contains("accept"), "{path}");
        }
    }
    for (method, path, accept) in [
        ("GET", "/list", "*/*"),
        ("GET", "/list", "application/json"),
        ("POST", "/list", BROWSER),
        ("DELETE", "/list", BROWSER),
        ("GET", "/api", BROWSER),
        ("GET", "/api/v1/nothing", BROWSER),
        ("GET", "/docs/nothing/here", BROWSER),
        ("GET", "/problems", BROWSER),
        ("GET", "/.well-known/nothing", BROWSER),
        ("GET", "/assets/nothing.js", BROWSER),
        ("GET", "/assets/%2e%2e%2findex.html", "*/*"),
    ] {
        let answer = ask(method, path, &[("accept", accept)]).await;
        assert_eq!(header(&answer, "content-type"), "application/problem+json", "{method} {path}");
        let problem = answer.json().await.expect("JSON");
        check_problem(&problem, 404).unwrap_or_else(|wrong| panic!("{method} {path}: {wrong}"));
    }
}
