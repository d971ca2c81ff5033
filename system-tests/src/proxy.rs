//! A TCP proxy between server and Postgres that cuts a connection at an append: before Postgres has seen it, or
//! after it was committed but before the server knows. It can also stop to pass anything on over the connections that
//! there are, silently, and lead new ones elsewhere.
//!
//! It understands as much of the wire protocol as that takes: which prepared statement is the append, and which
//! `ReadyForQuery` answers it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const NO_TARGET: i64 = -1;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The append has left the server; Postgres never sees it.
    Before,
    /// Postgres has committed the append; the server never hears of it.
    After,
}

#[derive(Debug, Default)]
struct Plan {
    before: AtomicU32,
    after: AtomicU32,
    cut: AtomicU32,
    appends: AtomicU32,
    refusing: AtomicBool,
    freezes: watch::Sender<u32>,
}

impl Plan {
    fn take(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// A running proxy; it lives as long as the test's runtime.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    leads_to: Arc<Mutex<SocketAddr>>,
    plan: Arc<Plan>,
}

impl Proxy {
    /// Forwards to this Postgres until told to cut.
    pub async fn start(postgres: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let plan = Arc::new(Plan::default());
        let shared = Arc::clone(&plan);
        let leads_to = Arc::new(Mutex::new(postgres));
        let place = Arc::clone(&leads_to);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let postgres = *place.lock().expect("place");
                tokio::spawn(connection(client, postgres, Arc::clone(&shared)));
            }
        });
        Proxy { address, leads_to, plan }
    }

    /// URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://primetrade@{}/{database}", self.address)
    }

    /// Cuts the connections of the next `times` appends.
    pub fn cut(&self, cut: Cut, times: u32) {
        match cut {
            Cut::Before => self.plan.before.fetch_add(times, Ordering::SeqCst),
            Cut::After => self.plan.after.fetch_add(times, Ordering::SeqCst),
        };
    }

    /// New connections are closed at once, as if nobody listened.
    pub fn refuse(&self, refusing: bool) {
        self.plan.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Nothing goes over the connections that there are any more, and nobody is told; new ones are good.
    pub fn freeze(&self) {
        self.plan.freezes.send_modify(|count| *count += 1);
    }

    /// New connections lead to another server; those that there are stay where they are.
    pub fn lead_to(&self, postgres: SocketAddr) {
        *self.leads_to.lock().expect("place") = postgres;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were cut so far.
    pub fn cuts(&self) -> u32 {
        self.plan.cut.load(Ordering::SeqCst)
    }

    /// How many append statements went by so far.
    pub fn appends(&self) -> u32 {
        self.plan.appends.load(Ordering::SeqCst)
    }
}

/// What both directions of a connection know.
#[derive(Debug)]
struct Link {
    plan: Arc<Plan>,
    /// Number of the `ReadyForQuery` after which the connection is cut.
    target: AtomicI64,
    hang_up: Notify,
}

async fn connection(mut client: TcpStream, postgres: SocketAddr, plan: Arc<Plan>) {
    let Ok(mut server) = TcpStream::connect(postgres).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if start_up(&mut client, &mut server).await.is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut freezes = plan.freezes.subscribe();
    let link = Arc::new(Link { plan, target: AtomicI64::new(NO_TARGET), hang_up: Notify::new() });
    let mut forward = pin!(forward(from_client, to_server, Arc::clone(&link)));
    let mut backward = pin!(backward(from_server, to_client, Arc::clone(&link)));
    tokio::select! {
        _ = &mut forward => {}
        _ = &mut backward => {}
        () = link.hang_up.notified() => {}
        // both sockets stay open
        Ok(()) = freezes.changed() => std::future::pending().await,
    }
}

async fn forward(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, link: Arc<Link>) -> io::Result<()> {
    let mut appends: HashSet<Vec<u8>> = HashSet::new();
    let mut syncs = 0_i64;
    loop {
        let (kind, body) = read_message(&mut client).await?;
        let is_append = match kind {
            b'P' => {
                let (name, rest) = c_string(&body);
                let (sql, _) = c_string(rest);
                if appends_events(sql) {
                    appends.insert(name.to_vec());
                } else {
                    appends.remove(name);
                }
                false
            }
            b'B' => {
                let (_, rest) = c_string(&body);
                let (name, _) = c_string(rest);
                appends.contains(name)
            }
            b'Q' => appends_events(c_string(&body).0),
            _ => false,
        };
        if is_append {
            link.plan.appends.fetch_add(1, Ordering::SeqCst);
            if Plan::take(&link.plan.before) {
                link.plan.cut.fetch_add(1, Ordering::SeqCst);
                link.hang_up.notify_one();
                return Ok(());
            }
            if link.target.load(Ordering::SeqCst) == NO_TARGET && Plan::take(&link.plan.after) {
                link.target.store(syncs + 1, Ordering::SeqCst);
            }
        }
        if matches!(kind, b'S' | b'Q') {
            syncs += 1;
        }
        write_message(&mut server, kind, &body).await?;
    }
}

async fn backward(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, link: Arc<Link>) -> io::Result<()> {
    // the first one ends the start-up and answers no Sync
    let mut ready = -1_i64;
    loop {
        let (kind, body) = read_message(&mut server).await?;
        let target = link.target.load(Ordering::SeqCst);
        let answers_target = target != NO_TARGET && ready + 1 >= target;
        if kind == b'Z' {
            ready += 1;
            if answers_target {
                link.plan.cut.fetch_add(1, Ordering::SeqCst);
                link.hang_up.notify_one();
                return Ok(());
            }
        }
        if !answers_target {
            write_message(&mut client, kind, &body).await?;
        }
    }
}

/// Passes the first message on, which has no type; TLS, where asked for, is declined as Postgres would.
async fn start_up(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let (length, body) = loop {
        let length = client.read_u32().await?;
        let mut body = vec![0; (length as usize).saturating_sub(4)];
        client.read_exact(&mut body).await?;
        let code = body.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
        if !matches!(code, Some(SSL_REQUEST | GSS_REQUEST)) {
            break (length, body);
        }
        client.write_all(b"N").await?;
    };
    server.write_u32(length).await?;
    server.write_all(&body).await
}

async fn read_message(from: &mut OwnedReadHalf) -> io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await?;
    let mut body = vec![0; (length as usize).saturating_sub(4)];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn write_message(to: &mut OwnedWriteHalf, kind: u8, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(body.len() + 5);
    message.push(kind);
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    to.write_all(&message).await
}

fn c_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Whether a statement appends: the fast path's insert, or the function of the slow path.
fn appends_events(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(sql).to_lowercase();
    let words = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    words.contains("insert into event_store.event") || words.contains("event_store.append")
}
