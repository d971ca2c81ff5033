//! What the services keep their data in: Postgres and Redis, each with its section of the settings.

/// Postgres by URL: connected with patience, its schemas checked.
pub mod database;

/// A cache that may be away: short calls behind a circuit breaker.
pub mod redis;
