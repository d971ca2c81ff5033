//! A file as the body: given on as it comes, never whole in memory.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::read::{content_length, discard, too_large};
use crate::problem::{Problem, ProblemCode};

/// How fast a file has to come while it is waited for, in bytes a second.
pub const FILE_BYTES_EACH_SECOND_MIN: usize = 64 << 10;
/// Over how long that is measured, in seconds.
const WINDOW_S: u64 = 30;
const WINDOW: Duration = Duration::from_secs(WINDOW_S);
const WINDOW_BYTES_MIN: usize = WINDOW_S as usize * FILE_BYTES_EACH_SECOND_MIN;

/// The body of a request, whose length is bounded by whoever reads it.
#[derive(Debug)]
pub struct FileBody(Body);

impl FileBody {
    /// The body of a request that has not announced more than `bytes_max`.
    ///
    /// # Errors
    /// 413 where it has.
    pub async fn of(request: Request, bytes_max: u64) -> Result<Self, Problem> {
        if content_length(request.headers()).is_some_and(|length| length > bytes_max) {
            if !request.headers().contains_key(EXPECT) {
                discard(request.into_body()).await;
            }
            return Err(too_large(bytes_max));
        }
        Ok(Self(request.into_body()))
    }

    /// The parts of it, as they come. 408 where less than 64 KiB/s came over 30 s that were waited for, 400 where it breaks
    /// off.
    pub fn parts(&mut self) -> impl Stream<Item = Result<Bytes, Problem>> + Send + '_ {
        let arriving = Arriving { body: &mut self.0, waited: Duration::ZERO, bytes: 0 };
        try_unfold(arriving, async |mut arriving| Ok(arriving.next().await?.map(|part| (part, arriving))))
    }

    /// Reads some of the rest and throws it away, so that the client sees the answer and not a reset.
    pub async fn discard(self) {
        discard(self.0).await;
    }
}

struct Arriving<'a> {
    body: &'a mut Body,
    /// How long this window has been waited for, and what came in it.
    waited: Duration,
    bytes: usize,
}

impl Arriving<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let asked = Instant::now();
            let frame = timeout(WINDOW.saturating_sub(self.waited), self.body.frame()).await;
            self.waited += asked.elapsed();
            match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(part) = frame.into_data() {
                        self.bytes += part.len();
                        return Ok(Some(part));
                    }
                }
                Ok(Some(Err(_))) => {
                    return Err(Problem::new(ProblemCode::BadRequest).detail("the body broke off or is badly framed"));
                }
                Err(_) if self.bytes < WINDOW_BYTES_MIN => return Err(Problem::new(ProblemCode::BodyTooSlow)),
                Err(_) => (self.waited, self.bytes) = (Duration::ZERO, 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, TryStreamExt, stream};
    use tokio::time::sleep;

    use super::*;

    async fn read(parts: usize, bytes_each: usize, pause: Duration) -> Result<usize, u16> {
        let parts = stream::iter(0..parts).then(move |_| async move {
            sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes_each]))
        });
        let mut body = FileBody::of(Request::new(Body::from_stream(parts)), u64::MAX).await.expect("not announced");
        let read = body.parts().try_fold(0, |sum, part| std::future::ready(Ok(sum + part.len()))).await;
        read.map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_may_take_as_long_as_it_comes() {
        let second = Duration::from_secs(1);
        assert_eq!(read(600, 65 << 10, second).await, Ok(600 * (65 << 10)));
        assert_eq!(read(600, 60 << 10, second).await, Err(408));
        assert_eq!(read(10, 1, second).await, Ok(10), "a small one has 30 s");
        assert_eq!(read(1, 1, 31 * second).await, Err(408));
    }

    #[tokio::test]
    async fn what_is_announced_as_too_large_is_refused_at_once() {
        let mut request = Request::new(Body::from("12345"));
        request.headers_mut().insert(axum::http::header::CONTENT_LENGTH, 5.into());
        assert_eq!(FileBody::of(request, 4).await.expect_err("too large").status(), 413);
    }
}
