//! A client's socket, which knows what a connection waits for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// For the headers of a request: of a connection's first one from when it was made, else from their first byte.
pub const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// Between an answer and the next request.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer that waits for it. Each step of a client that does read is a good part
/// of the socket's buffer, so that it cannot hold a connection with a byte now and then. Of HTTP/2 this holds for each
/// answer, since each has a window of its own that the client opens or not.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Of a request's head, so much is kept to be looked at: more than is taken.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What may be kept between requests.
const HEAD_BYTES_KEPT: usize = 1 << 10;
/// Requests that a client may break off on one connection before they are answered, beyond as many as were answered.
const ABANDONED_MAX: u32 = 100;

/// What a connection waits for, the headers of a request or a client that reads, and until when. The time-outs are a few
/// numbers for each connection, looked at by one timer that is seldom set: hyper's own sets and clears a timer for each
/// request, which costs a tenth of an empty request. Times are in milliseconds after `opened`, plus one.
pub(crate) struct Waiting {
    opened: Instant,
    /// Requests that are being answered; of HTTP/1 at most one.
    answering: AtomicU32,
    /// When the headers of the next request have to be there, while nothing is being answered.
    headers_due_ms: AtomicU64,
    /// Since when the client has taken nothing from the socket; 0 while nothing waits to be written.
    unread_since_ms: AtomicU64,
    /// Of HTTP/2, each answer of which a part waits for the client to open its window: since when; 0: a free slot.
    untaken_since_ms: Mutex<Vec<u64>>,
    answered: AtomicU32,
    abandoned: AtomicU32,
    /// Of HTTP/1, what has come since the last answer: the next request's head.
    head: Mutex<Vec<u8>>,
}

/// When a connection has waited for too long …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// … for the headers of a request.
    Headers(Instant),
    /// … for the client to take what it is given.
    Reader(Instant),
}

impl Deadline {
    pub fn at(self) -> Instant {
        let (Self::Headers(at) | Self::Reader(at)) = self;
        at
    }
}

impl Waiting {
    pub fn new() -> Self {
        Self {
            opened: Instant::now(),
            answering: AtomicU32::new(0),
            headers_due_ms: AtomicU64::new(after(1, HEADER_TIME_MAX)),
            unread_since_ms: AtomicU64::new(0),
            untaken_since_ms: Mutex::default(),
            answered: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
            head: Mutex::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// For the next request, from now on.
    fn begin(&self) {
        self.headers_due_ms.store(after(self.now_ms(), IDLE_TIME_MAX), Ordering::Relaxed);
    }

    /// Its headers, from now on.
    pub fn headers_begin(&self) {
        self.headers_due_ms.store(after(self.now_ms(), HEADER_TIME_MAX), Ordering::Relaxed);
    }

    /// Whether a request is being answered.
    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }

    /// A request has come.
    pub fn answer(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering { waiting: self.clone(), answered: false, untaken: None }
    }

    /// The client has taken something, or begins to be waited for.
    fn unread(&self) {
        self.unread_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// All that waited is written: only now does the wait for the next request begin.
    fn all_written(&self) {
        self.unread_since_ms.store(0, Ordering::Relaxed);
        self.begin();
    }

    /// When it has waited for too long; `None` while a request is being answered and the client takes what it is given.
    pub fn deadline(&self) -> Option<Deadline> {
        let at = |ms: u64| self.opened + Duration::from_millis(ms - 1);
        let unread = self.unread_since_ms.load(Ordering::Relaxed);
        let untaken = self.untaken();
        if let Some(since) = untaken.iter().copied().chain([unread]).filter(|since| *since != 0).min() {
            return Some(Deadline::Reader(at(after(since, WRITE_TIME_MAX))));
        }
        (!self.is_answering()).then(|| Deadline::Headers(at(self.headers_due_ms.load(Ordering::Relaxed))))
    }

    fn untaken(&self) -> MutexGuard<'_, Vec<u64>> {
        self.untaken_since_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether requests are made only to be broken off (HTTP/2 rapid reset).
    pub fn is_abused(&self) -> bool {
        let abandoned = self.abandoned.load(Ordering::Relaxed);
        abandoned > ABANDONED_MAX && abandoned - ABANDONED_MAX > self.answered.load(Ordering::Relaxed)
    }

    fn came(&self, bytes: &[u8]) {
        if self.is_answering() {
            return;
        }
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        // the first one's time runs since the connection was made
        if head.is_empty() && self.answered.load(Ordering::Relaxed) > 0 {
            self.headers_begin();
        }
        let room = HEAD_BYTES_MAX.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether some of a request has come that is not a whole head yet.
    pub fn has_begun(&self) -> bool {
        !self.head.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Looks at the head that hyper has just read, and forgets it.
    pub fn look_at_head<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&head);
        head.clear();
        if head.capacity() > HEAD_BYTES_KEPT {
            *head = Vec::new();
        }
        seen
    }
}

fn after(ms: u64, time: Duration) -> u64 {
    ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A request that is being answered, until it is dropped.
pub(crate) struct Answering {
    waiting: Arc<Waiting>,
    answered: bool,
    /// Which slot of `untaken_since_ms` it has.
    untaken: Option<usize>,
}

impl Answering {
    /// The answer's headers are there.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// A part of the answer waits for the client to take it.
    pub fn gave(&mut self) {
        let now_ms = self.waiting.now_ms();
        let mut slots = self.waiting.untaken();
        let slot = slots.iter().position(|since| *since == 0).unwrap_or(slots.len());
        match slots.get_mut(slot) {
            Some(since) => *since = now_ms,
            None => slots.push(now_ms),
        }
        self.untaken = Some(slot);
    }

    /// It has, or never will.
    pub fn taken(&mut self) {
        if let Some(slot) = self.untaken.take()
            && let Some(since) = self.waiting.untaken().get_mut(slot)
        {
            *since = 0;
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.taken();
        let count = if self.answered { &self.waiting.answered } else { &self.waiting.abandoned };
        count.fetch_add(1, Ordering::Relaxed);
        self.waiting.begin();
        self.waiting.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Encrypted or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The client's socket, which knows whether something waits for the client to read.
pub(crate) struct Socket {
    stream: Stream,
    waiting: Arc<Waiting>,
    is_http1: bool,
    blocked: bool,
}

impl Socket {
    pub fn new(stream: Stream, waiting: Arc<Waiting>, is_http1: bool) -> Self {
        Self { stream, waiting, is_http1, blocked: false }
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether the client has gone, or sends nothing more, before it has its answer. Whoever is asked is woken once it has.
    fn has_left(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Stream::Plain(stream) = &self.stream else { return Ok(false) };
        if !self.is_http1 || !self.waiting.is_answering() {
            return Ok(false);
        }
        let mut byte = [0];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(bytes) => bytes.map(|bytes| bytes == 0),
            Poll::Pending => Ok(false),
        }
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.blocked != written.is_pending() {
            // blocked, or gone on since: what comes after the last byte is the flush
            self.blocked = true;
            self.waiting.unread();
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.is_http1 {
            self.waiting.came(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once hyper has nothing more to write, which it has not either while a handler works or a stream waits.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.blocked {
            self.blocked = false;
            self.waiting.all_written();
        }
        if self.has_left(cx)? {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Of HTTP/1 left to who lingers; hyper calls it after the flush.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_http1 { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
