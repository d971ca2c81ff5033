//! From hyper to the router and back; and what is refused before there is a router to ask.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use axum::response::Response;
use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use tower::Service as _;

use crate::client_address::Peer;
use crate::socket::{Answering, Waiting};

/// More than hyper takes.
const HEADERS_MAX: usize = 128;
/// Of HTTP/2: hyper gives on a whole part as soon as the client's window has room for its first byte, and asks for the
/// next one once there is room again.
const PART_BYTES_MAX: usize = 16 << 10;
/// The last part of an answer, after which nobody knows whether the client takes it.
const LAST_PART_BYTES_MAX: usize = 1 << 10;

/// hyper reads so much of a body that nobody wanted, so that the connection can go on.
const UNREAD_BYTES_MAX: u64 = 8 << 10;

/// Why a request does not come to the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// This header appears more than once.
    RepeatedHeader(HeaderName),
    /// There is no `Host`.
    NoHost,
    /// A `Transfer-Encoding` other than chunked.
    TransferEncoding,
    /// A chunked request whose head has a length too, or came together with another request, so that it cannot be told.
    AmbiguousLength,
    /// Its head did not arrive in time.
    TooSlow,
}

/// Makes the answer to a request with these headers that does not come to the router; the connection ends after it.
pub type Refuse = fn(&HeaderMap, &Refusal) -> Response;

/// hyper calls the router directly.
#[derive(Clone)]
pub(crate) struct RouterService {
    pub router: Router,
    pub refuse: Refuse,
    pub peer: Peer,
    pub waiting: Arc<Waiting>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for RouterService {
    type Response = hyper::Response<AnsweredBody>;
    type Error = Infallible;
    type Future = Routed;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Routed {
        let answering = self.waiting.answer();
        let in_parts = request.version() == Version::HTTP_2;
        let is_long = request.body().size_hint().upper().is_none_or(|bytes| bytes > UNREAD_BYTES_MAX);
        let unread = (!in_parts && is_long).then(|| Arc::new(AtomicBool::new(true)));
        let answer = match check(&request, &self.waiting) {
            Ok(()) => {
                request.extensions_mut().insert(self.peer);
                let ended = unread.clone();
                Answer::Called(self.router.clone().call(request.map(|body| RequestBody { body, unread: ended })))
            }
            Err(refusal) => Answer::Refused(Some(refused(self.refuse, request.headers(), &refusal))),
        };
        Routed { answer, answering: Some(answering), in_parts, unread }
    }
}

/// What is looked at here and not in the router, since only what comes over a wire has it.
fn check(request: &hyper::Request<Incoming>, waiting: &Waiting) -> Result<(), Refusal> {
    let encoding = single(request.headers(), &TRANSFER_ENCODING)?;
    let is_chunked = encoding.is_some();
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::TransferEncoding);
    }
    let headers = request.headers().len();
    if request.version() < Version::HTTP_2 && waiting.look_at_head(|head| is_chunked && !is_only_chunked(head, headers))
    {
        return Err(Refusal::AmbiguousLength);
    }
    // RFC 9112, 3.2
    match single(request.headers(), &HOST)? {
        None if request.version() == Version::HTTP_11 => Err(Refusal::NoHost),
        None | Some(_) => Ok(()),
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Refusal::RepeatedHeader(name.clone())),
    }
}

/// Whether the head of a chunked request says nothing else about its length. hyper goes by the chunks and keeps a
/// `Content-Length` to itself; a proxy before it may have gone by that, and then the two don't agree on what the next
/// request is. A head that could not be seen by itself, since it came together with another request, may have one too; so
/// may one whose beginning came with another request, which has more headers than were seen.
fn is_only_chunked(head: &[u8], headers_parsed: usize) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let has = |headers: &[httparse::Header<'_>], name: &str| {
        headers.iter().any(|header| header.name.eq_ignore_ascii_case(name))
    };
    matches!(request.parse(head), Ok(httparse::Status::Complete(_)))
        && request.headers.len() == headers_parsed
        && has(request.headers, "transfer-encoding")
        && !has(request.headers, "content-length")
}

/// A refusal, after which the connection ends: what comes next on it might be anything.
fn refused(refuse: Refuse, headers: &HeaderMap, refusal: &Refusal) -> Response {
    let mut response = refuse(headers, refusal);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The whole answer to a request whose head did not arrive in time, as bytes: hyper has no request to answer.
pub(crate) async fn too_slow(refuse: Refuse) -> Vec<u8> {
    let (head, body) = refused(refuse, &HeaderMap::new(), &Refusal::TooSlow).into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

enum Answer {
    Called(axum::routing::future::RouteFuture<Infallible>),
    Refused(Option<Response>),
}

pub(crate) struct Routed {
    answer: Answer,
    answering: Option<Answering>,
    in_parts: bool,
    /// Of a long request over HTTP/1.1: whether its body has not been read to the end.
    unread: Option<Arc<AtomicBool>>,
}

impl Future for Routed {
    type Output = Result<hyper::Response<AnsweredBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.answer {
            Answer::Called(future) => ready!(Pin::new(future).poll(cx)?),
            Answer::Refused(response) => response.take().unwrap_or_default(),
        };
        let mut answering = self.answering.take();
        if let Some(answering) = &mut answering {
            answering.answered();
        }
        // Then hyper closes the connection; a client that is not told may send its next request into that.
        if self.unread.as_ref().is_some_and(|unread| unread.load(Ordering::Relaxed)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let in_parts = self.in_parts;
        Poll::Ready(Ok(response.map(|body| AnsweredBody { body, answering, in_parts, rest: Bytes::new() })))
    }
}

/// A request's body, which tells when it has been read to the end.
struct RequestBody {
    body: Incoming,
    unread: Option<Arc<AtomicBool>>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(unread) = &self.unread
            && (frame.is_none() || self.body.is_end_stream())
        {
            unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which knows when hyper has it whole: once that is written, the connection waits for the next
/// request. Of HTTP/2 it also tells when the client takes none of it.
pub(crate) struct AnsweredBody {
    body: Body,
    answering: Option<Answering>,
    in_parts: bool,
    /// What it gave and hyper has not got yet.
    rest: Bytes,
}

impl http_body::Body for AnsweredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if !this.in_parts {
            return Pin::new(&mut this.body).poll_frame(cx);
        }
        if let Some(answering) = &mut this.answering {
            answering.taken();
        }
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        if let Some(answering) = &mut this.answering {
            answering.gave();
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(next_part(&mut this.rest)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Asked for before the first part, while there is no rest.
    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The last part fits into the window as a whole once there is room for the one before it, but for so much.
fn next_part(rest: &mut Bytes) -> Bytes {
    let bytes = if rest.len() <= LAST_PART_BYTES_MAX { rest.len() } else { (rest.len() - 1).min(PART_BYTES_MAX) };
    rest.split_to(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_a_length_don_t_go_together() {
        for (head, headers, good) in [
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 2, true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", 1, false),
            ("POST / HTTP/1.1\r\ncontent-LENGTH: 4\r\ntransfer-encoding: chunked\r\n\r\n", 1, false),
            // in the body it is a body
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nContent-Length: 4\r\n\r\n", 1, true),
            // not seen whole, not seen at all, another request's
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 1, false),
            ("", 1, false),
            ("GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 1, false),
            // a header's value until here
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 2, false),
        ] {
            assert_eq!(is_only_chunked(head.as_bytes(), headers), good, "{head:?}");
        }
    }
}
