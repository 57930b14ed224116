//! All keys of one limit: a table if the quota fits slots, a map, and what moves between them.
//!
//! A key's state moves once, from its slot into the map: when the key first waits, owes, gets a quota of its own or of a
//! tier, or is reset; when a handle of it is taken; or when the default quota becomes one that slots cannot say. It
//! leaves the map by being dropped, once it equals a fresh one; its mark in the table goes with it.

use std::sync::Arc;

use super::change::PendingChange;
use super::map::{Entry, Map, Shard};
use super::permit::SlotPermit;
use super::room::Room;
use super::store::{KeyLimiter, Store, Taken};
use super::table::{Id, Place, SlotGrant, Table, Vacancy};
use super::tiers::{Plan, Plans, Tier};
use crate::clock::Clock;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::types::{Denied, LimitStatus, Reason, Snapshot};
use crate::units::{Name, Timestamp};

pub(super) struct Keys<L: KeyLimiter> {
    pub(super) template: L::Template,
    pub(super) table: Option<Table<L::Clock>>,
    pub(super) map: Map<L>,
    pub(super) room: Room,
    overflow: Option<L>,
    /// The number of changes of quotas so far.
    changes: AtomicU64,
    /// Held while a change goes through the shards: all of them see the same changes in the same order.
    pub(super) changing: Mutex<()>,
}

/// The keys as permits and futures hold on to them: one for each shard, so that permits of different keys do not count
/// on one cache line.
pub(super) struct Handle<L: KeyLimiter> {
    pub(super) keys: Arc<Keys<L>>,
}

/// What decides about a key.
pub(super) enum Route<L> {
    /// Nothing: the key is exempt, or nothing was asked for.
    Free,
    /// Its slot has granted what was asked for.
    Slot(SlotGrant),
    /// Its limiter.
    Own(L),
    /// The limiter that all keys without room share.
    Overflow(L),
}

impl<L> Route<L> {
    /// The limiter to ask; `None`: there is nothing to ask.
    pub(super) fn limiter(self) -> Option<L> {
        match self {
            Self::Own(limiter) | Self::Overflow(limiter) => Some(limiter),
            Self::Free | Self::Slot(_) => None,
        }
    }
}

/// What was granted about a key.
pub(super) enum Granted<L: KeyLimiter> {
    Slot(SlotPermit<L>),
    Limiter(L::Permit),
    /// Of an exempt key: there is nothing to settle.
    Free,
}

type Routed<L> = Result<Route<L>, Denied>;

impl<L: KeyLimiter> Keys<L> {
    pub(super) fn new(
        template: L::Template,
        plans: &Plans<L::Quota>,
        keys: usize,
        overflow: Option<L>,
    ) -> Self {
        let bucket = L::bucket(&template, &plans.default);
        let (clock, name) = (L::clock(&template).clone(), L::name(&template).cloned());
        let table = bucket.and_then(|bucket| Table::new(&bucket, keys, clock, name));
        let map = Map::new(keys, table.as_ref().map(Table::buckets_count), plans);
        let (changes, changing) = (AtomicU64::new(0), Mutex::new(()));
        Self { template, table, map, room: Room::new(keys), overflow, changes, changing }
    }

    pub(super) fn index(&self, id: Id) -> usize {
        self.map.index(id)
    }

    pub(super) fn clock(&self) -> &L::Clock {
        L::clock(&self.template)
    }

    pub(super) fn name(&self) -> Option<&Name> {
        L::name(&self.template)
    }

