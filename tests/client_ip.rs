//! The client's address as a key: the conformance vectors in `vectors/client_ip.json`, and properties that hold for
//! whatever a client may send.
//!
//! Above a test of a rule stands the fault that was planted to see it fail.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proptest::prelude::*;
use serde::Deserialize;
use tollgate::http::{Client, ClientIp, Peer, PeerAddr, Source, TrustError};
use tollgate::{Found, KeyOf, Reason};

const VECTORS: &str = include_str!("vectors/client_ip.json");
const VECTOR_COUNT: usize = 62;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    defaults: Defaults,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    source: String,
    hops: Option<usize>,
    ipv6_prefix: u8,
    unwrap_nat64: bool,
    trust_local: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    id: String,
    peer: Option<IpAddr>,
    headers: Vec<(String, String)>,
    trusted: Vec<String>,
    source: Option<String>,
    hops: Option<usize>,
    ipv6_prefix: Option<u8>,
    unwrap_nat64: Option<bool>,
    trust_local: Option<bool>,
    expect_key: Option<String>,
    #[serde(default)]
    also_acceptable: Vec<String>,
    #[serde(default)]
    must_not: Vec<String>,
    #[serde(default)]
    expect_config_error: bool,
    #[serde(default, rename = "hostile")]
    _hostile: bool,
    #[serde(default, rename = "why")]
    _why: String,
}

impl Vector {
    fn client_ip(&self, defaults: &Defaults) -> Result<ClientIp, TrustError> {
        let source = match self.source.as_deref().unwrap_or(&defaults.source) {
            "peer" => None,
            "x-forwarded-for" => Some(Source::x_forwarded_for()),
            "forwarded" => Some(Source::forwarded()),
            other => {
                let name = other.strip_prefix("header:").expect("a source that is known");
                Some(Source::header(name.parse().expect("a name of a header")))
            }
        };
        let made = match (source, self.hops.or(defaults.hops)) {
            (None, _) => ClientIp::peer(),
            (Some(source), Some(hops)) => ClientIp::hops(source, hops)?,
            // A header and nobody who may write it is no setting of this crate: what is left is the peer.
            (Some(source), None) if self.trusted.is_empty() => {
                assert_eq!(ClientIp::behind(source, &self.trusted).unwrap_err(), TrustError::NoProxies);
                ClientIp::peer()
            }
            (Some(source), None) => ClientIp::behind(source, &self.trusted)?,
        };
        let made = made.ipv6_prefix(self.ipv6_prefix.unwrap_or(defaults.ipv6_prefix))?;
        let made = if self.trust_local.unwrap_or(defaults.trust_local) { made.trust_local() } else { made };
        let unwrap = self.unwrap_nat64.unwrap_or(defaults.unwrap_nat64);
        Ok(if unwrap { made } else { made.keep_nat64() })
    }

    /// What a server of the `http` crate would see, and the lines that it would refuse.
    fn headers(&self) -> (HeaderMap, usize) {
        let mut headers = HeaderMap::new();
        let mut refused = 0;
        for (name, value) in &self.headers {
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
                (Ok(name), Ok(value)) => drop(headers.append(name, value)),
                _ => refused += 1,
            }
        }
        (headers, refused)
    }

    fn fault(&self, defaults: &Defaults) -> Option<String> {
        let made = match self.client_ip(defaults) {
            Ok(_) if self.expect_config_error => return Some("the settings were taken".to_owned()),
            Ok(made) => made,
            Err(_) if self.expect_config_error => return None,
            Err(error) => return Some(error.to_string()),
        };
        let (headers, refused) = self.headers();
        if refused > 0 {
            return Some(format!("{refused} lines cannot be sent at all: the vector shows nothing"));
        }
        let key = made.client(self.peer.map_or(Peer::Local, Peer::Ip), &headers).to_string();
        if self.must_not.contains(&key) {
            return Some(format!("spoofed as {key}"));
        }
        let expected = self.expect_key.as_ref().expect("a key or an error is expected");
        let fits = key == *expected || self.also_acceptable.contains(&key);
        (!fits).then(|| format!("{key}, expected {expected}"))
    }
}

