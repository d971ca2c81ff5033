//! Words to search for, cut by the rule by which the words of a task are.

use read_model::{Task, Words};

use crate::error::ReadError;

/// Of `q`.
pub(crate) const CHARACTERS_MAX: usize = 200;

/// The words of `q`.
///
/// # Errors
/// Over 200 characters, or a NUL among them.
pub(crate) fn words(q: &str) -> Result<Vec<String>, ReadError> {
    if q.chars().count() > CHARACTERS_MAX {
        return Err(ReadError::parameter("q", "must have at most 200 characters"));
    }
    if q.contains('\0') {
        return Err(ReadError::parameter("q", "must not contain NUL"));
    }
    Ok(Words::of(q, None).in_order().map(str::to_owned).collect())
}

/// Whether a task has all of the words, the last as a prefix.
pub(crate) fn matches(words: &[String], task: &Task) -> bool {
    let Some((last, whole)) = words.split_last() else { return true };
    let of_task = Words::of(&task.title, task.description.as_deref());
    let has = |is: &dyn Fn(&str) -> bool| of_task.in_order().any(is);
    whole.iter().all(|word| has(&|of_task| of_task == word)) && has(&|of_task| of_task.starts_with(last.as_str()))
}

/// All of the words, the last as a prefix, in the text form of Postgres' `tsquery`. None where there is no word.
pub(crate) fn tsquery(words: &[String]) -> Option<String> {
    // Words are alphanumeric, so nothing in them needs escaping within the quotes.
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    (!quoted.is_empty()).then(|| format!("{}:*", quoted.join(" & ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_compatibility_forms_are_folded() {
        assert_eq!(
            words("Überprüfung, CAFÉ—ﬁx №5 İstanbul").unwrap(),
            ["uberprufung", "cafe", "fix", "no5", "istanbul"]
        );
        assert_eq!(words("ΟΔΟΣ οδός").unwrap(), ["οδοσ", "οδος"]);
    }

    #[test]
    fn what_means_something_to_postgres_is_only_a_separator() {
        let words = words("a' | !b:* <-> (c) \\ & d\u{1}e").unwrap();
        assert_eq!(tsquery(&words).unwrap(), "'a' & 'b' & 'c' & 'd' & 'e':*");
        assert_eq!(tsquery(&super::words(" !?' ").unwrap()), None);
    }

    #[test]
    fn long_words_are_cut_as_the_projector_cuts_them() {
        assert_eq!(words(&"x".repeat(100)).unwrap(), ["x".repeat(64)]);
    }

    #[test]
    fn two_hundred_characters_are_enough() {
        assert!(words(&"ä".repeat(200)).is_ok());
        assert!(words(&"ä".repeat(201)).is_err());
    }
}
