//! More than a server can do: requests at a given rate, whether they are answered or not, on connections that are kept.
//! Spoken by hand, so that a client costs little beside the server on the same machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// Clients of one server.
pub struct Flood {
    /// Where the server listens.
    pub address: SocketAddr,
    /// How many connections there are: no more requests are under way at once.
    pub connections: u32,
    /// The n-th request, as it is sent: HTTP/1.1, its connection kept.
    pub request: Box<dyn Fn(u64) -> String + Send + Sync>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// After the beginning, when it was to be sent.
    pub due: Duration,
    /// From then to the last byte of its answer: that no connection was free counts as well.
    pub took: Duration,
    /// The answer's status.
    pub status: u16,
}

impl Flood {
    /// Each connection asks again as soon as it is answered.
    pub async fn back_to_back(self: &Arc<Self>, time: Duration) -> Vec<Answered> {
        self.ask(None, time).await
    }

    /// So many requests a second, whatever becomes of them.
    pub async fn at_rate(self: &Arc<Self>, per_second: f64, time: Duration) -> Vec<Answered> {
        self.ask(Some(per_second), time).await
    }

    async fn ask(self: &Arc<Self>, per_second: Option<f64>, time: Duration) -> Vec<Answered> {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address).await.expect("connects");
            stream.set_nodelay(true).expect("a socket");
            streams.push(stream);
        }
        let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut clients = JoinSet::new();
        for mut stream in streams {
            let (flood, next) = (self.clone(), next.clone());
            clients.spawn(async move {
                let (mut answers, mut buffer) = (Vec::new(), Vec::with_capacity(16 << 10));
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let due =
                        per_second.map_or_else(|| began.elapsed(), |rate| Duration::from_secs_f64(n as f64 / rate));
                    if due >= time {
                        return answers;
                    }
                    if began.elapsed() < due {
                        sleep_until((began + due).into()).await;
                    }
                    let request = (flood.request)(n);
                    stream.write_all(request.as_bytes()).await.expect("sends");
                    let status = answer(&mut stream, &mut buffer).await;
                    answers.push(Answered { due, took: began.elapsed().saturating_sub(due), status });
                }
            });
        }
        clients.join_all().await.concat()
    }
}

/// The status of an answer, once all of it is there.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    loop {
        let count = stream.read_buf(buffer).await.expect("reads");
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(buffer));
        if let Some(status) = whole(buffer) {
            return status;
        }
    }
}

fn whole(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(4).take(4 << 10).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).expect("ASCII");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a length"));
    (answer.len() >= end + 4 + length).then(|| head.split(' ').nth(1).expect("a status").parse().expect("a number"))
}

/// The time that so large a share of these answers took at most, nearest rank; zero where there is none.
pub fn percentile(times: impl Iterator<Item = Duration>, share: f64) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
