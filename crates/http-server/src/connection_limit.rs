//! A limit on the connections of each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client_address::{TrustedProxies, of_one_client};

/// Connections by address. Trusted proxies come with many clients, and so may what is on this machine: they are not
/// counted.
pub(crate) struct ConnectionLimit {
    connections_max: u32,
    proxies: TrustedProxies,
    counts_loopback: bool,
    connections: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection, until it is dropped.
pub(crate) struct CountedConnection {
    limit: Arc<ConnectionLimit>,
    /// None: not counted.
    counted: Option<IpAddr>,
}

impl ConnectionLimit {
    pub fn new(connections_max: u32, proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Self { connections_max, proxies, counts_loopback: false, connections: Mutex::default() })
    }

    /// All are counted, so that a test can be refused.
    #[cfg(test)]
    pub fn counting_all(connections_max: u32) -> Arc<Self> {
        let proxies = TrustedProxies::default();
        Arc::new(Self { connections_max, proxies, counts_loopback: true, connections: Mutex::default() })
    }

    /// One more connection; none where the address has as many as it may.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<CountedConnection> {
        let address = address.to_canonical();
        let counts = (self.counts_loopback || !address.is_loopback()) && !self.proxies.contain(address);
        let counted = counts.then(|| of_one_client(address));
        if let Some(address) = counted {
            let mut connections = self.connections();
            let count = connections.entry(address).or_default();
            if *count >= self.connections_max {
                return None;
            }
            *count += 1;
        }
        Some(CountedConnection { limit: self.clone(), counted })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let Some(address) = self.counted else { return };
        let mut connections = self.limit.connections();
        if let Some(count) = connections.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_at_once() {
        let limit = ConnectionLimit::new(
            2,
            TrustedProxies::new(
                ["198.51.100.0/24", "2001:db8:7::7"].map(|proxy| proxy.parse().expect("a network")).into(),
            ),
        );
        let admit = |address: &str| limit.admit(address.parse().expect("an address"));
        let (first, second) = (admit("192.0.2.1"), admit("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some(), "another one has its own");
        drop(first);
        let third = admit("192.0.2.1");
        assert!(third.is_some() && admit("192.0.2.1").is_none());
        // a /64 is one
        let network = [admit("2001:db8::1"), admit("2001:db8::ffff:0:0:1")];
        assert!(network.iter().all(Option::is_some) && admit("2001:db8::2").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        // not counted
        for many in ["198.51.100.7", "2001:db8:7::7", "127.0.0.1", "::1"] {
            assert!((0..3).map(|_| admit(many)).collect::<Vec<_>>().iter().all(Option::is_some), "{many}");
        }
        drop((second, third, network));
        assert!(limit.connections().is_empty(), "nothing is kept of addresses without connections");
    }
}
