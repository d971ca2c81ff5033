//! Reads: lists, tasks, their past, statistics and the live stream, from the tables of `read_model` alone.
//!
//! Each answer is made from one snapshot of one owner's rows, named by (log id, generation, change counter). That
//! name is the ETag and the cache's version, so nothing is ever invalidated, and any number of processes on one
//! database are right without knowing of each other.

/// `GET /api/v1/tasks`.
mod list;

/// `GET /api/v1/tasks/{id}`, also as of a time.
mod task;

/// `GET /api/v1/tasks/{id}/history`.
mod history;

/// What all of them take from a request's headers and put into an answer's.
mod asked;

/// The way of a read: version, cache, one statement for all who ask the same.
mod reads;

/// Where each owner's rows stand; consistency tokens.
mod owners;

/// A task as the API shows it, and the fold of its history.
mod task_row;

/// The words of `q`.
mod search;

/// Query strings, strictly.
mod params;

/// Why a read was refused.
mod error;
