//! Takes a batch apart without looking into its commands, so that one that is wrong in itself (a duplicate key, a lone
//! surrogate, NUL, a wrong type) fails alone. Only a body that is not the list it should be fails as a whole.

use bytes::Bytes;
use domain::InvalidFields;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::json::NotJson;
use crate::parse_error::ParseError;

/// The commands of `{"commands": [...]}`, each as it was sent; at most one more than `commands_max`.
///
/// # Errors
/// Not JSON, or not an object with this one field and a list in it.
pub(crate) fn commands(body: &Bytes, commands_max: usize) -> Result<Vec<Bytes>, ParseError> {
    let mut cursor = Cursor { text: body, at: 0 };
    let mut invalid = InvalidFields::default();
    let mut commands = None;
    if !cursor.eat(b'{') {
        cursor.value::<IgnoredAny>()?;
        cursor.end()?;
        invalid.malformed("", "must be an object");
        return Ok(invalid.or(None)?);
    }
    let mut more = !cursor.eat(b'}');
    while more {
        let name: String = cursor.value()?;
        if !cursor.eat(b':') {
            return Err(cursor.broken());
        }
        match (name.as_str(), cursor.peek()) {
            ("commands", _) if commands.is_some() => {
                invalid.malformed("/commands", "appears more than once");
                return Ok(invalid.or(None)?);
            }
            ("commands", Some(b'[')) => {
                let items = cursor.list(body, commands_max)?;
                if items.len() > commands_max {
                    return Ok(items);
                }
                commands = Some(items);
            }
            ("commands", Some(b'n')) => {
                cursor.value::<()>()?;
            }
            ("commands", _) => {
                cursor.value::<IgnoredAny>()?;
                invalid.malformed("/commands", "must be a list");
            }
            (unknown, _) => {
                invalid.unknown(unknown);
                cursor.value::<IgnoredAny>()?;
            }
        }
        more = cursor.eat(b',');
        if !more && !cursor.eat(b'}') {
            return Err(cursor.broken());
        }
    }
    cursor.end()?;
    if commands.is_none() {
        invalid.missing("/commands");
    }
    Ok(invalid.or(commands)?)
}

/// The lines that are not blank, as they were sent; at most one more than `lines_max`.
pub(crate) fn lines(body: &Bytes, lines_max: usize) -> Vec<Bytes> {
    body.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .take(lines_max + 1)
        .map(|line| body.slice_ref(line))
        .collect()
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Goes past a value, which must be JSON; what its strings hold is not looked at where it is ignored.
    fn value<T: Deserialize<'a>>(&mut self) -> Result<T, ParseError> {
        let mut values = serde_json::Deserializer::from_slice(&self.text[self.at..]).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(_)) | None => Err(self.broken()),
        }
    }

    fn list(&mut self, body: &Bytes, items_max: usize) -> Result<Vec<Bytes>, ParseError> {
        let mut items = Vec::new();
        if !self.eat(b'[') {
            return Err(self.broken());
        }
        if self.eat(b']') {
            return Ok(items);
        }
        while items.len() <= items_max {
            self.peek();
            let begin = self.at;
            self.value::<IgnoredAny>()?;
            items.push(body.slice(begin..self.at));
            if self.eat(b']') {
                break;
            }
            if !self.eat(b',') {
                return Err(self.broken());
            }
        }
        Ok(items)
    }

    fn end(&mut self) -> Result<(), ParseError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.broken()) }
    }

    fn broken(&self) -> ParseError {
        NotJson(format!("unexpected input at byte {}", self.at)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what is refused: whether it is malformed, and the first pointer.
    fn of(text: &str) -> Result<Vec<String>, (bool, String)> {
        commands(&Bytes::copy_from_slice(text.as_bytes()), 3)
            .map(|commands| commands.iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect())
            .map_err(|error| match error {
                ParseError::Fields(invalid) => (invalid.is_malformed(), invalid.errors()[0].pointer.to_string()),
                _ => (true, String::new()),
            })
    }

    #[test]
    fn commands_come_as_they_were_sent() {
        assert_eq!(
            of(r#" { "commands" : [ {"a": 1} , [2],3 ] } "#),
            Ok(vec![r#"{"a": 1}"#.into(), "[2]".into(), "3".into()])
        );
        assert_eq!(of(r#"{"commands":[]}"#), Ok(vec![]));
        assert_eq!(of(r#"{"\u0063ommands":["\ud800",{"a":1,"a":2}]}"#).map(|c| c.len()), Ok(2));
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(of(&format!(r#"{{"commands":[{deep},1]}}"#)).map(|c| c.len()), Ok(2));
        assert_eq!(of(r#"{"commands":[1,2,3,4,5,6]}"#).map(|c| c.len()), Ok(4), "one more than the limit is enough");
    }

    #[test]
    fn bad_text_in_a_command_is_the_commands_own_matter() {
        let body = Bytes::from_static(b"{\"commands\":[\"\xff\",1]}");
        assert_eq!(commands(&body, 3).map(|c| c.len()), Ok(2));
    }

    #[test]
    fn what_is_not_the_list_fails_as_a_whole() {
        for broken in [
            "",
            " ",
            "{",
            "{]",
            "[",
            r#"{"commands"}"#,
            r#"{"commands":}"#,
            r#"{"commands":[1}"#,
            r#"{"commands":[1,]}"#,
            r#"{"commands":[1 2]}"#,
            r#"{"commands":[1]"#,
            r#"{"commands":[1],}"#,
            r#"{"commands":[1]}x"#,
            r#"{commands:[1]}"#,
            r#"{"commands":[{"a":}]}"#,
            r#"{"commands":["a]}"#,
            r#"{"commands":nul}"#,
            "{\"commands\":[\"\n\"]}",
        ] {
            assert_eq!(of(broken), Err((true, String::new())), "{broken}");
        }
        assert_eq!(of("[]"), Err((true, String::new())));
        assert_eq!(of(r#"{"commands":{}}"#), Err((true, "/commands".into())));
        assert_eq!(of(r#"{"commands":[],"commands":[]}"#), Err((true, "/commands".into())));
        assert_eq!(of(r#"{"commands":[],"other":1}"#), Err((true, "/other".into())));
        assert_eq!(of("{}"), Err((false, "/commands".into())));
        assert_eq!(of(r#"{"commands":null}"#), Err((false, "/commands".into())));
    }

    #[test]
    fn blank_lines_are_no_lines() {
        let of = |text: &'static str| lines(&Bytes::from_static(text.as_bytes()), 3).len();
        assert_eq!(of(""), 0);
        assert_eq!(of("\n \r\n"), 0);
        assert_eq!(of("{}\r\n\n{}"), 2);
        assert_eq!(of("1\n2\n3\n4\n5\n"), 4);
    }
}
