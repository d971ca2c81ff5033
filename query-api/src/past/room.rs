//! Room in columns that are kept for long.

/// Makes room for so many more: where there is none, a sixteenth beyond them, not as much again as there is.
pub(super) fn make_room<T>(column: &mut Vec<T>, more: usize) {
    if column.capacity() - column.len() < more {
        column.reserve_exact(more + column.len() / 16);
    }
}
