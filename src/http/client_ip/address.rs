//! Addresses as headers and settings spell them. The standard library reads them: it takes no octal, no zone, no space.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Without the white space that HTTP allows around an element: space and tab, and no other.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// An address, also with a port, which says nothing about who it is. IPv6 is also good without brackets.
pub(super) fn of_hop(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(trim(bytes)).ok()?;
    known(of_node(text).or_else(|| text.parse().ok().map(IpAddr::V6)))
}

/// A node of RFC 7239: as [`of_hop`], but IPv6 is in brackets.
pub(super) fn of_forwarded_node(bytes: &[u8]) -> Option<IpAddr> {
    known(of_node(std::str::from_utf8(bytes).ok()?))
}

/// Nobody sends from the unspecified address: it stands for one that is not known.
fn known(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|address| address.to_canonical()).filter(|address| !address.is_unspecified())
}

fn of_node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let fits = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return address.parse().ok().filter(|_| fits).map(IpAddr::V6);
    }
    let address = match text.split_once(':') {
        Some((address, port)) if is_port(port) => address,
        _ => text,
    };
    address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An address or a network, without the bits beyond its prefix. IPv4 written as IPv6 is IPv4.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok()?.into(),
        Some((address, bits)) => IpNet::new(address.parse().ok()?, prefix(bits)?).ok()?,
    };
    Some(unmapped(network).trunc())
}

fn prefix(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn unmapped(network: IpNet) -> IpNet {
    let mapped = |address: Ipv6Addr, bits: u8| {
        Ipv4Net::new(address.to_ipv4_mapped()?, bits.checked_sub(96)?).ok().map(IpNet::V4)
    };
    match network {
        IpNet::V6(v6) => mapped(v6.addr(), v6.prefix_len()).unwrap_or(network),
        IpNet::V4(_) => network,
    }
}