    pub(super) fn next_number(&self) -> u64 {
        // Relaxed: numbers are compared under the locks of limiters.
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Decides about a key, and holds nothing.
    #[inline]
    pub(super) fn check(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        if let Some(table) = &self.table {
            match table.take(id, tier, units, false) {
                Taken::Granted(_) => return Ok(()),
                Taken::Denied(denied) => return Err(denied),
                Taken::Elsewhere => {}
            }
        }
        self.check_locked(id, tier, units)
    }

    #[cold]
    #[inline(never)]
    fn check_locked(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        if self.table.is_none() {
            match self.map.take(id, tier, units, false) {
                Taken::Granted(_) => return Ok(()),
                Taken::Denied(denied) => return Err(denied),
                Taken::Elsewhere => {}
            }
        }
        match self.route(id, tier, Some((units, false)))?.limiter() {
            Some(limiter) => limiter.take(units).map(drop),
            None => Ok(()),
        }
    }

    /// Finds what decides about a key, and makes it if the key is new. With `ask`, units and whether a permit is wanted,
    /// it may be a slot that grants them; without, it is a limiter.
    pub(super) fn route(&self, id: Id, tier: Tier, ask: Option<(u64, bool)>) -> Routed<L> {
        let (route, pending) = {
            let mut shard = self.map.lock(id);
            self.route_locked(&mut shard, id, tier, ask)
        };
        if let Some(pending) = pending {
            pending.make();
        }
        route
    }

    fn route_locked(
        &self,
        shard: &mut Shard<L>,
        id: Id,
        tier: Tier,
        ask: Option<(u64, bool)>,
    ) -> (Routed<L>, Option<PendingChange<L>>) {
        let Some((plan, _)) = shard.plans.of(id.hash, tier) else { return (Ok(Route::Free), None) };
        let ask = ask.filter(|_| shard.uses_table && plan == Plan::DEFAULT).zip(self.table.as_ref());
        if let Some(entry) = shard.limiters.get(&self.map.key(id)) {
            if ask.is_none() || !self.is_fresh(entry) {
                return self.own(shard, id, tier);
            }
            // It starts again as a new key, in the table.
            let entry = shard.limiters.remove(&self.map.key(id));
            entry.iter().for_each(|entry| self.dropped(entry));
        }
        if let Some(((units, keep), table)) = ask {
            // Somebody may have made a slot before the lock was taken.
            match table.take(id, tier, units, keep) {
                Taken::Granted(grant) => return (Ok(Route::Slot(grant)), None),
                Taken::Denied(denied) => return (Err(denied), None),
                Taken::Elsewhere => {}
            }
        }
        if !self.move_out(shard, id) {
            let now = self.clock().now();
            if let Some(((units, keep), table)) = ask {
                match table.peek_new(now, units) {
                    Ok(()) if units == 0 && !keep => return (Ok(Route::Free), None),
                    Ok(()) => {}
                    Err(denied) => return (Err(denied), None),
                }
            }
            let Some(mark) = self.new_mark(shard, id, now) else {
                self.room.count_refused();
                let denied = || Denied::new(Reason::TooManyKeys).by(self.name().cloned());
                return (self.overflow.clone().map(Route::Overflow).ok_or_else(denied), None);
            };
            if let Some((((units, keep), table), place)) = ask.zip(mark) {
                if let Some(grant) = table.insert(id, place, now, units, keep) {
                    return (Ok(Route::Slot(grant)), None);
                }
            }
            self.new_limiter(shard, id, tier, mark);
        }
        self.own(shard, id, tier)
    }

    /// The limiter of a key that has one, and the change that brings it under the quota that the key has now.
    pub(super) fn own(
        &self,
        shard: &mut Shard<L>,
        id: Id,
        tier: Tier,
    ) -> (Routed<L>, Option<PendingChange<L>>) {
        let Shard { plans, limiters, .. } = shard;
        let (Some((plan, quota)), Some(entry)) = (plans.of(id.hash, tier), limiters.get(&self.map.key(id)))
        else {
            return (Ok(Route::Free), None);
        };
        let limiter = entry.limiter.clone();
        let pending = (entry.plan != plan).then(|| {
            entry.plan = plan;
            PendingChange { limiters: vec![(limiter.clone(), self.next_number())], quota: quota.clone() }
        });
        (Ok(Route::Own(limiter)), pending)
    }

    /// Takes room for a new key and, if there is a table, marks a slot for it. `None`: there is no room. `Some(None)`: there
    /// is room, and no slot that the key could have.
    fn new_mark(&self, shard: &mut Shard<L>, id: Id, now: Timestamp) -> Option<Option<Place>> {
        if let Some(table) = &self.table {
            while let Some(vacancy) = table.vacancy(id, now.as_ns(), self.room.is_full()) {
                let is_free = matches!(vacancy, Vacancy::Free(_));
                if is_free && !self.make_room(shard) {
                    return None;
                }
                if let Some(mark) = table.mark(id, vacancy) {
                    self.room.count_evicted(usize::from(!is_free));
                    return Some(Some(mark));
                }
                self.room.give_back(usize::from(is_free));
            }
        }
        self.make_room(shard).then_some(None)
    }

    fn new_limiter(&self, shard: &mut Shard<L>, id: Id, tier: Tier, mark: Option<Place>) {
        let revision = self.table.as_ref().map_or(0, Table::revision);
        let Shard { plans, limiters, .. } = shard;
        if let Some((plan, quota)) = plans.of(id.hash, tier) {
            let limiter = L::new(&self.template, quota);
            limiters.insert(self.map.key(id), Entry { limiter, plan, revision, mark });
        }
    }

    /// Moves the state of a key from its slot into the map. `false`: it has no slot.
    pub(super) fn move_out(&self, shard: &mut Shard<L>, id: Id) -> bool {
        let Some(spent) = self.table.as_ref().and_then(|table| table.move_out(id)) else { return false };
        let limiter = L::resume(&self.template, &shard.plans.default, &spent);
        if !shard.uses_table {
            // The slot is of the quota before. Nobody waits yet, so nobody is woken under the lock.
            limiter.change(self.next_number(), shard.plans.default.clone());
        }
        let entry = Entry { limiter, plan: Plan::DEFAULT, revision: spent.revision, mark: Some(spent.place) };
        shard.limiters.insert(self.map.key(id), entry);
        true
    }

    /// The limiter of a key that has a state, which is then in the map.
    pub(super) fn existing(&self, shard: &mut Shard<L>, id: Id) -> Option<L> {
        if shard.limiters.get(&self.map.key(id)).is_none() {
            self.move_out(shard, id);
        }
        shard.limiters.get(&self.map.key(id)).map(|entry| entry.limiter.clone())
    }

    pub(super) fn limiter_of_known(&self, id: Id) -> Option<L> {
        self.existing(&mut self.map.lock(id), id)
    }
}

/// What is asked about a key, wherever its state is. First the table and then the map: a state moves in no other direction.
impl<L: KeyLimiter> Keys<L> {
    pub(super) fn snapshot(&self, id: Id) -> Option<Snapshot> {
        self.table.as_ref().and_then(|table| table.snapshot(id)).or_else(|| self.map.snapshot(id))
    }

