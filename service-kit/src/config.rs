//! Settings: environment variables, a file with the same names over them, flags over both; each also as `_FILE`.
//!
//! [`Source`] is the one reader. A command line adds the file with [`Source::add_file`] and its flags with
//! [`Source::set`], then the typed sections are read once, each with an error that names the variable:
//!
//! ```
//! # use service_kit::config::{Source, DatabaseUrls, Listen};
//! let mut source = Source::from_pairs([("PRIMETRADE_LISTEN", "127.0.0.1:9000")]);
//! source.set("PRIMETRADE_DATABASE_URL", "postgres://localhost/primetrade");
//! let listen = Listen::read(&source)?;
//! let urls = DatabaseUrls::read(&source)?;
//! # assert_eq!(listen.address.port(), 9000);
//! # Ok::<(), service_kit::config::ConfigError>(())
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::Authority;
use secrecy::SecretString;
use tracing_subscriber::filter::Targets;

use crate::token::{RootSecret, SECRET_LENGTH_MIN};
use crate::{config_file, database_url, neighbours, secret_file};

/// Names the file that [`Source::add_file`] reads, where no flag does.
pub const CONFIG_FILE: &str = "PRIMETRADE_CONFIG_FILE";

/// The greatest `PRIMETRADE_KAFKA_PARTITIONS`.
pub const KAFKA_PARTITIONS_MAX: i32 = 1_000;
/// The greatest `PRIMETRADE_KAFKA_REPLICATION` and `PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS`.
pub const KAFKA_REPLICATION_MAX: i32 = i16::MAX as i32;

/// Every variable there is; another one that begins with `PRIMETRADE_` is a mistake that [`Source::check_names`] tells.
pub const VARIABLES: &[Variable] = &[
    Variable::open(CONFIG_FILE, None, "settings as NAME=value, over the variables"),
    Variable::open("PRIMETRADE_LISTEN", Some("127.0.0.1:8080"), "address and port"),
    Variable::open("PRIMETRADE_OPS_LISTEN", None, "livez, readyz and metrics move to this address"),
    Variable::open("PRIMETRADE_DATA_DIR", Some("./data"), "data folder of a single process"),
    Variable::secret("PRIMETRADE_DATABASE_URL", "event store and identity"),
    Variable::open("PRIMETRADE_DATABASE_HOST", None, "beside the URL or instead: nothing is escaped in these"),
    Variable::open("PRIMETRADE_DATABASE_PORT", None, "its port, 5432 by itself"),
    Variable::open("PRIMETRADE_DATABASE_USER", None, "who we are there"),
    Variable::secret("PRIMETRADE_DATABASE_PASSWORD", "its password"),
    Variable::open("PRIMETRADE_DATABASE_NAME", None, "which database there"),
    Variable::secret("PRIMETRADE_READ_DATABASE_URL", "read models, default the same"),
    Variable::open("PRIMETRADE_READ_DATABASE_HOST", None, "as above, of the read models"),
    Variable::open("PRIMETRADE_READ_DATABASE_PORT", None, "its port, 5432 by itself"),
    Variable::open("PRIMETRADE_READ_DATABASE_USER", None, "who we are there"),
    Variable::secret("PRIMETRADE_READ_DATABASE_PASSWORD", "its password"),
    Variable::open("PRIMETRADE_READ_DATABASE_NAME", None, "which database there"),
    Variable::secret("PRIMETRADE_READ_REPLICA_URL", "replica for reads, optional"),
    Variable::secret("PRIMETRADE_SECRET", "authenticates tokens and cursors, encrypts keys"),
    Variable::open("PRIMETRADE_JWKS_URL", None, "keys for services without the identity database"),
    Variable::open("PRIMETRADE_KAFKA_BROKERS", None, "host:port, with commas between; services only"),
    Variable::open("PRIMETRADE_KAFKA_TOPIC", Some("primetrade.task-events"), "where the log is published"),
    Variable::open("PRIMETRADE_KAFKA_PARTITIONS", Some("12"), "of the topic"),
    Variable::open("PRIMETRADE_KAFKA_REPLICATION", Some("1"), "copies of a partition"),
    Variable::open(
        "PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS",
        Some("1"),
        "copies that must have a message before it counts",
    ),
    Variable::open("PRIMETRADE_KAFKA_COMPRESSION", Some("zstd"), "zstd or lz4"),
    Variable::open(
        "PRIMETRADE_KAFKA_SECURITY_PROTOCOL",
        Some("plaintext"),
        "plaintext, ssl, sasl_plaintext or sasl_ssl",
    ),
    Variable::open("PRIMETRADE_KAFKA_SASL_MECHANISM", None, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    Variable::open("PRIMETRADE_KAFKA_SASL_USERNAME", None, "who we are to the brokers"),
    Variable::secret("PRIMETRADE_KAFKA_SASL_PASSWORD", "its password"),
    Variable::open(
        "PRIMETRADE_KAFKA_CA_FILE",
        None,
        "authority of the brokers' certificates (PEM), default those of the machine",
    ),
    Variable::secret("PRIMETRADE_REDIS_URL", "services only; rediss:// for TLS, redis-sentinel:// for Sentinels"),
    Variable::open(
        "PRIMETRADE_REDIS_CA_FILE",
        None,
        "authority of Redis' certificate (PEM), default those of the machine",
    ),
    Variable::open("PRIMETRADE_TLS_CERT_FILE", None, "certificate and those above it (PEM): clients come by TLS"),
    Variable::open("PRIMETRADE_TLS_KEY_FILE", None, "its key (PEM)"),
    Variable::open("PRIMETRADE_TRUSTED_PROXIES", None, "addresses or networks whose X-Forwarded-For is believed"),
    Variable::open("PRIMETRADE_CORS_ORIGINS", None, "origins that browsers may call from"),
    Variable::open("PRIMETRADE_RATE_LIMITS", Some("on"), "on or off"),
    Variable::open(
        "PRIMETRADE_ALLOW_INSECURE",
        None,
        "outside of loopback: plain-http, no-rate-limits, weak-secret, any-origin, any-proxy",
    ),
    Variable::open("PRIMETRADE_LOG", Some("info"), "as RUST_LOG"),
    Variable::open("PRIMETRADE_LOG_FORMAT", Some("text"), "text or json"),
    Variable::open("OTEL_EXPORTER_OTLP_ENDPOINT", None, "where traces go"),
];

/// A variable of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Its value where it is not set, if that is always the same one.
    pub default: Option<&'static str>,
    /// One line about it.
    pub about: &'static str,
}

