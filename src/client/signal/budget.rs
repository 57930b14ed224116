//! Budgets, and which of them binds.

use std::cmp::Ordering;
use std::time::Duration;

use super::{Budget, Unit};

/// Most budgets that are kept of a response: the most binding ones.
const BUDGETS_MAX: usize = 16;
/// The longest name, in bytes.
pub(super) const NAME_MAX: usize = 64;

impl Budget {
    pub(super) fn says_nothing(&self) -> bool {
        self.limit.is_none() && self.remaining.is_none() && self.reset_after.is_none()
    }

    fn is_exhausted(&self) -> bool {
        self.remaining == Some(0)
    }

    /// What binds more comes first.
    fn binding(&self, other: &Self) -> Ordering {
        let exhausted = other.is_exhausted().cmp(&self.is_exhausted());
        exhausted.then_with(|| match (self.share(), other.share()) {
            _ if self.is_exhausted() => other.reset_after.cmp(&self.reset_after),
            // Parts of their limits, compared without a division.
            (Some((left, of)), Some((other_left, other_of))) => (left * other_of).cmp(&(other_left * of)),
            (one, another) => another
                .is_some()
                .cmp(&one.is_some())
                .then(other.remaining.is_some().cmp(&self.remaining.is_some())),
        })
    }

    fn share(&self) -> Option<(u128, u128)> {
        Some((self.remaining?.into(), self.limit?.into()))
    }
}

/// In the order in which they bind, and no more than are worth knowing.
pub(super) fn ordered(mut budgets: Vec<Budget>) -> Vec<Budget> {
    budgets.sort_by(Budget::binding);
    budgets.truncate(BUDGETS_MAX);
    budgets
}

/// A name that is worth remembering.
pub(super) fn name(text: &str) -> Option<Box<str>> {
    Some(text).filter(|text| !text.is_empty() && text.len() <= NAME_MAX).map(Into::into)
}

/// What a budget counts that goes by this name.
pub(super) fn unit(name: &str) -> Unit {
    let has = |word| name.contains(word);
    match () {
        () if has("token") && has("input") => Unit::InputTokens,
        () if has("token") && has("output") => Unit::OutputTokens,
        () if has("token") => Unit::Tokens,
        () if has("request") || window(name).is_some() => Unit::Requests,
        () => Unit::Other,
    }
}

/// The window of a budget that goes by its name.
pub(super) fn window(name: &str) -> Option<Duration> {
    let seconds = match name {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: Option<u64>, remaining: Option<u64>, reset: Option<u64>) -> Budget {
        Budget { limit, remaining, reset_after: reset.map(Duration::from_secs), ..Budget::default() }
    }

    #[test]
    fn what_binds_more_comes_first() {
        let sorted = [
            budget(Some(5), Some(0), Some(90)),
            budget(None, Some(0), Some(48)),
            budget(Some(100), Some(0), None),
            budget(Some(1000), Some(100), None),
            budget(Some(u64::MAX), Some(u64::MAX), None),
            budget(Some(10), Some(11), Some(1)),
            budget(Some(0), Some(1), Some(1)),
            budget(None, Some(1), None),
            budget(Some(100), None, None),
        ];
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(one.binding(other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
        let mut turned = sorted.to_vec();
        turned.reverse();
        assert_eq!(ordered(turned), sorted);
        assert_eq!(ordered(vec![budget(None, Some(1), None); 1000]).len(), BUDGETS_MAX);
    }
}
