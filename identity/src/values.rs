//! What people type, parsed: e-mail addresses, names, passwords. And what their clients call themselves.

use domain::{Invalid, composed};
use secrecy::{ExposeSecret, SecretString};

/// Of an e-mail address, in characters.
pub const EMAIL_LENGTH_MAX: usize = 254;
/// Of a label of its domain, in characters (RFC 1034).
const LABEL_LENGTH_MAX: usize = 63;
/// Of an account's name, in characters.
pub const NAME_LENGTH_MAX: usize = 100;
/// Of a new password, in characters.
pub const PASSWORD_LENGTH_MIN: usize = 8;
/// Of a password, in characters.
pub const PASSWORD_LENGTH_MAX: usize = 256;
/// Of a user agent, in characters.
pub const USER_AGENT_LENGTH_MAX: usize = 256;

/// An e-mail address, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// For a new account: a valid e-mail address of the HTML standard (what `input type=email` takes), of at most 254
    /// characters. Whether it exists only a mail would tell.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let email = Self::lenient(text)?;
        if is_valid(text) {
            return Ok(email);
        }
        Err(Invalid("must have the form name@domain, in ASCII, without display name, comments or quotes".into()))
    }

    /// To find an account that is there: only what could not be looked up is refused, for accounts may be older than the
    /// rule for new ones.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn lenient(text: &str) -> Result<Self, Invalid> {
        if text.chars().count() > EMAIL_LENGTH_MAX {
            return Err(Invalid(format!("must have at most {EMAIL_LENGTH_MAX} characters").into()));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Invalid("must have neither spaces nor control characters".into()));
        }
        let lower = composed(text).to_lowercase();
        // some capital letters grow when made small
        if lower.chars().count() > EMAIL_LENGTH_MAX {
            return Err(Invalid(format!("must have at most {EMAIL_LENGTH_MAX} characters").into()));
        }
        Ok(Self(lower))
    }

    /// The address in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The grammar of <https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address>: a stricter RFC 5322.
