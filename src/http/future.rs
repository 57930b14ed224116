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
use crate::decision::{Ask, Denied, Error};
use crate::limiter::{Limiter, Permit};
use crate::sync::{AtomicUsize, Ordering};
use crate::units::Cost;

/// The response of a limited service. Dropped while it waits it leaves the line and the request is not made; dropped
/// later, what the permit holds is free.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture<S: Service<Request<B>>, L: Limiter<Parts>, B> {
    #[pin]
    stage: Stage<L::Acquire, S, S::Future, L::Permit, B>,
    shared: Arc<Shared<L>>,
}

#[pin_project(project = StageProjected)]
enum Stage<A, S, F, P: Permit, B> {
    Waiting {
        #[pin]
        acquire: A,
        call: Option<(S, Parts, B)>,
        _place: Option<Place>,
    },
    Running {
        #[pin]
        response: F,
        held: Option<Held<P>>,
        tell: Option<Tell>,
    },
    Done,
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

impl<S: Service<Request<B>>, L: Limiter<Parts>, B> HttpFuture<S, L, B> {
    pub(super) fn new(shared: Arc<Shared<L>>, service: S, request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let Shared { limiter, options } = &*shared;
        let may_wait = options.wait > Duration::ZERO;
        // Before it joins the line: one that may not wait must not take another's place there.
        let place = if may_wait { Place::take(&options.waiting, options.waiting_max) } else { None };
        let wait = if place.is_some() { options.wait } else { Duration::ZERO };
        let cost = options.cost.as_ref().map_or(Cost::ONE, |cost| cost(&parts));
        let acquire = limiter.acquire(&parts, Ask::from(cost).within(wait));
        Self { stage: Stage::Waiting { acquire, call: Some((service, parts, body)), _place: place }, shared }
    }
}

impl<S, L, B, R> Future for HttpFuture<S, L, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    L: Limiter<Parts>,
    R: HttpBody,
    R::Data: From<Bytes>,
{
    type Output = Result<Response<Body<R, L::Permit>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Shared { limiter, options } = &**this.shared;
        loop {
            match this.stage.as_mut().project() {
                StageProjected::Waiting { acquire, call, _place } => {
                    let answer = ready!(acquire.poll(cx));
                    // Where it stands until the service is called: moving it about would cost more than deciding.
                    let (_, parts, _) = call.as_mut().expect(POLLED_AGAIN);
                    let permit = match answer {
                        Ok(permit) => Some(permit),
                        Err(Error::Fault(_)) if options.admits_on_fault => None,
                        Err(error) => {
                            let tell =
                                Tell::new(options, parts, |request, visit| limiter.report(request, visit));
                            let refused = tell.refused(options, parts, error.denied());
                            this.stage.set(Stage::Done);
                            return Poll::Ready(Ok(refused.map(Body::refused)));
                        }
                    };
                    let tell = Tell::new(options, parts, |request, visit| match &permit {
                        // The permit knows without looking for the key again, but not of what was only on trial.
                        Some(permit) if !options.tells_shadow => permit.report(visit),
                        _ => limiter.report(request, visit),
                    });
                    if let Some(denied) = permit.as_ref().and_then(Permit::shadowed) {
                        parts.extensions.insert(Shadowed(denied.clone()));
                    }
                    let charge = options.handler_settles.then(Charge::new);
                    if let Some(charge) = charge.clone() {
                        parts.extensions.insert(charge);
                    }
                    // Held before the service is called: if it panics, the permit is dropped as the stack unwinds.
                    let held = Some(Held::new(permit, charge));
                    let (mut service, parts, body) = call.take().expect(POLLED_AGAIN);
                    let response = service.call(Request::from_parts(parts, body));
                    this.stage.set(Stage::Running { response, held, tell: Some(tell) });
                }
                StageProjected::Running { response, held, tell } => {
                    let response = ready!(response.poll(cx));
                    let mut held = held.take().expect(POLLED_AGAIN);
                    let response = response?;
                    let (mut parts, body) = response.into_parts();
                    if let Some(settle) = &options.settle {
                        held.settle = settle(&parts);
                    }
                    if let Some(tell) = tell.take() {
                        tell.put(options, &mut parts);
                    }
                    return Poll::Ready(Ok(Response::from_parts(parts, Body::served(body, held))));
                }
                StageProjected::Done => panic!("{POLLED_AGAIN}"),
            }
        }
    }
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
