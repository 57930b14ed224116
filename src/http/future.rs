//! A wait for a permit, then a response under it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{Request, Response};
use ::http_body::Body as HttpBody;
use bytes::Bytes;
use pin_project::pin_project;
use tower_service::Service;

use super::body::Body;
use super::service::Shared;
use super::settle::{Charge, Held};
use super::tell::Tell;
use crate::limiter::{Limiter, Permit};
use crate::service::{Reserved, Unused};
use crate::sync::{AtomicUsize, Ordering};
use crate::types::{Ask, Denied, Error, Reason};
use crate::units::Cost;

/// The response of a limited service. Dropped while it waits it leaves the line and the request is not made; dropped
/// later, what the permit holds is free.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture<S: Service<Request<B>>, L: Limiter<Parts>, B>(
    #[pin] Stage<WaitingFor<S, L, B>, S::Future, L, PermitOf<L>>,
);

type PermitOf<L> = <L as Limiter<Parts>>::Permit;
type WaitingFor<S, L, B> = Waiting<<L as Limiter<Parts>>::Acquire, S, L, B, PermitOf<L>>;
/// The stage that follows a wait.
type StageAfter<W, F, L, E> = Result<Stage<W, F, L, PermitOf<L>>, E>;
/// What is kept beside the response while it is made.
type Kept<L> = (Option<Held<PermitOf<L>>>, Option<Box<After<L>>>);

#[pin_project(project = StageProjected)]
enum Stage<W, F, L, P: Permit> {
    /// In a box of its own: it is large, and all that holds this future moves it about, waiting or not.
    Waiting(Pin<Box<W>>),
    Running {
        #[pin]
        response: F,
        held: Option<Held<P>>,
        /// In a box for the same reason.
        after: Option<Box<After<L>>>,
    },
    Refused(Option<Response<Bytes>>),
}

/// A request that waits, and what to call with it.
#[pin_project]
struct Waiting<A, S, L, B, P: Permit> {
    #[pin]
    acquire: A,
    call: Reserved<S, (Parts, B)>,
    /// Granted after a wait, while the service is made ready. `None` within: the limiter could not decide.
    granted: Option<Option<Unused<P>>>,
    shared: Arc<Shared<L>>,
    _place: Option<Place>,
}

/// What is to be done with the response, where anything is.
struct After<L> {
    shared: Arc<Shared<L>>,
    tell: Tell,
}

const POLLED_AGAIN: &str = "a response was polled after it was ready";

/// One of the requests that may wait.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        // Relaxed: it counts, and guards nothing. One that was one too many is counted down by its drop.
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(waiting))).filter(|_| before < most)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Service<Request<B>> + Clone, L: Limiter<Parts>, B> HttpFuture<S, L, B> {
    pub(super) fn new(shared: &Arc<Shared<L>>, service: &mut S, request: Request<B>) -> Self {
        let (mut parts, body) = request.into_parts();
        let Shared { limiter, options } = &**shared;
        let cost = options.cost.as_ref().map_or(Cost::ONE, |cost| cost(&parts));
        let may_wait = options.wait > Duration::ZERO;
        // Without a wait it is decided now: there is nothing to keep for later. An ask that may wait takes nothing before
        // its first poll.
        if !may_wait {
            let granted = if L::Permit::IS_HELD || options.use_permit() {
                limiter.try_acquire(&parts, cost).map(Some)
            } else {
                limiter.check(&parts, cost).map(|()| None)
            };
            match granted {
                Ok(None) => {
                    let response = service.call(Request::from_parts(parts, body));
                    return Self(Stage::Running { response, held: None, after: None });
                }
                Ok(permit) => {
                    let (held, after) = shared.admit(permit, &mut parts);
                    let response = service.call(Request::from_parts(parts, body));
                    return Self(Stage::Running { response, held, after });
                }
                Err(denied) if denied.reason() == Reason::MustAwait => {}
                Err(denied) => return Self(Stage::Refused(Some(shared.refuse(Some(&denied), &mut parts)))),
            }
        }
        // Before it joins the line: one that may not wait must not take another's place there.
        let place = if may_wait { Place::take(&options.waiting, options.waiting_max) } else { None };
        let wait = if place.is_some() { options.wait } else { Duration::ZERO };
        let acquire = limiter.acquire(&parts, Ask::from(cost).within(wait));
        // The service that is ready goes with the request; what stays is a clone that was never polled.
        let clone = service.clone();
        let service = std::mem::replace(service, clone);
        let (call, shared) = (Reserved::new(service, (parts, body)), Arc::clone(shared));
        let waiting = Waiting { acquire, call, granted: None, shared, _place: place };
        Self(Stage::Waiting(Box::pin(waiting)))
    }
}

