use ::http::header::{AUTHORIZATION, HOST, HeaderName};
use ::http::request::Parts;

use super::{Fingerprint, Secret};
use crate::combine::{Found, KeyOf};
use crate::types::Reason;

/// The value of a header: a tenant, an API key, a bearer token. Kept as a [`Fingerprint`], never in the clear.
///
/// A request in which the header is missing, empty or repeated is rejected: say with [`or`](KeyOf::or) what it is
/// counted by instead. A key that nobody has checked is the client's choice: put the limit behind what checks it, or a
/// limit by address beside it, lest a new key be a new allowance.
///
/// ```
/// use http::HeaderName;
/// use tollgate::http::{ClientIp, Header};
/// use tollgate::{KeyOf, LimiterExt, Quota, SlidingWindow};
/// const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// let per_key = SlidingWindow::new(Quota::per_minute(600))?
///     .keyed()
///     .by(Header::named(API_KEY).or(ClientIp::peer()));
/// # fn limits<L: tollgate::Limiter<http::request::Parts>>(_: L) {}
/// # limits(per_key);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Header {
    name: HeaderName,
    bearer: bool,
    secret: Secret,
}

impl Header {
    /// The value of the header `name`, as it was sent: case counts.
    #[must_use]
    pub fn named(name: HeaderName) -> Self {
        Self { name, bearer: false, secret: Secret::of_process() }
    }

    /// The token in `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer() -> Self {
        Self { bearer: true, ..Self::named(AUTHORIZATION) }
    }

    /// Keys the fingerprint with `secret` in place of the process's own: for processes that share a limit.
    #[must_use]
    pub const fn secret(mut self, secret: Secret) -> Self {
        self.secret = secret;
        self
    }

    pub(crate) fn value<'a>(&self, parts: &'a Parts) -> Option<&'a [u8]> {
        let mut lines = parts.headers.get_all(&self.name).iter();
        let value = trim(lines.next()?.as_bytes());
        let value = if self.bearer { bearer_token(value)? } else { value };
        (lines.next().is_none() && !value.is_empty()).then_some(value)
    }
}

impl KeyOf<Parts> for Header {
    type Key = Fingerprint;

    fn key_of(&self, parts: &Parts) -> Found<Fingerprint> {
        match self.value(parts) {
            Some(value) => Found::Key(self.secret.fingerprint(value)),
            None => Found::Reject(Reason::NoKey),
        }
    }
}

/// The white space of headers, and no other.
fn trim(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    match (value.iter().position(is_text), value.iter().rposition(is_text)) {
        (Some(first), Some(last)) => &value[first..=last],
        _ => &[],
    }
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| trim(token))
}

/// The host that the request is for, in lower case and without the port. The client's choice: limit by it only where
/// a server in front lets known hosts through. A request without one is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to choose")]
pub struct Host;

impl Host {
    /// The host as it was sent, without the port.
    #[must_use]
    pub fn of(parts: &Parts) -> Option<&str> {
        if let Some(host) = parts.uri.host() {
            return Some(host);
        }
        let mut lines = parts.headers.get_all(HOST).iter();
        let host = Self::without_port(lines.next()?.to_str().ok()?);
        (lines.next().is_none() && !host.is_empty()).then_some(host)
    }

    pub(crate) fn without_port(text: &str) -> &str {
        // A port is after the last colon, unless that colon is inside of an address in brackets.
        let end = match (text.rfind(':'), text.rfind(']')) {
            (Some(colon), Some(bracket)) if colon < bracket => text.len(),
            (colon, _) => colon.unwrap_or(text.len()),
        };
        text[..end].trim_matches([' ', '\t'])
    }
}

impl KeyOf<Parts> for Host {
    type Key = Fingerprint;

    fn key_of(&self, parts: &Parts) -> Found<Fingerprint> {
        match Self::of(parts) {
            Some(host) => {
                let lower = host.to_ascii_lowercase();
                Found::Key(Secret::of_process().fingerprint(lower.as_bytes()))
            }
            None => Found::Reject(Reason::NoKey),
        }
    }
}
