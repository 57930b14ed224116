//! The states of keys as limiters, one a key, in shards with a lock each.

use super::room::ByHash;
use super::store::{KeyLimiter, Store, Taken};
use super::table::{Id, Place, SlotGrant};
use super::tiers::{Plan, Plans, Tier};
use crate::algorithm::Grant;
use crate::sync::{Mutex, MutexGuard};
use crate::types::{Denied, LimitStatus, Snapshot};

/// Keys to a shard, where there are enough for several; and the most shards.
const KEYS_A_SHARD: usize = 64;
const SHARDS_MAX: usize = 64;

pub(super) struct Map<L: KeyLimiter> {
    shards: Box<[Mutex<Shard<L>>]>,
    /// The buckets of the table beside it: keys that would share a slot share a limiter.
    buckets: Option<u64>,
}

/// A part of the keys, under one lock.
pub(super) struct Shard<L: KeyLimiter> {
    pub(super) plans: Plans<L::Quota>,
    /// New keys of the default quota have slots: slots can say its states exactly.
    pub(super) uses_table: bool,
    pub(super) limiters: ByHash<Entry<L>>,
}

/// The state of a key.
pub(super) struct Entry<L> {
    pub(super) limiter: L,
    pub(super) plan: Plan,
    /// The revision of the table's quota when the limiter was made: earlier grants of slots are not given back to it.
    pub(super) revision: u32,
    /// The slot that tells searches of the table that the state is here. `None`: the key has no slot.
    pub(super) mark: Option<Place>,
}

impl<L: KeyLimiter> Map<L> {
    pub(super) fn new(keys: usize, buckets: Option<u64>, plans: &Plans<L::Quota>) -> Self {
        let count = (keys / KEYS_A_SHARD).clamp(1, SHARDS_MAX).next_power_of_two();
        let shard = || Shard { plans: plans.clone(), uses_table: buckets.is_some(), limiters: ByHash::new() };
        Self { shards: (0..count).map(|_| Mutex::new(shard())).collect(), buckets }
    }

    pub(super) fn shards(&self) -> &[Mutex<Shard<L>>] {
        &self.shards
    }

    /// The shard of a key. Keys that share a slot share a shard.
    #[inline]
    pub(super) fn index(&self, id: Id) -> usize {
        id.fingerprint() as usize & (self.shards.len() - 1)
    }

    pub(super) fn lock(&self, id: Id) -> MutexGuard<'_, Shard<L>> {
        self.shards[self.index(id)].lock()
    }

    /// What a key's limiter is found by.
    pub(super) fn key(&self, id: Id) -> u64 {
        self.buckets.map_or(id.hash, |buckets| id.neighbourhood(buckets))
    }

    /// The limiter of a key that has one.
    pub(super) fn get(&self, id: Id) -> Option<L> {
        self.lock(id).limiters.get(&self.key(id)).map(|entry| entry.limiter.clone())
    }
}

impl<L: KeyLimiter> Store for Map<L> {
    type Grant = L::Permit;

    fn take(&self, id: Id, tier: Tier, units: u64, _keep: bool) -> Taken<L::Permit> {
        let limiter = {
            let mut shard = self.lock(id);
            let Shard { plans, limiters, .. } = &mut *shard;
            let plan = plans.of(id.hash, tier).map(|(plan, _)| plan);
            match limiters.get(&self.key(id)) {
                Some(entry) if Some(entry.plan) == plan => entry.limiter.clone(),
                _ => return Taken::Elsewhere,
            }
        };
        match limiter.take(units) {
            Ok(permit) => Taken::Granted(permit),
            Err(denied) => Taken::Denied(denied),
        }
    }

    fn peek(&self, id: Id, units: u64) -> Option<Result<(), Denied>> {
        self.get(id).map(|limiter| limiter.peek(units))
    }

    fn snapshot(&self, id: Id) -> Option<Snapshot> {
        self.get(id).map(|limiter| limiter.snapshot())
    }

    fn status(&self, id: Id, visit: &mut dyn FnMut(&LimitStatus)) -> bool {
        self.get(id).map(|limiter| limiter.status(visit)).is_some()
    }

    fn charge(&self, id: Id, units: u64) -> bool {
        self.get(id).map(|limiter| limiter.charge(units)).is_some()
    }

    fn give_back(&self, id: Id, slot: SlotGrant, grant: Grant, units: u64) -> bool {
        let known = {
            let mut shard = self.lock(id);
            shard.limiters.get(&self.key(id)).map(|entry| (entry.limiter.clone(), entry.revision))
        };
        let Some((limiter, revision)) = known else { return false };
        if revision == slot.revision() {
            limiter.give_back(grant, units);
        }
        true
    }
}
