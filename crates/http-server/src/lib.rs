//! The HTTP server below the API: connections, TLS, sockets.
//!
//! [`serve`]: HTTP/1 and HTTP/2, with TLS where it is configured; headers within 10 s, 60 s between requests, an answer for
//! as long as the client takes some of it every 30 s, a bounded number of connections in all and from each address, no
//! Nagle delay, and a drain on shutdown: idle connections close at once, requests in progress get 5 s. A live stream has to
//! end by itself (it knows the shutdown token), else it holds the drain up to its end.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Who is at the other end of a connection, also behind proxies that are trusted.
pub mod client_address;

/// Where clients connect.
mod listener;

/// Connections: accepted, and drained at the end.
mod serve;

/// How many there may be.
mod room;

/// How many an address may have.
mod connection_limit;

/// One connection: its protocol, its time-outs, its end.
mod connection;

/// From hyper to the router and back, and what is refused before.
mod answering;

/// A client's socket, which knows what its connection waits for.
mod socket;

/// TLS for those without a gateway.
mod tls;

pub use answering::{Refusal, Refuse};
pub use listener::Listener;
pub use serve::{DRAIN_TIME_MAX, serve};
pub use socket::HEADER_TIME_MAX;
pub use tls::Tls;
