//! Networks by their prefix.

use std::net::IpAddr;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
