//! The one reader of settings: environment variables, a file with the same names over them, flags over both; each also as
//! `_FILE`.
//!
//! A command line adds the file with [`Source::add_file`] and its flags with [`Source::set`]; then each crate reads its
//! section once, with errors that name the variable:
//!
//! ```
//! # use settings::Source;
//! let mut source = Source::from_pairs([("PRIMETRADE_RATE_LIMITS", "on")]);
//! source.set("PRIMETRADE_RATE_LIMITS", "off");
//! assert!(!source.switch("PRIMETRADE_RATE_LIMITS", true)?);
//! # Ok::<(), settings::ConfigError>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::Uri;
use secrecy::SecretString;

use crate::error::{ConfigError, invalid};
use crate::variables::{CONFIG_FILE, VARIABLES, is_secret};
use crate::{file, secret_file, service_links};

/// Where settings come from: a copy of the environment, a file over it, flags over both.
#[derive(Clone, Default)]
pub struct Source {
    variables: BTreeMap<String, String>,
    /// Variables whose values are no text.
    unreadable: Vec<String>,
    file: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
}

/// Who has said what a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// The configuration file.
    File,
    /// A variable.
    Variable,
    /// Nobody.
    Default,
}

impl Origin {
    /// `flag`, `file`, `variable` or `default`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::File => "file",
            Self::Variable => "variable",
            Self::Default => "default",
        }
    }
}

impl Source {
    /// The environment of this process.
    #[must_use]
    pub fn from_env() -> Self {
        Self::of_variables(std::env::vars_os())
    }

    fn of_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut source = Self::default();
        for (name, value) in variables {
            // a name that is no text is none of ours
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(source.variables.insert(name, value)),
                Err(_) => source.unreadable.push(name),
            }
        }
        service_links::remove(&mut source.variables);
        source
    }

    /// Given variables, for tests.
    #[must_use]
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let pairs = pairs.into_iter().map(|(k, v)| (OsString::from(k.into()), OsString::from(v.into())));
        Self::of_variables(pairs)
    }

    /// Puts the configuration file over the variables: the one of the flag, else of [`CONFIG_FILE`], if there is any.
    ///
    /// # Errors
    /// It cannot be read, or is not as it should be.
    pub fn add_file(&mut self, flag: Option<&Path>) -> Result<(), ConfigError> {
        if let Some(path) = flag {
            self.set(CONFIG_FILE, path.to_string_lossy());
        }
        let named = self.variables.get(CONFIG_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = flag.map(Path::to_owned).or(named) {
            self.file = file::read(&path)?;
        }
        Ok(())
    }

    /// Puts a flag's value over the variable (and over its `_FILE`), wherever that stands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.flags.insert(name.to_owned(), value.into());
    }

    /// Refuses a variable that begins with `PRIMETRADE_`, or anything in the file, that is none of [`VARIABLES`], and one
    /// of these whose value is no text: a setting would otherwise be ignored in silence. `more` are the names of the
    /// program's own, which it reads by itself.
    ///
    /// # Errors
    /// Names the first one.
    pub fn check_names(&self, more: &[&str]) -> Result<(), ConfigError> {
        let variables = self.variables.keys().filter(|name| name.starts_with("PRIMETRADE_"));
        for name in self.file.keys().chain(variables) {
            let plain = name.strip_suffix("_FILE").unwrap_or(name);
            let known = |candidate: &str| {
                VARIABLES.iter().any(|variable| variable.name == candidate) || more.contains(&candidate)
            };
            if !known(plain) && !known(name) {
                let near = VARIABLES.iter().map(|v| (distance(v.name, name), v.name)).min().filter(|(d, _)| *d <= 3);
                return Err(ConfigError::Unknown { name: name.clone(), suggestion: near.map(|(_, name)| name) });
            }
        }
        let ours = |name: &&String| {
            let known = VARIABLES.iter().any(|variable| variable.name == *name);
            (known || name.starts_with("PRIMETRADE_")) && !more.contains(&name.as_str())
        };
        self.unreadable.iter().find(ours).map_or(Ok(()), |name| Err(invalid(name, &"its value is not text (UTF-8)")))
    }

    /// The value of a variable, or the content of the file that `<name>_FILE` names (its last line break taken off).
    /// An empty one counts as not set.
    ///
    /// # Errors
    /// When both are set or the file cannot be read.
    pub fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        if let Some(value) = self.flags.get(name) {
            return Ok(Some(value.clone()));
        }
        match self.origin(name) {
            Origin::File => text_in(&self.file, name),
            Origin::Flag | Origin::Variable | Origin::Default => text_in(&self.variables, name),
        }
    }

    /// Who has said what this setting is.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        let from_file = format!("{name}_FILE");
        let says = |settings: &BTreeMap<String, String>| {
            [name, &from_file].iter().any(|name| settings.get(*name).is_some_and(|value| !value.is_empty()))
        };
        match () {
            () if self.flags.contains_key(name) => Origin::Flag,
            () if says(&self.file) => Origin::File,
            () if says(&self.variables) => Origin::Variable,
            () => Origin::Default,
        }
    }

    /// Whether its value stands in a file of its own, which may have another one by now.
    #[must_use]
    pub fn is_in_file(&self, name: &str) -> bool {
        let settings = match self.origin(name) {
            Origin::File => &self.file,
            Origin::Variable => &self.variables,
            Origin::Flag | Origin::Default => return false,
        };
        settings.get(&format!("{name}_FILE")).is_some_and(|path| !path.is_empty())
    }

    /// A value in its own type.
    ///
    /// # Errors
    /// When it cannot be read as one.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        self.text(name)?.map(|text| text.trim().parse().map_err(|e| invalid(name, &e))).transpose()
    }

    /// A number from 1 to `max`.
    ///
    /// # Errors
    /// When it is none, or beyond.
    pub fn count(&self, name: &str, default: i32, max: i32) -> Result<i32, ConfigError> {
        let value = self.parsed(name)?.unwrap_or(default);
        if (1..=max).contains(&value) { Ok(value) } else { Err(invalid(name, &format!("it must be 1 to {max}"))) }
    }

    /// A value that is never shown.
    ///
    /// # Errors
    /// As [`Source::text`].
    pub fn secret(&self, name: &str) -> Result<Option<SecretString>, ConfigError> {
        Ok(self.text(name)?.map(SecretString::from))
    }

    /// `on` or `off`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn switch(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None => Ok(default),
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(_) => Err(invalid(name, &"it is either on or off")),
        }
    }

    /// A list with commas between.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub fn list<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Vec<T>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let part = |(index, part): (usize, &str)| {
            part.parse().map_err(|error| invalid(name, &format!("number {} of its list: {error}", index + 1)))
        };
        parts.enumerate().map(part).collect()
    }

    /// An http or https URL. It is shown and logged, so it may have no user and password in it.
    ///
    /// # Errors
    /// When it is none.
    pub fn http_url(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let url = self.text(name)?;
        if url.as_deref().is_some_and(|url| !is_http_url(url)) {
            return Err(invalid(name, &"it is a URL that begins with http:// or https://, without user and password"));
        }
        Ok(url)
    }
}

