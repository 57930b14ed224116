//! What one response says about the limits it was answered under. Pure: nothing is acted on here.

mod budget;
mod families;
mod grpc;
mod structured;
mod text;
mod throttle;
mod time;

use std::time::Duration;

use ::http::{HeaderMap, StatusCode};

/// What one response says about the limits it was answered under.
///
/// All of it is hearsay: a response may tighten what a caller does, never loosen it. Sizes are bounded whatever the
/// response is like, waits by [`Signals::WAIT_MAX`], and no value makes the reading fail: what makes no sense counts as
/// absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Signals {
    /// The call was refused for a limit: 429, a 503 with a wait, a 403 as GitHub answers it, gRPC's
    /// `RESOURCE_EXHAUSTED`, an error code of AWS.
    pub throttled: bool,
    /// The server failed, or throttled: a 5xx, and what is like it in gRPC.
    pub failed: bool,
    /// How long the server asks callers to stay away, rounded up. It may be there without a throttle.
    pub wait: Option<Duration>,
    /// What the server says of trying again, where it says anything.
    pub may_retry: Option<bool>,
    /// Whom the throttle concerns.
    pub scope: Scope,
    /// What the server calls the bucket that it counted the call in: routes with the same one share a limit.
    pub bucket: Option<Box<str>>,
    /// Where the limits stand, most binding first: the exhausted one with the longest reset, or the one of which the
    /// smallest part is left.
    pub budgets: Vec<Budget>,
    /// Which quotas the call failed, as gRPC servers may say.
    pub violations: Vec<Violation>,
}

/// One limit of the server, as far as it tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Budget {
    /// What it counts.
    pub unit: Unit,
    /// What the server calls it, if it has more than one.
    pub name: Option<Box<str>>,
    /// Most units in a window.
    pub limit: Option<u64>,
    /// Units left, rounded down.
    pub remaining: Option<u64>,
    /// When more units will be there, rounded up.
    pub reset_after: Option<Duration>,
    /// The window.
    pub window: Option<Duration>,
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    #[default]
    Requests,
    /// Tokens of a language model, in and out.
    Tokens,
    /// Tokens of a language model that are read.
    InputTokens,
    /// Tokens of a language model that are written.
    OutputTokens,
    /// Bytes of content.
    Bytes,
    /// Requests in progress.
    Concurrent,
    /// Something else.
    Other,
}

/// Whom a throttle concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The caller, in the bucket of this call.
    #[default]
    Ours,
    /// The caller, in every bucket: all calls to the server stop.
    Everyone,
    /// All callers of this resource: it is busy, and the caller broke no limit.
    Shared,
}

/// What is known of a server that its responses do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Nothing. A number in a reset field is in seconds from now, or since the Unix epoch if it is as large as that.
    #[default]
    Auto,
    /// A number in a reset field is in milliseconds from now.
    ResetMs,
}

/// A quota that a call failed: `google.rpc.QuotaFailure`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Violation {
    /// Whose quota it was: `clientip:203.0.113.7`.
    pub subject: Box<str>,
    /// What the server says of it.
    pub description: Box<str>,
}

impl Signals {
    /// The longest wait and reset that is believed: 2³¹ seconds. Callers have a ceiling of their own far below it.
    pub const WAIT_MAX: Duration = Duration::from_secs(1 << 31);

    /// Reads the head of a response. Replies of gRPC that have no body are read as well; of others the trailers say
    /// more: [`Signals::read_trailers`].
    ///
    /// `unix_now` is the local time since the Unix epoch. It counts where the response has no `Date` of its own.
    #[must_use]
    pub fn read(profile: Profile, status: StatusCode, headers: &HeaderMap, unix_now: Duration) -> Self {
        let made_at = time::made_at(headers, unix_now);
        let mut said = Self {
            wait: time::wait(headers, made_at),
            may_retry: throttle::may_retry(headers),
            scope: throttle::scope(headers),
            bucket: throttle::bucket(headers),
            ..Self::default()
        };
        if !throttle::is_cached(headers) {
            let (limits, policies) = structured::read(headers);
            let others = families::read(headers, !limits.is_empty(), policies, made_at, profile);
            said.budgets = budget::ordered(limits.into_iter().chain(others).collect());
        }
        if let Some(reply) = grpc::Reply::read(headers) {
            reply.put(&mut said);
        }
        said.throttled |= throttle::is_throttled(status, headers, &said);
        said.failed |= said.throttled || status.is_server_error();
        said
    }

    /// Reads the trailers of a gRPC reply.
    #[must_use]
    pub fn read_trailers(trailers: &HeaderMap) -> Self {
        let mut said = Self::default();
        if let Some(reply) = grpc::Reply::read(trailers) {
            reply.put(&mut said);
        }
        said
    }

    /// How long to stay away: the wait that the server asks for or, where a throttle has none, until the exhausted
    /// budget has more.
    #[must_use]
    pub fn hold(&self) -> Option<Duration> {
        let exhausted = self.budgets.first().filter(|budget| budget.remaining == Some(0));
        self.wait.or_else(|| exhausted?.reset_after).filter(|_| self.throttled)
    }
}

/// What a call of tonic's was answered, where it was no success.
#[cfg(feature = "tonic")]
impl From<&tonic::Status> for Signals {
    fn from(status: &tonic::Status) -> Self {
        let mut said = Self::default();
        grpc::Reply::of(status.code() as i32, status.details(), status.metadata().as_ref()).put(&mut said);
        said
    }
}
