//! Guards in the chain of a `reqwest_middleware` client.

use std::pin::Pin;

use ::http::Extensions;
use ::reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};

use super::layer::GuardOf;
use super::reqwest::guarded;
use super::{Guard, Guards, Origin};
use crate::clock::Clock;
use crate::limiter::Compose;
use crate::tower::LimitError;

macro_rules! middleware {
    ($(#[$doc:meta])* $guards:ty) => {
        $(#[$doc])*
        impl<L, C: Clock> Middleware for $guards
        where
            L: Compose<Permit: Send + Sync + 'static, Acquire: Send, Part: Send, Fault: std::error::Error + Send + Sync + 'static>,
            L: Clone + Send + Sync + 'static,
        {
            // As the macro of `async-trait` writes it.
            fn handle<'a, 'b, 'c, 'd>(
                &'a self,
                request: Request,
                extensions: &'b mut Extensions,
                next: Next<'c>,
            ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'd>>
            where
                'a: 'd,
                'b: 'd,
                'c: 'd,
            {
                Box::pin(handle(self, request, extensions, next))
            }
        }
    };
}

middleware!(
    /// Every request that passes waits its turn, and its response is observed. Put it below what tries again, so that
    /// each try waits. A refusal is an [`Error::Middleware`] of a [`Denied`](crate::Denied).
    Guard<L, C>
);
middleware!(
    /// Each origin has its own guard; otherwise as [`Guard`].
    Guards<Origin, L, C>
);

async fn handle<G: GuardOf>(
    guards: &G,
    request: Request,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response>
where
    G::Limits: Compose<Permit: Send + Sync + 'static, Fault: std::error::Error + Send + Sync + 'static>,
{
    let sent = guarded(guards, request, |request| next.run(request, extensions)).await;
    sent.map_err(|error| match error {
        LimitError::Service(error) => error,
        LimitError::Denied(denied) => Error::middleware(denied),
        LimitError::Fault(fault) => Error::middleware(fault),
    })
}
