//! Two rules as one.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::request::Parts;
use pin_project::pin_project;

use crate::decision::{Ask, Error, Standing};
use crate::limiter::{
    AcquireBoth, And, BothPermits, BoxAcquire, BoxLimiter, BoxPermit, EitherFault, Limiter, LimiterExt,
};

/// Both rules, all or nothing.
pub(super) fn both(first: BoxLimiter<Parts>, second: BoxLimiter<Parts>) -> BoxLimiter<Parts> {
    Together(first.and(second)).boxed()
}

/// Rules always can decide, and so can two of them.
struct Together(And<BoxLimiter<Parts>, BoxLimiter<Parts>>);

impl Limiter<Parts> for Together {
    type Permit = BothPermits<BoxPermit, BoxPermit>;
    type Fault = Infallible;
    type Acquire = AcquireTogether;

    fn acquire(&self, request: &Parts, ask: Ask) -> AcquireTogether {
        AcquireTogether(self.0.acquire(request, ask))
    }

    fn holds(&self) -> bool {
        Limiter::<Parts>::holds(&self.0)
    }

    fn report(&self, request: &Parts, visit: &mut dyn FnMut(&Standing)) {
        self.0.report(request, visit);
    }
}

#[pin_project]
struct AcquireTogether(#[pin] AcquireBoth<BoxAcquire, BoxAcquire, BoxPermit, BoxPermit>);

impl Future for AcquireTogether {
    type Output = Result<BothPermits<BoxPermit, BoxPermit>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().0.poll(cx).map_err(|error| match error {
            Error::Denied(denied) => Error::Denied(denied),
            Error::Fault(EitherFault::First(never) | EitherFault::Second(never)) => match never {},
        })
    }
}