impl Variable {
    /// One whose value may be shown.
    #[must_use]
    pub const fn open(name: &'static str, default: Option<&'static str>, about: &'static str) -> Self {
        Self { name, secret: false, default, about }
    }

    /// One whose value is never shown.
    #[must_use]
    pub const fn secret(name: &'static str, about: &'static str) -> Self {
        Self { name, secret: true, default: None, about }
    }
}

/// What is wrong with the configuration. The message names the variable and never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is needed and not there.
    #[error("{name} is not set: {needed_for}")]
    Missing {
        /// The variable.
        name: String,
        /// What it is needed for.
        needed_for: &'static str,
    },
    /// Its value cannot be taken.
    #[error("{name}: {reason}")]
    Invalid {
        /// The variable.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no such variable.
    #[error("{name} is not a setting of this program{}", suggestion.map(|s| format!(" (did you mean {s}?)")).unwrap_or_default())]
    Unknown {
        /// The variable.
        name: String,
        /// The nearest one that there is.
        suggestion: Option<&'static str>,
    },
    /// `X` and `X_FILE` are both set.
    #[error("{name} and {name}_FILE are both set: one of them has to go")]
    Both {
        /// The variable.
        name: String,
    },
    /// The file that `X_FILE` names cannot be read.
    #[error("{name}_FILE: cannot read {}: {source}", path.display())]
    File {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

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
        neighbours::remove(&mut source.variables);
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
            self.file = config_file::read(&path)?;
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

/// Whether a variable's value is never shown.
pub(crate) fn is_secret(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.secret && variable.name == name)
}

/// An error for a value that was read and cannot be taken. The reason has no part of it: who has taken one variable for
/// another would find a password in the log.
#[must_use]
pub fn invalid(name: &str, reason: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Invalid { name: name.into(), reason: reason.to_string() }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// For everything, or for all but operations.
    pub address: SocketAddr,
    /// For livez, readyz and metrics, where they are apart.
    pub ops_address: Option<SocketAddr>,
}

impl Listen {
    /// `PRIMETRADE_LISTEN` (127.0.0.1:8080) and `PRIMETRADE_OPS_LISTEN`. An IP address and a port; `localhost` is taken.
    ///
    /// # Errors
    /// When one is no such thing.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Self::read_or(source, 8080)
    }

    /// The same with another port for the default.
    ///
    /// # Errors
    /// As there.
    pub fn read_or(source: &Source, port: u16) -> Result<Self, ConfigError> {
        let address = |name: &str| {
            source
                .text(name)?
                .map(|text| {
                    let text = text.trim().replace("localhost:", "127.0.0.1:");
                    text.parse::<SocketAddr>()
                        .map_err(|_| invalid(name, &"it is an address and a port, as 127.0.0.1:8080"))
                })
                .transpose()
        };
        Ok(Self {
            address: address("PRIMETRADE_LISTEN")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port))),
            ops_address: address("PRIMETRADE_OPS_LISTEN")?,
        })
    }
}

