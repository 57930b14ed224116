//! What an owner and a settlement change: quotas, and the states of single keys.

use super::keys::{Keys, Route};
use super::store::{KeyLimiter, Store};
use super::table::{Id, SlotGrant};
use super::tiers::{Plan, Tier};
use crate::algorithm::Grant;
use crate::types::{Denied, Reason};

/// A change that has been decided under a lock and is made outside of it: it wakes those who wait.
#[must_use]
pub(crate) struct PendingChange<L: KeyLimiter> {
    /// Each with the number of the change.
    pub(super) limiters: Vec<(L, u64)>,
    pub(super) quota: L::Quota,
}

impl<L: KeyLimiter> PendingChange<L> {
    pub(crate) fn make(self) {
        let Self { limiters, quota } = self;
        limiters.iter().for_each(|(limiter, number)| limiter.change(*number, quota.clone()));
    }
}

impl<L: KeyLimiter> Keys<L> {
    /// Takes `units` of a key whether they are left or not.
    pub(super) fn charge(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        if tier == Tier::DEFAULT && self.table.as_ref().is_some_and(|table| table.charge(id, units)) {
            return Ok(());
        }
        match self.route(id, tier, None)? {
            Route::Own(limiter) => limiter.charge(units),
            // What the key shares is not its own to be charged.
            Route::Overflow(_) => return Err(Denied::new(Reason::TooManyKeys).by(self.name().cloned())),
            Route::Free | Route::Slot(_) => {}
        }
        Ok(())
    }

    /// Replaces what a slot granted by what it cost.
    pub(super) fn settle(&self, id: Id, slot: SlotGrant, grant: Grant, actual: u64) {
        let Some(table) = &self.table else { return };
        match grant.units.checked_sub(actual) {
            Some(0) => {}
            Some(back) => {
                if !table.give_back(id, slot, grant, back) {
                    self.map.give_back(id, slot, grant, back);
                }
            }
            None => {
                let more = actual - grant.units;
                if !table.charge(id, more) {
                    // It owes, or its state is in the map already.
                    self.limiter_of_known(id).inspect(|limiter| limiter.charge(more));
                }
            }
        }
    }

    pub(super) fn unpin(&self, slot: SlotGrant) {
        if let Some(table) = &self.table {
            table.unpin(slot.place());
        }
    }

    /// Changes the quota of a tier. The limiters of its keys are still to be changed.
    pub(super) fn change_tier(&self, tier: Tier, quota: &L::Quota) -> PendingChange<L> {
        let _changing = self.changing.lock();
        let mut limiters = Vec::new();
        let mut set = |uses_table: Option<bool>| {
            for shard in self.map.shards() {
                let mut shard = shard.lock();
                shard.plans.set_tier(tier, quota.clone());
                shard.uses_table = uses_table.unwrap_or(shard.uses_table);
                let number = self.next_number();
                let of_tier = shard.limiters.values().filter(|entry| entry.plan == Plan::Tier(tier));
                limiters.extend(of_tier.map(|entry| (entry.limiter.clone(), number)));
            }
        };
        match self.table.as_ref().filter(|_| tier == Tier::DEFAULT) {
            None => set(None),
            Some(table) => {
                let fits = match L::bucket(&self.template, quota) {
                    Some(bucket) => table.change(&bucket, |fits| set(Some(fits))),
                    None => {
                        set(Some(false));
                        false
                    }
                };
                if !fits {
                    self.sweep_slots(usize::MAX);
                    // No slots are made from here on, and none is left after the walk.
                    table.live_ids(|id| {
                        self.move_out(&mut self.map.lock(id), id);
                    });
                }
            }
        }
        PendingChange { limiters, quota: quota.clone() }
    }

    /// Gives a key a quota of its own. Its limiter is still to be changed.
    pub(super) fn change_of(&self, id: Id, quota: L::Quota) -> PendingChange<L> {
        let mut shard = self.map.lock(id);
        let number = self.next_number();
        let plan = Plan::Own(number);
        shard.plans.set_own(id.hash, plan, Some(quota.clone()));
        let limiter = self.existing(&mut shard, id);
        if let Some(entry) = shard.limiters.get(&self.map.key(id)) {
            entry.plan = plan;
        }
        PendingChange { limiters: limiter.map(|limiter| (limiter, number)).into_iter().collect(), quota }
    }

    pub(super) fn exempt(&self, id: Id) {
        let mut shard = self.map.lock(id);
        shard.plans.set_own(id.hash, Plan::Tier(Tier::EXEMPT), None);
        // In its slot it would still be limited.
        self.existing(&mut shard, id);
    }

    pub(super) fn forget_own(&self, id: Id, tier: Tier) -> Option<PendingChange<L>> {
        let mut shard = self.map.lock(id);
        shard.plans.forget_own(id.hash);
        self.own(&mut shard, id, tier).1
    }
}
