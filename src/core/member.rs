//! One limit as a member of a composition, whatever kind of limit it is.

use std::any::Any;
use std::cmp::Ordering;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::joint::{Group, Joint, Work};
use super::limit::{Limit, Locked};
use super::options::Order;
use super::queue::Rank;
use super::state::{Later, LimitState, Load};
use super::wake::in_drop;
use crate::clock::Clock;
use crate::sync::Mutex;
use crate::types::{Denied, Reason};
use crate::units::Timestamp;

/// The limits that an ask waits for, in the order of the composition, each once: filled by [`Part::enlist`].
///
/// A wrapper hands it on to the parts within.
///
/// [`Part::enlist`]: crate::Part::enlist
#[derive(Default)]
pub struct Members {
    all: Vec<Arc<dyn Member>>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("len", &self.all.len()).finish()
    }
}

impl Members {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Member>> {
        self.all.iter()
    }

    pub(super) fn first(&self) -> &dyn Member {
        &*self.all[0]
    }

    pub(super) fn get(&self, index: usize) -> &dyn Member {
        &*self.all[index]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a limit and what is asked of it. A limit that is there already is asked for both.
    pub(crate) fn add<S: LimitState, C: Clock>(
        &mut self,
        limit: &Arc<Limit<S, C>>,
        load: S::Load,
    ) -> Ticket<S, C> {
        let id = Arc::as_ptr(limit).addr();
        let known = self.all.iter().find(|member| member.id() == id);
        let known = known.and_then(|member| Arc::clone(member).into_any().downcast().ok());
        let ticketed: Arc<Ticketed<S, C>> = known.unwrap_or_else(|| {
            let parts = Mutex::new(Parts { total: None, each: Vec::new() });
            let ticketed = Arc::new(Ticketed { limit: Arc::clone(limit), parts });
            self.all.push(Arc::clone(&ticketed) as Arc<dyn Member>);
            ticketed
        });
        let part = {
            let mut parts = ticketed.parts.lock();
            parts.total = Some(parts.total.map_or(load, |total| total.plus(load)));
            parts.each.push((load, None));
            parts.each.len() - 1
        };
        Ticket { ticketed, part }
    }

    /// The members in the order in which they are locked.
    pub(super) fn lock_order(&self) -> impl Iterator<Item = usize> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|index| self.all[*index].id());
        order.into_iter()
    }

    /// The member that keeps the group: that of the lowest address.
    pub(super) fn home(&self) -> usize {
        self.lock_order().next().unwrap_or(0)
    }

    /// The addresses of the limits, in order: asks with the same ones are a group.
    pub(super) fn ids(&self) -> Box<[usize]> {
        self.lock_order().map(|index| self.all[index].id()).collect()
    }
}

/// A limit, what is asked of it, and what it granted.
pub(super) struct Ticketed<S: LimitState, C: Clock> {
    limit: Arc<Limit<S, C>>,
    parts: Mutex<Parts<S>>,
}

struct Parts<S: LimitState> {
    total: Option<S::Load>,
    /// More than one if the composition contains the limit more than once.
    each: Vec<(S::Load, Option<S::Grant>)>,
}

/// One part of a member: its grant is claimed by it.
pub(crate) struct Ticket<S: LimitState, C: Clock> {
    ticketed: Arc<Ticketed<S, C>>,
    part: usize,
}

impl<S: LimitState, C: Clock> Ticket<S, C> {
    /// The grant, once the whole ask is granted. `None` for a second call.
    pub(crate) fn claim(&self) -> Option<S::Grant> {
        self.ticketed.parts.lock().each[self.part].1.take()
    }
}

/// What was granted and not claimed goes back.
impl<S: LimitState, C: Clock> Drop for Ticket<S, C> {
    fn drop(&mut self) {
        let (load, grant) = {
            let mut parts = self.ticketed.parts.lock();
            let (load, grant) = &mut parts.each[self.part];
            (*load, grant.take())
        };
        if let Some(grant) = grant {
            in_drop(|| self.ticketed.limit.give_back(grant, load));
        }
    }
}

/// [`Ticketed`] of any limit.
pub(super) trait Member: Send + Sync {
    /// The address of the limit: it tells limits apart and orders their locks.
    fn id(&self) -> usize;
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    fn lock(&self) -> Box<dyn LockedMember + '_>;
    fn as_driven(&self) -> Arc<dyn Driven>;
    /// The time in which the longest wait of an ask ends, by this limit's clock.
    fn deadline(&self, longest: Duration) -> Option<Timestamp>;
    /// Makes a timer for the current runtime if one is needed. `true`: there was none.
    fn make_timer(&self, is_needed: bool) -> bool;
    /// The longest sleep of the thread with this rank, as far as this limit is concerned.
    fn sleep_for(&self, rank: Rank) -> Option<Duration>;
    /// Blocks the thread for at most so long.
    fn park(&self, longest: Option<Duration>);
}

/// A limit whose queue can be served.
pub(super) trait Driven: Send + Sync {
    fn serve(self: Arc<Self>, work: &mut Work);
}

/// The wait for one limit, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    For(Duration),
    /// Others must release something first.
    Release,
    Never,
}

