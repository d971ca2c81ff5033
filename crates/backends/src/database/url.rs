//! Where a database is, from the settings: `PRIMETRADE_DATABASE_URL`, and beside or instead of it `_HOST`, `_PORT`,
//! `_USER`, `_PASSWORD` and `_NAME`, in which nothing is escaped. What comes of them is one URL. An error never has a part
//! of a value in it, since of what cannot be read nobody knows which part is the password.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use settings::{ConfigError, Origin, Source, invalid};
use sqlx::postgres::PgConnectOptions;

/// What a URL may say after its `?`: libpq's names, as far as they mean something here.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];
/// Which of several hosts is wanted.
const WANTED_HOST: &str = "target_session_attrs";

/// A Postgres address; a password in it is never shown.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    /// As one text.
    pub url: SecretString,
    /// The settings that say it, for messages.
    pub settings: String,
    /// Where one of these stands in a file of its own.
    pub again: Option<ReadAgain>,
}

/// Reads the settings of a database again, since a file of theirs may have changed. Cheap to clone.
#[derive(Clone)]
pub struct ReadAgain {
    source: Arc<Source>,
    prefix: &'static str,
}

impl std::fmt::Debug for ReadAgain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadAgain").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ReadAgain {
    fn of(source: &Source, prefix: &'static str) -> Option<Self> {
        let is_in_file = |part: &&str| source.is_in_file(&format!("{prefix}_{part}"));
        let parts = ["URL", "HOST", "PORT", "USER", "PASSWORD", "NAME"];
        parts.iter().any(is_in_file).then(|| Self { source: Arc::new(source.clone()), prefix })
    }

    /// The URL as the files have it now. Reads files.
    ///
    /// # Errors
    /// As at the start; or nothing is said of the database any more.
    pub(super) fn url(&self) -> Result<SecretString, ConfigError> {
        let read = read(&self.source, self.prefix)?;
        let nothing = || invalid(&format!("{}_URL", self.prefix), &"nothing is said of it any more");
        read.map(|read| read.url).ok_or_else(nothing)
    }
}

/// Postgres addresses.
#[derive(Debug, Clone)]
pub struct DatabaseUrls {
    /// Event store and identity; `None`: a managed Postgres in the data folder.
    pub write: Option<DatabaseUrl>,
    /// Read models; default the same.
    pub read: Option<DatabaseUrl>,
    /// A replica of the read models.
    pub replica: Option<DatabaseUrl>,
}

impl DatabaseUrls {
    /// `PRIMETRADE_DATABASE_URL`, `PRIMETRADE_READ_DATABASE_URL` and `PRIMETRADE_READ_REPLICA_URL`, each with the
    /// settings beside it ([`read`]).
    ///
    /// # Errors
    /// When one is not a Postgres URL, or two settings say the same.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let write = self::read(source, "PRIMETRADE_DATABASE")?;
        let read = self::read(source, "PRIMETRADE_READ_DATABASE")?.or_else(|| write.clone());
        Ok(Self { write, read, replica: self::read(source, "PRIMETRADE_READ_REPLICA")? })
    }
}

/// The URL of the database whose settings begin with `prefix` (`PRIMETRADE_DATABASE`); none where nothing is said of it.
///
/// # Errors
/// Names the setting that cannot be taken, or that says what another one says too.
fn read(source: &Source, prefix: &'static str) -> Result<Option<DatabaseUrl>, ConfigError> {
    let url_name = format!("{prefix}_URL");
    let url = source.text(&url_name)?;
    if let Some(url) = &url
        && source.origin(&url_name) == Origin::Flag
    {
        // a flag is over all of them
        Written::of(url, prefix)?;
        return Ok(Some(DatabaseUrl { url: SecretString::from(url.clone()), settings: url_name, again: None }));
    }
    let again = ReadAgain::of(source, prefix);
    let parts = Parts::read(source, prefix)?;
    let Some(first) = parts.first() else {
        url.as_deref().map(|url| Written::of(url, prefix)).transpose()?;
        return Ok(url.map(|url| DatabaseUrl { url: SecretString::from(url), settings: url_name, again }));
    };
    let (composed, settings) = match &url {
        Some(url) => {
            (parts.beside(&Written::of(url, prefix)?, prefix)?, format!("{url_name} or the settings beside it"))
        }
        None if parts.host.is_some() => {
            let settings = format!("{prefix}_HOST, _PORT, _USER, _PASSWORD and _NAME");
            (parts.beside(&Written::nothing(), prefix)?, settings)
        }
        None => {
            let reason = format!("it needs {prefix}_HOST beside it, or {url_name}");
            return Err(invalid(&format!("{prefix}_{first}"), &reason));
        }
    };
    Written::of(&composed, prefix)?;
    Ok(Some(DatabaseUrl { url: SecretString::from(composed), settings, again }))
}

