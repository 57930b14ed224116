use ::http::request::Parts;

use super::{Fingerprint, Secret};
use crate::combine::{Found, KeyOf};

/// The path as it was sent, in its normal form (RFC 3986, 6.2.2: letters that needed no escape are unescaped, escapes
/// are in upper case; an escaped slash stays one). The query is no part of it.
///
/// The client's choice: where the server knows its routes, [`Route`](super::Route) is the safe one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Path {
    merge_slashes: bool,
}

impl Path {
    /// Paths that differ have keys that differ.
    #[must_use]
    pub const fn new() -> Self {
        Self { merge_slashes: false }
    }

    /// Counts several slashes in a row as one: for servers that route so.
    #[must_use]
    pub const fn merge_slashes(mut self) -> Self {
        self.merge_slashes = true;
        self
    }

    /// The normal form of `path`.
    pub(crate) fn normal(self, path: &str) -> String {
        let mut normal = String::with_capacity(path.len());
        let mut rest = path.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let escaped = match (byte, after) {
                (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
                _ => None,
            };
            match escaped {
                Some(plain) => {
                    rest = &after[2..];
                    if plain.is_ascii_alphanumeric() || matches!(plain, b'-' | b'.' | b'_' | b'~') {
                        normal.push(char::from(plain));
                    } else {
                        escape(&mut normal, plain);
                    }
                }
                None if byte == b'/' && self.merge_slashes && normal.ends_with('/') => {}
                None if byte.is_ascii() => normal.push(char::from(byte)),
                None => escape(&mut normal, byte),
            }
        }
        normal
    }
}

fn escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl KeyOf<Parts> for Path {
    type Key = Fingerprint;

    fn key_of(&self, parts: &Parts) -> Found<Fingerprint> {
        Found::Key(Secret::of_process().fingerprint(self.normal(parts.uri.path()).as_bytes()))
    }
}
