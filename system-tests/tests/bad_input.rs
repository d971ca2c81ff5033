//! Bad input wherever input is taken: a clear error that names the place, nothing stored, and the next request answered.
//!
//! HTTP goes through one table ([`bad_input::table`]), a family a file; what the contract's tests say about bodies, paths
//! and headers in passing is in contract/refusals.rs and contract/values.rs.

mod bad_input {
    /// Cases, and the one runner for all of them.
    pub mod table;

    mod command_line;
    mod json;
    mod login;
    mod owners;
    mod raw_http;
    mod tokens;
    mod values;
}