/// Postgres addresses; a password in them is never shown.
#[derive(Debug, Clone)]
pub struct DatabaseUrls {
    /// Event store and identity; `None`: a private Postgres in the data folder.
    pub write: Option<SecretString>,
    /// Read models; default the same.
    pub read: Option<SecretString>,
    /// A replica of the read models.
    pub replica: Option<SecretString>,
}

impl DatabaseUrls {
    /// `PRIMETRADE_DATABASE_URL` and `PRIMETRADE_READ_DATABASE_URL`, each with the settings beside it
    /// ([`database_url`]), and `PRIMETRADE_READ_REPLICA_URL`.
    ///
    /// # Errors
    /// When one is not a Postgres URL, or two settings say the same.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let write = database_url::read(source, "PRIMETRADE_DATABASE")?;
        let read = database_url::read(source, "PRIMETRADE_READ_DATABASE")?.or_else(|| write.clone());
        Ok(Self { write, read, replica: database_url::read_url(source, "PRIMETRADE_READ_REPLICA_URL")? })
    }
}

/// `PRIMETRADE_SECRET`, where it is given.
///
/// # Errors
/// When it is too short, or its file cannot be read.
pub fn root_secret(source: &Source) -> Result<Option<RootSecret>, ConfigError> {
    const NAME: &str = "PRIMETRADE_SECRET";
    let too_short = || invalid(NAME, &format!("it must have at least {SECRET_LENGTH_MIN} bytes"));
    source.secret(NAME)?.map(|secret| RootSecret::new(secret).map_err(|_| too_short())).transpose()
}

/// `PRIMETRADE_CORS_ORIGINS`: origins as a browser sends them, `scheme://host` or `scheme://host:port`, or `*`.
///
/// # Errors
/// When one is no origin: it would never be equal to one.
pub fn cors_origins(source: &Source) -> Result<Vec<String>, ConfigError> {
    const NAME: &str = "PRIMETRADE_CORS_ORIGINS";
    let origins: Vec<String> = source.list(NAME)?;
    match origins.iter().position(|origin| *origin != "*" && !is_origin(origin)) {
        Some(index) => {
            let what = "is not * or an origin as https://app.example, with nothing after the host";
            Err(invalid(NAME, &format!("number {} of its list {what}", index + 1)))
        }
        None => Ok(origins),
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host_and_port)) = text.split_once("://") else { return false };
    let Ok(authority) = host_and_port.parse::<Authority>() else { return false };
    let has_port = authority.as_str().len() > authority.host().len();
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'@' || byte == b'*')
        && !authority.host().is_empty()
        && (!has_port || authority.port_u16().is_some())
}

/// A network, or one address: `10.0.0.0/8`, `2001:db8::/32`, `127.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address, or any other.
    pub address: IpAddr,
    /// How many of the address's bits are the network's.
    pub prefix_bits: u8,
}

/// It is no address, or the network has more bits than an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is an address or a network, as 10.0.0.0/8")]
pub struct NoNetwork;

impl Network {
    /// Whether the address is in it. One that is mapped into IPv6 is the IPv4 address that it stands for.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(self.prefix_bits.into());
                let bits = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                bits(network.to_bits()) == bits(address.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(self.prefix_bits.into());
                let bits = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                bits(network.to_bits()) == bits(address.to_bits())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        if address != address.to_canonical() {
            // IPv4 mapped into IPv6: to be written as the IPv4 network that it is
            return Err(NoNetwork);
        }
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix.map_or(Ok(bits_max), |prefix| prefix.parse().map_err(|_| NoNetwork))?;
        if prefix_bits <= bits_max { Ok(Self { address, prefix_bits }) } else { Err(NoNetwork) }
    }
}