/// Of a URL only where it leads to: scheme, host and path. None where it cannot be told for certain what is what.
#[must_use]
pub fn shown(url: &str) -> Option<String> {
    let written = Written::split(url)?;
    Some(format!("{}://{}{}", written.scheme, written.hosts, written.path))
}

/// The settings beside the URL.
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    name: Option<String>,
}

impl Parts {
    fn read(source: &Source, prefix: &str) -> Result<Self, ConfigError> {
        let text = |part: &str| source.text(&format!("{prefix}_{part}"));
        let host = text("HOST")?.map(|hosts| {
            let hosts: Option<Vec<String>> = hosts.split(',').map(|host| as_in_url(host.trim())).collect();
            let reason = "it is a host's name or address (or several with commas between), or a folder with a socket";
            hosts.map(|hosts| hosts.join(",")).ok_or_else(|| invalid(&format!("{prefix}_HOST"), &reason))
        });
        let port = text("PORT")?.map(|port| {
            let port = port.trim().parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| invalid(&format!("{prefix}_PORT"), &"it is a number from 1 to 65535"))
        });
        Ok(Self {
            host: host.transpose()?,
            port: port.transpose()?,
            user: text("USER")?,
            password: text("PASSWORD")?,
            name: text("NAME")?,
        })
    }

    fn first(&self) -> Option<&'static str> {
        self.given().into_iter().find_map(|(part, is_given, _)| is_given.then_some(part))
    }

    fn given(&self) -> [(&'static str, bool, &'static str); 5] {
        [
            ("HOST", self.host.is_some(), "a host"),
            ("PORT", self.port.is_some(), "a port"),
            ("USER", self.user.is_some(), "a user"),
            ("PASSWORD", self.password.is_some(), "a password"),
            ("NAME", self.name.is_some(), "a database"),
        ]
    }

    /// What the URL says and what these say, as one.
    fn beside(&self, url: &Written<'_>, prefix: &str) -> Result<String, ConfigError> {
        let both = self.given().into_iter().find(|(part, is_given, _)| *is_given && url.says(part));
        if let Some((part, _, what)) = both {
            let reason = format!("{prefix}_URL has {what} in it too: one of the two has to go");
            return Err(invalid(&format!("{prefix}_{part}"), &reason));
        }
        let encoded = |text: &String| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = self.user.as_ref().map_or_else(|| url.user().to_owned(), encoded);
        let password = self.password.as_ref().map(encoded).or_else(|| url.password().map(str::to_owned));
        let login = match password {
            Some(password) => format!("{user}:{password}@"),
            None if user.is_empty() => String::new(),
            None => format!("{user}@"),
        };
        let hosts = self.host.as_deref().unwrap_or(url.hosts);
        let hosts = match self.port {
            Some(port) => hosts.split(',').map(|host| format!("{host}:{port}")).collect::<Vec<_>>().join(","),
            None => hosts.to_owned(),
        };
        let path = self.name.as_ref().map_or_else(|| url.path.to_owned(), |name| format!("/{}", encoded(name)));
        let query = url.query.map(|query| format!("?{query}")).unwrap_or_default();
        Ok(format!("{}://{login}{hosts}{path}{query}", url.scheme))
    }
}

/// A host as it stands in a URL; none where it cannot be one.
fn as_in_url(host: &str) -> Option<String> {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => Some(format!("[{address}]")),
        _ if host.starts_with('/') => Some(utf8_percent_encode(host, NON_ALPHANUMERIC).to_string()),
        _ => is_name(host).then(|| host.to_owned()),
    }
}

