//! The baseline: the same axum with handlers that do nothing, as a process of its own.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

/// `handler PORT FILE`: `/` answers 200 to GET and POST, `/bytes` with the file's bytes.
pub fn main(arguments: &[String]) {
    let [port, file] = arguments else { panic!("handler PORT FILE") };
    let bytes: &'static [u8] = std::fs::read(file).expect("file").leak();
    let router = Router::new()
        .route("/", get(async || "").post(async || ""))
        .route("/api/v1/tasks", get(async || "").post(async || ""))
        .route("/bytes", get(async move || ([(CONTENT_TYPE, "application/json")], bytes)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("listen");
        let listener = listener.tap_io(|socket| {
            let _ = socket.set_nodelay(true);
        });
        axum::serve(listener, router).await.expect("serve");
    });
}
