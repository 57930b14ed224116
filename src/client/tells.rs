//! Answers that tell of limits.

use std::borrow::Cow;
use std::time::Duration;

use super::signal::{Profile, Signals};

/// What a guard can observe: a response, a result of one, or what was read from one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` tells a guard nothing",
    note = "an `http::Response`, a `Result` of one and `Signals` do; of others read `Signals::read(profile, status, headers, unix)`"
)]
pub trait Tells {
    /// What it says; `None` where there was no answer. `unix_now` is the local time since the Unix epoch.
    fn signals(&self, profile: Profile, unix_now: Duration) -> Option<Cow<'_, Signals>>;
}

impl Tells for Signals {
    fn signals(&self, _profile: Profile, _unix_now: Duration) -> Option<Cow<'_, Signals>> {
        Some(Cow::Borrowed(self))
    }
}

impl<B> Tells for http::Response<B> {
    fn signals(&self, profile: Profile, unix_now: Duration) -> Option<Cow<'_, Signals>> {
        Some(Cow::Owned(Signals::read(profile, self.status(), self.headers(), unix_now)))
    }
}

impl<T: Tells, E> Tells for Result<T, E> {
    fn signals(&self, profile: Profile, unix_now: Duration) -> Option<Cow<'_, Signals>> {
        self.as_ref().ok()?.signals(profile, unix_now)
    }
}

/// What a call of tonic's was answered, where it was no success.
#[cfg(feature = "tonic")]
impl Tells for tonic::Status {
    fn signals(&self, _profile: Profile, _unix_now: Duration) -> Option<Cow<'_, Signals>> {
        Some(Cow::Owned(self.into()))
    }
}
