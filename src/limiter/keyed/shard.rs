//! A part of the keys, under one lock: what a look at a slot cannot do.

use std::sync::Arc;

use super::flat::{Flat, Id, Look, Place, Seat};
use super::store::{ByHash, Room};
use super::tiers::{Plan, Tier, Tiers};
use super::{Later, Way};
use crate::algorithm::{Algorithm, When};
use crate::clock::Clock;
use crate::core::fast_path::{Flattened, Sealed};
use crate::limiter::rate::Template;
use crate::limiter::{RateLimiter, Stored};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::types::{Denied, Reason};
use crate::units::{Name, Timestamp};

/// How many states in the map a newcomer looks at to find idle ones, once half of the room is taken, and how many at the
/// cap: its own shard's, and in each of a few others.
const LOOKS: usize = 2;
const LOOKS_AT_CAP: usize = 64;
const LOOKS_ELSEWHERE: usize = 8;
const SHARDS_LOOKED_AT: usize = 8;
/// How many buckets of slots, at the cap: idle ones that nobody needs the room of are not in the way.
const LINES_AT_CAP: usize = 16;

/// What the shards of one limit share.
pub(super) struct Common<A: Stored, C: Clock> {
    pub(super) flat: Option<Flat>,
    pub(super) room: Room,
    pub(super) overflow: Option<RateLimiter<A, C>>,
    pub(super) clock: C,
    pub(super) name: Option<Name>,
    /// How many changes of plans there have been.
    pub(super) changes: AtomicU64,
    pub(super) shards: Box<[Mutex<Kept<A, C>>]>,
}

/// A part of the keys: a handle of its own, so that permits of different keys do not count on one line of memory.
pub(super) struct Shard<A: Stored, C: Clock> {
    pub(super) common: Arc<Common<A, C>>,
    pub(super) index: usize,
}

pub(super) struct Kept<A: Stored, C: Clock> {
    pub(super) template: Template<A, C>,
    pub(super) tiers: Tiers<A>,
    pub(super) store: ByHash<KeyState<A, C>>,
}

/// What is kept for a key that has a limiter.
pub(super) struct KeyState<A: Stored, C: Clock> {
    pub(super) limiter: RateLimiter<A, C>,
    pub(super) plan: Plan,
    /// The version of the quota when it was made: what slots granted before is not given back to it.
    pub(super) version: u32,
    mark: Mark,
}

/// How looks at slots are told that the state is in the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    At(Seat),
    /// There is none, and no slot that would hide it.
    None,
}

/// What a slot granted, under which version of the quota, and when.
pub(super) type Granted = (Seat, u32, Timestamp);

/// What a key was granted.
pub(super) enum Taken<A: Stored, C: Clock> {
    /// From its slot. `None`: nothing was asked for, and there is no slot.
    Slot(Option<Granted>),
    /// Its limiter is to be asked.
    Way(Way<A, C>),
}

type Answer<A, C> = Result<Taken<A, C>, Denied>;

/// What is wanted of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want {
    /// So many units; with a pin, for a permit.
    Units { units: u64, pin: bool },
    /// Its limiter.
    Limiter,
}

impl<A: Stored, C: Clock> Common<A, C> {
    /// The name of a key in the map.
    pub(super) fn name(&self, id: Id) -> u64 {
        self.flat.as_ref().map_or(id.hash, |flat| flat.name(id))
    }

    pub(super) fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the slot of a key grants; `None` if the lock must tell.
    // Always inlined, so that a refusal is made where it is wanted.
    #[inline(always)]
    pub(super) fn take(&self, id: Id, tier: Tier, units: u64, pin: bool) -> Result<Option<Granted>, Denied> {
        let Some(flat) = self.flat.as_ref().filter(|_| tier == Tier::DEFAULT) else { return Ok(None) };
        match flat.look(id, &self.clock, units, pin) {
            Look::Go(seat, version, at) => Ok(Some((seat, version, at))),
            Look::Absent | Look::Away => Ok(None),
            refusal => Err(self.denied(refusal)),
        }
    }

    /// The refusal that a look says.
    #[inline]
    fn denied(&self, look: Look) -> Denied {
        let name = self.name.clone();
        match look {
            Look::For(wait_ns) => Denied::exhausted(Some(wait_ns), name),
            Look::Never => Denied::new(Reason::ExceedsCapacity).by(name),
            _ => Denied::new(Reason::Exhausted).by(name),
        }
    }

    fn is_idle(&self, state: &KeyState<A, C>) -> bool {
        let is_pinned = match (state.mark, &self.flat) {
            (Mark::At(seat), Some(flat)) => flat.is_pinned(seat),
            _ => false,
        };
        !is_pinned && state.limiter.is_fresh()
    }

    /// Its mark goes, and its room is free.
    fn drop_state(&self, state: &KeyState<A, C>) {
        if let (Some(flat), Mark::At(seat)) = (&self.flat, state.mark) {
            flat.unmark(seat);
        }
        self.room.give_back(1);
        self.room.count_evicted(1);
    }

