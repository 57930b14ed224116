//! The quota of each key: the default one, that of a tier, or its own.

use std::collections::HashMap;

/// A class of keys with a quota of its own. [`KeyedBuilder::tier`](super::KeyedBuilder::tier) gives it one, and
/// [`KeyedBuilder::tier_by`](super::KeyedBuilder::tier_by) says which keys belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier(u32);

impl Tier {
    /// The quota that the limit was built with.
    pub const DEFAULT: Self = Self(0);
    /// No limit: asks of such keys pass without a charge.
    pub const EXEMPT: Self = Self(u32::MAX);

    /// The tier of this number. The numbers are yours: `const PAID: Tier = Tier::new(1);`.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number as u32 + 1)
    }
}

/// Which quota a state was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Tier(Tier),
    /// The key's own. The number tells it from earlier ones of the key.
    Own(u64),
}

impl Plan {
    pub(super) const DEFAULT: Self = Self::Tier(Tier::DEFAULT);
}

/// The quotas there are, and the keys, by their hashes, that have their own or are exempt.
#[derive(Clone)]
pub(super) struct Plans<Q> {
    pub(super) default: Q,
    tiers: Vec<(Tier, Q)>,
    own: HashMap<u64, (Plan, Option<Q>)>,
}

impl<Q: Clone> Plans<Q> {
    pub(super) fn new(default: Q, tiers: &[(Tier, Q)]) -> Self {
        Self { default, tiers: tiers.to_vec(), own: HashMap::new() }
    }

    /// Gives a key a quota of its own; `None` exempts it.
    pub(super) fn set_own(&mut self, hash: u64, plan: Plan, quota: Option<Q>) {
        self.own.insert(hash, (plan, quota));
    }

    pub(super) fn forget_own(&mut self, hash: u64) {
        self.own.remove(&hash);
    }

    /// Changes the quota of a tier. Nothing happens for a tier that this limit does not have.
    pub(super) fn set_tier(&mut self, tier: Tier, quota: Q) {
        if tier == Tier::DEFAULT {
            self.default = quota;
        } else if let Some((_, known)) = self.tiers.iter_mut().find(|(known, _)| *known == tier) {
            *known = quota;
        }
    }

    /// The quota of a key: its own, or else that of its tier, or else the default one. `None`: it is exempt.
    pub(super) fn of(&self, hash: u64, tier: Tier) -> Option<(Plan, &Q)> {
        if !self.own.is_empty() {
            if let Some((plan, quota)) = self.own.get(&hash) {
                return quota.as_ref().map(|quota| (*plan, quota));
            }
        }
        if tier == Tier::EXEMPT {
            return None;
        }
        let of_tier = self.tiers.iter().find(|(known, _)| *known == tier);
        Some(match of_tier {
            Some((_, quota)) => (Plan::Tier(tier), quota),
            None => (Plan::DEFAULT, &self.default),
        })
    }
}
