use domain::CommandId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::json::{Json, write_canonical, write_text};

/// The identity under which a command takes effect at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandIdentity {
    /// The command's own id, or one made from an `Idempotency-Key`.
    pub command_id: CommandId,
    /// Of the request's content: the same id with another one is refused.
    pub fingerprint: Uuid,
}

/// Where a command's identity came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityFrom {
    /// The `Idempotency-Key` of the request.
    IdempotencyKey,
    /// The field `command_id` of a batch or a line.
    CommandId,
}

/// Namespaces of the ids that are made from keys (RFC 9562, version 5). They stand in stored commands: never change them.
const KEY: Uuid = Uuid::from_u128(0x6d0a_1d0e_6c5b_4a51_9a3c_1b7f_3f6c_0e01);
const KEY_AND_INDEX: Uuid = Uuid::from_u128(0x6d0a_1d0e_6c5b_4a51_9a3c_1b7f_3f6c_0e02);

/// The command id that an `Idempotency-Key` stands for: one unique index serves both.
#[must_use]
pub fn command_id_of_key(key: &str) -> CommandId {
    CommandId(Uuid::new_v5(&KEY, key.as_bytes()))
}

/// The id of a command without one of its own, in a batch under a key.
#[must_use]
pub fn command_id_of_key_and_index(key: &str, index: usize) -> CommandId {
    let mut name = Vec::with_capacity(key.len() + 8);
    // The number first: of fixed length, so that no other key and number give the same name.
    name.extend_from_slice(&(index as u64).to_be_bytes());
    name.extend_from_slice(key.as_bytes());
    CommandId(Uuid::new_v5(&KEY_AND_INDEX, &name))
}

/// The fingerprint of a request: a hash of its method, its path and its body as JSON, in which the order of members,
/// white space, escapes and the spelling of numbers make no difference. No body counts as `{}`.
#[must_use]
pub fn fingerprint(method: &str, path: &str, body: Option<&Json<'_>>) -> Uuid {
    let mut canonical = Vec::with_capacity(256);
    write_text(&mut canonical, method);
    write_text(&mut canonical, path);
    match body {
        Some(body) => write_canonical(&mut canonical, body),
        None => write_canonical(&mut canonical, &Json::Object(Vec::new())),
    }
    fingerprint_of(Sha256::new_with_prefix(&canonical))
}

/// The fingerprint of a request whose body is not JSON: a hash of its method, its path with the query, and of a hash of the
/// body.
#[must_use]
pub fn fingerprint_of_bytes(method: &str, path_and_query: &str, body_sha256: &[u8; 32]) -> Uuid {
    let mut canonical = Vec::with_capacity(128);
    write_text(&mut canonical, method);
    write_text(&mut canonical, path_and_query);
    canonical.extend_from_slice(body_sha256);
    fingerprint_of(Sha256::new_with_prefix(&canonical))
}

/// The first 16 bytes of the hash.
pub(crate) fn fingerprint_of(hash: Sha256) -> Uuid {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;

    #[test]
    fn ids_made_from_keys_are_a_promise() {
        assert_eq!(command_id_of_key("k").to_string(), "717e5896-4fae-583a-a3a7-11d28c177e0e");
        assert_eq!(command_id_of_key_and_index("k", 7).to_string(), "a652a064-9153-5fc0-a85c-07dd29f6f08f");
    }

    #[test]
    fn ids_made_from_keys_differ() {
        let ids = [
            command_id_of_key("k"),
            command_id_of_key("l"),
            command_id_of_key_and_index("k", 0),
            command_id_of_key_and_index("k", 1),
            command_id_of_key_and_index("l", 0),
        ];
        assert_eq!(std::collections::HashSet::from(ids).len(), ids.len());
    }

    #[test]
    fn bodies_are_compared_as_json() {
        let print = |text: &str| fingerprint("POST", "/", Some(&parse(text.as_bytes()).unwrap()));
        let same = |a: &str, b: &str| print(a) == print(b);
        assert!(same(r#"{"a":1,"b":["x"]}"#, "{ \"b\" : [\"\\u0078\"], \"a\": 1.0 }"));
        assert!(!same(r#"{"a":["x","y"]}"#, r#"{"a":["y","x"]}"#));
        assert!(!same(r#"{"a":null}"#, "{}"));
        assert!(!same(r#"{"a":"1"}"#, r#"{"a":1}"#));
        assert!(!same(r#"["ab"]"#, r#"["a","b"]"#));
        assert_eq!(fingerprint("POST", "/x", None), fingerprint("POST", "/x", Some(&parse(b" {} ").unwrap())));
        assert_ne!(fingerprint("POST", "/x", None), fingerprint("POST", "/y", None));
        assert_ne!(fingerprint("POST", "/x", None), fingerprint("PATCH", "/x", None));
    }

    #[test]
    fn a_fingerprint_is_a_promise() {
        // Stored beside keys for a day and beside command ids for ever: a change here makes replays look like misuse.
        let json = parse(r#"{"title":"ä","tags":["a",1,1.5,null,true],"due_at":{"x":false}}"#.as_bytes()).unwrap();
        assert_eq!(
            fingerprint("POST", "/api/v1/tasks", Some(&json)).to_string(),
            "d2dca4a4-d4b5-b0af-4d84-fd3243ff3735"
        );
    }
}
