//! The limited service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::request::Parts;
use ::http::{Request, Response};
use ::http_body::Body as HttpBody;
use bytes::Bytes;
use tower_service::Service;

use super::body::Body;
use super::future::HttpFuture;
use super::layer::Options;
use crate::limiter::Limiter;

/// A limited HTTP or gRPC service. Made by [`HttpLayer`](super::HttpLayer).
pub struct HttpLimit<S, L> {
    service: S,
    shared: Arc<Shared<L>>,
}

pub(super) struct Shared<L> {
    pub(super) limiter: L,
    pub(super) options: Options,
}

impl<S, L> HttpLimit<S, L> {
    pub(super) fn new(service: S, limiter: L, options: Options) -> Self {
        Self { service, shared: Arc::new(Shared { limiter, options }) }
    }

    /// The service within.
    #[must_use]
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// The limiter in front of it.
    #[must_use]
    pub fn limiter(&self) -> &L {
        &self.shared.limiter
    }
}

impl<S: Clone, L> Clone for HttpLimit<S, L> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, L: fmt::Debug> fmt::Debug for HttpLimit<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLimit")
            .field("service", &self.service)
            .field("limiter", &self.shared.limiter)
            .finish_non_exhaustive()
    }
}

impl<S, L, B, R> Service<Request<B>> for HttpLimit<S, L>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    L: Limiter<Parts>,
    R: HttpBody,
    R::Data: From<Bytes>,
{
    type Response = Response<Body<R, L::Permit>>;
    type Error = S::Error;
    type Future = HttpFuture<S, L, B>;

    /// Takes nothing: a service that is ready and never called has cost nothing.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        HttpFuture::new(&self.shared, &mut self.service, request)
    }
}
