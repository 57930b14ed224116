//! The key of a rule: its parts as texts, of which a fingerprint is kept.

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::config::Missing;
use super::error::Problem;
use crate::combine::{Found, KeyOf};
use crate::http::{Client, ClientIp, Fingerprint, Header, Host, Method, Path, Peer, Route, Secret};
use crate::types::Reason;

/// One part of a key, as configuration names it.
#[derive(Debug, Clone)]
enum Part {
    ClientIp(ClientIp),
    Method,
    Route,
    Path,
    Host,
    Header(Header),
}

/// What a rule is kept per.
#[derive(Debug, Clone)]
pub(super) struct RuleKey {
    parts: Vec<Part>,
    missing: Missing,
    client_ip: ClientIp,
    secret: Secret,
    /// Whose requests it does not apply to.
    exempt: Vec<IpNet>,
}

/// What stands before an address in place of a part that is missing: no header can hold it.
const FALLBACK: &[u8] = b"\0client_ip";

impl Part {
    fn read(text: &str, client_ip: &ClientIp, secret: Secret) -> Result<Self, Problem> {
        if let Some(bits) = text.strip_prefix("client_ip/") {
            let bits = bits.parse().map_err(|_| Problem::Key(text.to_owned()))?;
            return client_ip.clone().ipv6_prefix(bits).map(Self::ClientIp).map_err(Problem::Trust);
        }
        Ok(match text {
            "client_ip" => Self::ClientIp(client_ip.clone()),
            "method" => Self::Method,
            "route" => Self::Route,
            "path" => Self::Path,
            "host" => Self::Host,
            "bearer" => Self::Header(Header::bearer().secret(secret)),
            _ => {
                let name = text.strip_prefix("header:").and_then(|name| name.parse::<HeaderName>().ok());
                let name = name.ok_or_else(|| Problem::Key(text.to_owned()))?;
                Self::Header(Header::named(name).secret(secret))
            }
        })
    }

    /// What requests have that an administrator means by `text`, however it is written.
    fn named(&self, text: &str) -> Result<String, Problem> {
        let nothing = |what| Err(Problem::NoSuchKey(text.to_owned(), what));
        Ok(match self {
            Self::ClientIp(client_ip) => {
                return client_named(text, client_ip).map(|client| client.to_string());
            }
            Self::Method if Method::KNOWN.contains(&text) || text == "other" => text.to_owned(),
            Self::Method => return nothing("a method as HTTP defines it, or \"other\""),
            Self::Path if text.starts_with('/') => Path::new().normal(text),
            Self::Path => return nothing("a path, which begins with a slash"),
            Self::Route => text.to_owned(),
            Self::Host => Host::without_port(text).to_ascii_lowercase(),
            Self::Header(_) => text.trim_matches([' ', '\t']).to_owned(),
        })
    }
}

fn client_named(text: &str, client_ip: &ClientIp) -> Result<Client, Problem> {
    let nothing =
        || Problem::NoSuchKey(text.to_owned(), "an address, or the network that a client counts as");
    if text == "local" {
        return Ok(Client::LOCAL);
    }
    let client: Client = text.parse().map_err(|_| nothing())?;
    let address = client.address().ok_or_else(nothing)?;
    let counts_as = client_ip.client(Peer::Ip(address), &HeaderMap::new());
    // One address of a client is the client; a network is one only if it is all that counts together.
    let is_address = !text.contains('/') || client.prefix() == Some(if address.is_ipv4() { 32 } else { 128 });
    if is_address || client == counts_as { Ok(counts_as) } else { Err(nothing()) }
}

impl RuleKey {
    pub(super) fn read(
        parts: &[String],
        missing: Missing,
        client_ip: ClientIp,
        secret: Secret,
    ) -> Result<Self, Problem> {
        let parts = parts.iter().map(|text| Part::read(text, &client_ip, secret));
        let parts = parts.collect::<Result<_, _>>()?;
        Ok(Self { parts, missing, client_ip, secret, exempt: Vec::new() })
    }

    /// The key whose parts have these texts.
    pub(super) fn named(&self, texts: &[&str]) -> Result<Fingerprint, Problem> {
        if texts.len() != self.parts.len() {
            return Err(Problem::KeyParts { has: self.parts.len(), given: texts.len() });
        }
        let texts = texts.iter().zip(&self.parts).map(|(text, part)| part.named(text));
        let texts = texts.map(|text| text.map(String::into_bytes)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.print(&texts))
    }

    /// The key of requests of a client that lack the rule's one part.
    pub(super) fn fallback(&self, client: &str) -> Result<Fingerprint, Problem> {
        let client = client_named(client, &self.client_ip)?;
        Ok(self.print(&[FALLBACK.to_vec(), client.to_string().into_bytes()]))
    }

    /// Exempts a network of clients, where the key is the client's address. Whether `text` is one.
    pub(super) fn exempt(&mut self, text: &str) -> bool {
        let ([Part::ClientIp(_)], Ok(client)) = (self.parts.as_slice(), text.parse::<Client>()) else {
            return false;
        };
        let network = client.address().zip(client.prefix()).and_then(|(at, bits)| IpNet::new(at, bits).ok());
        self.exempt.extend(network);
        network.is_some()
    }

    fn print(&self, texts: &[Vec<u8>]) -> Fingerprint {
        self.secret.fingerprint_of(texts.iter().map(Vec::as_slice))
    }

    fn client(&self, client_ip: &ClientIp, request: &Parts) -> Found<Vec<u8>> {
        match client_ip.key_of(request) {
            Found::Key(client) => {
                let inside = |network: &IpNet| client.address().is_some_and(|at| network.contains(&at));
                let exempt = self.exempt.iter().any(inside);
                if exempt { Found::Skip } else { Found::Key(client.to_string().into_bytes()) }
            }
            Found::Skip => Found::Skip,
            Found::Reject(reason) => Found::Reject(reason),
        }
    }

    fn text(&self, part: &Part, request: &Parts) -> Found<Vec<u8>> {
        let found = match part {
            Part::ClientIp(client_ip) => return self.client(client_ip, request),
            Part::Method => Some(Method::of(request).as_bytes().to_vec()),
            Part::Route => Some(Route::of(request).unwrap_or_default().as_bytes().to_vec()),
            Part::Path => Some(Path::new().normal(request.uri.path()).into_bytes()),
            Part::Host => Host::of(request).map(|host| host.to_ascii_lowercase().into_bytes()),
            Part::Header(header) => header.value(request).map(<[u8]>::to_vec),
        };
        match found {
            Some(text) => Found::Key(text),
            None => match self.missing {
                Missing::Skip => Found::Skip,
                _ => Found::Reject(Reason::NoKey),
            },
        }
    }
}

impl KeyOf<Parts> for RuleKey {
    type Key = Fingerprint;

    fn key_of(&self, request: &Parts) -> Found<Fingerprint> {
        let mut texts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let found = match self.text(part, request) {
                Found::Reject(Reason::NoKey) if self.missing == Missing::ClientIp => {
                    texts.push(FALLBACK.to_vec());
                    self.client(&self.client_ip, request)
                }
                found => found,
            };
            match found {
                Found::Key(text) => texts.push(text),
                Found::Skip => return Found::Skip,
                Found::Reject(reason) => return Found::Reject(reason),
            }
        }
        Found::Key(self.print(&texts))
    }
}
