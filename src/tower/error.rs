use std::convert::Infallible;
use std::fmt;

use crate::types::{Denied, Error};

/// A limited service's error: its own, or why the limiter did not let the request in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "the limiter's two answers and the service's own error are all there is"
)]
pub enum LimitError<E, F = Infallible> {
    /// The limit said no.
    Denied(Denied),
    /// The limiter could not decide.
    Fault(F),
    /// The service failed.
    Service(E),
}

impl<E: fmt::Display, F: fmt::Display> fmt::Display for LimitError<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Fault(fault) => write!(f, "the limiter could not decide: {fault}"),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static, F: std::error::Error + 'static> std::error::Error for LimitError<E, F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::Fault(fault) => Some(fault),
            Self::Service(error) => Some(error),
        }
    }
}

/// What becomes of a refusal.
pub trait Refuse<Res, E, F> {
    /// The error of the limited service.
    type Error;
    /// The service's error, as the limited service's.
    fn service_error(error: E) -> Self::Error;
    /// What the limited service says to a refused request.
    ///
    /// # Errors
    /// The refusal, if it is not a response.
    fn refuse(&self, refusal: Error<F>) -> Result<Res, Self::Error>;
}

/// A refusal is an error: [`LimitError`].
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Raise;

impl<Res, E, F> Refuse<Res, E, F> for Raise {
    type Error = LimitError<E, F>;

    fn service_error(error: E) -> Self::Error {
        LimitError::Service(error)
    }

    fn refuse(&self, refusal: Error<F>) -> Result<Res, Self::Error> {
        Err(match refusal {
            Error::Denied(denied) => LimitError::Denied(denied),
            Error::Fault(fault) => LimitError::Fault(fault),
        })
    }
}

/// A refusal is a response; errors stay the service's own.
#[derive(Clone, Copy)]
pub struct Answer<H>(pub(super) H);

impl<H> fmt::Debug for Answer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl<Res, E, F, H: Fn(Error<F>) -> Res> Refuse<Res, E, F> for Answer<H> {
    type Error = E;

    fn service_error(error: E) -> E {
        error
    }

    fn refuse(&self, refusal: Error<F>) -> Result<Res, E> {
        Ok((self.0)(refusal))
    }
}
