//! The HTTP contract once more, through the gateway of a stack with Kafka, Redis and two copies of each service.

/// Where the requests go.
mod here {
    pub use system_tests::world::services::{admin, api, ops};
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
