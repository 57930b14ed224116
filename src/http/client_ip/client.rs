//! Whose requests count together.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};

use super::address;

/// Whose requests count together: an address, a network, or this machine.
///
/// It is written `203.0.113.7`, `2001:db8::/64`, `2001:db8::1/128` or `local`, and read from the same. An IPv6 address
/// without a prefix is read as that address alone, as with `/128`; an address with a prefix as the network around it.
///
/// ```
/// use tollgate::http::Client;
/// let client: Client = "2001:db8::1/64".parse()?;
/// assert_eq!(client.to_string(), "2001:db8::/64");
/// # Ok::<(), tollgate::http::ClientTextError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(Option<IpNet>);

impl Client {
    /// All that comes through a socket of this machine that has no address.
    pub const LOCAL: Self = Self(None);

    pub(super) fn of_ipv4(address: Ipv4Addr) -> Self {
        Self(Some(IpAddr::V4(address).into()))
    }

    /// `prefix` is 128 at most: a longer one counts as 128.
    pub(super) fn of_ipv6(address: Ipv6Addr, prefix: u8) -> Self {
        let network = Ipv6Net::new(address, prefix).unwrap_or(address.into());
        Self(Some(IpNet::V6(network.trunc())))
    }

    /// The address, the first one of a network, or `None` for [`LOCAL`](Self::LOCAL).
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.map(|network| network.addr())
    }

    /// The number of bits of the address that count: 32 for an IPv4 address. `None` for [`LOCAL`](Self::LOCAL).
    #[must_use]
    pub fn prefix(&self) -> Option<u8> {
        self.0.map(|network| network.prefix_len())
    }
}

/// In as few words as there are: each is a call of the hasher. The first tells how many follow.
impl Hash for Client {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let kind = |kind: u64, prefix: u8| kind << 40 | u64::from(prefix) << 32;
        match self.0 {
            None => state.write_u64(kind(0, 0)),
            Some(IpNet::V4(net)) => {
                state.write_u64(kind(1, net.prefix_len()) | u64::from(net.addr().to_bits()))
            }
            Some(IpNet::V6(net)) => {
                let bits = net.addr().to_bits();
                state.write_u64(kind(2, net.prefix_len()));
                state.write_u64((bits >> 64) as u64);
                state.write_u64(bits as u64);
            }
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("local"),
            Some(IpNet::V4(network)) if network.prefix_len() == 32 => network.addr().fmt(f),
            Some(network) => network.fmt(f),
        }
    }
}

impl FromStr for Client {
    type Err = ClientTextError;

    fn from_str(text: &str) -> Result<Self, ClientTextError> {
        if text == "local" {
            return Ok(Self::LOCAL);
        }
        let network = address::network(text).ok_or_else(|| ClientTextError { text: text.to_owned() })?;
        Ok(Self(Some(network)))
    }
}

/// Why a text is not a [`Client`]. Quotes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTextError {
    text: String,
}

impl ClientTextError {
    /// The text that was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ClientTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text } = self;
        write!(
            f,
            "{text:?} is not a client: write it like \"203.0.113.7\", \"2001:db8::/64\", \"2001:db8::1/128\" or \
             \"local\""
        )
    }
}

impl std::error::Error for ClientTextError {}
