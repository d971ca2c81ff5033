//! Accounts over HTTP, on a real Postgres. `TEST_DATABASE_URL` names a server on which databases may be made.

mod world;

mod accounts;
mod api_keys;
mod sessions;
