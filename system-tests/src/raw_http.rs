//! Bytes on a socket, for what no well-behaved client would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Sends `request`, which must ask for `Connection: close`, and reads until the server closes or `deadline` passes.
pub async fn exchange(authority: &str, request: &[u8], deadline: Duration) -> String {
    exchanged(TcpStream::connect(authority).await.expect("connect"), request, deadline).await
}

/// The same from an address of this machine, 127.0.0.2 for one, which a server takes for another client's.
pub async fn exchange_from(source: Ipv4Addr, authority: &str, request: &[u8], deadline: Duration) -> String {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from((source, 0))).expect("an address of this machine");
    let address = authority.parse().expect("an address and a port");
    exchanged(socket.connect(address).await.expect("connect"), request, deadline).await
}

async fn exchanged(mut socket: TcpStream, request: &[u8], deadline: Duration) -> String {
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
