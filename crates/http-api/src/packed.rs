//! Bodies that many clients ask for: compressed once, not for each request.

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tower_http::CompressionLevel;

use crate::compression::{COMPRESSED_FROM_BYTES, Chosen, compress_at};

/// In the order in which they are chosen: the shortest result first.
const CODINGS: [&str; 3] = ["br", "zstd", "gzip"];
/// Better than what is compressed for one answer alone; the best of brotli would take seconds for a megabyte.
const LEVEL: CompressionLevel = CompressionLevel::Precise(9);

/// A body, and the same in each of [`CODINGS`] once somebody takes it like that.
pub(crate) struct Packed {
    plain: Bytes,
    compressed: [OnceCell<Bytes>; CODINGS.len()],
}

impl Packed {
    pub fn new(plain: Bytes) -> Self {
        Self { plain, compressed: Default::default() }
    }

    /// As the client takes it, with what says so; the rest of the headers is the caller's.
    pub async fn answer(&self, request: &HeaderMap) -> Response {
        let vary = [(VARY, HeaderValue::from_static("accept-encoding"))];
        let mut codings = CODINGS.into_iter().zip(&self.compressed);
        let chosen = codings.find(|(coding, _)| takes(request, coding));
        let mut response = match chosen.filter(|_| self.plain.len() as u64 >= COMPRESSED_FROM_BYTES) {
            Some((coding, compressed)) => {
                let body = compressed.get_or_init(|| compress(coding, self.plain.clone())).await.clone();
                (vary, [(CONTENT_ENCODING, HeaderValue::from_static(coding))], Body::from(body)).into_response()
            }
            None => (vary, Body::from(self.plain.clone())).into_response(),
        };
        response.extensions_mut().insert(Chosen);
        response
    }
}

/// Off the async threads: a script of megabytes takes a tenth of a second.
async fn compress(coding: &'static str, plain: Bytes) -> Bytes {
    let runtime = Handle::current();
    let compress = move || {
        let packed = compress_at(LEVEL, Body::from(plain).into_response(), HeaderValue::from_static(coding));
        // from memory into memory: does not fail
        runtime.block_on(packed.into_body().collect()).map(|body| body.to_bytes()).unwrap_or_default()
    };
    tokio::task::spawn_blocking(compress).await.unwrap_or_default()
}

fn takes(request: &HeaderMap, wanted: &str) -> bool {
    let listed = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|entry| {
        let (coding, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        coding.trim().eq_ignore_ascii_case(wanted) && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn asked(packed: &Packed, accepts: &'static str) -> (Option<HeaderValue>, Bytes) {
        let request = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accepts))]);
        let (parts, body) = packed.answer(&request).await.into_parts();
        assert_eq!(parts.headers[VARY], "accept-encoding");
        (parts.headers.get(CONTENT_ENCODING).cloned(), body.collect().await.expect("a body").to_bytes())
    }

    #[tokio::test]
    async fn it_is_compressed_once_for_all_who_take_it_so() {
        let plain = Bytes::from("all the same ".repeat(1_000));
        let packed = Packed::new(plain.clone());
        for accepts in ["", "deflate", "gzip;q=0, br;q=0", "*"] {
            assert_eq!(asked(&packed, accepts).await, (None, plain.clone()), "{accepts}");
        }
        assert!(packed.compressed.iter().all(|coding| !coding.initialized()), "nobody took it");
        let (encoding, first) = asked(&packed, "gzip").await;
        assert_eq!(encoding.expect("compressed"), "gzip");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*first).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
        for accepts in ["br;q=0, GZIP;q=0.5", "deflate, gzip"] {
            let (_, again) = asked(&packed, accepts).await;
            assert_eq!(again.as_ptr(), first.as_ptr(), "{accepts}: the same bytes");
        }
        for (accepts, coding) in [("gzip, deflate, br, zstd", "br"), ("zstd, gzip", "zstd")] {
            let (encoding, body) = asked(&packed, accepts).await;
            assert_eq!(encoding.expect("compressed"), coding);
            assert!(!body.is_empty() && body.len() < plain.len() / 10, "{coding}: {} bytes", body.len());
        }
        let short = Packed::new(Bytes::from_static(b"short"));
        assert_eq!(asked(&short, "gzip").await, (None, Bytes::from_static(b"short")));
    }
}
