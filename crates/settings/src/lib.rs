//! Settings: the reader, and the contract's table of variables. Each section is read by the crate that it is for.

// what is to be told goes by process::stderr, or is a command's result
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Environment variables, a file over them, flags over both.
mod source;

/// Every variable that there is.
mod variables;

/// What can be wrong with a setting.
mod error;

/// The configuration file.
mod file;

/// Files with secrets in them.
pub mod secret_file;

/// Variables that Kubernetes and Docker set, and nobody has written.
mod service_links;

/// Networks by their prefix.
mod network;

/// The forms of Kafka's settings.
pub mod kafka;

/// Where files of jobs are.
mod object_store;

/// Insecure settings, refused where others reach them.
pub mod exposure;

pub use error::{ConfigError, invalid};
pub use network::{Network, NoNetwork};
pub use object_store::{OBJECT_STORE_URL, ObjectStoreUrl};
pub use source::{Origin, Source};
pub use variables::{CONFIG_FILE, VARIABLES, Variable};
