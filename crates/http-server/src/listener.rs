//! Where clients connect.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::client_address::TrustedProxies;
use crate::tls::Tls;

/// Where clients connect.
pub struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxies: TrustedProxies,
}

impl Listener {
    /// With TLS or without.
    #[must_use]
    pub fn new(socket: TcpListener, tls: Option<Tls>) -> Self {
        Self { socket, tls, proxies: TrustedProxies::default() }
    }

    /// These may have more connections than another address: their clients come over them.
    #[must_use]
    pub fn behind(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Where it is.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl From<TcpListener> for Listener {
    /// Without TLS.
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, None)
    }
}