/// A URL in its parts, as they are written.
struct Written<'a> {
    scheme: &'a str,
    /// User and password, with the `@` that ends them.
    login: &'a str,
    hosts: &'a str,
    /// With the `/` it begins with.
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Written<'a> {
    const fn nothing() -> Self {
        Self { scheme: "postgres", login: "", hosts: "", path: "", query: None }
    }

    fn of(url: &'a str, prefix: &str) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| invalid(&format!("{prefix}_URL"), &reason);
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong("it begins with postgres://"));
        }
        let written = Self::split(url).ok_or_else(|| {
            wrong(&format!(
                "it is not clear where its password ends. In a URL / ? # and @ of a password are written %2F %3F %23 and %40, or give it as {prefix}_PASSWORD, where nothing is escaped"
            ))
        })?;
        let known = |name: &str| PARAMETERS.contains(&name) || name == WANTED_HOST || name.starts_with("options[");
        if let Some(position) = written.parameters().position(|(name, _)| !known(name)) {
            let known = PARAMETERS.iter().filter(|name| !name.contains("ssl-")).chain([&WANTED_HOST]);
            let known = known.copied().collect::<Vec<_>>().join(", ");
            return Err(wrong(&format!("its parameter {} is none of {known}", position + 1)));
        }
        let parameters = written.parameters().filter(|(name, _)| *name != WANTED_HOST);
        let parameters: Vec<String> = parameters.map(|(name, value)| format!("{name}={value}")).collect();
        for host in written.hosts.split(',') {
            let Written { scheme, login, path, .. } = written;
            let one = format!("{scheme}://{login}{host}{path}?{}", parameters.join("&"));
            // its error may quote what it could not read
            PgConnectOptions::from_str(&one)
                .map_err(|_| wrong("it is not a URL as postgres://user:password@host:5432/database"))?;
        }
        Ok(written)
    }

    /// None where it has no scheme, or an `@` or a `#` stands where a URL has none: then a `/`, `?` or `#` before it was
    /// meant to be a part of the password.
    fn split(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (before_query, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
        let (authority, path) = before_query.split_at(before_query.find('/').unwrap_or(before_query.len()));
        let unclear = |text: &str| text.contains(['@', '#']);
        if unclear(path) || query.is_some_and(unclear) || authority.contains('#') {
            return None;
        }
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Some(Self { scheme, login, hosts, path, query })
    }

    fn user(&self) -> &'a str {
        self.login.split([':', '@']).next().unwrap_or_default()
    }

    fn password(&self) -> Option<&'a str> {
        Some(self.login.strip_suffix('@')?.split_once(':')?.1)
    }

    fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// Whether it says itself what a setting beside it is for.
    fn says(&self, part: &str) -> bool {
        let has = |wanted: &[&str]| self.parameters().any(|(name, _)| wanted.contains(&name));
        match part {
            "HOST" => !self.hosts.is_empty() || has(&["host", "hostaddr"]),
            "PORT" => self.hosts.split(',').any(has_port) || has(&["port"]),
            "USER" => !self.user().is_empty() || has(&["user"]),
            "PASSWORD" => self.password().is_some() || has(&["password"]),
            _ => self.path.len() > 1 || has(&["dbname"]),
        }
    }
}

