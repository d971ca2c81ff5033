//! The HTTP contract, endpoint by endpoint. Runs against any base URL: `PRIMETRADE_TEST_URL`.

mod contract {
    mod accounts;
    mod batch;
    mod commands;
    mod conventions;
    mod idempotency;
    mod lists;
    mod operations;
    mod refusals;
    mod rules;
    mod stats;
    mod tasks;
    mod values;
}
