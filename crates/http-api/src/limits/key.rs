//! Whom a limit counts.

use std::net::IpAddr;

use domain::OwnerId;
use http_server::client_address::of_one_client;

/// An address, an account, or what stands for a pair of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub [u8; 16]);

impl Key {
    pub fn of_address(address: IpAddr) -> Self {
        match of_one_client(address) {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Self(address.octets()),
        }
    }

    pub fn of_account(owner: OwnerId) -> Self {
        Self(*owner.0.as_bytes())
    }
}
