use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_service::Service;

use super::error::Refuse;
use super::future::{ResponseFuture, WaitFuture};
use crate::limiter::{Limiter, Permit};
use crate::service::Unused;
use crate::types::{Ask, Error};

/// A limited service. Made by [`LimitLayer`](super::LimitLayer).
pub struct Limit<S, L, M: Mode<L>, R> {
    service: S,
    limiter: L,
    ask: Ask,
    refuse: R,
    ready: M::Ready,
}

/// Where a limited service waits. Sealed: [`Wait`], [`Shed`] and [`Backpressure`].
pub trait Mode<L>: sealed::Sealed {
    #[doc(hidden)]
    type Ready: Default;
}

mod sealed {
    #[allow(unnameable_types, reason = "sealed")]
    pub trait Sealed {}
    impl Sealed for super::Wait {}
    impl Sealed for super::Shed {}
    impl Sealed for super::Backpressure {}
}

macro_rules! mode {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        #[non_exhaustive]
        pub struct $name;

        impl $name {
            pub(super) const fn new() -> Self {
                Self
            }
        }
    };
}

mode!(
    /// Waits in `call`.
    Wait
);
mode!(
    /// Refuses in `call`.
    Shed
);
mode!(
    /// Waits in `poll_ready`.
    Backpressure
);

impl<L> Mode<L> for Wait {
    type Ready = ();
}

impl<L> Mode<L> for Shed {
    type Ready = ();
}

impl<L: Limiter> Mode<L> for Backpressure {
    type Ready = Ready<L::Acquire, L::Permit, L::Fault>;
}

impl<S, L, M: Mode<L>, R> Limit<S, L, M, R> {
    pub(super) fn new(service: S, limiter: L, ask: Ask, refuse: R) -> Self {
        Self { service, limiter, ask, refuse, ready: M::Ready::default() }
    }

    /// The service within.
    #[must_use]
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// The limiter in front of it.
    #[must_use]
    pub const fn limiter(&self) -> &L {
        &self.limiter
    }
}

/// The clone has no permit: each asks for its own.
impl<S: Clone, L: Clone, M: Mode<L>, R: Clone> Clone for Limit<S, L, M, R> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone(), self.limiter.clone(), self.ask, self.refuse.clone())
    }
}

impl<S: fmt::Debug, L: fmt::Debug, M: Mode<L>, R> fmt::Debug for Limit<S, L, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("service", &self.service)
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

impl<S, L, R, Req> Service<Req> for Limit<S, L, Wait, R>
where
    S: Service<Req> + Clone,
    L: Limiter<Req>,
    R: Refuse<S::Response, S::Error, L::Fault> + Clone,
{
    type Response = S::Response;
    type Error = R::Error;
    type Future = WaitFuture<L::Acquire, S, Req, L::Permit, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.service.poll_ready(cx).map_err(R::service_error)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let acquire = self.limiter.acquire(&request, self.ask);
        // The service that is ready goes with the request; a clone that was never polled stays.
        let clone = self.service.clone();
        let service = std::mem::replace(&mut self.service, clone);
        WaitFuture::new(acquire, service, request, self.refuse.clone())
    }
}

impl<S, L, R, Req> Service<Req> for Limit<S, L, Shed, R>
where
    S: Service<Req>,
    L: Limiter<Req>,
    R: Refuse<S::Response, S::Error, L::Fault> + Clone,
{
    type Response = S::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, L::Permit, L::Fault, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.service.poll_ready(cx).map_err(R::service_error)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.ask.units();
        if !L::Permit::IS_HELD {
            return match self.limiter.check(&request, cost) {
                Ok(()) => ResponseFuture::running(self.service.call(request), None, self.refuse.clone()),
                Err(denied) => ResponseFuture::refused(Error::Denied(denied), self.refuse.clone()),
            };
        }
        match self.limiter.try_acquire(&request, cost) {
            Ok(permit) => {
                ResponseFuture::running(self.service.call(request), Some(permit), self.refuse.clone())
            }
            Err(denied) => ResponseFuture::refused(Error::Denied(denied), self.refuse.clone()),
        }
    }
}

impl<S, L, R, Req> Service<Req> for Limit<S, L, Backpressure, R>
where
    S: Service<Req>,
    L: Limiter,
    // Held in the service between polls: a limiter whose wait cannot move goes into `.boxed()`.
    L::Acquire: Unpin,
    R: Refuse<S::Response, S::Error, L::Fault> + Clone,
{
    type Response = S::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S::Future, L::Permit, L::Fault, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        // A permit first: a service may reserve something when it says it is ready, and would hold it in line.
        if self.ready.answer.is_none() {
            let (limiter, ask) = (&self.limiter, self.ask);
            let acquire = self.ready.acquire.get_or_insert_with(|| limiter.acquire(&(), ask));
            self.ready.answer = Some(ready!(Pin::new(acquire).poll(cx)).map(Unused::new));
            self.ready.acquire = None;
        }
        self.service.poll_ready(cx).map_err(R::service_error)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self.ready.answer.take().expect("the service was not ready: poll_ready must be called first") {
            Ok(mut permit) => {
                let permit = Some(permit.take());
                ResponseFuture::running(self.service.call(request), permit, self.refuse.clone())
            }
            Err(refusal) => ResponseFuture::refused(refusal, self.refuse.clone()),
        }
    }
}

/// What `poll_ready` has had, or waits for. A denial is given by `call`: it refuses that one request, and says nothing of
/// the service. A permit of a service that is dropped before it is called is refunded.
#[allow(unnameable_types, reason = "what a ready service holds is its own business")]
pub struct Ready<A, P: Permit, F> {
    acquire: Option<A>,
    answer: Option<Result<Unused<P>, Error<F>>>,
}

impl<A, P: Permit, F> Default for Ready<A, P, F> {
    fn default() -> Self {
        Self { acquire: None, answer: None }
    }
}

impl<A, P: Permit, F> fmt::Debug for Ready<A, P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("permit", &self.answer.is_some()).finish_non_exhaustive()
    }
}
