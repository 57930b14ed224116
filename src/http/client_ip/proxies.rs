//! The proxies that are believed.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::TrustError;
use super::address;

/// Networks in order, of which no two overlap: an address is in the last that does not begin after it, or in none.
#[derive(Debug)]
pub(super) struct Proxies {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

/// To hold all of one of these is to hold everybody: IPv4 as IPv6 writes it, IPv4 as NAT64 shows it, and the addresses
/// of IPv6 that are given out.
const EVERYBODY: [Ipv6Net; 3] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3),
];

impl Proxies {
    /// Space and tab around an entry are let pass, as a list from one line of settings has them.
    pub(super) fn read<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, TrustError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in entries {
            let text = entry.as_ref();
            match address::network(text.trim_matches([' ', '\t'])) {
                Some(IpNet::V4(network)) => v4.push(network),
                Some(IpNet::V6(network)) => v6.push(network),
                None => return Err(TrustError::NotANetwork(text.to_owned())),
            }
        }
        if v4.is_empty() && v6.is_empty() {
            return Err(TrustError::NoProxies);
        }
        let (mut v4, mut v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        let everybody = v4.iter().any(|network| network.prefix_len() == 0)
            || v6.iter().any(|network| EVERYBODY.iter().any(|all| network.contains(all)));
        if everybody {
            return Err(TrustError::Everybody);
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Ok(Self { v4, v6 })
    }

    /// IPv4 written as IPv6 has to come as IPv4. An address of NAT64 is trusted as listed, as IPv6: what stands in it
    /// is no proof that the IPv4 network of that name sent it.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                let after = self.v4.partition_point(|network| network.network() <= v4);
                self.v4[..after].last().is_some_and(|network| network.contains(&v4))
            }
            IpAddr::V6(v6) => {
                let after = self.v6.partition_point(|network| network.network() <= v6);
                self.v6[..after].last().is_some_and(|network| network.contains(&v6))
            }
        }
    }
}
