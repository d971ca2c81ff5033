//! The HTTP contract, endpoint by endpoint, against one process. The same files run against the services in
//! contract_services.rs.

/// Where the requests go.
mod here {
    pub use system_tests::world::one_process::{admin, api, ops};
}

mod contract {
    mod accounts;
    mod batch;
    mod changes;
    mod commands;
    mod conventions;
    mod dashboard;
    mod exports;
    mod idempotency;
    mod jobs;
    mod lists;
    mod operations;
    mod refusals;
    mod rules;
    mod search;
    mod stats;
    mod stream;
    mod tasks;
    mod time_travel;
    mod undo;
    mod values;
}
