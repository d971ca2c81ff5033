//! The configuration file: variables as in `.env.example`, a `NAME=value` a line. Blank lines and lines that begin with `#`
//! do not count; a value may stand in quotes, which are taken off. Nothing is expanded. It is strict where an environment
//! cannot be: an unknown name, one that appears twice, and a line that is none of these stop the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{ConfigError, invalid};
use crate::secret_file;
use crate::variables::{CONFIG_FILE, is_secret};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// The settings of the file at a path.
///
/// # Errors
/// It cannot be read, or a line cannot; the error names the line, and never its value.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let wrong = |reason: String| invalid(CONFIG_FILE, &format!("{}: {reason}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let settings = parse(&text).map_err(|(line, reason)| wrong(format!("line {line}: {reason}")))?;
    if let Some((name, _)) = settings.iter().find(|(name, value)| is_secret(name) && has_secret(value)) {
        let checked = path.metadata().and_then(|metadata| secret_file::check(path, &metadata));
        checked.map_err(|error| wrong(format!("it holds {name}: {error}")))?;
    }
    Ok(settings)
}

/// Whether a value is more than an address.
fn has_secret(value: &str) -> bool {
    !value.is_empty() && (!value.contains("://") || value.contains('@') || value.contains("password"))
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut settings = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let here = |reason: String| (index + 1, reason);
        let (name, value) = line.split_once('=').ok_or_else(|| here("it is not of the form NAME=value".to_owned()))?;
        let name = name.trim_end();
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(here("the text before the = is not a name".to_owned()));
        }
        if name == CONFIG_FILE {
            return Err(here(format!("{CONFIG_FILE} has no meaning in a configuration file")));
        }
        let value = unquoted(value.trim()).ok_or_else(|| here(format!("{name}: a quote is not closed")))?;
        if settings.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(here(format!("{name} appears more than once")));
        }
    }
    Ok(settings)
}

/// Without the quotes around it; none where they do not match.
fn unquoted(value: &str) -> Option<&str> {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value.strip_prefix(quote)?.strip_suffix(quote),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let text = "# a comment\n\n PRIMETRADE_LISTEN = 127.0.0.1:1 \nA=\nB=\"two words \"\nC='x=y'\nD=a#b\n";
        let read = parse(text).expect("good");
        let pairs: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("A", ""), ("B", "two words "), ("C", "x=y"), ("D", "a#b"), ("PRIMETRADE_LISTEN", "127.0.0.1:1")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_without_its_value() {
        for (text, line, names) in [
            ("A=1\nhunter2\n", 2, "NAME=value"),
            ("=hunter2", 1, "not a name"),
            ("export A=hunter2", 1, "not a name"),
            ("a=hunter2", 1, "not a name"),
            ("A=\"hunter2", 1, "A"),
            ("A=\"", 1, "A"),
            ("A=1\nB=2\nA=hunter2", 3, "A appears more than once"),
            ("PRIMETRADE_CONFIG_FILE=hunter2", 1, "PRIMETRADE_CONFIG_FILE"),
        ] {
            let (at, reason) = parse(text).expect_err(text);
            assert_eq!(at, line, "{text}");
            assert!(reason.contains(names) && !reason.contains("hunter2"), "{reason}");
        }
    }
}
