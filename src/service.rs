//! What the layers have in common: a request that waits for a permit, and a permit that was not used yet.

use std::task::{Context, Poll};

use tower_service::Service;

use crate::limiter::Permit;

/// A request, and the service that was made ready for it.
///
/// A service may reserve something when it is ready (a slot, a connection). The reservation is kept if the permit is granted
/// at once, and let go otherwise: it would be held while the request waits. After the wait a fresh clone is made ready.
pub(crate) struct Reserved<S, Req> {
    call: Option<(S, Req)>,
    is_ready: bool,
}

const POLLED_AGAIN: &str = "a response was polled after it was ready";

impl<S, Req> Reserved<S, Req> {
    pub(crate) const fn new(service: S, request: Req) -> Self {
        Self { call: Some((service, request)), is_ready: true }
    }

    pub(crate) const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Lets go of the reservation.
    pub(crate) fn release(&mut self)
    where
        S: Clone,
    {
        if let Some((service, _)) = self.call.as_mut().filter(|_| self.is_ready) {
            *service = service.clone();
            self.is_ready = false;
        }
    }

    /// Makes the service ready again if the reservation was let go.
    pub(crate) fn poll_ready<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<R>,
    {
        match &mut self.call {
            Some((service, _)) if !self.is_ready => service.poll_ready(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The ready service, and the request to call it with.
    pub(crate) fn take(&mut self) -> (S, Req) {
        self.call.take().expect(POLLED_AGAIN)
    }
}

/// A permit for work that has not begun: dropped, it is refunded.
pub(crate) struct Unused<P: Permit>(Option<P>);

impl<P: Permit> Unused<P> {
    pub(crate) const fn new(permit: P) -> Self {
        Self(Some(permit))
    }

    /// The permit: the work begins.
    pub(crate) fn take(&mut self) -> P {
        self.0.take().expect(POLLED_AGAIN)
    }
}

impl<P: Permit> Drop for Unused<P> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.refund();
        }
    }
}
