use identity::values::{EMAIL_LENGTH_MAX, NAME_LENGTH_MAX, PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN};
use serde_json::{Value, json};

/// The HTML standard's own, which `Email::parse` follows.
const EMAIL_PATTERN: &str = "^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$";

pub(crate) fn email() -> Value {
    json!({
        "type": "string", "minLength": 3, "maxLength": EMAIL_LENGTH_MAX, "pattern": EMAIL_PATTERN,
        "description": "As `input type=email` takes it (HTML standard). Compared in lower case.",
    })
}

pub(crate) fn name() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX,
        "description": "Trimmed; no control characters.",
    })
}

pub(crate) fn new_password() -> Value {
    json!({
        "type": "string", "format": "password", "minLength": PASSWORD_LENGTH_MIN, "maxLength": PASSWORD_LENGTH_MAX,
        "description": "Any characters but NUL.",
    })
}

/// As typed to prove who one is: one that is too short is only wrong.
pub(crate) fn password() -> Value {
    json!({"type": "string", "format": "password", "maxLength": PASSWORD_LENGTH_MAX})
}