/// Planted: the first element in place of the last; malformed elements left out; the first line only; the peer not
/// asked; nothing unmapped; NAT64 kept; all white space trimmed; a second line of a single address let pass.
#[test]
fn every_vector_passes() {
    let File { defaults, vectors } = serde_json::from_str(VECTORS).expect("every key is known");
    let ids: BTreeSet<_> = vectors.iter().map(|vector| &vector.id).collect();
    assert_eq!((vectors.len(), ids.len()), (VECTOR_COUNT, VECTOR_COUNT));
    let faults: Vec<_> = vectors
        .iter()
        .filter_map(|vector| Some(format!("{}: {}", vector.id, vector.fault(&defaults)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const PROXIES: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxy() -> Peer {
    Peer::Ip(ip("10.0.0.5"))
}

fn behind(source: Source) -> ClientIp {
    ClientIp::behind(source, PROXIES).unwrap()
}

fn cf_connecting_ip() -> HeaderName {
    HeaderName::from_static("cf-connecting-ip")
}

fn lines<T: AsRef<[u8]>>(name: &str, values: impl IntoIterator<Item = T>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), value);
    }
    headers
}

/// For whom `value` counts behind one proxy, 10.0.0.5.
fn behind_one(source: Source, name: &str, value: &str) -> String {
    behind(source).client(proxy(), &lines(name, [value])).to_string()
}

fn forwarded(value: &str) -> String {
    behind_one(Source::forwarded(), "forwarded", value)
}

fn x_forwarded_for(value: &str) -> String {
    behind_one(Source::x_forwarded_for(), "x-forwarded-for", value)
}

#[test]
fn addresses_are_read_as_the_standard_library_reads_them() {
    for good in [
        "203.0.113.7",
        "203.0.113.7:80",
        "::ffff:203.0.113.7",
        "[::ffff:203.0.113.7]:80",
        "64:ff9b::cb00:7107",
    ] {
        assert_eq!(x_forwarded_for(good), "203.0.113.7", "{good}");
    }
    for good in ["2001:db8::17", "[2001:db8::17]", "[2001:db8::17]:65535", "2001:DB8:0:0::1"] {
        assert_eq!(x_forwarded_for(good), "2001:db8::/64", "{good}");
    }
    for bad in [
        "unknown",
        "_hidden",
        "-",
        "\"203.0.113.7\"",
        "203.0.113",
        "203.0.113.07",
        "203.0.113.256",
        "203.0.113.7:",
        "203.0.113.7:http",
        "203.0.113.7:+80",
        "203.0.113.7:123456",
        "203.0.113.7/32",
        "[203.0.113.7]",
        "[2001:db8::17",
        "2001:db8::17]",
        "[2001:db8::17]80",
        "[2001:db8::17]:",
        "[]",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "203.0.113.7 198.51.100.1",
        "203.0.113.7;",
        "0.0.0.0",
        "::ffff:0.0.0.0",
    ] {
        assert_eq!(x_forwarded_for(&format!("6.6.6.6, {bad}")), "10.0.0.5", "{bad}");
    }
}

/// Planted: unmapping by `to_ipv4`, which takes `::1` for 0.0.0.1.
#[test]
fn addresses_that_look_alike_stay_apart() {
    let by_client = ClientIp::peer();
    let key = |text: &str| by_client.client(Peer::Ip(ip(text)), &HeaderMap::new()).to_string();
    assert_eq!(key("::203.0.113.7"), "::/64");
    assert_eq!(key("64:ff9b:1::cb00:7107"), "64:ff9b:1::/64");
    assert_eq!(key("64:ff9b::1:cb00:7107"), "64:ff9b::/64");
    assert_eq!(key("2002:cb00:7107::1"), "2002:cb00:7107::/64");
    assert_eq!(key("64:ff9b::cb00:7107"), "203.0.113.7");
}

/// Planted: the address in NAT64 asked for in place of the one that is there.
#[test]
fn an_address_that_nat64_shows_is_no_proxy_by_its_ipv4_name() {
    let headers = lines("x-forwarded-for", ["203.0.113.7"]);
    let shown = Peer::Ip(ip("64:ff9b::10.0.0.5"));
    assert_eq!(behind(Source::x_forwarded_for()).client(shown, &headers).to_string(), "10.0.0.5");
    let listed = ClientIp::behind(Source::x_forwarded_for(), ["64:ff9b::10.0.0.0/104"]).unwrap();
    assert_eq!(listed.client(shown, &headers).to_string(), "203.0.113.7");
}

/// Planted: a comma in quotes taken for the end of an element.
#[test]
fn forwarded_is_read_by_its_grammar() {
    for good in [
        "for=203.0.113.7",
        "for=\"203.0.113.7\"",
        "for=\"203.0.113.7:4711\"",
        "for=6.6.6.6 , \tfor=203.0.113.7\t",
        ";;for=203.0.113.7;;by=_x;",
        "by=\"[fd00::1]:80\"; For=203.0.113.7 ;host=\"\"",
        "for=6.6.6.6, for=203.0.113.7;host=\"a,b;for=6.6.6.6;c\"",
        r#"for=6.6.6.6, for=203.0.113.7;host="\",for=6.6.6.6;a=\"""#,
        r#"for=6.6.6.6, for=203.0.113.7;host="a\\\\", for=10.0.0.9"#,
        r#"for="6.6.6.6, for=203.0.113.7"#,
        r#"for="6.6.6.6\", for=203.0.113.7"#,
        "for=\"[64:ff9b::cb00:7107]\"",
    ] {
        assert_eq!(forwarded(good), "203.0.113.7", "{good}");
    }
    assert_eq!(forwarded("for=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::/64");
    for bad in [
        "",
        ";",
        "for",
        "for=",
        "for=\"\"",
        "for =203.0.113.7",
        "for= 203.0.113.7",
        "for=203.0.113.7:4711",
        "for=\"2001:db8::17\"",
        "for=\"unknown\"",
        "for=unknown",
        "for=\"203.0.113.7",
        "for=203.0.113.7\"",
        "for=\"203.0.113.7\"x",
        "for=\"203.0.113.7\" by=_x",
        r#"for="203.0.113.\7""#,
        r#"for="203.0.113.7\""#,
        "for=203.0.113.7;For=203.0.113.7",
        "for=203.0.113.7;by",
        "for=203.0.113.7;host=a:80",
        "for=203.0.113.7;=a",
        "xfor=203.0.113.7",
        "for=\" 203.0.113.7\"",
    ] {
        assert_eq!(forwarded(&format!("for=6.6.6.6, {bad}")), "10.0.0.5", "{bad}");
    }
}

#[test]
fn a_walk_ends_where_no_proxy_wrote() {
    assert_eq!(x_forwarded_for("6.6.6.6, 203.0.113.7, fd00::1, 10.9.9.9"), "203.0.113.7");
    assert_eq!(x_forwarded_for("6.6.6.6, unknown, fd00::1, 10.9.9.9"), "fd00::/64");
    assert_eq!(x_forwarded_for("6.6.6.6,,10.9.9.9"), "10.9.9.9");
    let late = lines("x-forwarded-for", ["203.0.113.7", ""]);
    assert_eq!(behind(Source::x_forwarded_for()).client(proxy(), &late).to_string(), "10.0.0.5");
}

/// Planted: another header read where the right one is missing.
#[test]
fn no_other_header_stands_in() {
    let mut headers = HeaderMap::new();
    for name in NAMES {
        let value = if name == "forwarded" { "for=6.6.6.6" } else { "6.6.6.6" };
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for (source, name) in sources().into_iter().zip(NAMES) {
        for unreadable in [None, Some(""), Some("unknown")] {
            headers.remove(name);
            if let Some(value) = unreadable {
                headers.append(name, HeaderValue::from_static(value));
            }
            let by_hops = ClientIp::hops(source.clone(), 1).unwrap();
            assert_eq!(behind(source.clone()).client(proxy(), &headers), own(ip("10.0.0.5")), "{name}");
            assert_eq!(by_hops.client(proxy(), &headers), own(ip("10.0.0.5")), "{name}");
        }
        let value = if name == "forwarded" { "for=6.6.6.6" } else { "6.6.6.6" };
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(behind(source).client(proxy(), &headers), own(ip("6.6.6.6")), "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_stand_in_their_place() {
    let by_client = behind(Source::x_forwarded_for());
    let after = lines("x-forwarded-for", [b"6.6.6.6".as_slice(), b"\xff\xfe", b"10.0.0.9"]);
    assert_eq!(by_client.client(proxy(), &after).to_string(), "10.0.0.9");
    let before = lines("x-forwarded-for", [b"\xff\xfe, 203.0.113.7".as_slice()]);
    assert_eq!(by_client.client(proxy(), &before).to_string(), "203.0.113.7");
}

#[test]
fn hops_count_in_the_header_alone() {
    let headers = lines("x-forwarded-for", ["6.6.6.6, 203.0.113.7", "junk, 192.0.2.1"]);
    let at = |hops| {
        let made = ClientIp::hops(Source::x_forwarded_for(), hops).unwrap();
        made.client(proxy(), &headers).to_string()
    };
    let found: Vec<_> = (1..=6).map(at).chain([at(usize::MAX)]).collect();
    let own = "10.0.0.5";
    assert_eq!(found, ["192.0.2.1", own, "203.0.113.7", "6.6.6.6", own, own, own]);
    let single = ClientIp::hops(Source::header(cf_connecting_ip()), 1).unwrap();
    assert_eq!(
        single.client(Peer::Local, &lines("cf-connecting-ip", ["203.0.113.7"])).to_string(),
        "203.0.113.7"
    );
    assert_eq!(single.client(Peer::Local, &lines("cf-connecting-ip", ["6.6.6.6"; 2])), Client::LOCAL);
}

#[test]
fn a_unix_socket_is_a_proxy_only_if_said() {
    let headers = lines("x-forwarded-for", ["203.0.113.7"]);
    let made = behind(Source::x_forwarded_for());
    assert_eq!(made.client(Peer::Local, &headers), Client::LOCAL);
    let made = made.trust_local();
    assert_eq!(made.client(Peer::Local, &headers).to_string(), "203.0.113.7");
    assert_eq!(made.client(Peer::Local, &HeaderMap::new()), Client::LOCAL);
    assert_eq!(ClientIp::peer().trust_local().client(Peer::Local, &headers), Client::LOCAL);
}

#[test]
fn a_request_tells_its_peer_or_is_rejected() {
    let by_client = behind(Source::x_forwarded_for());
    let request = Request::builder().header("x-forwarded-for", "203.0.113.7").body(()).unwrap();
    let (mut parts, ()) = request.into_parts();
    assert_eq!(by_client.key_of(&parts), Found::Reject(Reason::NoPeer));
    parts.extensions.insert(PeerAddr(proxy()));
    assert_eq!(by_client.key_of(&parts), Found::Key("203.0.113.7".parse().unwrap()));
    assert_eq!(ClientIp::default().key_of(&parts), Found::Key("10.0.0.5".parse().unwrap()));
}

#[test]
fn proxies_are_found_in_any_list() {
    let list = [
        "192.0.2.128/25",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "192.0.2.7",
        " 2001:db8::/48",
        "fd00::/8\t",
        "0.0.0.0/2",
    ];
    let made = ClientIp::behind(Source::x_forwarded_for(), list).unwrap();
    let headers = lines("x-forwarded-for", ["203.0.113.7"]);
    let trusted = |text: &str| made.client(Peer::Ip(ip(text)), &headers).to_string() == "203.0.113.7";
    for inside in [
        "0.0.0.0",
        "10.0.0.0",
        "10.255.255.255",
        "63.255.255.255",
        "192.0.2.7",
        "192.0.2.128",
        "192.0.2.255",
        "::ffff:192.0.2.255",
        "2001:db8::",
        "2001:db8:0:ffff:ffff:ffff:ffff:ffff",
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        assert!(trusted(inside), "{inside}");
    }
    for outside in [
        "64.0.0.0",
        "192.0.2.6",
        "192.0.2.8",
        "192.0.2.127",
        "192.0.3.0",
        "255.255.255.255",
        "::",
        "::10.0.0.1",
        "2001:db8:1::",
        "fc00::",
        "fe00::",
    ] {
        assert!(!trusted(outside), "{outside}");
    }
}

fn refused<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> TrustError {
    ClientIp::behind(Source::x_forwarded_for(), proxies).expect_err("these settings are refused")
}

#[test]
fn trust_in_everybody_is_refused() {
    for everybody in [
        &["0.0.0.0/0"][..],
        &["10.0.0.0/8", "::/0"],
        &["203.0.113.7/0"],
        &["0.0.0.0/1", "128.0.0.0/1"],
        &["192.0.0.0/2", "0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/2"],
        &["::/1", "8000::/1"],
        &["::ffff:0:0/96"],
        &["::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"],
        &["0.0.0.0/1", "::ffff:128.0.0.0/97"],
        &["::ffff:0:0/95"],
        &["::/8"],
        &["64:ff9b::/96"],
        &["2000::/3"],
        &["2000::/4", "3000::/4", "fe80::/10"],
    ] {
        assert_eq!(refused(everybody), TrustError::Everybody, "{everybody:?}");
    }
    let (low, high): (Vec<_>, Vec<_>) =
        (0..=255).map(|n| format!("{n}.0.0.0/8")).partition(|text| text.len() < 10);
    assert_eq!(refused(low.iter().chain(&high)), TrustError::Everybody);
    assert!(ClientIp::behind(Source::x_forwarded_for(), low.iter().chain(&high).skip(1)).is_ok());
    assert!(ClientIp::behind(Source::x_forwarded_for(), ["0.0.0.0/1", "128.0.0.0/2", "2000::/4"]).is_ok());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert_eq!(refused([] as [&str; 0]), TrustError::NoProxies);
    for entry in [
        "",
        "10.0.0",
        "localhost",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "10.0.0.0/8/8",
        "010.0.0.0/8",
        "10.0.0.0 /8",
        "10.0.0.0-10.0.0.9",
        "10.0.0.5:80",
        "2001:db8::/129",
        "[2001:db8::]/32",
        "fe80::%eth0/64",
        "10.0.0.0/8,192.168.0.0/16",
    ] {
        assert_eq!(refused(["10.0.0.0/8", entry]), TrustError::NotANetwork(entry.to_owned()));
    }
    let hops = |source, hops| ClientIp::hops(source, hops).unwrap_err();
    assert_eq!(hops(Source::forwarded(), 0), TrustError::ZeroHops);
    assert_eq!(hops(Source::header(cf_connecting_ip()), 2), TrustError::HopsInSingleAddress(2));
    for bits in [0, 129, 255] {
        assert_eq!(ClientIp::peer().ipv6_prefix(bits).unwrap_err(), TrustError::PrefixOutOfRange(bits));
    }
    assert!([1, 64, 128].iter().all(|bits| ClientIp::peer().ipv6_prefix(*bits).is_ok()));
}

#[test]
fn errors_say_what_would_be_right() {
    let errors = [
        (TrustError::NoProxies, "`ClientIp::peer()`"),
        (TrustError::NotANetwork("10.0.0".to_owned()), "\"10.0.0\" is neither an address nor a network"),
        (TrustError::Everybody, "list the networks of the proxies alone"),
        (TrustError::ZeroHops, "count at least one"),
        (TrustError::HopsInSingleAddress(3), "3 hops"),
        (TrustError::PrefixOutOfRange(129), "129 bits are no prefix of an IPv6 address: use 1 to 128"),
    ];
    for (error, says) in errors {
        assert!(error.to_string().contains(says), "{error}");
        let _: Box<dyn std::error::Error + Send + Sync> = error.into();
    }
}

#[test]
fn a_client_is_read_as_it_is_written() {
    for (text, written) in [
        ("local", "local"),
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:DB8:0:0::1/64", "2001:db8::/64"),
        ("::/0", "::/0"),
    ] {
        let client: Client = text.parse().unwrap();
        assert_eq!(client.to_string(), written);
        assert_eq!(written.parse(), Ok(client));
    }
    for bad in ["", "Local", " local", "203.0.113.7 ", "2001:db8::/129", "fe80::1%eth0", "203.0.113.7:80"] {
        let error = bad.parse::<Client>().unwrap_err();
        assert_eq!(error.text(), bad);
        assert!(error.to_string().starts_with(&format!("{bad:?} is not a client")));
    }
    let client: Client = "2001:db8::1/64".parse().unwrap();
    assert_eq!((client.address(), client.prefix()), (Some(ip("2001:db8::")), Some(64)));
    assert_eq!((Client::LOCAL.address(), Client::LOCAL.prefix()), (None, None));
    assert!(Client::LOCAL < client);
}

fn cases(usually: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    let cases = if asked { config.cases } else { usually };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..config }
}

const NAMES: [&str; 9] = [
    "x-forwarded-for",
    "forwarded",
    "cf-connecting-ip",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "x_forwarded_for",
    "via",
    "connection",
];

const LISTS: [fn() -> Source; 2] = [Source::x_forwarded_for, Source::forwarded];

fn sources() -> [Source; 3] {
    [Source::x_forwarded_for(), Source::forwarded(), Source::header(cf_connecting_ip())]
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let sendable = prop_oneof![1 => Just(b'\t'), 20 => b' '..=b'~', 20 => 0x80..=0xff_u8];
    proptest::collection::vec(sendable, 0..40)
}

/// What a header may say: bytes, and pieces of what it should say in any order.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "6.6.6.6",
        "10.0.0.9",
        "fd00::1",
        "[2001:db8::1]",
        "::ffff:10.0.0.1",
        ":80",
        ",",
        ", ",
        ";",
        "=",
        "\"",
        "\\",
        "for=",
        "by=",
        "unknown",
        "_x",
        " ",
        "\t",
        "\u{a0}",
    ];
    let piece = prop_oneof![
        8 => proptest::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any_bytes(),
    ];
    prop_oneof![any_bytes(), proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())]
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let line = (proptest::sample::select(NAMES.to_vec()), any_line());
    proptest::collection::vec(line, 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
        }
        headers
    })
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
        any::<u32>().prop_map(|bits| Ipv6Addr::from((0x64_ff9b << 96) | u128::from(bits)).into()),
    ]
}

