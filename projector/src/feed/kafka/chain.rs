//! The chain of positions: each message says which position came before it in its partition, so a message too few is
//! noticed, and what comes twice does nothing.

use std::collections::BTreeMap;

use messaging::{Message, Unreadable};
use uuid::Uuid;

/// Positions by shard.
pub(super) type Positions = BTreeMap<i16, i64>;

/// How far the chain of a partition is followed.
#[derive(Clone, Default)]
pub(super) struct ChainPosition {
    pub(super) publication: i64,
    /// Of each shard, the last message that was taken.
    pub(super) positions: Positions,
    /// Of each shard in which something is missing, the publication that brings it again: until that comes, its
    /// messages are of no use.
    pub(super) awaited: BTreeMap<i16, i64>,
}

/// What a message is to its partition.
pub(super) enum Next {
    /// It is to be applied.
    New,
    /// It came before.
    Duplicate,
    /// It follows on a message before the last one that was applied, which it would have to follow on.
    Skips,
    /// Messages are missing before it.
    Gap(Gap),
}

/// Messages that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) shard: i16,
    /// The last position that is there …
    pub(super) after: i64,
    /// … and one that is missing …
    pub(super) missing: i64,
    /// … in this publication.
    pub(super) publication: i64,
}

/// What a message says about its position in the chain.
pub(super) struct Link {
    pub(super) publication: i64,
    pub(super) shard: i16,
    pub(super) position: i64,
    pub(super) previous: i64,
}

impl From<&Message> for Link {
    fn from(message: &Message) -> Self {
        Self {
            publication: message.publication,
            shard: message.event.shard,
            position: message.event.position,
            previous: message.previous_position,
        }
    }
}

impl ChainPosition {
    /// Up to where everything of a shard is there. `base`: the checkpoints.
    pub(super) fn complete_until(&self, shard: i16, base: &Positions) -> i64 {
        self.positions.get(&shard).max(base.get(&shard)).copied().unwrap_or(0)
    }

    /// Goes on to a message, if nothing is missing before it.
    pub(super) fn next(&mut self, link: &Link, base: &Positions) -> Next {
        let shard = link.shard;
        let here = self.complete_until(shard, base);
        let base = base.get(&shard).copied().unwrap_or(0);
        let publication = self.awaited.get(&shard).copied().unwrap_or(0).max(self.publication);
        if link.publication < publication || (link.publication == self.publication && link.position <= here) {
            return Next::Duplicate;
        }
        if link.previous > here {
            let publication = link.publication;
            return Next::Gap(Gap { shard, after: here, missing: link.previous, publication });
        }
        // Past the checkpoint the last position is that of a message of this partition: the next one follows on it.
        if link.previous < here && here > base && link.position > here {
            return Next::Skips;
        }
        // A new publication may begin before what is there: nothing is wrong with having that again.
        self.publication = link.publication;
        self.positions.insert(shard, if link.position <= base { link.previous } else { link.position });
        if link.position <= base { Next::Duplicate } else { Next::New }
    }
}

/// The position of a message that cannot be read, if it says so.
pub(super) fn link_of(unreadable: &Unreadable, log_id: Uuid) -> Option<Link> {
    (unreadable.log_id == Some(log_id)).then_some(())?;
    Some(Link {
        publication: unreadable.publication?,
        shard: unreadable.shard?,
        position: unreadable.position?,
        previous: unreadable.previous_position?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(publication: i64, previous: i64, position: i64) -> Link {
        Link { publication, shard: 0, position, previous }
    }

    fn take(chain: &mut ChainPosition, base: i64, link: Link) -> &'static str {
        match chain.next(&link, &Positions::from([(0, base)])) {
            Next::New => "new",
            Next::Duplicate => "duplicate",
            Next::Gap(_) => "gap",
            Next::Skips => "skips",
        }
    }

    #[test]
    fn a_chain_is_followed_and_what_comes_again_is_known() {
        let mut chain = ChainPosition::default();
        let said: Vec<_> = [(1, 0, 3), (1, 3, 5), (1, 0, 3), (1, 3, 5), (1, 5, 9)]
            .map(|(p, v, n)| take(&mut chain, 0, link(p, v, n)))
            .into();
        assert_eq!(said, ["new", "new", "duplicate", "duplicate", "new"]);
    }

    #[test]
    fn what_is_missing_is_noticed_until_it_is_published_again() {
        let mut chain = ChainPosition::default();
        assert_eq!(take(&mut chain, 0, link(1, 0, 3)), "new");
        for _ in 0..2 {
            assert_eq!(take(&mut chain, 0, link(1, 5, 9)), "gap");
        }
        // a new publication that begins too late is no mend
        assert_eq!(take(&mut chain, 0, link(2, 5, 9)), "gap");
        assert_eq!(take(&mut chain, 0, link(3, 2, 3)), "new");
        assert_eq!(take(&mut chain, 0, link(3, 3, 5)), "new");
        assert_eq!(take(&mut chain, 0, link(1, 5, 9)), "duplicate");
        assert_eq!(take(&mut chain, 0, link(3, 5, 9)), "new");
    }

    /// The log went back, and got another event after a position before the last one that was applied.
    #[test]
    fn a_message_that_passes_over_what_was_applied_is_noticed() {
        let mut chain = ChainPosition::default();
        assert_eq!(take(&mut chain, 0, link(1, 0, 3)), "new");
        assert_eq!(take(&mut chain, 0, link(1, 3, 5)), "new");
        for _ in 0..2 {
            assert_eq!(take(&mut chain, 0, link(1, 3, 7)), "skips");
        }
        assert_eq!(take(&mut chain, 0, link(1, 5, 7)), "new");
        // up to the checkpoint all is there, whichever partition it is of
        assert_eq!(take(&mut chain, 9, link(1, 7, 11)), "new");
    }

    #[test]
    fn what_the_generation_has_anyway_is_not_missed() {
        let mut chain = ChainPosition::default();
        assert_eq!(take(&mut chain, 10, link(1, 6, 8)), "duplicate");
        assert_eq!(take(&mut chain, 10, link(1, 8, 12)), "new");
        assert_eq!(take(&mut chain, 10, link(1, 13, 14)), "gap");
        assert_eq!(take(&mut chain, 13, link(1, 13, 14)), "new");
    }

    #[test]
    fn messages_before_a_publication_that_is_awaited_are_of_no_use() {
        let mut chain = ChainPosition::default();
        assert_eq!(take(&mut chain, 0, link(1, 0, 3)), "new");
        chain.awaited.insert(0, 2);
        assert_eq!(take(&mut chain, 0, link(1, 5, 9)), "duplicate");
        assert_eq!(take(&mut chain, 0, link(2, 3, 5)), "new");
    }
}
