//! What at least two services share: problems, request context, authentication, tokens, extractors, health, the HTTP
//! server, configuration and telemetry.
//!
//! A router of one service needs no middleware of its own: `server::edge` puts all of it around the merged router, once.

// what is to be told goes by service_kit::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Every error answer: one table of codes, RFC 9457 `application/problem+json`.
pub mod problem;

/// Who is at the other end of a connection, also behind proxies that are trusted.
pub mod client_address;

/// How much one client may ask for.
pub mod limits;

/// How much is worked upon at once.
pub mod load;

/// What there is only so much of, and each client's part of it.
pub mod shares;

/// Request id, trace id and `traceparent` of the request in progress.
pub mod context;

/// Who asks: bearer tokens verified, cached, revoked.
pub mod auth;

mod ed25519;

/// Opaque authenticated strings: consistency tokens, cursors, keys derived from the one secret.
pub mod token;

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

/// `/livez`, `/readyz`, `/metrics`.
pub mod health;

mod packed;

/// The OpenAPI document, from what routes say about themselves.
pub mod openapi;

/// `/problems/{code}`, `/openapi.json`, `/docs`.
pub mod documents;

/// The middleware around everything, and the HTTP server under it.
pub mod server;

/// The arguments of a program.
pub mod arguments;

/// Settings: variables, a file, flags.
pub mod config;

/// The file.
pub mod config_file;

/// Where a database is, from a URL and settings beside it.
pub mod database_url;

mod neighbours;

/// Files with secrets in them.
pub mod secret_file;

/// Insecure settings, refused where others reach them.
pub mod exposure;

/// Postgres by URL: connected with patience, its schemas checked.
pub mod database;

/// Whose an answer is: this installation's, or another one's.
pub mod installation;

/// The keys of tokens, from `PRIMETRADE_JWKS_URL`.
pub mod jwks;

/// Ended sessions, by way of the read database.
pub mod revocations;

/// What admins do, from services without the identity database to its audit events.
pub mod admin_acts;

/// Ctrl-C, SIGTERM and SIGHUP.
pub mod interrupt;

/// What fails for a while, said once.
pub mod outage;

/// The ports of a process, and how it answers there until its end.
pub mod listeners;

/// A service as a process: configured, built, served, drained.
pub mod service;

/// Standard error: a bounded queue that nobody waits for.
pub mod stderr;

/// Logs and metrics.
pub mod telemetry;

/// Spans to an OpenTelemetry collector, where one is configured.
pub mod traces;

/// A cache that may be away: short calls behind a circuit breaker.
pub mod redis;

/// The one place where the wall clock is read.
pub mod clock;
