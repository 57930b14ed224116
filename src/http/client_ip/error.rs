//! What is wrong with a trust in headers.

use std::fmt;

/// Why a [`ClientIp`](super::ClientIp) cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustError {
    /// No proxy was given.
    NoProxies,
    /// This is neither an address nor a network.
    NotANetwork(String),
    /// The proxies add up to every address of IPv4 or of IPv6.
    Everybody,
    /// Zero hops were given.
    ZeroHops,
    /// So many hops were given for a header that holds a single address.
    HopsInSingleAddress(usize),
    /// So many bits were given as an IPv6 prefix.
    PrefixOutOfRange(u8),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProxies => f.write_str(
                "no proxy is trusted: list their networks, or count by `ClientIp::peer()`, which reads no header",
            ),
            Self::NotANetwork(entry) => write!(
                f,
                "{entry:?} is neither an address nor a network: write it like \"10.0.0.0/8\", \"192.0.2.10\" or \
                 \"2001:db8::/32\""
            ),
            Self::Everybody => f.write_str(
                "the proxies add up to every address, so that any client could pass for any other: list the \
                 networks of the proxies alone",
            ),
            Self::ZeroHops => f.write_str(
                "zero hops are the connection itself: count at least one, or use `ClientIp::peer()`, which reads no \
                 header",
            ),
            Self::HopsInSingleAddress(hops) => {
                write!(f, "{hops} hops in a header that holds a single address: it can only be 1")
            }
            Self::PrefixOutOfRange(bits) => {
                write!(f, "{bits} bits are no prefix of an IPv6 address: use 1 to 128, such as 64 for one network")
            }
        }
    }
}

impl std::error::Error for TrustError {}
