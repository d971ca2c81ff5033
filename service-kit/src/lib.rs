//! The crates that this one was cut into, under its names, until all users have those of the crates.

#![allow(missing_docs)]

pub use access::ended_sessions as revocations;
pub use access::{admin_acts, installation, jwks, token};
pub use backends::{database, redis};
pub use http_api::{answer, body, documents, headers, limits, openapi, page, problem, query};
pub use http_server::client_address;
pub use process::{arguments, clock, interrupt, outage, stderr, traces};
pub use settings::{exposure, secret_file};

pub mod auth {
    pub use access::{AUDIENCE, Claims, ISSUER, Keys, Principal, Refetch, Revoked, Role, SignError, Verifier};
    pub use http_api::account::{Account, Admin};
}

pub mod config {
    pub use ::service::{Listen, check_forms};
    pub use backends::database::DatabaseUrls;
    pub use process::logs::LogSettings as Log;
    pub use settings::kafka::{PARTITIONS_MAX as KAFKA_PARTITIONS_MAX, REPLICATION_MAX as KAFKA_REPLICATION_MAX};
    pub use settings::*;
}

pub mod context {
    pub use process::context::without_permit as waiting;
    pub use process::context::*;
}

pub mod database_url {
    pub use backends::database::shown;
}

pub mod health {
    pub use http_api::health::{described, router};
    pub use process::health::*;
}

pub mod listeners {
    pub use ::service::{ListenError, Listeners};
}

pub mod load {
    pub fn turned_away() -> http_api::problem::Problem {
        http_api::problem::Problem::overloaded()
    }
}

pub mod server {
    pub use http_api::edge::{Edge, EdgeSettings, edge};
    pub use http_server::{Listener, Tls, serve};
}

pub mod service {
    pub use ::service::*;
    pub use process::background::{Background, all_of};
}

pub mod shares {
    pub use process::budget::{Budget as Shares, Reservation as Share};
}
