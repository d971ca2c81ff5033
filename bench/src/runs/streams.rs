//! What a live stream costs on which nothing happens.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Bench, mebibytes};
use crate::report::rounded;

/// As many as an account may have.
const STREAMS_EACH: usize = 10;
const ACCOUNTS: usize = 100;
/// Longer than from one comment to the next.
const IDLE_SECONDS: u64 = 20;
const MB: f64 = 1e6 / (1 << 20) as f64;

impl Bench<'_> {
    pub(super) async fn streams(&mut self) {
        self.report.part("Live streams on which nothing happens");
        let server = self.server(false).await;
        let mut accounts = Vec::new();
        for _ in 0..ACCOUNTS {
            accounts.push(Arc::new(server.api().account().await));
        }
        // so that the first stream is not charged with what all of them share
        let warm = open(server.address(), &accounts[0].token).await;
        drop(warm);
        sleep(Duration::from_secs(IDLE_SECONDS)).await;
        let before = mebibytes(&server);
        let all = accounts.iter().flat_map(|account| (0..STREAMS_EACH).map(|_| open(server.address(), &account.token)));
        let mut streams = join_all(all).await;
        sleep(Duration::from_secs(IDLE_SECONDS)).await;
        let taken = (mebibytes(&server) - before) / MB;
        for stream in &mut streams {
            // the comments of the time between, and that it is open still
            let mut comments = [0; 4_096];
            let count = stream.read(&mut comments).await.expect("reads");
            assert!(count > 0, "ended");
        }
        let name = format!("{} idle streams of {ACCOUNTS} accounts", rounded(streams.len() as f64));
        let beside = format!("{} kB each, {} MiB before", rounded(taken * 1e3 / streams.len() as f64), rounded(before));
        self.report.target("streams_idle", &name, (taken, "MB"), beside, "< 20 MB", taken < 20.0);
    }
}

/// A stream that has said where it begins.
async fn open(address: std::net::SocketAddr, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("id:") {
        let count = stream.read_buf(&mut seen).await.expect("reads");
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&seen));
        assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
    }
    stream
}
