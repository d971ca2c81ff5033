use access::Role;
use domain::{OwnerId, format_time};
use http_api::openapi::{EXAMPLE_ID, EXAMPLE_TIME, time, whole};
use identity::Account;
use serde::Serialize;
use serde_json::{Value, json};

/// An account as it sees itself.
#[derive(Serialize)]
pub(crate) struct OwnAccount {
    id: OwnerId,
    email: String,
    name: String,
    role: Role,
    created_at: String,
}

impl From<Account> for OwnAccount {
    fn from(account: Account) -> Self {
        let created_at = format_time(account.created_at);
        Self { id: account.id, email: account.email, name: account.name, role: account.role, created_at }
    }
}

pub(crate) fn schema() -> Value {
    whole(members())
}

pub(crate) fn members() -> Value {
    json!({
        "id": {"type": "string", "format": "uuid"},
        "email": {"type": "string"},
        "name": {"type": "string"},
        "role": {"type": "string", "enum": [Role::User.as_str(), Role::Admin.as_str()]},
        "created_at": time(),
    })
}

pub(crate) fn example() -> Value {
    json!({"id": EXAMPLE_ID, "email": "zoe@example.com", "name": "Zoë", "role": "user", "created_at": EXAMPLE_TIME})
}