impl<L: Limiter<Parts>> Shared<L> {
    /// What is kept beside a request that goes on, under a permit if it needs one.
    fn admit(self: &Arc<Self>, permit: Option<L::Permit>, request: &mut Parts) -> Kept<L> {
        let Self { limiter, options } = &**self;
        let after = options.sees_response().then(|| {
            let tell = Tell::new(options, request, |request, visit| match &permit {
                // The permit knows without looking for the key again, but not of what was only on trial.
                Some(permit) if !options.tells_shadow => permit.status(visit),
                _ => limiter.status(request, visit),
            });
            Box::new(After { shared: Arc::clone(self), tell })
        });
        if let Some(denied) = permit.as_ref().and_then(Permit::shadowed) {
            request.extensions.insert(Shadowed(denied.clone()));
        }
        let charge = options.handler_settles.then(Charge::new);
        if let Some(charge) = charge.clone() {
            request.extensions.insert(charge);
        }
        (permit.map(|permit| Held::new(permit, charge)), after)
    }

    /// The answer to a request that does not go on; `None`: the limiter could not decide.
    fn refuse(&self, denied: Option<&Denied>, request: &mut Parts) -> Response<Bytes> {
        let Self { limiter, options } = self;
        let tell = Tell::new(options, request, |request, visit| limiter.status(request, visit));
        tell.refused(options, request, denied)
    }
}

impl<S, L, B, R> Future for HttpFuture<S, L, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    L: Limiter<Parts>,
    R: HttpBody,
    R::Data: From<Bytes>,
{
    type Output = Result<Response<Body<R, L::Permit>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().0;
        if let StageProjected::Waiting(waiting) = stage.as_mut().project() {
            let next = ready!(waiting.as_mut().go_on(cx))?;
            stage.set(next);
        }
        match stage.project() {
            StageProjected::Waiting(_) => unreachable!("it has waited"),
            StageProjected::Running { response, held, after } => {
                let response = ready!(response.poll(cx));
                if held.is_none() && after.is_none() {
                    return Poll::Ready(response.map(|response| response.map(Body::plain)));
                }
                // First it is held here no more: after an error nothing is.
                let (held, after) = (held.take(), after.take());
                Poll::Ready(response.map(|response| answered(response, held, after)))
            }
            StageProjected::Refused(refused) => {
                let refused = refused.take().expect(POLLED_AGAIN);
                Poll::Ready(Ok(refused.map(Body::refused)))
            }
        }
    }
}

impl<A, S, L, B> Waiting<A, S, L, B, L::Permit>
where
    A: Future<Output = Result<L::Permit, Error<L::Fault>>>,
    S: Service<Request<B>> + Clone,
    L: Limiter<Parts>,
{
    /// Calls the service once there is a permit, or refuses.
    #[cold]
    #[inline(never)]
    fn go_on(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StageAfter<Self, S::Future, L, S::Error>> {
        let this = self.project();
        if this.granted.is_none() {
            let Poll::Ready(answer) = this.acquire.poll(cx) else {
                this.call.release();
                return Poll::Pending;
            };
            *this.granted = Some(match answer {
                Ok(permit) => Some(Unused::new(permit)),
                Err(Error::Fault(_)) if this.shared.options.admits_on_fault => None,
                Err(error) => {
                    let (_, (mut parts, _)) = this.call.take();
                    let refused = this.shared.refuse(error.denied(), &mut parts);
                    return Poll::Ready(Ok(Stage::Refused(Some(refused))));
                }
            });
        }
        ready!(this.call.poll_ready(cx))?;
        let permit = this.granted.take().flatten().map(|mut permit| permit.take());
        let (mut service, (mut parts, body)) = this.call.take();
        // Held before the service is called: if it panics, the permit is dropped as the stack unwinds.
        let (held, after) = this.shared.admit(permit, &mut parts);
        let response = service.call(Request::from_parts(parts, body));
        Poll::Ready(Ok(Stage::Running { response, held, after }))
    }
}

/// A response under its permit, with what there is to tell.
#[inline(never)]
fn answered<L, P: Permit, R: HttpBody>(
    response: Response<R>,
    mut held: Option<Held<P>>,
    after: Option<Box<After<L>>>,
) -> Response<Body<R, P>> {
    let (mut parts, body) = response.into_parts();
    if let Some(after) = after {
        let After { shared, tell } = *after;
        if let (Some(settle), Some(held)) = (&shared.options.settle, &mut held) {
            held.settle = settle(&parts);
        }
        tell.put(&shared.options, &mut parts);
    }
    Response::from_parts(parts, Body::served(body, held))
}

impl<S: Service<Request<B>>, L: Limiter<Parts>, B> fmt::Debug for HttpFuture<S, L, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

/// In the extensions of a request that a limit on trial would have refused: the refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shadowed(pub Denied);