fn is_valid(address: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    let is_label = |label: &str| {
        let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        bytes.len() <= LABEL_LENGTH_MAX
            && ends_well(bytes.first())
            && ends_well(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    address
        .split_once('@')
        .is_some_and(|(name, domain)| !name.is_empty() && name.bytes().all(of_name) && domain.split('.').all(is_label))
}

/// What an account is called: 1 to 100 characters, trimmed, in Unicode normalisation form C, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Trims, composes and checks.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = composed(text.trim());
        if text.is_empty() {
            return Err(Invalid("must not be blank".into()));
        }
        if text.chars().count() > NAME_LENGTH_MAX {
            return Err(Invalid(format!("must have at most {NAME_LENGTH_MAX} characters").into()));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid("must have no control characters".into()));
        }
        Ok(Self(text.into_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password, in Unicode normalisation form C, so that it does not matter which keyboard it was typed on. Never shown.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// A new password: 8 to 256 characters, any but NUL.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let password = Self::lenient(text)?;
        if password.reveal().chars().count() < PASSWORD_LENGTH_MIN {
            return Err(Invalid(format!("must have at least {PASSWORD_LENGTH_MIN} characters").into()));
        }
        Ok(password)
    }

    /// A password as typed to log in: one that is too short is only wrong.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn lenient(text: &str) -> Result<Self, Invalid> {
        let too_long = || Invalid(format!("must have at most {PASSWORD_LENGTH_MAX} characters").into());
        if text.contains('\0') {
            return Err(Invalid("must have no NUL".into()));
        }
        // composed it has at most as many characters, and few compose from more than four
        if text.chars().take(PASSWORD_LENGTH_MAX * 4 + 1).count() > PASSWORD_LENGTH_MAX * 4 {
            return Err(too_long());
        }
        let text = composed(text);
        if text.chars().count() > PASSWORD_LENGTH_MAX {
            return Err(too_long());
        }
        Ok(Self(text.into_owned().into()))
    }

    pub(crate) fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// What a client calls itself (`User-Agent`): at most 256 characters, visible ASCII and spaces; what else was sent is `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAgent(String);

impl UserAgent {
    /// Cleans and cuts. None: nothing is left.
    #[must_use]
    pub fn cleaned(sent: &[u8]) -> Option<Self> {
        let shown = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
        let text: String = sent.trim_ascii().iter().take(USER_AGENT_LENGTH_MAX).map(shown).collect();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_cleaned_and_cut() {
        let cleaned = |sent: &[u8]| UserAgent::cleaned(sent).map(|agent| agent.0);
        assert_eq!(cleaned(b" Mozilla/5.0 (X11) "), Some("Mozilla/5.0 (X11)".into()));
        assert_eq!(cleaned(b"a\x1b[31m\tb\x00\xff\xe2\x80\xae"), Some("a?[31m?b?????".into()));
        assert_eq!(cleaned(&[b'x'; 8192]), Some("x".repeat(256)));
        assert_eq!((cleaned(b""), cleaned(b"  ")), (None, None));
    }

    #[test]
    fn addresses_are_compared_in_lower_case() {
        assert_eq!(Email::parse("Ann@Example.ORG").map(|e| e.0), Ok("ann@example.org".into()));
    }

    #[test]
    fn an_address_is_what_mail_can_be_sent_to() {
        let label = "b".repeat(63);
        let longest = format!("{}@{label}.{label}.{label}.org", "a".repeat(254 - 3 * 64 - 4));
        assert_eq!(longest.len(), 254);
        for good in [
            "a@b",
            "ann.lee+tasks@mail.example.org",
            "o'neil!#$%&*/=?^_`{|}~-@example.org",
            "1@2.3",
            "a@xn--bcher-kva.de",
            &longest,
        ] {
            assert_eq!(Email::parse(good).as_ref().map(Email::as_str), Ok(good));
        }
        for bad in [
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a@b\n",
            "a\0@b",
            " a@b",
            "<a@example.com>",
            "Ann <a@example.com>",
            "\"Ann\" <a@example.com>",
            "a@example.com (Ann)",
            "a(Ann)@example.com",
            "\"a b\"@example.com",
            "\"a\"@example.com",
            "a@[127.0.0.1]",
            "a@example..com",
            "a@.example.com",
            "a@example.com.",
            "a@-example.com",
            "a@example-.com",
            "a@exam_ple.com",
            "a,b@example.com",
            "a;b@example.com",
            "a\\b@example.com",
            "a:b@example.com",
            "mailto:a@example.com",
            "z\u{e9}@example.com",
            "a@b\u{fc}cher.example",
            "a@\u{ff42}.example",
            "\u{212a}@example.com",
            "a\u{200b}@example.com",
            &format!("a@{label}b"),
            &format!("a{longest}"),
        ] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn accounts_that_are_older_than_the_rule_are_still_found() {
        for old in ["<a@example.com>", "z\u{e9}@example.com", "\"a\"@b", "a@b_c"] {
            assert_eq!(Email::lenient(old).as_ref().map(Email::as_str), Ok(old));
        }
        assert_eq!(Email::lenient("e\u{301}@x").map(|e| e.0), Ok("\u{e9}@x".into()));
        assert!(Email::lenient(&"\u{130}".repeat(254)).is_err(), "small it is too long");
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(Name::parse("  Ann ").map(|n| n.0), Ok("Ann".into()));
        assert_eq!(Name::parse("Zoe\u{308}"), Name::parse("Zo\u{eb}"));
        assert!(Name::parse(&"é".repeat(100)).is_ok() && Name::parse(&"e\u{301}".repeat(100)).is_ok());
        for bad in ["", "  ", "a\0b", "a\nb", "a\u{7f}", &"é".repeat(101)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_composed_and_bounded() {
        let composed = Password::parse("p\u{e9}ssword").expect("good");
        assert_eq!(Password::parse("pe\u{301}ssword").expect("good").reveal(), composed.reveal());
        assert!(Password::parse(&"x".repeat(8)).is_ok() && Password::parse(&"\u{1f511}".repeat(256)).is_ok());
        assert!(Password::parse("\n\t\u{7}\u{1}    ").is_ok(), "any character but NUL");
        for bad in ["", "1234567", "12345678\0", &"x".repeat(257), &"x".repeat(1 << 20)] {
            assert!(Password::parse(bad).is_err());
        }
        assert!(Password::lenient("short").is_ok());
        assert!(!format!("{composed:?}").contains("\u{e9}"));
    }
}
