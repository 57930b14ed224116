//! A limit on trial: it decides and counts, and refuses nobody, or only a share of the keys.

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::{Census, Limiter, Now, Permit, TryLimiter};
use crate::decision::{Ask, Denied, Error, Standing};
use crate::units::Cost;

/// A limit on trial. Made by [`shadow`](super::LimiterExt::shadow).
///
/// It decides as it would in earnest, and what it would have refused passes with the refusal in the permit
/// ([`Permit::shadowed`]). It never waits for those it does not enforce, and lets them pass when it cannot decide.
/// [`enforcing`](Shadow::enforcing) puts it in earnest for a share of the keys, the same ones each time.
///
/// ```
/// use tollgate::{LimiterExt, Permit, Quota, Share, TokenBucket, TryLimiter};
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

    #[inline]
    fn answers_now(&self) -> bool {
        self.limiter.answers_now()
    }

    #[inline]
    fn acquire_now(&self, key: &K, cost: Cost, use_permit: bool) -> Now<Self::Permit> {
        let enforced = self.enforced.is_enforced(key);
        let verdict = match self.limiter.acquire_now(key, cost, use_permit)? {
            Ok(Some(permit)) => Verdict::Passed(permit),
            Ok(None) => return Some(Ok(None)),
            Err(denied) if enforced => return Some(Err(denied)),
            Err(denied) => Verdict::Shadowed(Some(denied)),
        };
        Some(Ok(Some(ShadowPermit { verdict, enforced })))
    }

    fn holds(&self) -> bool {
        self.limiter.holds()
    }

    fn report(&self, key: &K, visit: &mut dyn FnMut(&Standing)) {
        let enforced = self.enforced.is_enforced(key);
        self.limiter.report(key, &mut |standing| {
            visit(&Standing { enforced: enforced && standing.enforced, ..standing.clone() });
        });
    }

    fn census(&self) -> Option<Census> {
        self.limiter.census()
    }
}

impl<K: ?Sized, L: TryLimiter<K>, S: Enforced<K>> TryLimiter<K> for Shadow<L, S> {
    fn try_acquire(&self, key: &K, cost: Cost) -> Result<Self::Permit, Denied> {
        let enforced = self.enforced.is_enforced(key);
        let verdict = match self.limiter.try_acquire(key, cost) {
            Ok(permit) => Verdict::Passed(permit),
            Err(denied) if enforced => return Err(denied),
            Err(denied) => Verdict::Shadowed(Some(denied)),
        };
        Ok(ShadowPermit { verdict, enforced })
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
        this.acquire.poll(cx).map(|answer| {
            let verdict = match answer {
                Ok(permit) => Verdict::Passed(permit),
                Err(error) if enforced => return Err(error),
                Err(Error::Denied(denied)) => Verdict::Shadowed(Some(denied)),
                Err(Error::Fault(_)) => Verdict::Shadowed(None),
            };
            Ok(ShadowPermit { verdict, enforced })
        })
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

impl<P: Permit> Permit for ShadowPermit<P> {
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

    fn report(&self, visit: &mut dyn FnMut(&Standing)) {
        if let Verdict::Passed(permit) = &self.verdict {
            permit.report(&mut |standing| {
                visit(&Standing { enforced: self.enforced && standing.enforced, ..standing.clone() });
            });
        }
    }
}