    fn sweep(&self, kept: &mut Kept<A, C>, looks: usize) {
        kept.store.sweep(looks, |state| self.is_idle(state), |state| self.drop_state(&state));
    }

    fn sweep_slots(&self, lines: usize) {
        if let Some(flat) = &self.flat {
            let dropped = flat.sweep(lines, self.clock.now().as_ns());
            self.room.give_back(dropped);
            self.room.count_evicted(dropped);
        }
    }

    /// Room for a newcomer, with what can be dropped for it.
    fn make_room(&self, kept: &mut Kept<A, C>) -> bool {
        if self.room.is_half_full() {
            self.sweep(kept, LOOKS);
        }
        if self.room.take() {
            return true;
        }
        self.sweep(kept, LOOKS_AT_CAP);
        self.sweep_slots(LINES_AT_CAP);
        if self.room.take() {
            return true;
        }
        // Whoever holds another shard may be looking at ours: no waiting.
        let start = self.room.census().refused as usize;
        let count = self.shards.len();
        for other in (0..SHARDS_LOOKED_AT.min(count)).map(|n| &self.shards[(start + n) % count]) {
            if let Some(mut other) = other.try_lock() {
                self.sweep(&mut other, LOOKS_ELSEWHERE);
            }
        }
        self.room.take()
    }
}

impl<A: Stored, C: Clock> Shard<A, C> {
    pub(super) fn kept(&self) -> &Mutex<Kept<A, C>> {
        &self.common.shards[self.index]
    }

    /// What a key is granted by its slot, or the way it is to go.
    pub(super) fn enter(&self, id: Id, tier: Tier, want: Want) -> Answer<A, C> {
        let mut kept = self.kept().lock();
        let (answer, later) = self.enter_locked(&mut kept, id, tier, want);
        drop(kept);
        if let Some(later) = later {
            later.make();
        }
        answer
    }

    /// The same, and the change that brings its state under the plan it has now: made outside of the lock, because of
    /// what it wakes.
    fn enter_locked(
        &self,
        kept: &mut Kept<A, C>,
        id: Id,
        tier: Tier,
        want: Want,
    ) -> (Answer<A, C>, Option<Later<A, C>>) {
        let common = &*self.common;
        let Some((plan, _)) = kept.tiers.plan(id.hash, tier, &kept.template.algorithm) else {
            return (Ok(Taken::Way(Way::Exempt)), None);
        };
        let in_slot = plan == Plan::DEFAULT && matches!(want, Want::Units { .. });
        if let Some(state) = kept.store.get(&self.common.name(id)) {
            if in_slot && self.bring_back(id, state, want) {
                kept.store.remove(&self.common.name(id));
            } else {
                return self.limited(kept, id, tier);
            }
        }
        if let (Some(flat), true) = (&common.flat, in_slot) {
            if let Some(answer) = self.slot(flat, kept, id, want) {
                return (answer, None);
            }
        }
        match self.make_state(kept, id, tier) {
            true => self.limited(kept, id, tier),
            false => (self.refused(), None),
        }
    }

    fn refused(&self) -> Answer<A, C> {
        self.common.room.count_refused();
        let denied = || Denied::new(Reason::TooManyKeys).by(self.common.name.clone());
        self.common.overflow.clone().map(|overflow| Taken::Way(Way::Shared(overflow))).ok_or_else(denied)
    }

    /// The limiter of a key that has one, and what brings it under the plan it has now.
    pub(super) fn limited(
        &self,
        kept: &mut Kept<A, C>,
        id: Id,
        tier: Tier,
    ) -> (Answer<A, C>, Option<Later<A, C>>) {
        let Kept { template, tiers, store } = kept;
        let planned = tiers.plan(id.hash, tier, &template.algorithm);
        let (Some((plan, algorithm)), Some(state)) = (planned, store.get(&self.common.name(id))) else {
            unreachable!("it has a plan and a limiter")
        };
        let limiter = state.limiter.clone();
        let later = (state.plan != plan).then(|| {
            state.plan = plan;
            Later::of_one(limiter.clone(), self.common.next_change(), algorithm.clone())
        });
        (Ok(Taken::Way(Way::Limited(limiter))), later)
    }

    /// What the slot of a key says; a newcomer is given one. `None`: its state must be in the map.
    fn slot(&self, flat: &Flat, kept: &mut Kept<A, C>, id: Id, want: Want) -> Option<Answer<A, C>> {
        let Want::Units { units, pin } = want else { return None };
        loop {
            match flat.look(id, &self.common.clock, units, pin) {
                Look::Go(seat, version, at) => return Some(Ok(Taken::Slot(Some((seat, version, at))))),
                Look::Absent => {}
                Look::Away => return None,
                refusal => return Some(Err(self.common.denied(refusal))),
            }
            let now = self.common.clock.now();
            let start = match flat.start(now.as_ns(), units) {
                Ok(_) if units == 0 && !pin => return Some(Ok(Taken::Slot(None))),
                Ok(start) => start,
                Err(refusal) => return Some(Err(self.common.denied(refusal))),
            };
            let mut place = flat.place(id, now.as_ns(), self.common.room.is_full());
            if matches!(place, Place::Free(_)) && !self.common.make_room(kept) {
                return Some(self.refused());
            }
            if pin && !place.line().is_some_and(|line| flat.pin(line)) {
                self.put_back(&mut place);
                return None;
            }
            match flat.seat(id, place, start, now.as_ns()) {
                Some(seat) => {
                    if matches!(place, Place::Expired(..)) {
                        self.common.room.count_evicted(1);
                    }
                    return Some(Ok(Taken::Slot(Some((seat, start.version, now)))));
                }
                None if place == Place::None => return None,
                None => {
                    if let (true, Some(line)) = (pin, place.line()) {
                        flat.unpin(line);
                    }
                    self.put_back(&mut place);
                }
            }
        }
    }

