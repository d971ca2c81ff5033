//! An API key as text: `ptk_` and, in base64url, the key's id (16 bytes), a random number (32 bytes) and a checksum (6 bytes
//! of their SHA-256). By the checksum, a mistyped one is told without asking the database, and who looks for lost keys in
//! other people's files finds no false ones. It is no proof: that is the random number, of which the database has a hash.

use access::API_KEY_PREFIX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const ID_LENGTH: usize = 16;
const CONTENT_LENGTH: usize = ID_LENGTH + 32;
const CHECKSUM_LENGTH: usize = 6;
const LENGTH: usize = CONTENT_LENGTH + CHECKSUM_LENGTH;

/// A new key: its text, and the hash that the database knows.
pub(crate) fn make(id: Uuid) -> (SecretString, [u8; 32]) {
    let mut bytes = [0; LENGTH];
    let (content, checksum) = bytes.split_at_mut(CONTENT_LENGTH);
    content[..ID_LENGTH].copy_from_slice(id.as_bytes());
    content[ID_LENGTH..].copy_from_slice(&rand::random::<[u8; 32]>());
    checksum.copy_from_slice(&checksum_of(content));
    let hash = Sha256::digest(&content[ID_LENGTH..]).into();
    (format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into(), hash)
}

/// The id of a key, and the hash of its random number. `None`: this is no key.
pub(crate) fn read(text: &str) -> Option<(Uuid, [u8; 32])> {
    let mut bytes = [0; LENGTH];
    let length = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(API_KEY_PREFIX)?, &mut bytes).ok()?;
    let (content, checksum) = bytes.split_at(CONTENT_LENGTH);
    if length != LENGTH || *checksum != checksum_of(content) {
        return None;
    }
    let id = Uuid::from_bytes(*content.first_chunk()?);
    Some((id, Sha256::digest(&content[ID_LENGTH..]).into()))
}

fn checksum_of(content: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let hash: [u8; 32] = Sha256::digest(content).into();
    let mut checksum = [0; CHECKSUM_LENGTH];
    checksum.copy_from_slice(&hash[..CHECKSUM_LENGTH]);
    checksum
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_not_otherwise() {
        let id = Uuid::from_u128(5);
        let (text, hash) = make(id);
        let text = text.expose_secret();
        assert_eq!((text.len(), read(text)), (76, Some((id, hash))));
        assert_ne!(make(id).1, hash);
        for index in 0..text.len() {
            let mut bytes = text.to_owned().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(read(&changed), None, "{index}");
        }
        let longer = format!("{text}AAAA");
        for wrong in ["", "ptk_", &text[4..], &text[..75], &longer, &text.to_uppercase()] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