impl Wait {
    pub(super) const fn known(&self) -> Option<Duration> {
        match self {
            Self::For(wait) => Some(*wait),
            Self::Release | Self::Never => None,
        }
    }

    const fn key(self) -> (u8, Duration) {
        match self {
            Self::For(wait) => (0, wait),
            Self::Release => (1, Duration::ZERO),
            Self::Never => (2, Duration::ZERO),
        }
    }
}

impl PartialOrd for Wait {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wait {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A member under its limit's lock.
pub(super) trait LockedMember {
    /// The wait behind the limit's queue, and behind those asks of the same group that do not stand in it.
    fn wait(&mut self, ahead: &mut dyn Iterator<Item = &Arc<Joint>>) -> Wait;
    /// The wait if nobody else waited.
    fn wait_alone(&mut self) -> Wait;
    /// The wait for what this limit alone decides; `None` if that depends on others.
    fn expected_wait(&mut self) -> Option<Duration>;
    fn now(&self) -> Timestamp;
    fn deny(&mut self, reason: Reason) -> Denied;
    /// The reason to deny the ask, if it can never be granted.
    fn refuses(&mut self) -> Option<Reason>;
    fn is_full(&self) -> bool;
    fn is_paused(&self) -> bool;
    /// Sees to a timer for the current runtime if one is needed. `false`: there are no timers here.
    fn make_timer(&mut self, is_needed: bool) -> bool;
    /// An ask of this rank could be granted now.
    fn could_grant(&mut self, rank: Rank) -> bool;
    /// A head that waits for other limits keeps those behind it waiting.
    fn can_be_kept(&self) -> bool;
    fn take(&mut self) -> bool;
    /// Undoes [`take`](Self::take) at the same instant.
    fn take_back(&mut self);
    fn stand(&mut self, rank: Rank, joint: &Arc<Joint>, awaited: bool);
    fn leave(&mut self, rank: Rank);
    fn group(&self, ids: &[usize]) -> Option<Arc<Group>>;
    fn add_group(&mut self, ids: &[usize], group: &Arc<Group>);
    fn remove_group(&mut self, ids: &[usize]);
    /// Counts the ask among those that wait for this limit, or no longer.
    fn count(&mut self, waits: bool, is_timed: bool);
    fn add_deadline(&mut self, deadline: Timestamp, rank: Rank, joint: &Arc<Joint>);
    fn remove_deadline(&mut self, deadline: Timestamp, rank: Rank);
    fn join_thread(&mut self, rank: Rank, waker: Waker);
    fn leave_thread(&mut self, rank: Rank);
}

impl<S: LimitState, C: Clock> Ticketed<S, C> {
    fn total(&self) -> S::Load {
        self.parts.lock().total.expect("a member is made with what is asked of it")
    }
}

impl<S: LimitState, C: Clock> Member for Ticketed<S, C> {
    fn id(&self) -> usize {
        Arc::as_ptr(&self.limit).addr()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn lock(&self) -> Box<dyn LockedMember + '_> {
        Box::new(LockedTicket { locked: self.limit.lock(), ticketed: self, total: self.total() })
    }

    fn as_driven(&self) -> Arc<dyn Driven> {
        Arc::clone(&self.limit) as Arc<dyn Driven>
    }

    fn deadline(&self, longest: Duration) -> Option<Timestamp> {
        self.limit.deadline(Some(longest))
    }

    fn make_timer(&self, is_needed: bool) -> bool {
        (S::TIMED || is_needed) && self.limit.lock().waiting().timers.make(self.limit.clock()) == Some(true)
    }

    fn sleep_for(&self, rank: Rank) -> Option<Duration> {
        let locked = self.limit.lock();
        locked.peek().sleep_until(rank).map(|until| until.since(locked.now))
    }

    fn park(&self, longest: Option<Duration>) {
        let clock = self.limit.clock();
        clock.park(longest.map(|longest| clock.now().after(longest)));
    }
}

struct LockedTicket<'a, S: LimitState, C: Clock> {
    locked: Locked<'a, S, C>,
    ticketed: &'a Ticketed<S, C>,
    total: S::Load,
}

impl<S: LimitState, C: Clock> LockedTicket<'_, S, C> {
    fn wait_of(&self, later: Later) -> Wait {
        match later {
            Later::Never => Wait::Never,
            Later::At(at) if !self.locked.peek().paused => Wait::For(at.since(self.locked.now)),
            Later::At(_) | Later::Release => Wait::Release,
        }
    }
}

