//! Who is at the other end: the socket's address, or what proxies that are trusted say.
//!
//! A proxy appends the address it sees to `X-Forwarded-For`, so only what stands right of the first address that nobody
//! trusted has vouched for can be believed: the client is the right-most entry that is not a trusted proxy itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use settings::{ConfigError, Network, Source};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The other end of a connection, in the extensions of each request that came over one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// IPv4 also where the socket has it mapped into IPv6.
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl Default for Peer {
    /// What came over no wire, in tests.
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), tls: false }
    }
}

/// The proxies whose headers are believed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    /// `PRIMETRADE_TRUSTED_PROXIES`: none unless it is set.
    ///
    /// # Errors
    /// When a part is neither an address nor a network.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self::new(source.list("PRIMETRADE_TRUSTED_PROXIES")?))
    }

    /// These networks.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks.into())
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client behind a peer: its address, and whether it came by TLS.
    #[must_use]
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if self.0.is_empty() || !self.contain(peer.address) {
            return peer;
        }
        let proto = headers.get_all(X_FORWARDED_PROTO).iter().next_back().and_then(|value| value.to_str().ok());
        let last = proto.and_then(|value| value.rsplit(',').next()).map(str::trim);
        Peer {
            address: self.right_most_untrusted(peer.address, headers),
            tls: last.map_or(peer.tls, |proto| proto.eq_ignore_ascii_case("https")),
        }
    }

    fn right_most_untrusted(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            // what is not text, or no address, nobody has vouched for: the proxy before it is as far as one can see
            let Ok(text) = value.to_str() else { return nearest };
            for entry in text.rsplit(',') {
                let Some(address) = parse(entry.trim()) else { return nearest };
                nearest = address;
                if !self.contain(address) {
                    return address;
                }
            }
        }
        nearest
    }
}

/// What is one client's own: of IPv6 a /64, by its first address.
#[must_use]
pub fn of_one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

/// An address, also with a port (`1.2.3.4:5`, `[::1]:5`) or in brackets.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse::<IpAddr>().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let networks = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(value).expect("a value"));
        }
        let peer = Peer { address: peer.parse().expect("an address"), tls: false };
        TrustedProxies::new(networks).client(peer, &headers).address.to_string()
    }

    #[test]
    fn the_client_is_the_right_most_entry_that_is_no_trusted_proxy() {
        const PROXIES: &[&str] = &["10.0.0.0/8", "fd00::/8"];
        for (trusted, peer, forwarded, client) in [
            // nobody is trusted: what the client says of itself is nothing
            (&[][..], "192.0.2.1", &["1.1.1.1"][..], "192.0.2.1"),
            (PROXIES, "192.0.2.1", &["1.1.1.1"], "192.0.2.1"),
            (PROXIES, "10.0.0.1", &[], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            // what stands left of it was made up
            (PROXIES, "10.0.0.1", &["9.9.9.9, 1.1.1.1"], "1.1.1.1"),
            (PROXIES, "10.0.0.1", &["9.9.9.9", "1.1.1.1, 10.2.3.4"], "1.1.1.1"),
            (PROXIES, "10.0.0.1", &["9.9.9.9, 10.9.9.9", "10.2.3.4"], "9.9.9.9"),
            (PROXIES, "10.0.0.1", &["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
            // with ports, in brackets, IPv6
            (PROXIES, "10.0.0.1", &["1.1.1.1:4711"], "1.1.1.1"),
            (PROXIES, "fd00::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (PROXIES, "fd00::1", &["[2001:db8::7]"], "2001:db8::7"),
            (PROXIES, "fd00::1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            // no address: not further than this
            (PROXIES, "10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            (PROXIES, "10.0.0.1", &["1.1.1.1, , 10.0.0.9"], "10.0.0.9"),
        ] {
            assert_eq!(seen(trusted, peer, forwarded), client, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_that_it_was_tls() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http, HTTPS"));
        let proxies = TrustedProxies::new(vec!["10.0.0.1".parse().expect("a network")]);
        let from = |address: &str| Peer { address: address.parse().expect("an address"), tls: false };
        assert!(proxies.client(from("10.0.0.1"), &headers).tls);
        assert!(!proxies.client(from("10.0.0.2"), &headers).tls);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https, http"));
        assert!(!proxies.client(from("10.0.0.1"), &headers).tls);
    }
}
