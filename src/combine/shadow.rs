//! A limit on trial: it decides and counts, and refuses nobody, or only a share of the keys.

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use crate::core::Members;
use crate::limiter::{Compose, Limiter, Part, PartStage, Permit};
use crate::types::{Ask, Denied, Error, LimitStatus};
use crate::units::{Cost, Timestamp};

/// A limit on trial. Made by [`shadow`](crate::LimiterExt::shadow).
///
/// It decides as it would in earnest, and what it would have refused passes with the refusal in the permit
/// ([`Permit::shadowed`]). It never waits for those it does not enforce, and lets them pass when it cannot decide.
/// [`enforcing`](Shadow::enforcing) puts it in earnest for a share of the keys, the same ones each time.
///
/// ```
/// use tollgate::{Limiter, LimiterExt, Permit, Quota, Share, TokenBucket};
/// let tried = TokenBucket::new(Quota::per_minute(1))?.shadow();
/// assert!(tried.try_acquire(&(), 1.into()).expect("never refuses").shadowed().is_none());
/// assert!(tried.try_acquire(&(), 1.into()).expect("never refuses").shadowed().is_some());
///
/// let per_user = TokenBucket::new(Quota::per_minute(1))?.keyed::<u32>().shadow().enforcing(Share::percent(10));
/// let refused = (0..1000).filter(|user| {
///     let _ = per_user.try_acquire(user, 1.into());
///     per_user.try_acquire(user, 1.into()).is_err()
/// });
/// assert!((50..150).contains(&refused.count()));
/// # Ok::<(), tollgate::QuotaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Shadow<L, S = Nobody> {
    limiter: L,
    enforced: S,
}

impl<L> Shadow<L> {
    pub(super) const fn new(limiter: L) -> Self {
        Self { limiter, enforced: Nobody }
    }

    /// In earnest for `share` of the keys, told by a hash of the key.
    pub fn enforcing(self, share: Share) -> Shadow<L, Share> {
        Shadow { limiter: self.limiter, enforced: share }
    }
}

/// For which keys a limit on trial is in earnest. Sealed: [`Nobody`] and [`Share`].
pub trait Enforced<K: ?Sized>: sealed::Sealed {
    #[doc(hidden)]
    fn is_enforced(&self, key: &K) -> bool;
}

mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl Sealed for super::Nobody {}
    impl Sealed for super::Share {}
}

/// For no key.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Nobody;

impl<K: ?Sized> Enforced<K> for Nobody {
    fn is_enforced(&self, _key: &K) -> bool {
        false
    }
}

/// For a share of the keys. A key is in or out by its hash, the same in every process that hashes it alike; a larger
/// share keeps all keys of a smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    percent: u8,
}

impl Share {
    /// `percent` of a hundred keys; more than 100 is all of them.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self { percent }
    }
}

impl<K: Hash + ?Sized> Enforced<K> for Share {
    fn is_enforced(&self, key: &K) -> bool {
        // Not keyed: who is on trial need not be kept from anybody.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() % 100 < u64::from(self.percent)
    }
}

impl<K: ?Sized, L: Limiter<K>, S: Enforced<K>> Limiter<K> for Shadow<L, S> {
    type Permit = ShadowPermit<L::Permit>;
    type Fault = L::Fault;
    type Acquire = AcquireShadow<L::Acquire>;

    fn acquire(&self, key: &K, ask: Ask) -> Self::Acquire {
        let enforced = self.enforced.is_enforced(key);
        let ask = if enforced { ask } else { ask.within(Duration::ZERO) };
        AcquireShadow { acquire: self.limiter.acquire(key, ask), enforced }
    }

    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        let enforced = self.enforced.is_enforced(key);
        ShadowPermit::judge(self.limiter.try_acquire(key, cost), enforced)
    }

    fn status(&self, key: &K, visit: &mut dyn FnMut(&LimitStatus)) {
        let enforced = self.enforced.is_enforced(key);
        self.limiter.status(key, &mut |status| {
            visit(&LimitStatus { enforced: enforced && status.enforced, ..status.clone() });
        });
    }
}

impl<K: ?Sized, L: Compose<K>, S: Enforced<K>> Compose<K> for Shadow<L, S> {
    type Part = ShadowPart<L::Part>;