/// One that is nobody's proxy here, and known.
fn stranger() -> impl Strategy<Value = IpAddr> {
    any_ip().prop_filter("no proxy", |address| match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] != 10 && !v4.is_unspecified(),
        IpAddr::V6(v6) => v6.octets()[0] != 0xfd && !v6.is_unspecified(),
    })
}

/// A proxy appends whom it sees, to the line that came or as a line of its own.
fn append(headers: &mut HeaderMap, which: usize, seen: IpAddr, own_line: bool) {
    let name = HeaderName::from_static(NAMES[which]);
    let element = match (which, seen) {
        (1, IpAddr::V6(v6)) => format!("for=\"[{v6}]:4711\";proto=https"),
        (1, IpAddr::V4(v4)) => format!("for={v4};host=\"a,b;\\\"c\""),
        _ => seen.to_string(),
    };
    let last = headers.get_all(&name).iter().next_back().cloned();
    let Some(last) = last.filter(|_| !own_line) else {
        headers.append(name, element.parse().unwrap());
        return;
    };
    let mut all: Vec<_> = headers.get_all(&name).iter().cloned().collect();
    all.pop();
    let joined = [last.as_bytes(), b", ", element.as_bytes()].concat();
    all.push(HeaderValue::from_bytes(&joined).unwrap());
    headers.remove(&name);
    for value in all {
        headers.append(name.clone(), value);
    }
}

