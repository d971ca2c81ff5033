//! Where a Redis is: a server, or the primary that Sentinels name.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use percent_encoding::percent_decode_str;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
    Value,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use settings::{ConfigError, Source, invalid, secret_file};

use super::link::{NotOpened, connection_config, tcp_settings};

const SENTINEL_PORT: u16 = 26_379;

/// The URL is none of a Redis that can be used. (What it says is not repeated: it may hold a password.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Something else.
    #[error(
        "not the URL of a Redis, as redis://host:6379/0, rediss://host:6379/0 for TLS, or \
         redis-sentinel://host:26379,host:26379/name"
    )]
    NotRedis,
    /// Sentinels in a form that is not known.
    #[error(
        "Sentinels are given as redis-sentinel://[user:password@]host[:26379],host[:26379]/name[/database] (user and \
         password of the Redis; those of the Sentinels as ?sentinel_username=…&sentinel_password=…; \
         rediss-sentinel:// for TLS), the name being the one that they know the primary by"
    )]
    Sentinel,
    /// A cluster.
    #[error(
        "a Redis Cluster cannot be used: scripts touch several keys, which it would keep apart. Name one server \
         (redis://host:6379) or Sentinels (redis-sentinel://host:26379/name)"
    )]
    Cluster,
}

/// Where a Redis is, and how to reach it.
#[derive(Clone)]
pub struct Address {
    to: To,
    /// The authority that its certificate is by, and a certificate of ours.
    certificates: Option<TlsCertificates>,
    /// Where a part of it stands in a file: read again before each connection.
    again: Option<Arc<Source>>,
    /// It could not be, which has been said.
    is_failing: bool,
}

#[derive(Clone)]
enum To {
    Server(ConnectionInfo),
    PrimaryOf { sentinels: Vec<ConnectionInfo>, name: String, with_tls: bool, redis: RedisConnectionInfo },
}

