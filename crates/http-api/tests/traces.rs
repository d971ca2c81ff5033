//! Spans as a collector gets them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::routing::{get, post};
use http_api::edge::{Edge, edge};
use http_api::refuse;
use process::context::RequestContext;
use process::traces::{self, Kind};
use tokio::sync::mpsc;
use tower::ServiceExt;

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_what_follows_from_it_are_one_trace() {
    let (sender, mut received) = mpsc::channel::<(Uri, HeaderMap, Bytes)>(8);
    let sender = Arc::new(sender);
    let collector = Router::new().route(
        "/v1/traces",
        post(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let sender = sender.clone();
            async move {
                sender.send((uri, headers, body)).await.expect("somebody listens");
                StatusCode::OK
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum_serve(listener, collector).await });

    assert!(!traces::is_on());
    traces::export_after(PARENT, "lost", Kind::Consumer, Duration::ZERO, || panic!("spans are not exported"));
    let exporting = traces::start(&endpoint, "a-service").expect("starts");
    assert!(traces::is_on());
    let handler = async || RequestContext::current().traceparent();
    let router = edge(Router::new().route("/things/{id}", get(handler)), Edge::default());
    let ask = |traceparent: &str| {
        let request = Request::get("/things/7").header("traceparent", traceparent).body(Body::empty());
        router.clone().oneshot(request.expect("a request"))
    };
    let answer = ask(PARENT).await.expect("answered");
    let event = axum::body::to_bytes(answer.into_body(), 100).await.expect("a body");
    let event = std::str::from_utf8(&event).expect("text");
    traces::export_after(event, "project", Kind::Consumer, Duration::from_millis(3), || {
        vec![("event.type", "TaskCreated".to_owned())]
    });
    // Not sampled: not told.
    ask(&PARENT.replace("-01", "-00").replace("4bf9", "ffff")).await.expect("answered");
    // The last ones are sent at the end.
    tokio::task::spawn_blocking(move || drop(exporting)).await.expect("dropped");

    let (uri, headers, body) =
        tokio::time::timeout(Duration::from_secs(10), received.recv()).await.expect("in time").expect("a batch");
    assert_eq!(uri.path(), "/v1/traces");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    for text in ["a-service", "GET /things/{id}", "project", "TaskCreated", "http.response.status_code"] {
        assert!(contains(&body, text.as_bytes()), "{text}");
    }
    assert!(!contains(&body, b"/things/7") && !contains(&body, b"lost"), "no paths, no ids");
    let place = traces::Traceparent::parse(event.as_bytes()).expect("a traceparent");
    let parent = traces::Traceparent::parse(PARENT.as_bytes()).expect("a traceparent");
    assert_eq!(place.trace_id, parent.trace_id);
    // The request's own span: once as itself, once as the parent of what follows.
    for (id, times) in [(&place.trace_id[..], 2), (&place.span_id[..], 2), (&parent.span_id[..], 1)] {
        assert_eq!(body.windows(id.len()).filter(|window| *window == id).count(), times);
    }
    assert!(!contains(&body, &[0xff, 0xff, 0x2f, 0x35]), "the one that was not sampled");
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    let stop = tokio_util::sync::CancellationToken::new();
    http_server::serve(listener.into(), router, refuse, stop).await.expect("serves");
}