    /// Gives back the room of a place that is not taken.
    fn put_back(&self, place: &mut Place) {
        if matches!(place, Place::Free(_)) {
            self.common.room.give_back(1);
        }
        *place = Place::None;
    }

    /// Makes a limiter for a key that has none: of what its slot says, or a new one. Whether there was room.
    fn make_state(&self, kept: &mut Kept<A, C>, id: Id, tier: Tier) -> bool {
        if self.has_state(kept, id) {
            return true;
        }
        let Some((mark, version)) = self.new_mark(kept, id) else { return false };
        let Kept { template, tiers, store } = kept;
        if let Some((plan, algorithm)) = tiers.plan(id.hash, tier, &template.algorithm) {
            let limiter = RateLimiter::from_template(&template.with(algorithm.clone()));
            store.insert(self.common.name(id), KeyState { limiter, plan, version, mark });
        }
        true
    }

    /// A mark for a newcomer to the map, if there is room.
    fn new_mark(&self, kept: &mut Kept<A, C>, id: Id) -> Option<(Mark, u32)> {
        let common = &*self.common;
        let Some(flat) = &common.flat else {
            return common.make_room(kept).then_some((Mark::None, 0));
        };
        let version = flat.version();
        loop {
            let place = flat.place(id, common.clock.now().as_ns(), common.room.is_full());
            let expired = matches!(place, Place::Expired(..));
            if place == Place::None {
                break;
            }
            if !expired && !common.make_room(kept) {
                return None;
            }
            if let Some(seat) = flat.mark(id, place) {
                common.room.count_evicted(usize::from(expired));
                return Some((Mark::At(seat), version));
            }
            common.room.give_back(usize::from(!expired));
        }
        common.make_room(kept).then_some((Mark::None, version))
    }

    /// Takes the state of a key out of its slot, into a limiter.
    pub(super) fn take_away(&self, kept: &Kept<A, C>, id: Id) -> Option<KeyState<A, C>> {
        let flat = self.common.flat.as_ref()?;
        loop {
            let now = self.common.clock.now();
            let live = flat.live(id, now.as_ns())?;
            let (bucket, backlog) = flat.backlog(&live);
            let Flattened { algorithm, pack, .. } = A::flat(Sealed(()), &kept.template.algorithm)?;
            if flat.take_away(&live) {
                let template = kept.template.with(algorithm(bucket));
                let limiter = RateLimiter::resumed(&template, pack(bucket.resume(now, backlog)), now);
                let (version, mark) = (live.version, Mark::At(live.seat));
                return Some(KeyState { limiter, plan: Plan::DEFAULT, version, mark });
            }
        }
    }

    /// Puts the state of a limiter back into a slot, if that is all there is to it and what is wanted would be granted.
    fn bring_back(&self, id: Id, state: &KeyState<A, C>, want: Want) -> bool {
        let (Some(flat), Want::Units { units, .. }) = (&self.common.flat, want) else { return false };
        if state.plan != Plan::DEFAULT {
            return false;
        }
        let of = |algorithm: &A| A::flat(Sealed(()), algorithm);
        let is_plain = |algorithm: &A, state: &A::State, now: Timestamp, reset: Option<Timestamp>| {
            of(algorithm).is_some_and(|Flattened { bucket, unpack, .. }| {
                bucket.is_plain(&unpack(state), now) && reset.is_none_or(|at| bucket.fills_in(now.since(at)))
            })
        };
        let Some((algorithm, alone, now)) = state.limiter.state_alone(is_plain) else { return false };
        let Some(Flattened { bucket, unpack, .. }) = of(&algorithm) else { return false };
        let backlog = bucket.backlog(&unpack(&alone), now);
        let mut after = bucket.resume(now, backlog);
        if bucket.ready_at(&mut after, now, units) != When::At(now) {
            return false;
        }
        let place = match state.mark {
            Mark::At(seat) => Place::of_mark(id, seat),
            Mark::None => flat.place(id, now.as_ns(), false),
        };
        let is_back = flat.bring_back(id, place, &bucket, backlog, now.as_ns());
        if is_back && state.mark == Mark::None && matches!(place, Place::Expired(..)) {
            self.common.room.give_back(1);
            self.common.room.count_evicted(1);
        }
        is_back
    }
}
