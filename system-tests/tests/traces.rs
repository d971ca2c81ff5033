//! One trace, from the request through the event and Kafka to the read models, as a collector gets it from the services.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use serde_json::json;
use system_tests::cluster::Cluster;
use system_tests::kafka::Kafka;
use system_tests::redis::Redis;
use system_tests::services::{Parts, Services};
use system_tests::wait::until;
use uuid::Uuid;

const TASKS: &str = "/api/v1/tasks";

/// Takes in what OTLP over HTTP brings.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Bytes>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
}

impl Collector {
    /// Starts it, and gives its endpoint.
    async fn start(&self) -> String {
        let received = self.clone();
        let router = Router::new().route(
            "/v1/traces",
            post(async move |body: Bytes| {
                received.0.lock().expect("collector").push(body);
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        endpoint
    }

    fn spans_of(&self, trace: &[u8]) -> Vec<Span> {
        let received = self.0.lock().expect("collector");
        received.iter().flat_map(|body| spans(body)).filter(|span| span.trace == trace).collect()
    }

    fn contains(&self, text: &str) -> bool {
        let received = self.0.lock().expect("collector");
        received.iter().any(|body| body.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

/// The spans of an `ExportTraceServiceRequest`.
fn spans(request: &[u8]) -> Vec<Span> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut spans = Vec::new();
    for resource_spans in parts(request, 1) {
        let attributes = parts(resource_spans, 1).into_iter().flat_map(|resource| parts(resource, 1));
        let service = attributes.filter(|attribute| first(attribute, 1) == b"service.name");
        let service = service.map(|attribute| text(first(first(attribute, 2), 1))).next().unwrap_or_default();
        for span in parts(resource_spans, 2).into_iter().flat_map(|scope_spans| parts(scope_spans, 2)) {
            spans.push(Span {
                service: service.clone(),
                name: text(first(span, 5)),
                trace: first(span, 1).to_vec(),
                id: first(span, 2).to_vec(),
                parent: first(span, 4).to_vec(),
            });
        }
    }
    spans
}

fn first(message: &[u8], field: u64) -> &[u8] {
    parts(message, field).first().copied().unwrap_or_default()
}

/// The fields of this number in a protobuf message, of those that have a length.
fn parts(mut message: &[u8], field: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (part, rest) = message.split_at(length);
        message = rest;
        if key & 7 == 2 && key >> 3 == field {
            found.push(part);
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().expect("a number");
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_until_it_can_be_read() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let parts = Parts::new(&cluster, kafka.brokers(), redis.url()).await;
    let services = Services::start(parts.with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)).await;
    let account = services.api().account().await;

    let trace = Uuid::new_v4();
    let caller = "00f067aa0ba902b7";
    let traceparent = format!("00-{}-{caller}-01", trace.simple());
    let create = account.request("POST", TASKS).header("traceparent", &traceparent);
    let created = create.json(&json!({"title": "Nobody's business"})).send().await.expect(201);
    let token = created.must("Consistency-Token").to_owned();
    let read = account.request("GET", TASKS).header("traceparent", &traceparent).header("Consistency-Token", &token);
    read.send().await.expect(200);

    let expected = [
        ("command-api", "POST /api/v1/tasks"),
        ("command-api", "publish"),
        ("projector", "project"),
        ("query-api", "GET /api/v1/tasks"),
    ];
    let found = until("all spans are collected", Duration::from_secs(60), || async {
        let spans = collector.spans_of(trace.as_bytes());
        let of = |(service, name): (&str, &str)| spans.iter().find(|span| span.service == service && span.name == name);
        let found: Option<Vec<Span>> = expected.iter().map(|span| of(*span).cloned()).collect();
        found
    })
    .await;
    let [request, publish, project, read] = <[Span; 4]>::try_from(found).expect("four");
    let caller = u64::from_str_radix(caller, 16).expect("an id").to_be_bytes();
    assert_eq!((&request.parent[..], &read.parent[..]), (&caller[..], &caller[..]), "as their caller has it");
    assert_eq!((&publish.parent, &project.parent), (&request.id, &request.id), "what follows from the request");
    assert!(publish.id != project.id && request.id != read.id);
    for private in ["Nobody's business", &account.email, &account.token] {
        assert!(!collector.contains(private), "{private} in a trace");
    }
}
