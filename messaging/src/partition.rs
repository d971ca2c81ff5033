//! Which partition an owner's events are in.

use domain::OwnerId;

/// The partition of an owner's events, of so many. It is where Kafka's own clients put a message with this key
/// (murmur2), so that what somebody else writes with the same key goes the same way. A promise: with another answer an
/// owner's events would lie in two partitions and lose their order.
///
/// # Panics
/// Where there is no partition: settings refuse that.
#[must_use]
pub fn partition_of(owner: OwnerId, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(owner.to_string().as_bytes()) & 0x7fff_ffff).cast_signed() % partitions
}

/// As in `org.apache.kafka.common.utils.Utils`.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    #[expect(clippy::cast_possible_truncation, reason = "a key is short")]
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_hash_is_the_one_of_kafka_s_clients() {
        // From Kafka's own UtilsTest.
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (bytes, hash) in known {
            assert_eq!(murmur2(bytes).cast_signed(), hash, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_owner_s_partition_never_changes() {
        let owner = OwnerId(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001));
        assert_eq!(partition_of(owner, 12), partition_of(owner, 12));
        assert_eq!(partition_of(owner, 1), 0);
    }

    #[test]
    fn owners_are_spread_over_all_partitions() {
        let mut counts = [0_u32; 12];
        for n in 0..12_000_u128 {
            let partition = partition_of(OwnerId(Uuid::from_u128(n << 64 | 0x8000_0000_0000_0000)), 12);
            counts[usize::try_from(partition).expect("not negative")] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
