/// What a command that succeeded did. Remembered with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The task was created.
    Created,
    /// The task was changed, or was already as it was asked to be.
    Changed,
    /// The task is deleted, now or before.
    Deleted,
}

impl Effect {
    /// In the column `status` of `event_store.command`: the number that HTTP has for it. Never to be changed.
    pub(crate) fn stored(self) -> i16 {
        match self {
            Self::Created => 201,
            Self::Changed => 200,
            Self::Deleted => 204,
        }
    }

    /// From that column.
    pub(crate) fn from_stored(status: i16) -> Self {
        match status {
            201 => Self::Created,
            204 => Self::Deleted,
            _ => Self::Changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_read_as_it_was_stored() {
        for (effect, stored) in [(Effect::Created, 201), (Effect::Changed, 200), (Effect::Deleted, 204)] {
            assert_eq!((effect.stored(), Effect::from_stored(stored)), (stored, effect));
        }
    }
}
