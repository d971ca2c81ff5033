//! What is done again and again, and fails for a while: said once when it begins, once when it is over.

use std::fmt::Display;

/// Whether something fails at present.
#[derive(Debug)]
pub struct Outage {
    what: &'static str,
    failing: bool,
}

impl Outage {
    /// Of `what`, as "fetching the keys".
    #[must_use]
    pub fn of(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// What came of it this time. An error is logged if there was none before it.
    pub fn seen<T, E: Display>(&mut self, result: Result<T, E>) -> Option<T> {
        let was_failing = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Ok(value) => {
                if was_failing {
                    tracing::info!("{} succeeds again", self.what);
                }
                Some(value)
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "{} fails; trying again", self.what);
                }
                None
            }
        }
    }
}
