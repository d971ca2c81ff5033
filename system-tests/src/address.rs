//! An address that can be led elsewhere, as a service of Kubernetes or a name in DNS is after a failover: connections
//! that are open stay with the old server, new ones come to the new one.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;

/// A TCP proxy on a thread of its own, so that it is as quick as what it leads to; it lives as long as the test process.
#[derive(Debug)]
pub struct Address {
    address: SocketAddr,
    leads_to: Arc<Mutex<String>>,
}

impl Address {
    /// Leads to this `host:port`.
    pub fn of(server: &str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let leads_to = Arc::new(Mutex::new(server.to_owned()));
        let shared = Arc::clone(&leads_to);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(lead(listener, &shared)).expect("accepts");
        });
        Address { address, leads_to }
    }

    /// New connections come to this `host:port` from here on.
    pub fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.leads_to.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

async fn lead(listener: TcpListener, leads_to: &Mutex<String>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut client, _) = listener.accept().await?;
        let server = leads_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(server).await?;
            server.set_nodelay(true)?;
            client.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
