//! The groups of the document.

/// The groups of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// What changes tasks.
    Commands,
    /// What shows them.
    Queries,
    /// What takes longer than an answer may.
    Jobs,
    /// Who somebody is.
    Accounts,
    /// For admins.
    Administration,
    /// For operators, and what explains the API.
    Operations,
}

impl Tag {
    pub(super) const ALL: [Self; 6] =
        [Self::Commands, Self::Queries, Self::Jobs, Self::Accounts, Self::Administration, Self::Operations];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Commands => "Commands",
            Self::Queries => "Queries",
            Self::Jobs => "Jobs",
            Self::Accounts => "Accounts",
            Self::Administration => "Administration",
            Self::Operations => "Operations",
        }
    }

    pub(super) const fn explanation(self) -> &'static str {
        match self {
            Self::Commands => {
                "Each write answers with the task's new version (`ETag`) and a `Consistency-Token`. What a task is \
                 already succeeds without an event. With an `Idempotency-Key` a request can be repeated safely."
            }
            Self::Queries => {
                "Reads come from read models, which follow the writes by milliseconds. A read that sends the \
                 `Consistency-Token` of a write shows at least that write. Send the latest with each request, writes too: then \
                 no answer goes back behind it."
            }
            Self::Jobs => {
                "What takes longer than an answer may is a job: asked for with a request, carried out after it, and looked \
                 at until it has ended. It goes on after any crash where it was, and has each effect once."
            }
            Self::Accounts => {
                "Register, log in, and send the access token with everything else; refresh it before it ends."
            }
            Self::Administration => "What takes the role `admin`.",
            Self::Operations => {
                "These need no token. `/livez`, `/readyz` and `/metrics` are not passed on by the gateway, and may be at \
                 an address of their own."
            }
        }
    }
}