impl<S: LimitState, C: Clock> LockedMember for LockedTicket<'_, S, C> {
    fn wait(&mut self, ahead: &mut dyn Iterator<Item = &Arc<Joint>>) -> Wait {
        let (now, id, total) = (self.locked.now, self.ticketed.id(), self.total);
        let waiting = self.locked.waiting();
        let load_of = |joint: &Arc<Joint>| {
            let member = joint.members().iter().find(|member| member.id() == id)?;
            member.as_any().downcast_ref::<Ticketed<S, C>>().map(Ticketed::total)
        };
        let loads: Vec<S::Load> =
            ahead.filter(|joint| waiting.waiters.get(joint.rank()).is_none()).filter_map(load_of).collect();
        let later = if loads.is_empty() {
            waiting.ready_behind(now, total)
        } else if let Some(mut plan) = waiting.plan_behind(now) {
            let state = waiting.peek_state();
            for load in loads {
                if let Later::At(at) = state.plan_ready(&mut plan, now, load) {
                    state.plan_take(&mut plan, at, load);
                }
            }
            state.plan_ready(&mut plan, now, total)
        } else {
            Later::Release
        };
        self.wait_of(later)
    }

    fn wait_alone(&mut self) -> Wait {
        let (now, total) = (self.locked.now, self.total);
        let later = self.locked.waiting().ready_alone(now, total);
        self.wait_of(later)
    }

    fn expected_wait(&mut self) -> Option<Duration> {
        match self.wait_alone() {
            Wait::For(wait) => Some(wait).filter(|wait| !wait.is_zero()),
            Wait::Release => self.is_paused().then_some(Duration::MAX),
            Wait::Never => Some(Duration::MAX),
        }
    }

    fn now(&self) -> Timestamp {
        self.locked.now
    }

    fn deny(&mut self, reason: Reason) -> Denied {
        let now = self.locked.now;
        self.locked.waiting().deny(now, self.total, reason)
    }

    fn refuses(&mut self) -> Option<Reason> {
        let now = self.locked.now;
        self.locked.waiting().refuses(now, self.total)
    }

    fn is_full(&self) -> bool {
        self.locked.peek().is_full(self.total.units())
    }

    fn is_paused(&self) -> bool {
        self.locked.peek().paused
    }

    fn make_timer(&mut self, is_needed: bool) -> bool {
        let clock = self.ticketed.limit.clock();
        !(S::TIMED || is_needed) || self.locked.waiting().timers.make(clock).is_some()
    }

    fn could_grant(&mut self, rank: Rank) -> bool {
        let (now, total) = (self.locked.now, self.total);
        let waiting = self.locked.waiting();
        if total.units() == 0 {
            return true;
        }
        !waiting.closed
            && !waiting.paused
            && waiting.waiters.would_be_next(rank, waiting.queue.order)
            && waiting.ready_alone(now, total).is_by(now)
    }

    fn can_be_kept(&self) -> bool {
        self.total.units() > 0 && self.locked.peek().queue.order == Order::OldestFirst
    }

    fn take(&mut self) -> bool {
        let now = self.locked.now;
        let mut parts = self.ticketed.parts.lock();
        for index in 0..parts.each.len() {
            match self.locked.waiting().state().take(now, parts.each[index].0) {
                Ok(grant) => parts.each[index].1 = Some(grant),
                Err(_) => {
                    drop(parts);
                    self.take_back();
                    return false;
                }
            }
        }
        true
    }

    fn take_back(&mut self) {
        let now = self.locked.now;
        let mut parts = self.ticketed.parts.lock();
        for (load, grant) in &mut parts.each {
            if let Some(grant) = grant.take() {
                self.locked.waiting().state().give_back(now, grant, *load);
            }
        }
    }

    fn stand(&mut self, rank: Rank, joint: &Arc<Joint>, awaited: bool) {
        self.locked.waiting().stand(rank, self.total, Arc::clone(joint), awaited);
    }

    fn leave(&mut self, rank: Rank) {
        // The ask itself is held by its group: nothing foreign is dropped here.
        drop(self.locked.waiting().withdraw(rank));
    }

    fn group(&self, ids: &[usize]) -> Option<Arc<Group>> {
        self.locked.peek().joints.groups.get(ids).map(Arc::clone)
    }

    fn add_group(&mut self, ids: &[usize], group: &Arc<Group>) {
        self.locked.waiting().joints.groups.insert(ids.into(), Arc::clone(group));
    }

    fn remove_group(&mut self, ids: &[usize]) {
        self.locked.waiting().joints.groups.remove(ids);
    }

    fn count(&mut self, waits: bool, is_timed: bool) {
        let units = self.total.units();
        let joints = &mut self.locked.waiting().joints;
        if waits {
            joints.asks += 1;
            joints.timed += usize::from(is_timed);
            joints.units = joints.units.saturating_add(units);
        } else {
            joints.asks -= 1;
            joints.timed -= usize::from(is_timed);
            joints.units = if joints.asks == 0 { 0 } else { joints.units.saturating_sub(units) };
        }
    }

    fn add_deadline(&mut self, deadline: Timestamp, rank: Rank, joint: &Arc<Joint>) {
        self.locked.waiting().joints.deadlines.insert((deadline, rank), Arc::clone(joint));
    }

    fn remove_deadline(&mut self, deadline: Timestamp, rank: Rank) {
        self.locked.waiting().joints.deadlines.remove(&(deadline, rank));
    }

    fn join_thread(&mut self, rank: Rank, waker: Waker) {
        self.locked.waiting().join_thread(rank, waker);
    }

    fn leave_thread(&mut self, rank: Rank) {
        self.locked.waiting().leave_thread(rank);
    }
}