impl Address {
    /// `PRIMETRADE_REDIS_URL`, where it is set, `PRIMETRADE_REDIS_CA_FILE`, and `PRIMETRADE_REDIS_CERT_FILE` with
    /// `PRIMETRADE_REDIS_KEY_FILE`.
    ///
    /// # Errors
    /// The URL is none of a Redis; a file has not what it should have, or is of no use.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        const URL: &str = "PRIMETRADE_REDIS_URL";
        const CA: &str = "PRIMETRADE_REDIS_CA_FILE";
        const CERT: &str = "PRIMETRADE_REDIS_CERT_FILE";
        const KEY: &str = "PRIMETRADE_REDIS_KEY_FILE";
        let Some(url) = source.secret(URL)? else { return Ok(None) };
        let mut address = Self::parse(url.expose_secret()).map_err(|error| invalid(URL, &error))?;
        let (authorities, certificate, key) = (source.text(CA)?, source.text(CERT)?, source.text(KEY)?);
        let given = [(CA, &authorities), (CERT, &certificate), (KEY, &key)];
        let given = given.into_iter().find_map(|(name, path)| path.as_ref().map(|_| name));
        address.again = (source.is_in_file(URL) || given.is_some()).then(|| Arc::new(source.clone()));
        let Some(given) = given else { return Ok(Some(address)) };
        if !address.has_tls() {
            return Err(invalid(given, &format!("it is of use only where {URL} begins with rediss://")));
        }
        let missing = |name: &str, needed_for| ConfigError::Missing { name: name.to_owned(), needed_for };
        let client_tls = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let (client_cert, client_key) = (certificates(CERT, &certificate)?, private_key(KEY, &key)?);
                Some(ClientTlsConfig { client_cert, client_key })
            }
            (Some(_), None) => return Err(missing(KEY, "it is the key of PRIMETRADE_REDIS_CERT_FILE")),
            (None, Some(_)) => return Err(missing(CERT, "it is the certificate of PRIMETRADE_REDIS_KEY_FILE")),
        };
        let root_cert = authorities.map(|path| certificates(CA, &path)).transpose()?;
        address.certificates = Some(TlsCertificates { client_tls, root_cert });
        // what the library makes of them
        address.any_client().map_err(|_| invalid(given, &"the certificates cannot be used"))?;
        Ok(Some(address))
    }

    /// One whose certificate, if it needs any, is by an authority that the machine knows.
    ///
    /// # Errors
    /// It is not the URL of a Redis.
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(BadUrl::NotRedis)?;
        let to = match scheme {
            "redis-sentinel" | "rediss-sentinel" => sentinels(rest, scheme.starts_with("rediss"))?,
            _ if scheme.contains("sentinel") => return Err(BadUrl::Sentinel),
            _ if scheme.contains("cluster") => return Err(BadUrl::Cluster),
            _ => To::Server(server(url)?),
        };
        let address = Self { to, certificates: None, again: None, is_failing: false };
        address.any_client().map_err(|_| BadUrl::NotRedis)?;
        Ok(address)
    }

    /// Takes what the files of its settings say by now. Where they cannot be read, what they said last stays: they may be just
    /// being written.
    pub(super) async fn renew(&mut self) {
        let Some(source) = self.again.clone() else { return };
        let error = match tokio::task::spawn_blocking(move || Self::read(&source)).await {
            Ok(Ok(Some(address))) => {
                *self = address;
                return;
            }
            Ok(Ok(None)) => "nothing is said of it any more".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "the settings of Redis cannot be read again; those of before stay");
        }
    }

    fn has_tls(&self) -> bool {
        match &self.to {
            To::Server(server) => matches!(server.addr(), ConnectionAddr::TcpTls { .. }),
            To::PrimaryOf { with_tls, .. } => *with_tls,
        }
    }

    fn any_client(&self) -> Result<Option<Client>, redis::RedisError> {
        let any = match &self.to {
            To::Server(server) => Some(server),
            To::PrimaryOf { sentinels, .. } => sentinels.first(),
        };
        any.map(|any| self.client(any.clone())).transpose()
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, redis::RedisError> {
        let info = info.set_tcp_settings(tcp_settings());
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// The server, or whom the first Sentinel that knows one takes for the primary. (It may not be one any more, or not
    /// yet: whoever connects looks.)
    pub(super) async fn server(&self) -> Result<Client, NotOpened> {
        let (sentinels, name, with_tls, redis) = match &self.to {
            To::Server(server) => return Ok(self.client(server.clone())?),
            To::PrimaryOf { sentinels, name, with_tls, redis } => (sentinels, name, *with_tls, redis),
        };
        let mut asking: FuturesUnordered<_> = sentinels.iter().map(|sentinel| self.ask(sentinel, name)).collect();
        let mut away = None;
        let mut is_unknown = false;
        let (host, port) = loop {
            match (asking.next().await, away) {
                (Some(Ok(Some(primary))), _) => break primary,
                (Some(Ok(None)), before) => (is_unknown, away) = (true, before),
                (Some(Err(error)), _) => away = Some(error),
                (None, Some(error)) if !is_unknown => return Err(NotOpened::NoSentinel(error)),
                (None, _) => return Err(NotOpened::UnknownName(name.clone())),
            }
        };
        let info = address(host, port, with_tls).into_connection_info()?;
        Ok(self.client(info.set_redis_settings(redis.clone()))?)
    }

    /// `None`: it knows nobody by that name.
    async fn ask(&self, sentinel: &ConnectionInfo, name: &str) -> Result<Option<(String, u16)>, redis::RedisError> {
        let client = self.client(sentinel.clone())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&connection_config()).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        match connection.send_packed_command(&command).await?.extract_error()? {
            Value::Nil => Ok(None),
            answer => redis::from_redis_value(answer).map(Some).map_err(Into::into),
        }
    }
}

/// A file with certificates in it (PEM); `name` is the setting.
fn certificates(name: &str, path: &str) -> Result<Vec<u8>, ConfigError> {
    let pem = read(name, path)?;
    let first = CertificateDer::pem_slice_iter(&pem).next().and_then(Result::ok);
    first.map(|_| pem).ok_or_else(|| invalid(name, &"it is to be certificates (PEM)"))
}

/// A file with a private key in it (PEM) that not everybody can read.
fn private_key(name: &str, path: &str) -> Result<Vec<u8>, ConfigError> {
    let checked = std::fs::metadata(path).and_then(|metadata| secret_file::check(Path::new(path), &metadata));
    checked.map_err(|error| invalid(name, &error))?;
    let pem = read(name, path)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(invalid(name, &"it is to be a private key (PEM)")),
    }
}

