//! The middleware around all routes, put there once:
//!
//! ```text
//! let router = command_api::router(..).merge(query_api::router(..)).merge(health::router(..));
//! let router = edge(router, Edge { verifier, ..Edge::default() });
//! ```
//!
//! For each request: request id and trace context ([`process::context`]), whose request it is behind trusted proxies, what
//! its client may ask for ([`crate::limits`]), how much is worked on at once ([`process::load`]), the limits on address and
//! headers, no encoded bodies, the `Verifier` for [`crate::account`], a panic turned into a 500, bare error answers of the
//! framework turned into problems, security headers, CORS, compression, metrics by route.

/// What it is made of, and what the configuration says of it.
mod settings;

/// The middleware itself.
mod layer;

/// What is done with each request before its handler is asked, and with each answer.
mod rules;

/// What is known of a route.
mod route;

/// Cross-origin requests.
pub mod cors;

/// Headers for browsers.
mod security_headers;

/// Error answers of the framework.
mod bare_error;

pub use layer::edge;
pub use rules::{HEADER_BYTES_MAX, URI_BYTES_MAX};
pub(crate) use security_headers::secure;
pub use settings::{Edge, EdgeSettings};
