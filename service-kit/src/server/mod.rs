//! The middleware around everything, and the HTTP server under it.
//!
//! ```text
//! let router = command_api::router(..).merge(query_api::router(..)).merge(health::router(..));
//! let router = server::edge(router, Edge { verifier, ..Edge::default() });      // once
//! server::serve(listener, router, shutdown).await?;
//! ```
//!
//! What [`edge`] does for each request: request id and trace context ([`crate::context`]), whose request it is behind
//! trusted proxies, what its client may ask for ([`crate::limits`]), how much is worked upon at once ([`crate::load`]),
//! the limits on address and headers, no encoded bodies, the `Verifier` for [`crate::auth`], a panic turned into a 500,
//! bare error answers of the framework turned into problems, security headers, CORS, compression, metrics by route.
//!
//! What [`serve`] does: HTTP/1 and HTTP/2, with TLS where it is configured; headers within 10 s, 60 s between requests, an
//! answer for as long as the client takes some of it every 30 s, a bounded number of connections in all and from each
//! address, no Nagle delay, and a drain on shutdown: idle connections close at once, requests in progress get 5 s. A live
//! stream has to end by itself (it knows the shutdown token), else it holds the drain up to its end.

mod answering;
mod connection;
mod edge;
mod guests;
mod socket;
mod tls;

pub(crate) use connection::DRAIN_TIME_MAX;
pub use connection::{Door, serve};
pub use edge::{COMPRESSED_FROM_BYTES, Edge, EdgeSettings, HEADER_BYTES_MAX, URI_BYTES_MAX, edge};
pub use tls::Tls;
