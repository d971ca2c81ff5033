//! Query strings, strictly: every parameter known, none twice, all of it UTF-8.

use std::borrow::Cow;

use service_kit::page::LIMIT_MAX;

use crate::error::ReadError;

/// Parameters with more names than this are not asked for anywhere.
const NAMES_MAX: usize = 32;

/// Calls `take` with the name and decoded value of each parameter.
///
/// # Errors
/// A name that is not in `known`, a name twice, a broken escape, or what `take` refuses.
pub(crate) fn each<'q>(
    query: Option<&'q str>,
    known: &[&'static str],
    mut take: impl FnMut(&'static str, Cow<'q, str>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    debug_assert!(known.len() <= NAMES_MAX);
    let mut seen = 0_u32;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).ok_or_else(|| ReadError::Parameter("a query parameter's name is not UTF-8".into()))?;
        let Some(place) = known.iter().position(|known| *known == name) else {
            let name: String = name.chars().take(50).collect();
            return Err(ReadError::Parameter(format!(
                "unknown query parameter {name:?}; known here: {}",
                known.join(", ")
            )));
        };
        let name = known[place];
        if seen & (1 << place) != 0 {
            return Err(ReadError::Parameter(format!("query parameter {name} is repeated")));
        }
        seen |= 1 << place;
        let value =
            decoded(value).ok_or_else(|| ReadError::parameter(name, "has a broken percent escape or is not UTF-8"))?;
        take(name, value)?;
    }
    Ok(())
}

/// `application/x-www-form-urlencoded`: `+` is a space, `%` takes two hexadecimal digits. None where that breaks.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Appends what is not unreserved (RFC 3986) as percent escapes.
pub(crate) fn encode_onto(out: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// `limit` of a page.
pub(crate) fn limit(value: &str) -> Result<u16, ReadError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let limit = digits.then(|| value.parse().ok()).flatten().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| ReadError::Parameter(format!("limit must be a number from 1 to {LIMIT_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(query: &str) -> Result<Vec<(&'static str, String)>, ReadError> {
        let mut out = Vec::new();
        each(Some(query), &["a", "b"], |name, value| {
            out.push((name, value.into_owned()));
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(all("a=%C3%BC+x&b=1%2C2").unwrap(), [("a", "ü x".to_owned()), ("b", "1,2".to_owned())]);
        assert_eq!(all("").unwrap(), []);
        let mut link = String::new();
        encode_onto(&mut link, "ü x,~");
        assert_eq!(all(&format!("a={link}")).unwrap(), [("a", "ü x,~".to_owned())]);
    }

    #[test]
    fn the_unknown_the_repeated_and_the_broken_are_named() {
        for (query, name) in
            [("c=1", "\"c\""), ("a=1&a=1", "a is repeated"), ("b=%zz", "b "), ("b=%f", "b "), ("b=%ff", "b ")]
        {
            let ReadError::Parameter(detail) = all(query).unwrap_err() else { panic!("{query}") };
            assert!(detail.contains(name), "{query}: {detail}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(limit("200"), Ok(200));
        for bad in ["0", "201", "", "+5", "-1", "1.0", "999999999999"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
