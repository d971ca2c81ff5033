//! Rows as columns, an array for each, as `unnest` takes them.

/// Defines a struct of arrays, and how they are made from rows: each field with its type and its value of one row. The
/// arrays borrow from the rows for the lifetime behind the name; that of `for` is only the rows'.
macro_rules! columns {
    ($name:ident $(<$lifetime:lifetime>)? $(for<$rows:lifetime>)? of $row:tt: $source:ty { $($field:ident: $type:ty = $value:expr,)+ }) => {
        #[derive(Default)]
        pub(crate) struct $name $(<$lifetime>)? {
            $(pub(crate) $field: Vec<$type>,)+
        }

        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            pub(crate) fn of $(<$rows>)? (rows: impl IntoIterator<Item = $source>) -> Self {
                let mut columns = Self::default();
                for $row in rows {
                    $(columns.$field.push($value);)+
                }
                columns
            }
        }
    };
}

pub(crate) use columns;

/// Tags as one text, which the statement splits again: an array of arrays has rows of one length. No tag contains a
/// control character.
pub(crate) fn joined(tags: &[String]) -> String {
    tags.join("\u{1f}")
}
