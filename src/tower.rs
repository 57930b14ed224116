//! A limit on a tower service, over any limiter.
//!
//! [`LimitLayer`] puts a limiter in front of a service in one of three ways:
//!
//! | | at the limit | needs |
//! |---|---|---|
//! | `LimitLayer::new(limiter)` | waits in `call` | a service that is `Clone` |
//! | [`.shed()`](LimitLayer::shed) | refuses in `call` | a limiter that can decide on the spot |
//! | [`.backpressure()`](LimitLayer::backpressure) | waits in `poll_ready` | a limiter that looks at no request |
//!
//! The state is in the limiter's handle: however often a framework clones the service or applies the layer again, it is
//! one limit. A refusal becomes [`LimitError`], which keeps the service's own error apart, or with
//! [`.answer(f)`](LimitLayer::answer) a response, and then the error type stays what it was.
//!
//! A permit is held until the response is ready, and the service that was polled ready is the one that is called.

mod error;
mod future;
mod layer;
mod service;

pub use error::{Answer, LimitError, Raise, Refuse};
pub use future::{ResponseFuture, WaitFuture};
pub use layer::LimitLayer;
pub use service::{Backpressure, Limit, Mode, Shed, Wait};
