//! Which key a request is about, and what to do when it has none.

use std::fmt;

use crate::types::Reason;

/// What a request says about its key. There is no "none": a request without a key is skipped or rejected, and whoever
/// wrote the rule has said which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "a key is there, or the limit is not meant, or it is refused")]
pub enum Found<K> {
    /// The state is kept per this.
    Key(K),
    /// The limit does not apply: the request passes without a charge.
    Skip,
    /// The limit applies and cannot be told of whom: the request is refused.
    Reject(Reason),
}

impl<K> Found<K> {
    /// The same, about another key.
    pub fn map<T>(self, change: impl FnOnce(K) -> T) -> Found<T> {
        match self {
            Self::Key(key) => Found::Key(change(key)),
            Self::Skip => Found::Skip,
            Self::Reject(reason) => Found::Reject(reason),
        }
    }

    fn and<T>(self, other: impl FnOnce() -> Found<T>) -> Found<(K, T)> {
        match self {
            Self::Key(key) => other().map(|other| (key, other)),
            Self::Skip => Found::Skip,
            Self::Reject(reason) => Found::Reject(reason),
        }
    }
}

/// Says which key a request is about. Functions that return a key are this already, and so are tuples of it;
/// [`found_by`] makes one of a function that may skip or reject.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which key a `{R}` is about",
    note = "give `.by` a function such as `|request: &Request| request.tenant.clone()`"
)]
pub trait KeyOf<R: ?Sized> {
    /// What state is kept per.
    type Key;

    /// The key of `request`.
    fn key_of(&self, request: &R) -> Found<Self::Key>;

    /// What `other` finds for requests this rejects. The two kinds of key never share a state.
    fn or<O>(self, other: O) -> OrKey<Self, O>
    where
        Self: Sized,
    {
        OrKey { first: self, second: other }
    }

    /// Lets requests pass that this rejects, without a charge.
    fn or_skip(self) -> OrSkip<Self>
    where
        Self: Sized,
    {
        OrSkip(self)
    }

    /// Lets requests pass without a charge for which `exempt` says so.
    fn unless<P: Fn(&R) -> bool>(self, exempt: P) -> Unless<Self, P>
    where
        Self: Sized,
    {
        Unless { key: self, exempt }
    }
}

impl<R: ?Sized, Key, F: Fn(&R) -> Key> KeyOf<R> for F {
    type Key = Key;

    fn key_of(&self, request: &R) -> Found<Key> {
        Found::Key(self(request))
    }
}

impl<R: ?Sized, A: KeyOf<R>, B: KeyOf<R>> KeyOf<R> for (A, B) {
    type Key = (A::Key, B::Key);

    fn key_of(&self, request: &R) -> Found<Self::Key> {
        self.0.key_of(request).and(|| self.1.key_of(request))
    }
}

impl<R: ?Sized, A: KeyOf<R>, B: KeyOf<R>, C: KeyOf<R>> KeyOf<R> for (A, B, C) {
    type Key = (A::Key, B::Key, C::Key);

    fn key_of(&self, request: &R) -> Found<Self::Key> {
        let pair = self.0.key_of(request).and(|| self.1.key_of(request));
        pair.and(|| self.2.key_of(request)).map(|((a, b), c)| (a, b, c))
    }
}

/// A key by a function that may skip or reject.
///
/// ```
/// use tollgate::{Found, Limiter, LimiterExt, Quota, Reason, TokenBucket, found_by};
/// struct Request { user: Option<u32>, internal: bool }
/// let per_user = TokenBucket::new(Quota::per_minute(1))?.keyed().by(found_by(|request: &Request| {
///     match request.user {
///         _ if request.internal => Found::Skip,
///         Some(user) => Found::Key(user),
///         None => Found::Reject(Reason::NoKey),
///     }
/// }));
/// assert!(per_user.try_acquire(&Request { user: None, internal: false }, 1.into()).is_err());
/// assert!(per_user.try_acquire(&Request { user: None, internal: true }, 1.into()).is_ok());
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
pub const fn found_by<F>(find: F) -> FoundBy<F> {
    FoundBy(find)
}

/// Made by [`found_by`].
#[derive(Clone, Copy)]
pub struct FoundBy<F>(F);

impl<R: ?Sized, Key, F: Fn(&R) -> Found<Key>> KeyOf<R> for FoundBy<F> {
    type Key = Key;

    fn key_of(&self, request: &R) -> Found<Key> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for FoundBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundBy").finish_non_exhaustive()
    }
}

/// Made by [`KeyOf::or`].
#[derive(Debug, Clone, Copy)]
pub struct OrKey<A, B> {
    first: A,
    second: B,
}

/// The key of one of two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "one or the other")]
pub enum EitherKey<A, B> {
    /// What the first found.
    First(A),
    /// What the second found where the first rejects.
    Second(B),
}

impl<R: ?Sized, A: KeyOf<R>, B: KeyOf<R>> KeyOf<R> for OrKey<A, B> {
    type Key = EitherKey<A::Key, B::Key>;

    fn key_of(&self, request: &R) -> Found<Self::Key> {
        match self.first.key_of(request) {
            Found::Reject(_) => self.second.key_of(request).map(EitherKey::Second),
            found => found.map(EitherKey::First),
        }
    }
}

/// Made by [`KeyOf::or_skip`].
#[derive(Debug, Clone, Copy)]
pub struct OrSkip<A>(A);

impl<R: ?Sized, A: KeyOf<R>> KeyOf<R> for OrSkip<A> {
    type Key = A::Key;

    fn key_of(&self, request: &R) -> Found<A::Key> {
        match self.0.key_of(request) {
            Found::Reject(_) => Found::Skip,
            found => found,
        }
    }
}

/// Made by [`KeyOf::unless`].
#[derive(Clone, Copy)]
pub struct Unless<A, P> {
    key: A,
    exempt: P,
}

impl<R: ?Sized, A: KeyOf<R>, P: Fn(&R) -> bool> KeyOf<R> for Unless<A, P> {
    type Key = A::Key;

    fn key_of(&self, request: &R) -> Found<A::Key> {
        if (self.exempt)(request) { Found::Skip } else { self.key.key_of(request) }
    }
}

impl<A: fmt::Debug, P> fmt::Debug for Unless<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unless").field("key", &self.key).finish_non_exhaustive()
    }
}
