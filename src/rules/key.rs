//! The key of a rule: its parts as texts, of which a fingerprint is kept.

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName};

use super::config::Missing;
use super::error::Problem;
use crate::decision::Reason;
use crate::http::{ClientIp, Fingerprint, Header, Host, Method, Path, Peer, Route, Secret};
use crate::limiter::{Found, KeyOf};

/// One part of a key, as configuration names it.
#[derive(Debug, Clone)]
enum Part {
    ClientIp,
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
}

/// What stands before an address in place of a part that is missing: no header can hold it.
const FALLBACK: &[u8] = b"\0client_ip";

impl Part {
    fn read(text: &str, secret: Secret) -> Result<Self, Problem> {
        Ok(match text {
            "client_ip" => Self::ClientIp,
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
}

impl RuleKey {
    pub(super) fn read(
        parts: &[String],
        missing: Missing,
        client_ip: ClientIp,
        secret: Secret,
    ) -> Result<Self, Problem> {
        let parts = parts.iter().map(|text| Part::read(text, secret)).collect::<Result<_, _>>()?;
        Ok(Self { parts, missing, client_ip, secret })
    }

    /// The key whose parts have these texts.
    pub(super) fn named(&self, texts: &[&str]) -> Fingerprint {
        let texts = texts.iter().zip(&self.parts).map(|(text, part)| match part {
            // However an administrator writes the address, it is the client that is meant.
            Part::ClientIp => text.parse().map_or_else(
                |_| (*text).to_owned(),
                |address| self.client_ip.client(Peer::Ip(address), &HeaderMap::new()).to_string(),
            ),
            _ => (*text).to_owned(),
        });
        self.print(&texts.map(String::into_bytes).collect::<Vec<_>>())
    }

    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    fn print(&self, texts: &[Vec<u8>]) -> Fingerprint {
        self.secret.fingerprint_of(texts.iter().map(Vec::as_slice))
    }

    fn client(&self, request: &Parts) -> Found<Vec<u8>> {
        self.client_ip.key_of(request).map(|client| client.to_string().into_bytes())
    }

    fn text(&self, part: &Part, request: &Parts) -> Found<Vec<u8>> {
        let found = match part {
            Part::ClientIp => return self.client(request),
            Part::Method => Some(Method::of(request).as_bytes().to_vec()),
            Part::Route => Some(Route::of(request).unwrap_or_default().as_bytes().to_vec()),
            Part::Path => Some(Path::new().normal(request.uri.path())),
            Part::Host => Host::of(request).map(|host| host.to_ascii_lowercase().into_bytes()),
            Part::Header(header) => header.value(request).map(<[u8]>::to_vec),
        };
        match found {
            Some(text) => Found::Key(text),
            None => Found::Reject(Reason::NoKey),
        }
    }
}

impl KeyOf<Parts> for RuleKey {
    type Key = Fingerprint;

    fn key_of(&self, request: &Parts) -> Found<Fingerprint> {
        let mut texts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match self.text(part, request) {
                Found::Key(text) => texts.push(text),
                Found::Reject(Reason::NoKey) if self.missing == Missing::Skip => return Found::Skip,
                Found::Reject(Reason::NoKey) if self.missing == Missing::ClientIp => {
                    match self.client(request) {
                        Found::Key(text) => texts.extend([FALLBACK.to_vec(), text]),
                        other => return other.map(|_| unreachable!("a key is handled above")),
                    }
                }
                other => return other.map(|_| unreachable!("a key is handled above")),
            }
        }
        Found::Key(self.print(&texts))
    }
}