fn own(address: IpAddr) -> Client {
    ClientIp::peer().client(Peer::Ip(address), &HeaderMap::new())
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Planted: the peer not asked whether it is a proxy.
    #[test]
    fn who_is_no_proxy_counts_for_itself_whatever_it_sends(peer in stranger(), headers in any_headers()) {
        for source in sources() {
            prop_assert_eq!(behind(source.clone()).client(Peer::Ip(peer), &headers), own(peer));
            prop_assert_eq!(behind(source).client(Peer::Local, &headers), Client::LOCAL);
        }
        prop_assert_eq!(ClientIp::peer().client(Peer::Ip(peer), &headers), own(peer));
    }

    /// Planted: `Forwarded` cut from its start, so that an open quote swallows what the proxy appended; the first line
    /// only; the first element in place of the last.
    #[test]
    fn what_stands_before_the_true_address_changes_nothing(
        client in stranger(),
        inner in proptest::collection::vec(any::<(u16, bool)>(), 0..4),
        sent in any_headers(),
        which in 0..2_usize,
        own_line in any::<bool>(),
    ) {
        let mut headers = sent;
        append(&mut headers, which, client, own_line);
        for (n, own_line) in &inner {
            let [high, low] = n.to_be_bytes();
            append(&mut headers, which, [10, 9, high, low].into(), *own_line);
        }
        prop_assert_eq!(behind(LISTS[which]()).client(proxy(), &headers), own(client));
        let by_hops = ClientIp::hops(LISTS[which](), 1 + inner.len()).unwrap();
        prop_assert_eq!(by_hops.client(proxy(), &headers), own(client));
    }

    /// Planted: an escaped quote, or a comma in quotes, taken for an end.
    #[test]
    fn what_a_proxy_quotes_is_data(client in stranger(), sent in any_line(), hosts in [any_line(), any_line()]) {
        let [outer, inner] = hosts.map(|host| {
            let escape = |byte: &u8| if b"\"\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] };
            host.iter().flat_map(escape).collect::<Vec<_>>()
        });
        let mapped = match client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let seen = format!(", for=\"[{mapped}]\";host=\"");
        let line = [&sent, seen.as_bytes(), &outer, b"\", for=10.0.0.9;host=\"", &inner, b"\""].concat();
        prop_assert_eq!(behind(Source::forwarded()).client(proxy(), &lines("forwarded", [line])), own(client));
    }

    /// Planted: a second line of a single address let pass.
    #[test]
    fn a_second_address_makes_a_single_one_unreadable(client in stranger(), more in stranger(), junk in any_line()) {
        let by_client = behind(Source::header(cf_connecting_ip()));
        let key = |values: &[&[u8]]| by_client.client(proxy(), &lines("cf-connecting-ip", values));
        let (client_text, more) = (client.to_string(), more.to_string());
        prop_assert_eq!(key(&[client_text.as_bytes()]), own(client));
        prop_assert_eq!(key(&[client_text.as_bytes(), &junk]), own(ip("10.0.0.5")));
        prop_assert_eq!(key(&[&junk, client_text.as_bytes()]), own(ip("10.0.0.5")));
        prop_assert_eq!(key(&[format!("{client_text}, {more}").as_bytes()]), own(ip("10.0.0.5")));
    }

    #[test]
    fn nothing_that_can_be_sent_panics(
        peer in any_ip(),
        headers in any_headers(),
        hops in 1..5_usize,
        bits in 1..=128_u8,
    ) {
        for source in sources() {
            let hops = if source == Source::header(cf_connecting_ip()) { 1 } else { hops };
            for made in [behind(source.clone()).trust_local(), ClientIp::hops(source, hops).unwrap().keep_nat64()] {
                let made = made.ipv6_prefix(bits).unwrap();
                for peer in [Peer::Ip(peer), Peer::Local, proxy()] {
                    let client = made.client(peer, &headers);
                    prop_assert_eq!(client.to_string().parse(), Ok(client));
                }
            }
        }
    }

    #[test]
    fn a_client_reads_back(address in any_ip(), bits in 0..=128_u8) {
        let client = own(address);
        prop_assert_eq!(client.to_string().parse(), Ok(client));
        if let Ok(client) = format!("{address}/{bits}").parse::<Client>() {
            prop_assert_eq!(client.to_string().parse(), Ok(client));
        }
    }

    /// Planted: the prefix left at 64; addresses not cut to it.
    #[test]
    fn a_prefix_is_all_that_counts(bits in any::<u128>(), change in any::<u128>(), prefix in 1..=128_u8) {
        let by_client = ClientIp::peer().ipv6_prefix(prefix).unwrap().keep_nat64();
        let key = |bits: u128| by_client.client(Peer::Ip(Ipv6Addr::from(bits).into()), &HeaderMap::new());
        let mapped = |bits: u128| Ipv6Addr::from(bits).to_ipv4_mapped().is_some();
        let within = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        prop_assume!(!mapped(bits) && !mapped(bits ^ (change & within)));
        prop_assert_eq!(key(bits), key(bits ^ (change & within)));
        prop_assert_ne!(key(bits), key(bits ^ (within + 1)));
        prop_assert_eq!(key(bits).prefix(), Some(prefix));
    }
}

