use std::collections::HashMap;

/// A quota that some keys have in place of the default one. Made by [`Keyed::tier`](super::Keyed::tier).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier(u32);

impl Tier {
    /// The quota the limiter was built with.
    pub const DEFAULT: Self = Self(0);
    /// No limit: asks of such keys pass without a charge.
    pub const EXEMPT: Self = Self(u32::MAX);
}

/// Which quota a state has been made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Tier(Tier),
    /// One of the key's own, told from the key's earlier ones by its number.
    Own(u64),
}

impl Plan {
    pub(super) const DEFAULT: Self = Self::Tier(Tier::DEFAULT);
}

/// The quotas there are besides the default one, and the keys, by their hashes, that have their own.
#[derive(Clone)]
pub(super) struct Tiers<A> {
    quotas: Vec<A>,
    own: HashMap<u64, (Plan, Option<A>)>,
}

impl<A: Clone> Tiers<A> {
    pub(super) fn new() -> Self {
        Self { quotas: Vec::new(), own: HashMap::new() }
    }

    /// The same tiers, without keys of their own.
    pub(super) fn of_all(&self) -> Self {
        Self { quotas: self.quotas.clone(), own: HashMap::new() }
    }

    /// The keys that have their own.
    pub(super) fn own(&self) -> impl Iterator<Item = (u64, (Plan, Option<A>))> {
        self.own.iter().map(|(hash, own)| (*hash, own.clone()))
    }

    /// Gives a key an algorithm of its own, or exempts it.
    pub(super) fn set_own(&mut self, hash: u64, plan: Plan, algorithm: Option<A>) {
        self.own.insert(hash, (plan, algorithm));
    }

    pub(super) fn add_own(&mut self, hash: u64, own: (Plan, Option<A>)) {
        self.own.insert(hash, own);
    }

    pub(super) fn add(&mut self, algorithm: A) -> Tier {
        self.quotas.push(algorithm);
        // More tiers than fit a word do not fit the memory either.
        Tier(self.quotas.len() as u32)
    }

    /// The algorithm of a tier; `None` for the default one and for one that is not of this limiter.
    pub(super) fn algorithm_mut(&mut self, tier: Tier) -> Option<&mut A> {
        self.quotas.get_mut((tier.0 as usize).checked_sub(1)?)
    }

    /// The plan of a key that is of `tier` unless it has one of its own, and its algorithm. `None`: it is exempt.
    pub(super) fn plan<'a>(&'a self, hash: u64, tier: Tier, default: &'a A) -> Option<(Plan, &'a A)> {
        if !self.own.is_empty() {
            if let Some((plan, algorithm)) = self.own.get(&hash) {
                return algorithm.as_ref().map(|algorithm| (*plan, algorithm));
            }
        }
        if tier == Tier::EXEMPT {
            return None;
        }
        let of_tier = (tier.0 as usize).checked_sub(1).and_then(|index| self.quotas.get(index));
        Some(match of_tier {
            Some(algorithm) => (Plan::Tier(tier), algorithm),
            None => (Plan::DEFAULT, default),
        })
    }

    pub(super) fn forget_own(&mut self, hash: u64) {
        self.own.remove(&hash);
    }
}
