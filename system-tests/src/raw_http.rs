//! Bytes on a socket, for what no well-behaved client would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends `request`, which must ask for `Connection: close`, and reads until the server closes or `deadline` passes.
pub async fn exchange(authority: &str, request: &[u8], deadline: Duration) -> String {
    let mut socket = TcpStream::connect(authority).await.expect("connect");
    // a server may refuse, and close, before it has read everything
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(deadline, socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status of a raw answer; 0 where the connection was closed without one.
pub fn status(answer: &str) -> u16 {
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
