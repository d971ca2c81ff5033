//! Bodies that many clients ask for: compressed once, not for each request.

use std::io::Write as _;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use crate::compression::{COMPRESSED_FROM_BYTES, Chosen};

/// A body, and the same compressed once somebody takes it like that.
pub(crate) struct Packed {
    plain: Bytes,
    gzip: OnceCell<Bytes>,
}

impl Packed {
    pub fn new(plain: Bytes) -> Self {
        Self { plain, gzip: OnceCell::new() }
    }

    /// As the client takes it, with what says so; the rest of the headers is the caller's.
    pub async fn answer(&self, request: &HeaderMap) -> Response {
        let vary = [(VARY, HeaderValue::from_static("accept-encoding"))];
        let mut response = if self.plain.len() as u64 >= COMPRESSED_FROM_BYTES && takes_gzip(request) {
            let gzip = self.gzip.get_or_init(|| compressed(self.plain.clone())).await.clone();
            (vary, [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))], Body::from(gzip)).into_response()
        } else {
            (vary, Body::from(self.plain.clone())).into_response()
        };
        response.extensions_mut().insert(Chosen);
        response
    }
}

/// Off the async threads: a script of megabytes takes a tenth of a second.
async fn compressed(plain: Bytes) -> Bytes {
    let compress = move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::default());
        // into memory: does not fail
        encoder.write_all(&plain).and_then(|()| encoder.finish()).unwrap_or_default()
    };
    tokio::task::spawn_blocking(compress).await.unwrap_or_default().into()
}

fn takes_gzip(request: &HeaderMap) -> bool {
    let listed = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|entry| {
        let (coding, weight) = entry.split_once(';').unwrap_or((entry, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt;

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
        for accepts in ["", "br", "zstd, deflate", "gzip;q=0", "*"] {
            assert_eq!(asked(&packed, accepts).await, (None, plain.clone()), "{accepts}");
        }
        assert!(!packed.gzip.initialized(), "nobody took it");
        let (encoding, first) = asked(&packed, "gzip").await;
        assert_eq!(encoding.expect("compressed"), "gzip");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*first).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
        for accepts in ["br, GZIP;q=0.5", "deflate, gzip, br"] {
            let (_, again) = asked(&packed, accepts).await;
            assert_eq!(again.as_ptr(), first.as_ptr(), "{accepts}: the same bytes");
        }
        let short = Packed::new(Bytes::from_static(b"short"));
        assert_eq!(asked(&short, "gzip").await, (None, Bytes::from_static(b"short")));
    }
}