/// The forms of what this program may have no use for, so that a mistake is told where it is made and not once somebody
/// uses it. (What has a section of its own is checked when that is read.)
///
/// # Errors
/// Names the first one that is not as it should be.
pub fn check_forms(source: &Source) -> Result<(), ConfigError> {
    source.list::<Network>("PRIMETRADE_TRUSTED_PROXIES")?;
    source.switch("PRIMETRADE_RATE_LIMITS", true)?;
    cors_origins(source)?;
    for name in ["PRIMETRADE_JWKS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        if let Some(url) = source.text(name)?
            && !is_http_url(&url)
        {
            return Err(invalid(name, &"it is a URL that begins with http:// or https://, without user and password"));
        }
    }
    const BROKERS: &str = "PRIMETRADE_KAFKA_BROKERS";
    if let Some(index) = source.list::<String>(BROKERS)?.iter().position(|broker| !is_host_and_port(broker)) {
        return Err(invalid(BROKERS, &format!("number {} of its list is not host:port", index + 1)));
    }
    for (name, max) in [
        ("PRIMETRADE_KAFKA_PARTITIONS", KAFKA_PARTITIONS_MAX),
        ("PRIMETRADE_KAFKA_REPLICATION", KAFKA_REPLICATION_MAX),
        ("PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS", KAFKA_REPLICATION_MAX),
    ] {
        source.count(name, 1, max)?;
    }
    const COMPRESSION: &str = "PRIMETRADE_KAFKA_COMPRESSION";
    if !matches!(source.text(COMPRESSION)?.as_deref(), None | Some("zstd" | "lz4")) {
        return Err(invalid(COMPRESSION, &"it is either zstd or lz4"));
    }
    for (name, taken) in [
        ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"][..]),
        ("PRIMETRADE_KAFKA_SASL_MECHANISM", &["plain", "scram-sha-256", "scram-sha-512"]),
    ] {
        if let Some(value) = source.text(name)?
            && !taken.contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(invalid(name, &format!("it is one of {}", taken.join(", "))));
        }
    }
    crate::redis::Address::read(source)?;
    Ok(())
}

fn is_http_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.host().is_empty())
            // it is shown, and logged
            && !text.contains('@')
    })
}

fn is_host_and_port(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| {
        authority.port_u16().is_some_and(|port| port > 0) && !authority.host().is_empty() && !text.contains('@')
    })
}

/// How logs are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Which levels of which targets: `info`, or `warn,event_store=debug`.
    pub filter: Targets,
    /// One JSON object a line, instead of text.
    pub json: bool,
}

