//! The OpenAPI 3.1 document, from what routes say about themselves.
//!
//! A route is registered together with its description, so that there is neither without the other:
//!
//! ```text
//! Routes::new()
//!     .post("/api/v1/tasks", create::create, create::described)
//!     .schema("NewTask", create::schema)
//! ```
//!
//! The description stands beside the handler, its schemas beside the code that reads or writes the bodies, with the same
//! limits. Errors are named by their codes; what goes without saying (limits of the edge, request id, rate limits) is
//! added to all. [`document`] puts the parts of all services together; `docs/openapi.json` is that, committed, so that each
//! service can serve the whole of it.

/// Routes, each registered together with its description.
mod routes;

/// The groups of the document.
mod tag;

/// One method of one path, described.
mod operation;

/// Schemas that descriptions have in common.
mod schema;

/// Parameters and headers that descriptions refer to by name.
mod components;

/// The document put together.
mod document;

pub use document::document;
pub use operation::Operation;
pub use routes::{Described, Routes};
pub use schema::{EXAMPLE_ID, EXAMPLE_TIME, count, one_of, page_of, reference, time, whole};
pub use tag::Tag;
