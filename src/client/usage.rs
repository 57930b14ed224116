//! What a call takes, in the several kinds of units that an upstream may count.

use super::signal::Unit;

/// What a call takes of an upstream: requests, and tokens of a language model where it counts them.
///
/// ```
/// use tollgate::client::Usage;
/// let usage = Usage::tokens(1_200, 400);
/// assert_eq!((usage.requests, usage.total_tokens()), (1, 1_600));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Requests.
    pub requests: u64,
    /// Tokens that are read: the prompt.
    pub input_tokens: u64,
    /// Tokens that are written: the completion.
    pub output_tokens: u64,
}

impl Usage {
    pub(super) const ZERO: Self = Self { requests: 0, input_tokens: 0, output_tokens: 0 };

    /// So many requests, no tokens.
    #[must_use]
    pub const fn requests(requests: u64) -> Self {
        Self { requests, input_tokens: 0, output_tokens: 0 }
    }

    /// One request of so many tokens.
    #[must_use]
    pub const fn tokens(input: u64, output: u64) -> Self {
        Self { requests: 1, input_tokens: input, output_tokens: output }
    }

    /// Input and output together.
    #[must_use]
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Its units of one kind.
    pub(super) const fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.total_tokens(),
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
            Unit::Bytes | Unit::Concurrent | Unit::Other => 0,
        }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
        }
    }

    pub(super) fn most(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            input_tokens: self.input_tokens.max(other.input_tokens),
            output_tokens: self.output_tokens.max(other.output_tokens),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            input_tokens: self.input_tokens.saturating_sub(other.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(other.output_tokens),
        }
    }
}
