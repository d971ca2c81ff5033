//! What people type, parsed: e-mail addresses, names, passwords.

use domain::Invalid;
use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;

/// Of an e-mail address, in characters.
pub const EMAIL_LENGTH_MAX: usize = 254;
/// Of an account's name, in characters.
pub const NAME_LENGTH_MAX: usize = 100;
/// Of a new password, in characters.
pub const PASSWORD_LENGTH_MIN: usize = 8;
/// Of a password, in characters.
pub const PASSWORD_LENGTH_MAX: usize = 256;

/// An e-mail address, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Something before and after one `@`, at most 254 characters, neither spaces nor control characters. Whether it
    /// exists only a mail would tell.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let email = Self::lenient(text)?;
        let parts = email.0.split_once('@');
        match parts {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => Ok(email),
            Some(_) | None => Err(Invalid("must have the form name@domain".into())),
        }
    }

    /// As typed to log in: only what could not be looked up is refused.
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
        let lower: String = text.nfc().collect::<String>().to_lowercase();
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

/// What an account is called: 1 to 100 characters, trimmed, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Trims and checks.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Invalid("must not be blank".into()));
        }
        if text.chars().count() > NAME_LENGTH_MAX {
            return Err(Invalid(format!("must have at most {NAME_LENGTH_MAX} characters").into()));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid("must have no control characters".into()));
        }
        Ok(Self(text.to_owned()))
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
        let composed: String = text.nfc().collect();
        if composed.chars().count() > PASSWORD_LENGTH_MAX {
            return Err(too_long());
        }
        Ok(Self(composed.into()))
    }

    pub(crate) fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        assert_eq!(Email::parse("Ann@Example.ORG").map(|e| e.0), Ok("ann@example.org".into()));
        assert_eq!(Email::parse("e\u{301}@x").map(|e| e.0), Ok("\u{e9}@x".into()));
        assert!(Email::parse(&format!("{}@x", "a".repeat(252))).is_ok());
        for bad in ["", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a\0@b", &format!("{}@x", "a".repeat(253))] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(Name::parse("  Ann ").map(|n| n.0), Ok("Ann".into()));
        assert!(Name::parse(&"é".repeat(100)).is_ok());
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
