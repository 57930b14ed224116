//! The `Forwarded` header of RFC 7239: `for=203.0.113.7;proto=https, for="[2001:db8::17]:4711"`.
//!
//! Lines are cut from their end. What a proxy appended then reads the same whatever the client wrote before it, an open
//! quote included.

use std::net::IpAddr;

use super::address;

/// The comma before the last element. One in quotes is none.
pub(super) fn last_comma(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (at, byte) in line.iter().enumerate().rev() {
        match byte {
            b',' if !quoted => return Some(at),
            b'"' if !quoted => quoted = true,
            // The quote that begins a value comes after `=`: one after a backslash is inside.
            b'"' => quoted = line[..at].ends_with(b"\\"),
            _ => {}
        }
    }
    None
}

/// The address of the element's one `for`. `None`: it is missing, stands twice, names nobody, or the element is not of
/// the standard's grammar. White space around `;` is let pass.
pub(super) fn of_element(element: &[u8]) -> Option<IpAddr> {
    let mut rest = address::trim(element);
    let mut node = None;
    loop {
        if !matches!(rest, [] | [b';', ..]) {
            let (name, value, after) = pair(rest)?;
            if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                return None;
            }
            rest = address::trim(after);
        }
        match rest {
            [] => return address::of_forwarded_node(node?),
            [b';', after @ ..] => rest = address::trim(after),
            _ => return None,
        }
    }
}

/// Name, value and what follows.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = token(text)?;
    let [b'=', rest @ ..] = rest else { return None };
    let (value, after) = match rest {
        [b'"', rest @ ..] => quoted(rest)?,
        _ => token(rest)?,
    };
    Some((name, value, after))
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(text.len());
    if end == 0 { None } else { Some(text.split_at(end)) }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Up to the quote that ends it. Escapes stay as they are: an address has none.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}
