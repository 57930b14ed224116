//! What requests are counted by.
//!
//! All of these are [`KeyOf<Parts>`](crate::KeyOf): tuples of them, functions of [`Parts`], and
//! [`or`](crate::KeyOf::or) make more. Texts that clients choose are kept as a [`Fingerprint`], so that a key takes
//! sixteen bytes however long it was sent, and a secret is not kept at all.

mod fingerprint;
mod header;
mod path;

pub use fingerprint::{Fingerprint, Secret};
pub use header::{Header, Host};
pub use path::Path;

use std::hash::Hash;
use std::marker::PhantomData;

use ::http::request::Parts;

use crate::combine::{Found, KeyOf};
use crate::types::Reason;

/// The route that the framework matched, never the path as it was sent: all requests that match no route share one
/// key.
///
/// axum tells it (feature `axum`) to layers inside of its router; elsewhere put a [`RoutePattern`] into the request's
/// extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to choose")]
pub struct Route;

/// Tells the limit which route a request has matched, where no framework does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a plain value for users to make")]
pub struct RoutePattern(pub std::sync::Arc<str>);

impl Route {
    /// The route as text, if one has matched.
    #[must_use]
    pub fn of(parts: &Parts) -> Option<&str> {
        if let Some(RoutePattern(pattern)) = parts.extensions.get() {
            return Some(pattern);
        }
        #[cfg(feature = "axum")]
        if let Some(path) = parts.extensions.get::<axum::extract::MatchedPath>() {
            return Some(path.as_str());
        }
        None
    }
}

impl KeyOf<Parts> for Route {
    type Key = Fingerprint;

    fn key_of(&self, parts: &Parts) -> Found<Fingerprint> {
        // No pattern is empty: what has matched none has a key of its own.
        Found::Key(Secret::of_process().fingerprint(Self::of(parts).unwrap_or_default().as_bytes()))
    }
}

/// The method of the request line; never one that a header asks to put in its place. Methods that HTTP does not define
/// share one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to choose")]
pub struct Method;

impl Method {
    /// The method as text, `"other"` for those that HTTP does not define.
    #[must_use]
    pub fn of(parts: &Parts) -> &'static str {
        let name = parts.method.as_str();
        Self::KNOWN.iter().find(|known| **known == name).copied().unwrap_or("other")
    }

    /// The methods that HTTP defines.
    pub(crate) const KNOWN: [&'static str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
}

impl KeyOf<Parts> for Method {
    type Key = &'static str;

    fn key_of(&self, parts: &Parts) -> Found<&'static str> {
        Found::Key(Self::of(parts))
    }
}

/// A value that another layer put into the request's extensions, such as who has logged in. A request without it is
/// rejected.
///
/// ```
/// use tollgate::http::{ClientIp, Extension};
/// use tollgate::{KeyOf, LimiterExt, Quota, TokenBucket};
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct UserId(u64);
/// let per_user = TokenBucket::new(Quota::per_minute(100))?
///     .keyed()
///     .by(Extension::<UserId>::new().or(ClientIp::peer()));
/// # fn limits<L: tollgate::Limiter<http::request::Parts>>(_: L) {}
/// # limits(per_user);
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug)]
pub struct Extension<T>(PhantomData<fn() -> T>);

impl<T> Extension<T> {
    /// The value of type `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Extension<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Extension<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Extension<T> {}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> KeyOf<Parts> for Extension<T> {
    type Key = T;

    fn key_of(&self, parts: &Parts) -> Found<T> {
        match parts.extensions.get::<T>() {
            Some(value) => Found::Key(value.clone()),
            None => Found::Reject(Reason::NoKey),
        }
    }
}
