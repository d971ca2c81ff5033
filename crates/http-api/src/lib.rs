//! The HTTP API's conventions, which all services share: the edge around all routes, arguments of handlers, problems,
//! limits, and the document that describes it all.
//!
//! A router of one service needs no middleware of its own: [`edge::edge`] puts all of it around the merged router, once.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Every error answer: one table of codes, RFC 9457 `application/problem+json`.
pub mod problem;

/// The caller of a handler: an account, or an admin.
pub mod account;

/// Request bodies: size, time, media type, strict JSON.
pub mod body;

/// Query strings and path segments, strictly.
pub mod query;

/// `If-Match`, `If-None-Match`, `Idempotency-Key`, `Consistency-Token`, entity tags.
pub mod headers;

/// Answers in JSON.
pub mod answer;

/// Pages of lists: their sizes, cursors and `Link`.
pub mod page;

/// How much one client may ask for.
pub mod limits;

/// The routes of a program, and of which kind each is.
mod api;

/// The middleware around everything.
pub mod edge;

/// The answers to requests that the server refuses before there is a route.
mod refusal;

/// Answers compressed for those who take them so.
mod compression;

/// Bodies that are compressed once for all who ask for them.
mod packed;

/// A file that is in the binary.
pub mod asset;

/// `/livez`, `/readyz`, `/metrics`.
pub mod health;

/// The OpenAPI document, from what routes say about themselves.
pub mod openapi;

/// `/problems/{code}`, `/openapi.json`, `/docs`.
pub mod documents;

pub use api::{Api, RouteKind};
pub use refusal::refuse;
