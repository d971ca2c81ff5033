//! Whose an answer is. What answers at an address may be another installation's: a port that somebody else has taken, a
//! name that leads elsewhere. So what could be another's says whose it is, by the secret that all copies of one
//! installation share, and by the log.

use backends::database::Pool;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::token::{Macs, RootSecret};

/// All copies of all services that share one secret.
#[derive(Clone)]
pub struct Installation {
    keys: Macs,
    tag: String,
}

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installation").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Installation {
    /// Those with this secret.
    #[must_use]
    pub fn of(secret: &RootSecret) -> Self {
        let [a, b, c, d, ..] = secret.derive("installation-tag");
        Self { keys: secret.macs("jwks"), tag: format!("{:08x}", u32::from_be_bytes([a, b, c, d])) }
    }

    /// Part of names that others may use as well (keys in a Redis): tells installations apart and betrays nothing.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Shows who has the secret that these public keys (by id) are of this installation and this log.
    #[must_use]
    pub fn proof(&self, log_id: Uuid, keys: &[(String, [u8; 32])]) -> [u8; 32] {
        fed(self.keys.make(), log_id, keys).finalize().into_bytes().into()
    }

    /// Whether that is the proof, by this secret or the previous one; in constant time.
    #[must_use]
    pub fn proves(&self, proof: &[u8], log_id: Uuid, keys: &[(String, [u8; 32])]) -> bool {
        self.keys.take(|mac| fed(mac, log_id, keys).verify_slice(proof).is_ok())
    }
}

fn fed(mut mac: Hmac<Sha256>, log_id: Uuid, keys: &[(String, [u8; 32])]) -> Hmac<Sha256> {
    mac.update(log_id.as_bytes());
    for (kid, key) in keys {
        mac.update(&(kid.len() as u64).to_be_bytes());
        mac.update(kid.as_bytes());
        mac.update(key);
    }
    mac
}

/// The log that this process works for.
#[derive(Debug, Clone)]
pub enum Log {
    /// This one.
    Known(Uuid),
    /// The one that the read models of this database are made from.
    OfReadModels(Pool),
}

impl Log {
    /// Its id; `None`: nothing was read into the read models yet.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn id(&self) -> Result<Option<Uuid>, sqlx::Error> {
        match self {
            Self::Known(id) => Ok(Some(*id)),
            Self::OfReadModels(pool) => {
                sqlx::query_scalar!("select log_id from read_model.projection").fetch_one(pool).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_secret_log_and_set_of_keys() {
        let of = |secret: &str| Installation::of(&RootSecret::new(secret.repeat(4).into()).expect("long enough"));
        let (ours, others) = (of("ours ours ours"), of("others others"));
        assert_ne!(ours.tag(), others.tag());
        assert_eq!(ours.tag(), of("ours ours ours").tag());
        let [log, other_log] = [1, 2].map(Uuid::from_u128);
        let keys = [("a".to_owned(), [1; 32]), ("b".to_owned(), [2; 32])];
        let proof = ours.proof(log, &keys);
        assert!(ours.proves(&proof, log, &keys));
        assert!(!others.proves(&proof, log, &keys));
        assert!(!ours.proves(&proof, other_log, &keys));
        assert!(!ours.proves(&proof, log, &keys[..1]));
        assert!(!ours.proves(&proof, log, &[("a".to_owned(), [1; 32]), ("b".to_owned(), [3; 32])]));
        assert!(!ours.proves(&proof[..16], log, &keys));
        assert!(!ours.proves(b"", log, &keys));
    }

    #[test]
    fn a_proof_by_the_previous_secret_is_taken() {
        let of = |current: &str, previous: &str| {
            let pairs = [("PRIMETRADE_SECRET", current), ("PRIMETRADE_SECRET_PREVIOUS", previous)];
            let pairs = pairs.map(|(name, value)| (name, value.repeat(8)));
            let secret = RootSecret::read(&settings::Source::from_pairs(pairs));
            Installation::of(&secret.expect("long enough").expect("given"))
        };
        let (before, after, new) = (of("before", ""), of("after", "before"), of("after", ""));
        let (log, keys) = (Uuid::from_u128(1), [("a".to_owned(), [1; 32])]);
        let proof = before.proof(log, &keys);
        assert!(after.proves(&proof, log, &keys) && !new.proves(&proof, log, &keys));
        assert_eq!((after.proof(log, &keys), after.tag()), (new.proof(log, &keys), new.tag()));
    }
}