/// Each of these is read at most once from its end to its start: work that grew with the square of the length would
/// not come to an end.
#[test]
fn long_headers_are_read_once() {
    const LENGTH: usize = 100_000;
    for piece in [
        ",",
        "\"",
        "\\",
        "\\\"",
        "\",",
        ";",
        "for=",
        "for=10.0.0.1,",
        "10.0.0.1,",
        "[",
        ":",
        " ",
        "\t",
        "a=b;",
        "\\\",",
    ] {
        let value = piece.repeat(LENGTH / piece.len());
        for start in ["", "\"", "for=\"", "["] {
            for end in ["", "\"", "for=10.0.0.1", ", 10.0.0.1"] {
                let value = [start, &value, end].concat();
                for (name, source) in NAMES.iter().zip(sources()) {
                    let headers = lines(name, [&value]);
                    let _ = behind(source.clone()).client(proxy(), &headers);
                    let _ = ClientIp::hops(source, 1).unwrap().client(proxy(), &headers);
                }
                for (name, source) in NAMES.iter().zip(LISTS) {
                    let _ =
                        ClientIp::hops(source(), usize::MAX).unwrap().client(proxy(), &lines(name, [&value]));
                }
            }
        }
    }
    let many = lines("x-forwarded-for", std::iter::repeat_n("10.0.0.1, 10.0.0.2", 20_000));
    assert_eq!(behind(Source::x_forwarded_for()).client(proxy(), &many).to_string(), "10.0.0.1");
}

/// Planted: `ipv6_prefix` ignored.
#[test]
fn a_wider_tier_stops_who_moves_from_prefix_to_prefix() {
    use tollgate::{Limiter, LimiterExt, Quota, SlidingWindow};
    let each = |quota| SlidingWindow::new(quota).unwrap().keyed::<Client>();
    let narrow = each(Quota::per_hour(3)).by(ClientIp::peer());
    let wide = each(Quota::per_hour(10)).by(ClientIp::peer().ipv6_prefix(48).unwrap());
    let both = narrow.and(wide);
    let admitted = |address: &str| {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.extensions.insert(PeerAddr(Peer::Ip(address.parse().unwrap())));
        (0..20).take_while(|_| both.try_acquire(&parts, 1.into()).is_ok()).count()
    };
    let moving: Vec<usize> = (1..=5).map(|n| admitted(&format!("2001:db8:0:{n}::1"))).collect();
    assert_eq!(moving, [3, 3, 3, 1, 0], "three for each /64, ten for the /48");
    assert_eq!(admitted("2001:db8:1:1::1"), 3, "another /48");
}
