use std::fmt;

use crate::http::TrustError;
use crate::units::{NameError, QuotaError};

/// What is wrong with rules, and where. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesError {
    place: String,
    problem: Problem,
}

/// What is wrong with rules.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The rule's name cannot be one.
    Name(NameError),
    /// Another rule has the name too: it is by its name that a rule keeps its state.
    NameTaken,
    /// The quota cannot be kept.
    Quota(QuotaError),
    /// The route is not a pattern.
    Route(String),
    /// The rule applies to the very requests of this one, and neither is more specific.
    Ambiguous(String),
    /// Not a method of HTTP.
    Method(String),
    /// Not a part of a key.
    Key(String),
    /// A value of the key has another number of parts than the key.
    KeyParts {
        /// Parts that the key has.
        has: usize,
        /// Parts that were given.
        given: usize,
    },
    /// This cannot be the key of any request, which is always what stands second.
    NoSuchKey(String, &'static str),
    /// Two settings are about this one key.
    KeyTwice(String),
    /// Headers of proxies cannot be trusted so.
    Trust(TrustError),
    /// Something stands there that has no meaning beside the rest.
    Pointless(&'static str),
}

impl RulesError {
    pub(super) fn new(place: impl Into<String>, problem: Problem) -> Self {
        Self { place: place.into(), problem }
    }

    /// Where: `rules[2] "login": quotas[0]`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::NameTaken => f.write_str("another rule has this name: give each its own"),
            Self::Quota(error) => error.fmt(f),
            Self::Route(text) => {
                write!(f, "{text}: write routes like \"/users/{{id}}\" or \"/static/{{*path}}\"")
            }
            Self::Ambiguous(other) => write!(
                f,
                "{other} applies to the same requests: tell them apart by route or methods, or let one apply \
                 `always`"
            ),
            Self::Method(text) => write!(f, "{text:?} is not a method: write it like \"POST\""),
            Self::Key(text) => write!(
                f,
                "{text:?} is no part of a key: use client_ip, client_ip/BITS, method, route, path, host, bearer, header:NAME, or no \
                 part at all for one limit that all share"
            ),
            Self::KeyParts { has, given } => {
                write!(f, "the key has {has} parts and {given} were given")
            }
            Self::NoSuchKey(text, what) => write!(f, "no request has the key {text:?}: it is {what}"),
            Self::KeyTwice(text) => write!(f, "{text:?} is set twice: once decides"),
            Self::Trust(error) => error.fmt(f),
            Self::Pointless(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RulesError {}

impl std::error::Error for Problem {}
