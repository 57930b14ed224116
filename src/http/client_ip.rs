//! The client's address as the key of a limit, safe against headers that anybody can write.

mod address;
mod client;
mod error;
mod forwarded;
mod proxies;
mod source;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use ::http::HeaderMap;
use ::http::request::Parts;

use super::peer::{Peer, peer_of};
use crate::{Found, KeyOf, Reason};
use proxies::Proxies;

pub use client::{Client, ClientTextError};
pub use error::TrustError;
pub use source::Source;

/// Counts requests by the client's address.
///
/// Anybody can send any header, so none is read until it is said who may be believed: [`behind`](Self::behind) takes
/// the addresses of the proxies, [`hops`](Self::hops) their number. Both read one header and never fall back to
/// another. What a header cannot show counts for the last address that is certain, at worst the connection's own, and
/// never goes uncounted.
///
/// One IPv6 client has more addresses than can be counted, so [`ipv6_prefix`](Self::ipv6_prefix) decides how much of
/// an address counts: 64 bits unless said otherwise. IPv4 addresses written as IPv6 (`::ffff:203.0.113.7`) count as
/// IPv4.
///
/// ```
/// use tollgate::http::{ClientIp, Peer, Source};
///
/// let by_client = ClientIp::behind(Source::x_forwarded_for(), ["10.0.0.0/8"])?;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-forwarded-for", "6.6.6.6, 203.0.113.7".parse()?);
///
/// // The proxy has seen 203.0.113.7, who claims to be 6.6.6.6.
/// let proxy = Peer::Ip("10.0.0.5".parse()?);
/// assert_eq!(by_client.client(proxy, &headers).to_string(), "203.0.113.7");
///
/// // Not a proxy: whatever it says, it counts for itself.
/// let stranger = Peer::Ip("2001:db8::1".parse()?);
/// assert_eq!(by_client.client(stranger, &headers).to_string(), "2001:db8::/64");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientIp {
    trust: Trust,
    local: bool,
    ipv6_prefix: u8,
    keep_nat64: bool,
}

#[derive(Debug, Clone)]
enum Trust {
    Nobody,
    Proxies(Source, Arc<Proxies>),
    Hops(Source, NonZeroUsize),
}

impl ClientIp {
    /// Counts by the other end of the connection. Headers never matter.
    ///
    /// Behind a proxy this is the proxy, and all of its clients count together.
    pub const fn peer() -> Self {
        Self::trusting(Trust::Nobody)
    }

    /// Believes `source` as far as `proxies` wrote it: addresses or networks, such as `10.0.0.0/8`.
    ///
    /// The connection has to come from one of them, else the header is ignored. The header is then read from its end:
    /// the first address that is none of the proxies' is the client. If all are, the first of the header is. Whatever
    /// is not an address ends the reading, and the client is the address read last. All that can connect from these
    /// networks can name any client: list no more than the proxies.
    ///
    /// # Errors
    /// No proxies, text that is neither an address nor a network, or networks that add up to every address.
    pub fn behind<T: AsRef<str>>(
        source: Source,
        proxies: impl IntoIterator<Item = T>,
    ) -> Result<Self, TrustError> {
        Ok(Self::trusting(Trust::Proxies(source, Arc::new(Proxies::read(proxies)?))))
    }

    /// Believes `source` as far as this many proxies wrote it, each of which adds one address: the client is the
    /// address at place `hops` from the end of the header.
    ///
    /// For proxies whose addresses are not known, and only where no request can come around them: one that passes
    /// fewer proxies names its client itself. The connection's own address is no hop. If there are fewer addresses, or
    /// none can be read at this place, the client is the connection's other end.
    ///
    /// # Errors
    /// Zero hops, or more than one in a header that holds a single address.
    pub fn hops(source: Source, hops: usize) -> Result<Self, TrustError> {
        let places = NonZeroUsize::new(hops).ok_or(TrustError::ZeroHops)?;
        if hops > 1 && source.is_single() {
            return Err(TrustError::HopsInSingleAddress(hops));
        }
        Ok(Self::trusting(Trust::Hops(source, places)))
    }

    const fn trusting(trust: Trust) -> Self {
        Self { trust, local: false, ipv6_prefix: 64, keep_nat64: false }
    }

    /// Counts IPv6 addresses together whose first `bits` bits are the same: 64, one network, unless said otherwise. 128
    /// counts each address for itself, of which one client has 2^64 to use.
    ///
    /// # Errors
    /// Zero bits, or more than 128.
    pub fn ipv6_prefix(mut self, bits: u8) -> Result<Self, TrustError> {
        if !(1..=128).contains(&bits) {
            return Err(TrustError::PrefixOutOfRange(bits));
        }
        self.ipv6_prefix = bits;
        Ok(self)
    }

    /// Takes a Unix socket for one of the proxies. Unless said, all that comes through one counts as
    /// [`Client::LOCAL`].
    ///
    /// Changes nothing for [`peer`](Self::peer), which reads no header, nor for [`hops`](Self::hops), which asks nobody
    /// where it comes from.
    pub fn trust_local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Counts addresses in `64:ff9b::/96` as the IPv6 addresses they are. Unless said, they count as the IPv4 addresses
    /// that a translator (NAT64) wrote into them: all of IPv4 is one IPv6 network there.
    pub fn keep_nat64(mut self) -> Self {
        self.keep_nat64 = true;
        self
    }

    /// Whose request it is that came from `peer` with `headers`.
    ///
    /// Without headers it tells for whom an address counts: `client(Peer::Ip(address), &HeaderMap::new())`.
    #[must_use]
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Client {
        let own = match peer {
            Peer::Ip(address) => Some(address.to_canonical()),
            Peer::Local => None,
        };
        let seen = match &self.trust {
            Trust::Nobody => own,
            Trust::Hops(source, places) => source.hops(headers).nth(places.get() - 1).flatten().or(own),
            Trust::Proxies(source, proxies) => {
                if own.map_or(self.local, |address| proxies.contain(address)) {
                    last_verified(source.hops(headers), proxies).or(own)
                } else {
                    own
                }
            }
        };
        seen.map_or(Client::LOCAL, |address| self.counted(address))
    }

    fn counted(&self, address: IpAddr) -> Client {
        match address {
            IpAddr::V6(v6) => match v6.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] if !self.keep_nat64 => {
                    let v4 = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
                    Client::of_ipv4(v4)
                }
                _ => Client::of_ipv6(v6, self.ipv6_prefix),
            },
            IpAddr::V4(v4) => Client::of_ipv4(v4),
        }
    }
}

/// The first of `hops` that is not a proxy's; if that is not there or cannot be read, the one before it.
fn last_verified(hops: impl Iterator<Item = Option<IpAddr>>, proxies: &Proxies) -> Option<IpAddr> {
    let mut verified = None;
    for hop in hops {
        let Some(address) = hop else { break };
        verified = Some(address);
        if !proxies.contain(address) {
            break;
        }
    }
    verified
}

impl Default for ClientIp {
    /// [`ClientIp::peer`].
    fn default() -> Self {
        Self::peer()
    }
}

/// Rejects with [`Reason::NoPeer`] where nothing in the request tells the other end of the connection.
impl KeyOf<Parts> for ClientIp {
    type Key = Client;

    fn key_of(&self, request: &Parts) -> Found<Client> {
        match peer_of(&request.extensions) {
            Some(peer) => Found::Key(self.client(peer, &request.headers)),
            None => Found::Reject(Reason::NoPeer),
        }
    }
}