fn read(name: &str, path: &str) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| invalid(name, &format!("cannot read {path}: {error}")))
}

fn server(url: &str) -> Result<ConnectionInfo, BadUrl> {
    let server = url.into_connection_info().map_err(|_| BadUrl::NotRedis)?;
    match server.addr() {
        // `#insecure`: without a look at the certificate
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(BadUrl::NotRedis),
        _ => Ok(server),
    }
}

fn address(host: String, port: u16, with_tls: bool) -> ConnectionAddr {
    if with_tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// `[user:password@]host[:port],…/name[/database][?sentinel_username=…&sentinel_password=…]`
fn sentinels(url: &str, with_tls: bool) -> Result<To, BadUrl> {
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (authority, path) = url.split_once('/').ok_or(BadUrl::Sentinel)?;
    let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    let (name, database) = path.split_once('/').unwrap_or((path, "0"));
    let (name, database) = (decoded(name)?, database.parse().map_err(|_| BadUrl::Sentinel)?);
    if name.is_empty() {
        return Err(BadUrl::Sentinel);
    }
    let mut redis = RedisConnectionInfo::default().set_db(database);
    if let Some((user, password)) = user.map(|user| user.split_once(':').unwrap_or(("", user))) {
        redis = redis.set_password(decoded(password)?);
        if !user.is_empty() {
            redis = redis.set_username(decoded(user)?);
        }
    }
    let mut as_whom = RedisConnectionInfo::default();
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        as_whom = match setting.split_once('=') {
            Some(("sentinel_username", value)) => as_whom.set_username(decoded(value)?),
            Some(("sentinel_password", value)) => as_whom.set_password(decoded(value)?),
            _ => return Err(BadUrl::Sentinel),
        };
    }
    let sentinel = |host: &str| {
        let (host, port) = host_and_port(host)?;
        let info = address(host, port, with_tls).into_connection_info().map_err(|_| BadUrl::Sentinel)?;
        Ok(info.set_redis_settings(as_whom.clone()))
    };
    let sentinels = hosts.split(',').map(sentinel).collect::<Result<_, _>>()?;
    Ok(To::PrimaryOf { sentinels, name, with_tls, redis })
}

fn host_and_port(text: &str) -> Result<(String, u16), BadUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(BadUrl::Sentinel)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| BadUrl::Sentinel)?,
        None if port.is_empty() => SENTINEL_PORT,
        None => return Err(BadUrl::Sentinel),
    };
    if host.is_empty() { Err(BadUrl::Sentinel) } else { Ok((host.to_owned(), port)) }
}

fn decoded(text: &str) -> Result<String, BadUrl> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| BadUrl::Sentinel)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_url_that_changes_in_its_file_is_taken_and_what_is_none_is_not() {
        let file = std::env::temp_dir().join(format!("redis-url-{}", uuid::Uuid::new_v4()));
        let write = |url: &str| {
            fs::write(&file, url).expect("writes");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("permissions");
        };
        let password = |address: &Address| match &address.to {
            To::Server(server) => server.redis_settings().password().map(str::to_owned),
            To::PrimaryOf { .. } => None,
        };
        write("redis://:before@localhost\n");
        let source = Source::from_pairs([("PRIMETRADE_REDIS_URL_FILE", file.to_str().expect("UTF-8"))]);
        let mut address = Address::read(&source).expect("good").expect("given");
        for (url, expected) in [
            ("redis://:before@localhost\n", "before"),
            ("redis://:after@localhost\n", "after"),
            ("", "after"),
            ("half of a U", "after"),
        ] {
            write(url);
            address.renew().await;
            assert_eq!(password(&address).as_deref(), Some(expected), "{url}");
        }
        assert!(address.is_failing);
        fs::remove_file(&file).expect("removes");
        address.renew().await;
        assert_eq!(password(&address).as_deref(), Some("after"));
        write("redis://:again@localhost\n");
        address.renew().await;
        assert_eq!((password(&address).as_deref(), address.is_failing), (Some("again"), false));
        fs::remove_file(file).expect("removes");
    }
}
