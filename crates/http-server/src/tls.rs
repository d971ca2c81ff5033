//! TLS for those without a gateway: `PRIMETRADE_TLS_CERT_FILE`, `PRIMETRADE_TLS_KEY_FILE`.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use process::periodic::Periodic;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use settings::{ConfigError, Source, invalid, secret_file};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

const CERT_FILE: &str = "PRIMETRADE_TLS_CERT_FILE";
const KEY_FILE: &str = "PRIMETRADE_TLS_KEY_FILE";
/// As ALPN has them, the better one first.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// How often it is looked whether the files were renewed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How connections are encrypted. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

/// A certificate of two files, read again when they change.
#[derive(Debug)]
struct Certificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("cert_file", &self.certificate.cert_file).finish_non_exhaustive()
    }
}

impl Tls {
    /// From the files that the two variables name; `None` where neither is set.
    ///
    /// # Errors
    /// Names the variable that is missing or whose file is no good.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        let path = |name| Ok::<_, ConfigError>(source.text(name)?.map(PathBuf::from));
        let (cert_file, key_file) = match (path(CERT_FILE)?, path(KEY_FILE)?) {
            (Some(cert_file), Some(key_file)) => (cert_file, key_file),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(missing(KEY_FILE, "it is the key of PRIMETRADE_TLS_CERT_FILE")),
            (None, Some(_)) => return Err(missing(CERT_FILE, "it is the certificate of PRIMETRADE_TLS_KEY_FILE")),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = RwLock::new(Arc::new(load(&cert_file, &key_file, &provider)?));
        let certificate = Arc::new(Certificate { cert_file, key_file, provider: provider.clone(), current });
        let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| invalid(CERT_FILE, &error))?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate }))
    }

    /// The handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Reads the files again whenever they have changed, for ever. New connections get what was read; what cannot be read
    /// is told, and the one before stays.
    pub(crate) async fn renewed(&self) {
        let mut seen = self.certificate.changed_at();
        let mut looking = Periodic::every(LOOK_EVERY, "looking for a renewed certificate", CancellationToken::new());
        while looking.due().await {
            let changed_at = self.certificate.changed_at();
            if changed_at == seen {
                continue;
            }
            seen = changed_at;
            match self.certificate.read_again() {
                Ok(()) => tracing::info!("the certificate was renewed"),
                Err(error) => tracing::error!(%error, "the certificate could not be renewed"),
            }
        }
    }
}

/// Whether a handshake came to HTTP/2.
pub(crate) fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

impl Certificate {
    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.cert_file, &self.key_file].map(|file| file.metadata().and_then(|metadata| metadata.modified()).ok())
    }

    fn read_again(&self) -> Result<(), ConfigError> {
        let read = Arc::new(load(&self.cert_file, &self.key_file, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn load(cert_file: &PathBuf, key_file: &PathBuf, provider: &CryptoProvider) -> Result<CertifiedKey, ConfigError> {
    let chain = CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| invalid(CERT_FILE, &format!("{}: {error}", cert_file.display())))?;
    if chain.is_empty() {
        return Err(invalid(CERT_FILE, &format!("{}: there is no certificate in it", cert_file.display())));
    }
    let checked = key_file.metadata().and_then(|metadata| secret_file::check(key_file, &metadata));
    checked.map_err(|error| invalid(KEY_FILE, &format!("{}: {error}", key_file.display())))?;
    let key = PrivateKeyDer::from_pem_file(key_file);
    let key = key.map_err(|error| invalid(KEY_FILE, &format!("{}: {error}", key_file.display())))?;
    // also checks that they belong together
    CertifiedKey::from_der(chain, key, provider).map_err(|error| invalid(KEY_FILE, &error))
}

fn missing(name: &str, needed_for: &'static str) -> ConfigError {
    ConfigError::Missing { name: name.to_owned(), needed_for }
}
