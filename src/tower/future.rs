use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::error::Refuse;
use crate::limiter::Permit;
use crate::service::{Reserved, Unused};
use crate::types::Error;

/// A response under a permit, or a refusal.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<Fut, P, F, R> {
    #[pin]
    stage: Stage<Fut, P, F>,
    refuse: R,
}

#[pin_project(project = StageProjected)]
enum Stage<Fut, P, F> {
    /// The permit is held until the response is ready, if there is something to hold.
    Running(#[pin] Fut, Option<P>),
    Refused(Option<Error<F>>),
}

impl<Fut, P, F, R> ResponseFuture<Fut, P, F, R> {
    pub(super) const fn running(future: Fut, permit: Option<P>, refuse: R) -> Self {
        Self { stage: Stage::Running(future, permit), refuse }
    }

    pub(super) const fn refused(refusal: Error<F>, refuse: R) -> Self {
        Self { stage: Stage::Refused(Some(refusal)), refuse }
    }
}

impl<Fut, P, F, R, Res, E> Future for ResponseFuture<Fut, P, F, R>
where
    Fut: Future<Output = Result<Res, E>>,
    R: Refuse<Res, E, F>,
{
    type Output = Result<Res, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.stage.project() {
            StageProjected::Running(future, permit) => {
                let response = ready!(future.poll(cx));
                // Before the answer: whoever gets it may ask for what the permit holds.
                drop(permit.take());
                Poll::Ready(response.map_err(R::service_error))
            }
            StageProjected::Refused(refusal) => {
                let refusal = refusal.take().expect("a response was polled after it was ready");
                Poll::Ready(this.refuse.refuse(refusal))
            }
        }
    }
}

impl<Fut, P, F, R> fmt::Debug for ResponseFuture<Fut, P, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A wait for a permit, then a response under it. Dropped in the wait it leaves the queue and the request is not made.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct WaitFuture<A, S: Service<Req>, Req, P: Permit, R> {
    #[pin]
    stage: WaitStage<A, S, Req, S::Future, P>,
    refuse: R,
}

#[pin_project(project = WaitProjected, project_replace = WaitReplaced)]
enum WaitStage<A, S, Req, Fut, P: Permit> {
    Waiting(#[pin] A, Reserved<S, Req>),
    /// The service is made ready after a wait.
    Readying(Reserved<S, Req>, Unused<P>),
    Running(#[pin] Fut, Option<P>),
    Done,
}

impl<A, S: Service<Req>, Req, P: Permit, R> WaitFuture<A, S, Req, P, R> {
    pub(super) const fn new(acquire: A, service: S, request: Req, refuse: R) -> Self {
        Self { stage: WaitStage::Waiting(acquire, Reserved::new(service, request)), refuse }
    }
}

impl<A, S, Req, P, F, R> Future for WaitFuture<A, S, Req, P, R>
where
    A: Future<Output = Result<P, Error<F>>>,
    S: Service<Req> + Clone,
    P: Permit,
    R: Refuse<S::Response, S::Error, F>,
{
    type Output = Result<S::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                WaitProjected::Waiting(acquire, call) => match acquire.poll(cx) {
                    Poll::Pending => {
                        call.release();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(permit)) if call.is_ready() => {
                        let (mut service, request) = call.take();
                        // If the call panics, the permit is dropped with it.
                        let permit = Some(permit);
                        let response = service.call(request);
                        this.stage.set(WaitStage::Running(response, permit));
                    }
                    Poll::Ready(Ok(permit)) => {
                        let WaitReplaced::Waiting(_, call) =
                            this.stage.as_mut().project_replace(WaitStage::Done)
                        else {
                            unreachable!("it was waiting")
                        };
                        this.stage.set(WaitStage::Readying(call, Unused::new(permit)));
                    }
                    Poll::Ready(Err(refusal)) => return Poll::Ready(this.refuse.refuse(refusal)),
                },
                WaitProjected::Readying(call, permit) => {
                    ready!(call.poll_ready(cx)).map_err(R::service_error)?;
                    let ((mut service, request), permit) = (call.take(), permit.take());
                    let response = service.call(request);
                    this.stage.set(WaitStage::Running(response, Some(permit)));
                }
                WaitProjected::Running(response, permit) => {
                    let response = ready!(response.poll(cx));
                    drop(permit.take());
                    return Poll::Ready(response.map_err(R::service_error));
                }
                WaitProjected::Done => panic!("a response was polled after it was ready"),
            }
        }
    }
}

impl<A, S: Service<Req>, Req, P: Permit, R> fmt::Debug for WaitFuture<A, S, Req, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFuture").finish_non_exhaustive()
    }
}
