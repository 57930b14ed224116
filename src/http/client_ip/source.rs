//! The one header that is believed.

use std::net::IpAddr;

use ::http::header::{FORWARDED, HeaderMap, HeaderName};

use super::{address, forwarded};

/// One header in which proxies name the client. No other is ever read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Source {
    name: HeaderName,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    List,
    Forwarded,
    Single,
}

impl Source {
    /// `X-Forwarded-For`: a list, to which each proxy appends whom it sees. Several lines are one list.
    pub const fn x_forwarded_for() -> Self {
        Self { name: HeaderName::from_static("x-forwarded-for"), form: Form::List }
    }

    /// `Forwarded` of RFC 7239: a list as well, read by its strict grammar, in which an IPv6 address stands in brackets
    /// and quotes.
    pub const fn forwarded() -> Self {
        Self { name: FORWARDED, form: Form::Forwarded }
    }

    /// A header that holds a single address, such as `cf-connecting-ip`, and that the proxy sets itself, whatever the
    /// client sent. A second line or a second address makes it unreadable.
    pub const fn header(name: HeaderName) -> Self {
        Self { name, form: Form::Single }
    }

    pub(super) fn is_single(&self) -> bool {
        self.form == Form::Single
    }

    /// The addresses, last first. `None`: something stands there that is not an address.
    pub(super) fn hops<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = Option<IpAddr>> + use<'a> {
        let form = self.form;
        let lines = headers.get_all(&self.name);
        let unclear = form == Form::Single && lines.iter().nth(1).is_some();
        let elements = lines.iter().rev().flat_map(move |line| FromEnd { form, left: Some(line.as_bytes()) });
        elements.map(move |element| match form {
            _ if unclear => None,
            Form::List | Form::Single => address::of_hop(element),
            Form::Forwarded => forwarded::of_element(element),
        })
    }
}

/// The elements of a line, last first. An empty line is one empty element.
struct FromEnd<'a> {
    form: Form,
    left: Option<&'a [u8]>,
}

impl<'a> Iterator for FromEnd<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.left.take()?;
        let comma = match self.form {
            Form::List => left.iter().rposition(|byte| *byte == b','),
            Form::Forwarded => forwarded::last_comma(left),
            Form::Single => None,
        };
        let Some(at) = comma else { return Some(left) };
        self.left = Some(&left[..at]);
        Some(&left[at + 1..])
    }
}