fn text_in(settings: &BTreeMap<String, String>, name: &str) -> Result<Option<String>, ConfigError> {
    let value = settings.get(name).filter(|value| !value.is_empty());
    let path = settings.get(&format!("{name}_FILE")).filter(|path| !path.is_empty());
    match (value, path) {
        (Some(_), Some(_)) => Err(ConfigError::Both { name: name.into() }),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            let read = if is_secret(name) { secret_file::read(&path) } else { std::fs::read_to_string(&path) };
            match read {
                Ok(content) => Ok(Some(content.trim_end_matches(['\r', '\n']).to_owned())),
                Err(source) => Err(ConfigError::File { name: name.into(), path, source }),
            }
        }
        (None, None) => Ok(None),
    }
}

fn is_http_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.host().is_empty())
            && !text.contains('@')
    })
}

/// Levenshtein distance, for a misspelt name.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pairs: &[(&str, &str)]) -> Source {
        Source::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn it_is_known_which_values_stand_in_files_of_their_own() {
        let mut source = source(&[
            ("PRIMETRADE_SECRET_FILE", "/run/secrets/secret"),
            ("PRIMETRADE_DATABASE_PASSWORD_FILE", "/run/secrets/password"),
            ("PRIMETRADE_REDIS_URL", "redis://localhost"),
            ("PRIMETRADE_LOG_FILE", ""),
        ]);
        source.set("PRIMETRADE_SECRET", "given by a flag");
        for (name, expected) in [
            ("PRIMETRADE_SECRET", false),
            ("PRIMETRADE_DATABASE_PASSWORD", true),
            ("PRIMETRADE_REDIS_URL", false),
            ("PRIMETRADE_LOG", false),
            ("PRIMETRADE_LISTEN", false),
        ] {
            assert_eq!(source.is_in_file(name), expected, "{name}");
        }
    }

    #[test]
    fn a_file_is_over_variables_and_under_flags() {
        let path = std::env::temp_dir().join(format!("settings-{}", uuid::Uuid::new_v4()));
        let text = "# mine\nPRIMETRADE_LISTEN=127.0.0.1:2\nPRIMETRADE_LOG=debug\nPRIMETRADE_RATE_LIMITS=\n";
        std::fs::write(&path, text).expect("writes");
        let variables = [
            ("PRIMETRADE_CONFIG_FILE", path.to_str().expect("utf-8")),
            ("PRIMETRADE_LISTEN", "127.0.0.1:1"),
            ("PRIMETRADE_LOG", "info"),
            ("PRIMETRADE_LOG_FORMAT", "json"),
            ("PRIMETRADE_RATE_LIMITS", "off"),
        ];
        let mut source = source(&variables);
        source.add_file(None).expect("reads");
        source.check_names(&[]).expect("known");
        source.set("PRIMETRADE_LOG", "warn");
        for (name, value, origin) in [
            ("PRIMETRADE_LISTEN", Some("127.0.0.1:2"), Origin::File),
            ("PRIMETRADE_LOG", Some("warn"), Origin::Flag),
            ("PRIMETRADE_LOG_FORMAT", Some("json"), Origin::Variable),
            // nothing is not a value
            ("PRIMETRADE_RATE_LIMITS", Some("off"), Origin::Variable),
            ("PRIMETRADE_DATA_DIR", None, Origin::Default),
        ] {
            assert_eq!(source.text(name).expect("good").as_deref(), value, "{name}");
            assert_eq!(source.origin(name), origin, "{name}");
        }
        // a flag names another file
        std::fs::write(&path, "PRIMETRADE_LISTN=127.0.0.1:3\n").expect("writes");
        let mut other = Source::default();
        other.add_file(Some(&path)).expect("reads");
        let error = other.check_names(&[]).expect_err("misspelt").to_string();
        assert!(error.contains("PRIMETRADE_LISTN") && error.contains("PRIMETRADE_LISTEN?"), "{error}");
        std::fs::write(&path, "PATH=/bin\n").expect("writes");
        other.add_file(Some(&path)).expect("reads");
        assert!(other.check_names(&[]).is_err(), "in the file every name is one of ours");
        std::fs::remove_file(&path).expect("removes");
        let gone = other.add_file(Some(&path)).expect_err("gone").to_string();
        assert!(gone.contains("PRIMETRADE_CONFIG_FILE") && gone.contains("cannot be read"), "{gone}");
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("settings-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, "a secret from a file, long enough\n").expect("writes");
        let permissions = |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode));
        permissions(0o600).expect("permissions");
        let file = path.to_str().expect("utf-8");
        let read = source(&[("PRIMETRADE_SECRET_FILE", file)]).text("PRIMETRADE_SECRET").expect("reads");
        assert_eq!(read.as_deref(), Some("a secret from a file, long enough"));
        let both = source(&[("PRIMETRADE_SECRET_FILE", file), ("PRIMETRADE_SECRET", "x")]);
        assert!(matches!(both.text("PRIMETRADE_SECRET"), Err(ConfigError::Both { .. })));
        permissions(0o644).expect("permissions");
        let open = source(&[("PRIMETRADE_SECRET_FILE", file)]).text("PRIMETRADE_SECRET").expect_err("open to all");
        assert!(open.to_string().contains("PRIMETRADE_SECRET_FILE") && open.to_string().contains("chmod"), "{open}");
        std::fs::remove_file(&path).expect("removes");
        let gone = source(&[("PRIMETRADE_SECRET_FILE", file)]).text("PRIMETRADE_SECRET").expect_err("gone");
        assert!(gone.to_string().contains("PRIMETRADE_SECRET_FILE"), "{gone}");
    }

    #[test]
    fn a_misspelt_name_is_told() {
        let error = source(&[("PRIMETRADE_LISTN", "x")]).check_names(&[]).expect_err("misspelt");
        assert!(error.to_string().contains("PRIMETRADE_LISTEN?"), "{error}");
        source(&[("PRIMETRADE_SECRET_FILE", "x"), ("PATH", "x"), ("PRIMETRADE_OWN", "x")])
            .check_names(&["PRIMETRADE_OWN"])
            .expect("all known");
    }

    #[test]
    fn a_value_that_is_no_text_is_told() {
        use std::os::unix::ffi::OsStringExt;
        let check = |name: &str, more: &[&str]| {
            let variable = (OsString::from(name), OsString::from_vec(vec![0xff]));
            Source::of_variables([variable].into_iter()).check_names(more)
        };
        for name in ["PRIMETRADE_RATE_LIMITS", "PRIMETRADE_SECRET_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            let error = check(name, &[]).expect_err("no text").to_string();
            assert!(error.starts_with(name) && error.contains("UTF-8"), "{error}");
        }
        check("PRIMETRADE_OWN", &["PRIMETRADE_OWN"]).expect("read otherwise");
        check("LESSOPEN", &[]).expect("none of ours");
    }

    #[test]
    fn switches_and_lists() {
        assert!(source(&[]).switch("PRIMETRADE_RATE_LIMITS", true).expect("default"));
        assert!(!source(&[("PRIMETRADE_RATE_LIMITS", "off")]).switch("PRIMETRADE_RATE_LIMITS", true).expect("off"));
        assert!(source(&[("PRIMETRADE_RATE_LIMITS", "no")]).switch("PRIMETRADE_RATE_LIMITS", true).is_err());
        let list: Vec<u8> = source(&[("L", "1, 2,")]).list("L").expect("a list");
        assert_eq!(list, [1, 2]);
    }
}