    /// A key without a state stands as a new one, and an exempt one has no status.
    pub(super) fn status(&self, id: Id, tier: Tier, visit: &mut dyn FnMut(&LimitStatus)) {
        let Some(quota) = self.quota_of(id, tier) else { return };
        if self.status_of_known(id, visit) {
            return;
        }
        match &self.overflow {
            Some(overflow) if self.room.is_full() => overflow.status(visit),
            _ if self.room.is_full() => {}
            _ => L::new(&self.template, &quota).status(visit),
        }
    }

    pub(super) fn status_of_known(&self, id: Id, visit: &mut dyn FnMut(&LimitStatus)) -> bool {
        self.table.as_ref().is_some_and(|table| table.status(id, visit)) || self.map.status(id, visit)
    }

    /// Tells if `units` could be granted now. Takes nothing, and makes no key.
    pub(super) fn peek(&self, id: Id, tier: Tier, units: u64) -> Result<(), Denied> {
        let Some(quota) = self.quota_of(id, tier) else { return Ok(()) };
        let known = self.table.as_ref().and_then(|table| table.peek(id, units));
        let known = known.or_else(|| self.map.peek(id, units));
        known.unwrap_or_else(|| L::new(&self.template, &quota).peek(units))
    }

    fn quota_of(&self, id: Id, tier: Tier) -> Option<L::Quota> {
        self.map.lock(id).plans.of(id.hash, tier).map(|(_, quota)| quota.clone())
    }

    pub(super) fn quota(&self) -> L::Quota {
        self.map.shards()[0].lock().plans.default.clone()
    }
}

impl<L: KeyLimiter> Handle<L> {
    pub(super) fn of_shards(keys: &Arc<Keys<L>>) -> Box<[Arc<Self>]> {
        keys.map.shards().iter().map(|_| Arc::new(Self { keys: Arc::clone(keys) })).collect()
    }

    /// Takes `units` of a key from its slot, or finds its limiter.
    #[inline]
    pub(super) fn route(&self, id: Id, tier: Tier, units: u64) -> Result<Route<L>, Denied> {
        if let Some(table) = &self.keys.table {
            match table.take(id, tier, units, true) {
                Taken::Granted(grant) => return Ok(Route::Slot(grant)),
                Taken::Denied(denied) => return Err(denied),
                Taken::Elsewhere => {}
            }
        }
        self.keys.route(id, tier, Some((units, true)))
    }

    /// Takes `units` of a key if they are left.
    #[inline]
    pub(super) fn take(self: &Arc<Self>, id: Id, tier: Tier, units: u64) -> Result<Granted<L>, Denied> {
        if self.keys.table.is_none() {
            match self.keys.map.take(id, tier, units, true) {
                Taken::Granted(permit) => return Ok(Granted::Limiter(permit)),
                Taken::Denied(denied) => return Err(denied),
                Taken::Elsewhere => {}
            }
        }
        Ok(match self.route(id, tier, units)? {
            Route::Slot(slot) => Granted::Slot(SlotPermit::new(Arc::clone(self), id, slot, units)),
            Route::Free => Granted::Free,
            Route::Own(limiter) | Route::Overflow(limiter) => Granted::Limiter(limiter.take(units)?),
        })
    }
}