    fn part(&self, key: &K, cost: Cost) -> Self::Part {
        ShadowPart { part: self.limiter.part(key, cost), enforced: self.enforced.is_enforced(key) }
    }
}

/// An ask to a limit in shadow mode. A composition waits for it only where it is enforced.
pub struct ShadowPart<P> {
    part: P,
    enforced: bool,
}

impl<P: Part> Part for ShadowPart<P> {
    type Permit = ShadowPermit<P::Permit>;
    type Fault = P::Fault;

    fn stage(&self) -> PartStage {
        self.part.stage()
    }

    fn now(&self) -> Option<Timestamp> {
        self.part.now()
    }

    fn peek(&self) -> Result<(), Denied> {
        if self.enforced { self.part.peek() } else { Ok(()) }
    }

    fn peek_rest(&self) -> Result<(), Denied> {
        if self.enforced { self.part.peek_rest() } else { Ok(()) }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Permit, Error<P::Fault>>> {
        let enforced = self.enforced;
        self.part.poll_take(cx).map(|answer| ShadowPermit::judge(answer, enforced))
    }

    fn enlist(&mut self, members: &mut Members) -> Result<(), Denied> {
        if self.enforced { self.part.enlist(members) } else { Ok(()) }
    }
}

impl<P> fmt::Debug for ShadowPart<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowPart").field("enforced", &self.enforced).finish_non_exhaustive()
    }
}

/// The wait for a [`ShadowPermit`]. Cancel-safe as the limiter within is.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct AcquireShadow<A> {
    #[pin]
    acquire: A,
    enforced: bool,
}

impl<A: Future<Output = Result<P, Error<F>>>, P, F> Future for AcquireShadow<A> {
    type Output = Result<ShadowPermit<P>, Error<F>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let enforced = *this.enforced;
        this.acquire.poll(cx).map(|answer| ShadowPermit::judge(answer, enforced))
    }
}

impl<A> fmt::Debug for AcquireShadow<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireShadow").field("enforced", &self.enforced).finish_non_exhaustive()
    }
}

/// What a limit on trial gives: its permit, or the refusal it would have given.
#[derive(Debug)]
#[must_use = "a permit stands for the work done under it: hold it until the work is done"]
pub struct ShadowPermit<P> {
    verdict: Verdict<P>,
    enforced: bool,
}

#[derive(Debug)]
enum Verdict<P> {
    Passed(P),
    /// The refusal, unless the limit could not decide. Nothing was taken.
    Shadowed(Option<Denied>),
}

/// A failure to grant that a limit in shadow mode turns into a permit.
trait NotGranted {
    /// The denial, unless the limit could not decide.
    fn into_denied(self) -> Option<Denied>;
}

impl NotGranted for Denied {
    fn into_denied(self) -> Option<Denied> {
        Some(self)
    }
}

impl<F> NotGranted for Error<F> {
    fn into_denied(self) -> Option<Denied> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::Fault(_) => None,
        }
    }
}

impl<P> ShadowPermit<P> {
    fn judge<E: NotGranted>(answer: Result<P, E>, enforced: bool) -> Result<Self, E> {
        let verdict = match answer {
            Ok(permit) => Verdict::Passed(permit),
            Err(error) if enforced => return Err(error),
            Err(error) => Verdict::Shadowed(error.into_denied()),
        };
        Ok(Self { verdict, enforced })
    }
}

impl<P: Permit> Permit for ShadowPermit<P> {
    const IS_HELD: bool = true;

    fn cost(&self) -> Cost {
        match &self.verdict {
            Verdict::Passed(permit) => permit.cost(),
            Verdict::Shadowed(_) => Cost::ZERO,
        }
    }

    fn settle(self, actual: Cost) {
        if let Verdict::Passed(permit) = self.verdict {
            permit.settle(actual);
        }
    }

    fn shadowed(&self) -> Option<&Denied> {
        match &self.verdict {
            Verdict::Passed(permit) => permit.shadowed(),
            Verdict::Shadowed(denied) => denied.as_ref(),
        }
    }

    fn status(&self, visit: &mut dyn FnMut(&LimitStatus)) {
        if let Verdict::Passed(permit) = &self.verdict {
            permit.status(&mut |standing| {
                visit(&LimitStatus { enforced: self.enforced && standing.enforced, ..standing.clone() });
            });
        }
    }
}
