//! The read side over HTTP, on read models of its own making in a real Postgres (`TEST_DATABASE_URL`).

mod conditions;
mod facets;
mod freshness;
mod lists;
mod past;
mod redis;
mod replica;
mod stats;
mod streams;
mod suggest;
mod tasks;
mod world;
