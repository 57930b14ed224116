use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::{Request, Response};
use ::http_body::Body as HttpBody;
use pin_project::pin_project;
use tower_service::Service;

use super::body::GuardBody;
use crate::client::{AcquireGuarded, Guard, Guarded, Signals};
use crate::clock::Clock;
use crate::limiter::Compose;
use crate::service::{Reserved, Unused};
use crate::tower::LimitError;
use crate::types::{Ask, Denied, Error};

/// A wait for a permit, then a call under it. Dropped in the wait it leaves the line and the call is not made.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct GuardFuture<S: Service<Request<B>>, B, L: Compose, C: Clock> {
    #[pin]
    stage: Stage<S, S::Future, B, L, C>,
}

#[allow(
    clippy::large_enum_variant,
    reason = "one stage becomes the next: a box would be an allocation a call"
)]
#[pin_project(project = StageProjected, project_replace = StageReplaced)]
enum Stage<S, F, B, L: Compose, C: Clock> {
    Waiting {
        #[pin]
        acquire: AcquireGuarded<L, C>,
        call: Reserved<S, Request<B>>,
        /// Granted after a wait, while the service is made ready.
        granted: Option<Unused<Guarded<L::Permit, C>>>,
        guard: Guard<L, C>,
    },
    Calling {
        #[pin]
        response: F,
        permit: Option<Guarded<L::Permit, C>>,
        guard: Guard<L, C>,
    },
    Refused(Option<Denied>),
}

impl<S: Service<Request<B>>, B, L: Compose + Clone, C: Clock> GuardFuture<S, B, L, C> {
    pub(super) fn waiting(guard: Guard<L, C>, ask: Ask, service: S, request: Request<B>) -> Self {
        let acquire = guard.acquire(ask);
        Self {
            stage: Stage::Waiting { acquire, call: Reserved::new(service, request), granted: None, guard },
        }
    }

    pub(super) fn refused(denied: Denied) -> Self {
        Self { stage: Stage::Refused(Some(denied)) }
    }
}

impl<S, B, L, C, R> Future for GuardFuture<S, B, L, C>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    L: Compose + Clone,
    C: Clock,
    R: HttpBody,
{
    type Output = Result<Response<GuardBody<R, L::Permit, C>>, LimitError<S::Error, L::Fault>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjected::Waiting { acquire, call, granted, guard } => {
                    if granted.is_none() {
                        let Poll::Ready(answer) = acquire.poll(cx) else {
                            call.release();
                            return Poll::Pending;
                        };
                        *granted = Some(Unused::new(answer.map_err(|refusal| match refusal {
                            Error::Denied(denied) => LimitError::Denied(denied),
                            Error::Fault(fault) => LimitError::Fault(fault),
                        })?));
                    }
                    ready!(call.poll_ready(cx)).map_err(LimitError::Service)?;
                    let permit = granted.take().map(|mut permit| permit.take());
                    let (mut service, request) = call.take();
                    let response = service.call(request);
                    let calling = Stage::Calling { response, permit, guard: guard.clone() };
                    this.stage.as_mut().project_replace(calling);
                }
                StageProjected::Calling { response, permit, guard } => {
                    let response = ready!(response.poll(cx));
                    let permit = permit.take().expect(AGAIN);
                    let (parts, body) = response.map_err(LimitError::Service)?.into_parts();
                    let said = Signals::read(guard.profile(), parts.status, &parts.headers, guard.unix());
                    let body = GuardBody::answered(body, &parts, permit, said);
                    return Poll::Ready(Ok(Response::from_parts(parts, body)));
                }
                StageProjected::Refused(denied) => {
                    return Poll::Ready(Err(LimitError::Denied(denied.take().expect(AGAIN))));
                }
            }
        }
    }
}

const AGAIN: &str = "a response was polled after it was ready";

impl<S: Service<Request<B>>, B, L: Compose, C: Clock> fmt::Debug for GuardFuture<S, B, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