fn has_port(host: &str) -> bool {
    let after_address = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    after_address.contains(':') && host.parse::<Ipv6Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const SECRET: &str = "hunter2";

    fn url(pairs: &[(&str, &str)]) -> Result<Option<String>, String> {
        let pairs = pairs.iter().map(|(name, value)| (format!("PRIMETRADE_DATABASE_{name}"), *value));
        let read = read(&Source::from_pairs(pairs), "PRIMETRADE_DATABASE");
        read.map(|url| url.map(|given| given.url.expose_secret().to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_escaped_by_hand() {
        for (pairs, expected) in [
            (&[][..], None),
            (&[("URL", "postgres://a:b@c:1/d?sslmode=require")], Some("postgres://a:b@c:1/d?sslmode=require")),
            (
                &[("HOST", "db"), ("USER", "me@corp"), ("PASSWORD", "a/b+c==@:%41 ü"), ("NAME", "my db")],
                Some("postgres://me%40corp:a%2Fb%2Bc%3D%3D%40%3A%2541%20%C3%BC@db/my%20db"),
            ),
            (&[("HOST", "db"), ("PORT", "6432")], Some("postgres://db:6432")),
            (&[("HOST", "::1"), ("PORT", "1"), ("NAME", "x")], Some("postgres://[::1]:1/x")),
            (&[("HOST", "[fd00::1]"), ("USER", "u")], Some("postgres://u@[fd00::1]")),
            (&[("HOST", "/run/postgresql"), ("NAME", "x")], Some("postgres://%2Frun%2Fpostgresql/x")),
            (&[("HOST", "a, b"), ("PORT", "5"), ("PASSWORD", "p")], Some("postgres://:p@a:5,b:5")),
            // beside the URL
            (
                &[("URL", "postgresql://u@h/d?sslmode=require"), ("PASSWORD", "p/")],
                Some("postgresql://u:p%2F@h/d?sslmode=require"),
            ),
            (
                &[("URL", "postgres://h,i/"), ("NAME", "d"), ("USER", "u"), ("PORT", "2")],
                Some("postgres://u@h:2,i:2/d"),
            ),
            (&[("URL", "postgres://h:2/d"), ("HOST", "")], Some("postgres://h:2/d")),
        ] {
            assert_eq!(url(pairs).expect("good").as_deref(), expected, "{pairs:?}");
        }
        let spoken = url(&[("HOST", "db"), ("USER", "u s"), ("PASSWORD", "rd%41x"), ("NAME", "a/b")]).expect("good");
        let options = PgConnectOptions::from_str(&spoken.expect("a URL")).expect("good");
        assert_eq!((options.get_username(), options.get_database()), ("u s", Some("a/b")));
    }

    #[test]
    fn what_cannot_be_taken_is_named_and_not_shown() {
        for (pairs, names) in [
            (&[("URL", "postgres://u:p@x/hunter2@host/db")][..], &["_URL", "_PASSWORD"][..]),
            (&[("URL", "postgres://u:hunter2?x@host/db")], &["_URL", "_PASSWORD"]),
            (&[("URL", "postgres://u:12#hunter2@host/db")], &["_URL", "_PASSWORD"]),
            (&[("URL", "postgres://u:12?hunter2@host/db")], &["_URL", "_PASSWORD"]),
            (&[("URL", "postgres://u:12/hunter2@host/db")], &["_URL", "_PASSWORD"]),
            (&[("URL", "postgres://u:hunter2@host:port/db")], &["_URL"]),
            (&[("URL", "postgres://u:hunter2/b+c==@host/db")], &["_URL", "_PASSWORD"]),
            (&[("URL", "postgres://u@host/db?pasword=hunter2")], &["_URL", "parameter 1"]),
            (&[("URL", "hunter2")], &["_URL"]),
            (&[("URL", "postgres://u:hunter2@h/d"), ("PASSWORD", "hunter2")], &["_PASSWORD", "_URL"]),
            (&[("URL", "postgres://h/d?password=hunter2"), ("PASSWORD", "hunter2")], &["_PASSWORD", "_URL"]),
            (&[("URL", "postgres://h/d"), ("HOST", "i")], &["_HOST", "_URL"]),
            (&[("URL", "postgres://h/d"), ("NAME", "d")], &["_NAME", "_URL"]),
            (&[("URL", "postgres://u@h/d"), ("USER", "u")], &["_USER", "_URL"]),
            (&[("URL", "postgres://h:1/d"), ("PORT", "1")], &["_PORT", "_URL"]),
            (&[("PASSWORD", "hunter2"), ("NAME", "d")], &["_PASSWORD", "_HOST", "_URL"]),
            (&[("HOST", "hunter2@h")], &["_HOST"]),
            (&[("HOST", "postgres://h")], &["_HOST"]),
            (&[("HOST", "h"), ("PORT", "hunter2")], &["_PORT"]),
            (&[("HOST", "h"), ("PORT", "0")], &["_PORT"]),
        ] {
            let error = url(pairs).expect_err(&format!("{pairs:?}"));
            assert!(!error.contains(SECRET), "{error}");
            for name in names {
                assert!(error.contains(name), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_flag_is_over_all_of_them() {
        let mut source = Source::from_pairs([("PRIMETRADE_DATABASE_HOST", "h"), ("PRIMETRADE_DATABASE_PASSWORD", "p")]);
        source.set("PRIMETRADE_DATABASE_URL", "postgres://u@i/d");
        let given = read(&source, "PRIMETRADE_DATABASE").expect("good").expect("a URL");
        assert_eq!(given.url.expose_secret(), "postgres://u@i/d");
        assert_eq!(given.settings, "PRIMETRADE_DATABASE_URL");
    }

    #[test]
    fn messages_name_the_settings_that_say_it() {
        let read_models = |pairs: &[(&str, &str)]| {
            let urls = DatabaseUrls::read(&Source::from_pairs(pairs.iter().copied())).expect("good");
            urls.read.expect("a URL").settings
        };
        let url = ("PRIMETRADE_DATABASE_URL", "postgres://h/d");
        assert_eq!(read_models(&[url]), "PRIMETRADE_DATABASE_URL");
        assert_eq!(
            read_models(&[url, ("PRIMETRADE_DATABASE_PASSWORD", "p")]),
            "PRIMETRADE_DATABASE_URL or the settings beside it"
        );
        assert_eq!(
            read_models(&[url, ("PRIMETRADE_READ_DATABASE_HOST", "i")]),
            "PRIMETRADE_READ_DATABASE_HOST, _PORT, _USER, _PASSWORD and _NAME"
        );
    }

    #[test]
    fn of_a_url_it_is_shown_where_it_leads_to() {
        for (url, expected) in [
            ("postgres://u:hunter2@db:1/x?password=hunter2", Some("postgres://db:1/x")),
            ("postgres://u:hunter2@x@db/x", Some("postgres://db/x")),
            ("redis://:hunter2@cache:6379/0", Some("redis://cache:6379/0")),
            ("redis://:12/hunter2@cache:6379/0", None),
            ("hunter2", None),
        ] {
            assert_eq!(shown(url).as_deref(), expected, "{url}");
        }
    }
}
