use std::collections::HashMap;
use std::hash::Hash;

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

/// The quotas there are besides the default one, and the keys that have their own.
#[derive(Clone)]
pub(super) struct Tiers<K, A> {
    quotas: Vec<A>,
    own: HashMap<K, (Plan, Option<A>)>,
    changes: u64,
}

impl<K, A> Tiers<K, A> {
    /// The number of the next change: later ones are higher.
    pub(super) fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub(super) fn new() -> Self {
        Self { quotas: Vec::new(), own: HashMap::new(), changes: 0 }
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
}

impl<K: Hash + Eq, A> Tiers<K, A> {
    /// The plan of a key that is of `tier` unless it has one of its own, and its algorithm. `None`: it is exempt.
    pub(super) fn plan<'a, Q>(&'a self, key: &Q, tier: Tier, default: &'a A) -> Option<(Plan, &'a A)>
    where
        Q: Hash + Eq + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        if !self.own.is_empty() {
            if let Some((plan, algorithm)) = self.own.get(key) {
                return algorithm.as_ref().map(|algorithm| (*plan, algorithm));
            }
        }
        if tier == Tier::EXEMPT {
            return None;
        }
        let of_tier = (tier.0 as usize).checked_sub(1).and_then(|index| self.quotas.get(index));
        Some(match of_tier {
            Some(algorithm) => (Plan::Tier(tier), algorithm),
            None => (Plan::Tier(Tier::DEFAULT), default),
        })
    }

    /// Gives a key an algorithm of its own, or exempts it.
    pub(super) fn set_own(&mut self, key: K, algorithm: Option<A>) -> Plan {
        let plan = match algorithm {
            Some(_) => Plan::Own(self.next_change()),
            None => Plan::Tier(Tier::EXEMPT),
        };
        self.own.insert(key, (plan, algorithm));
        plan
    }

    pub(super) fn forget_own<Q>(&mut self, key: &Q)
    where
        Q: Hash + Eq + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        self.own.remove(key);
    }
}