impl Log {
    /// `PRIMETRADE_LOG` (info) and `PRIMETRADE_LOG_FORMAT` (text).
    ///
    /// # Errors
    /// When the filter cannot be read or the format is neither.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let filter = source.text("PRIMETRADE_LOG")?.unwrap_or_else(|| "info".into());
        let filter = filter.parse().map_err(|_| {
            invalid("PRIMETRADE_LOG", &"it is a level (error, warn, info, debug, trace, off), or as in RUST_LOG")
        })?;
        let json = match source.text("PRIMETRADE_LOG_FORMAT")?.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(_) => return Err(invalid("PRIMETRADE_LOG_FORMAT", &"it is either text or json")),
        };
        Ok(Self { filter, json })
    }
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
    fn flags_win_over_variables() {
        let mut source = source(&[("PRIMETRADE_LISTEN", "0.0.0.0:1")]);
        assert_eq!(Listen::read(&source).expect("good").address.port(), 1);
        source.set("PRIMETRADE_LISTEN", "localhost:2");
        assert_eq!(Listen::read(&source).expect("good").address.to_string(), "127.0.0.1:2");
    }

    #[test]
    fn a_file_is_over_variables_and_under_flags() {
        let path = std::env::temp_dir().join(format!("service-kit-{}", uuid::Uuid::new_v4()));
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
        let path = std::env::temp_dir().join(format!("service-kit-{}", uuid::Uuid::new_v4()));
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
    fn an_error_names_the_variable_and_shows_no_secret() {
        let cases: [(&str, &str, Result<(), ConfigError>); 5] = [
            ("PRIMETRADE_LISTEN", "8080", Listen::read(&source(&[("PRIMETRADE_LISTEN", "8080")])).map(drop)),
            (
                "PRIMETRADE_DATABASE_URL",
                "hunter2",
                DatabaseUrls::read(&source(&[("PRIMETRADE_DATABASE_URL", "hunter2")])).map(drop),
            ),
            ("PRIMETRADE_SECRET", "hunter2", root_secret(&source(&[("PRIMETRADE_SECRET", "hunter2")])).map(drop)),
            ("PRIMETRADE_LOG_FORMAT", "xml", Log::read(&source(&[("PRIMETRADE_LOG_FORMAT", "xml")])).map(drop)),
            ("PRIMETRADE_LOG", "[", Log::read(&source(&[("PRIMETRADE_LOG", "a=[b")])).map(drop)),
        ];
        for (name, value, result) in cases {
            let text = result.expect_err(name).to_string();
            assert!(text.contains(name), "{text}");
            assert!(!text.contains("hunter2"), "{value}: {text}");
        }
    }

    #[test]
    fn what_only_other_programs_use_is_checked_too() {
        let check = |name: &str, value: &str| check_forms(&source(&[(name, value)]));
        for (name, good, bad) in [
            (
                "PRIMETRADE_TRUSTED_PROXIES",
                &["127.0.0.1", "10.0.0.0/8, 2001:db8::/32,::1", "0.0.0.0/0"][..],
                &["nginx", "10.0.0.0/33", "10.0.0.0/", "::/129", "1.2.3", "10.0.0.0/-1", "::ffff:10.0.0.0/104"][..],
            ),
            (
                "PRIMETRADE_CORS_ORIGINS",
                &["*", "https://app.example", "http://localhost:3000, https://b.example:8443", "http://[::1]:3000"],
                &[
                    "https://app.example/",
                    "app.example",
                    "https://",
                    "https://app.example/path",
                    "https://*.example",
                    "https://a.example https://b.example",
                    "HTTPS://app.example",
                    "https://me@app.example",
                    "https://app.example:port",
                    "null",
                ],
            ),
            (
                "PRIMETRADE_JWKS_URL",
                &["http://127.0.0.1:8081/.well-known/jwks.json", "https://id.example/keys"],
                &["id.example/keys", "ftp://id.example", "http://", "keys", "https://me:hunter2@id.example/keys"],
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &["http://collector:4318", "https://otel.example/v1"],
                &["collector:4318", "grpc://collector:4317", "yes please", "https://hunter2@otel.example"],
            ),
            (
                "PRIMETRADE_KAFKA_BROKERS",
                &["kafka:9092", "one:9092,two:9092", "[::1]:9092"],
                &["kafka", "kafka:", "kafka:0", "kafka:70000", "http://kafka:9092", ":9092", "one:9092 two:9092"],
            ),
            (
                "PRIMETRADE_REDIS_URL",
                &["redis://cache:6379/0", "redis://:word@cache", "rediss://cache:6379"],
                &["cache:6379", "hunter2", "rediss://:hunter2@cache:6379#insecure"],
            ),
            ("PRIMETRADE_RATE_LIMITS", &["on", "off"], &["yes"]),
            ("PRIMETRADE_KAFKA_PARTITIONS", &["1", "1000"], &["0", "-1", "many", "1001"]),
            ("PRIMETRADE_KAFKA_REPLICATION", &["1", "32767"], &["0", "32768"]),
            ("PRIMETRADE_KAFKA_COMPRESSION", &["zstd", "lz4"], &["gzip", "ZSTD"]),
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", &["plaintext", "SASL_SSL"], &["tls"]),
            ("PRIMETRADE_KAFKA_SASL_MECHANISM", &["PLAIN", "SCRAM-SHA-512"], &["GSSAPI"]),
        ] {
            for value in good {
                check(name, value).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
            }
            for value in bad {
                let error = check(name, value).expect_err(&format!("{name}={value}")).to_string();
                assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
            }
            let error = check(name, "me:hunter2 or so").expect_err(name).to_string();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("::1", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert!(parsed.contains(inside.parse().expect(inside)), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().expect(outside)), "{network} {outside}");
        }
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
