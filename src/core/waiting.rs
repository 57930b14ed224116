//! Decisions under the lock. Nothing in here wakes, sleeps or reads a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::joint::{Group, Joint, Work};
use super::options::{Order, Queue};
use super::queue::{Answer, Rank, Waiter, Waiters, Who};
use super::state::{Later, LimitState, Load};
use super::timers::Timers;
use crate::algorithm::When;
use crate::clock::{Clock, Timer};
use crate::types::{Denied, Reason, Snapshot};
use crate::units::{Name, Timestamp};

/// How many waiters are answered in one hold of the lock.
const BATCH: usize = 128;

/// What a limit keeps under its lock.
pub(super) struct Waiting<S: LimitState, T> {
    state: S,
    pub(super) queue: Queue,
    pub(super) name: Option<Name>,
    pub(super) waiters: Waiters<S>,
    /// The state is on the fast path.
    pub(super) is_open: bool,
    pub(super) closed: bool,
    pub(super) paused: bool,
    /// The latest time seen: the clock does not run backwards in here.
    pub(super) latest: Timestamp,
    deadlines: BTreeSet<(Timestamp, Rank)>,
    /// Threads that wait. The first of them sleeps until the next event only, and serves the queue then.
    threads: VecDeque<(Rank, Waker)>,
    /// When the queue has to be served next, as last told to timers and to the first thread.
    next_event: Option<Timestamp>,
    leader_changed: bool,
    pub(super) timers: Timers<T>,
    /// The state once all waiters are granted, if it is known: it saves a walk along the queue for each newcomer that
    /// must be told when it would be granted. Dropped with every other change.
    tail: Option<S::Plan>,
    pub(super) joints: Joints,
}

/// The asks to several limits that wait for this one among others, wherever they stand.
#[derive(Default)]
pub(super) struct Joints {
    /// By the limits they wait for.
    pub(super) groups: BTreeMap<Box<[usize]>, Arc<Group>>,
    pub(super) asks: usize,
    pub(super) units: u64,
    /// The number of asks that do not wait for as long as it takes.
    pub(super) timed: usize,
    /// Of those whose first limit this is.
    pub(super) deadlines: BTreeMap<(Timestamp, Rank), Arc<Joint>>,
}

/// The decision about a newcomer that may wait.
pub(super) enum Entry<S: LimitState> {
    Granted(S::Grant),
    Denied(Denied),
    Queued { must_serve: bool },
}

/// What a waiter hears that is polled again.
pub(super) enum Heard<S: LimitState> {
    Answered(Answer<S>),
    Waits { timed: bool },
    NeedsWaker,
}

/// A newcomer, made outside of the lock.
pub(super) struct Newcomer<S: LimitState> {
    pub(super) rank: Rank,
    pub(super) waiter: Waiter<S>,
    /// Of a thread: to wake it when it has to serve the queue at another time.
    pub(super) thread: Option<Waker>,
}

impl<S: LimitState, T: Timer> Waiting<S, T> {
    pub(super) fn new(state: S, queue: Queue, name: Option<Name>, now: Timestamp) -> Self {
        Self {
            state,
            queue,
            name,
            waiters: Waiters::new(),
            is_open: false,
            closed: false,
            paused: false,
            latest: now,
            deadlines: BTreeSet::new(),
            threads: VecDeque::new(),
            next_event: None,
            leader_changed: false,
            timers: Timers::new(),
            tail: None,
            joints: Joints::default(),
        }
    }

    pub(super) fn state(&mut self) -> &mut S {
        self.tail = None;
        &mut self.state
    }

    /// The time at which `load` could be granted if nobody else waited.
    pub(super) fn ready_alone(&mut self, now: Timestamp, load: S::Load) -> Later {
        // Looking changes nothing: the tail stays.
        self.state.ready(now, load)
    }

    pub(super) const fn peek_state(&self) -> &S {
        &self.state
    }

    /// Nothing stands in the way of the fast path.
    pub(super) fn may_open(&self) -> bool {
        self.waiters.is_empty() && !self.closed && !self.paused
    }

    pub(super) fn denied(&self, reason: Reason, wait: Option<Duration>) -> Denied {
        Denied::new(reason).after(wait).by(self.name.clone())
    }

    /// The time at which `load` could be granted behind all that wait.
    pub(super) fn ready_behind(&mut self, now: Timestamp, load: S::Load) -> Later {
        if self.waiters.is_empty() || self.queue.order == Order::NewestFirst {
            return self.state.ready(now, load);
        }
        if let Some(later) = self.state.ready_behind(now, self.waiters.units(), load) {
            return later;
        }
        let Some(mut plan) = self.tail.take().or_else(|| self.plan_behind(now)) else {
            return Later::Release;
        };
        let later = self.state.plan_ready(&mut plan, now, load);
        self.tail = Some(plan);
        later
    }

    /// The state once all that wait here are granted.
    pub(super) fn plan_behind(&self, now: Timestamp) -> Option<S::Plan> {
        let mut plan = self.state.plan(now)?;
        for (_, waiter) in self.waiters.iter() {
            if let Later::At(at) = self.state.plan_ready(&mut plan, now, waiter.load) {
                self.state.plan_take(&mut plan, at, waiter.load);
            }
        }
        Some(plan)
    }

    pub(super) fn wait(&mut self, now: Timestamp, load: S::Load) -> Option<Duration> {
        match self.ready_behind(now, load) {
            Later::At(at) if !self.paused => Some(at.since(now)),
            _ => None,
        }
    }

    /// The reason why the ask cannot even wait, if there is one.
    pub(super) fn refuses(&mut self, now: Timestamp, load: S::Load) -> Option<Reason> {
        if self.closed { Some(Reason::Closed) } else { self.state.refuses(now, load) }
    }

    /// Takes the load for an ask of this rank if it can be granted now. The reason tells if waiting would help.
    pub(super) fn take(&mut self, now: Timestamp, load: S::Load, rank: Rank) -> Result<S::Grant, Reason> {
        if let Some(reason) = self.refuses(now, load) {
            return Err(reason);
        }
        if load.units() > 0 {
            if self.paused {
                return Err(Reason::Paused);
            }
            if !self.waiters.would_be_next(rank, self.queue.order) {
                return Err(Reason::Exhausted);
            }
        }
        self.state().take(now, load).map_err(|_| Reason::Exhausted)
    }

    /// The denial for `reason`, with the wait that would help where one is known.
    pub(super) fn deny(&mut self, now: Timestamp, load: S::Load, reason: Reason) -> Denied {
        let tells =
            matches!(reason, Reason::Exhausted | Reason::QueueFull | Reason::AskedTooLong | Reason::NoTimer);
        let wait = if tells { self.wait(now, load) } else { None };
        self.denied(reason, wait)
    }

    /// Takes the load for a newcomer, or tells when it could be granted.
    pub(super) fn take_or_deny(&mut self, now: Timestamp, load: S::Load) -> Result<S::Grant, Denied> {
        self.take(now, load, Rank::MAX).map_err(|reason| self.deny(now, load, reason))
    }

    /// The time until a newcomer would be granted `load`. Takes nothing.
    pub(super) fn ready_in(&mut self, now: Timestamp, load: S::Load) -> Result<Duration, Denied> {
        match self.refuses(now, load) {
            Some(reason) => return Err(self.deny(now, load, reason)),
            None if load.units() == 0 => return Ok(Duration::ZERO),
            None if self.paused => return Err(self.denied(Reason::Paused, None)),
            None => {}
        }
        self.wait(now, load).ok_or_else(|| self.denied(Reason::Exhausted, None))
    }

    /// Grants what is asked for, or adds the newcomer to the queue and takes it.
    pub(super) fn enter<C: Clock<Timer = T>>(
        &mut self,
        now: Timestamp,
        newcomer: &mut Option<Newcomer<S>>,
        clock: &C,
        wakes: &mut Vec<Waker>,
    ) -> Entry<S> {
        let Some(Newcomer { rank, waiter: Waiter { load, deadline, .. }, thread }) = &*newcomer else {
            unreachable!("a newcomer enters once")
        };
        let (rank, load, deadline, is_thread) = (*rank, *load, *deadline, thread.is_some());
        let reason = match self.take(now, load, rank) {
            Ok(grant) => return Entry::Granted(grant),
            Err(reason) => reason,
        };
        if let Some(reason) = self.refuses_to_queue(now, load, deadline, rank, reason) {
            return Entry::Denied(self.deny(now, load, reason));
        }
        let mut new_timer = false;
        if (S::TIMED || deadline.is_some()) && !is_thread {
            match self.timers.make(clock) {
                Some(new) => new_timer = new,
                None => return Entry::Denied(self.deny(now, load, Reason::NoTimer)),
            }
        }
        self.evict_for(load.units(), wakes);
        let deadline = deadline.map(|deadline| self.grace(deadline));
        let Some(Newcomer { mut waiter, thread, .. }) = newcomer.take() else { unreachable!("it is there") };
        waiter.deadline = deadline;
        self.push(rank, waiter);
        self.threads.extend(thread.map(|waker| (rank, waker)));
        let is_next = self.waiters.next(self.queue.order) == Some(rank);
        let first_deadline = self.deadlines.first().is_some_and(|(_, first)| *first == rank);
        Entry::Queued { must_serve: is_next || first_deadline || new_timer || !wakes.is_empty() }
    }

    fn push(&mut self, rank: Rank, waiter: Waiter<S>) {
        let is_last = self.waiters.would_be_next(rank, Order::NewestFirst);
        match self.tail.take() {
            Some(mut plan) if is_last => {
                if let Later::At(at) = self.state.plan_ready(&mut plan, self.latest, waiter.load) {
                    self.state.plan_take(&mut plan, at, waiter.load);
                }
                self.tail = Some(plan);
            }
            _ => {}
        }
        self.deadlines.extend(waiter.deadline.map(|deadline| (deadline, rank)));
        self.waiters.push(rank, waiter);
    }

    /// The number of asks and of units that wait for this limit.
    fn waiting(&self) -> (usize, u64) {
        let (asks, units) = self.waiters.alone();
        (asks + self.joints.asks, units.saturating_add(self.joints.units))
    }

    pub(super) fn is_full(&self, units: u64) -> bool {
        let (asks, waiting) = self.waiting();
        !self.queue.fits(units, asks, waiting)
    }

    /// The reason to refuse an ask that was not granted for `reason` and would wait.
    fn refuses_to_queue(
        &mut self,
        now: Timestamp,
        load: S::Load,
        deadline: Option<Timestamp>,
        rank: Rank,
        reason: Reason,
    ) -> Option<Reason> {
        let in_time = deadline.is_none_or(|deadline| now < deadline);
        if !matches!(reason, Reason::Exhausted | Reason::Paused) || !in_time {
            return Some(reason);
        }
        let units = load.units();
        // Asks to several limits are not evicted: each counts in several queues.
        let fits_once_evicted = self.queue.fits(units, self.joints.asks, self.joints.units);
        let evicts = self.queue.order == Order::NewestFirst && fits_once_evicted;
        if self.is_full(units) && !evicts {
            return Some(Reason::QueueFull);
        }
        // Behind others, an ask without a deadline need not know when it is granted.
        if self.paused || (deadline.is_none() && !self.waiters.is_empty()) {
            return None;
        }
        // One that comes back stands before others: what it waits for is less than the walk to the back says.
        let later = if self.waiters.would_be_next(rank, self.queue.order) {
            self.state.ready(now, load)
        } else {
            self.ready_behind(now, load)
        };
        match later {
            Later::At(at) if deadline.is_some_and(|deadline| at > deadline) => Some(reason),
            Later::Never => Some(reason),
            _ => None,
        }
    }

    /// Sets the timers for the next event. Returns `true` if that is due already.
    pub(super) fn arm(&mut self, waker: impl FnOnce() -> Waker) -> bool {
        if self.waiters.is_empty() && self.joints.asks == 0 {
            self.timers.clear();
        }
        self.timers.arm(self.next_event, waker)
    }

    /// Extends a deadline by a nanosecond for each waiter ahead: a grant happens at a whole nanosecond, and a bucket
    /// that is full until then loses the fraction before it. An ask that was queued because it would be in time is not
    /// denied for that.
    fn grace(&self, deadline: Timestamp) -> Timestamp {
        let ahead = if S::TIMED && !self.paused { self.waiters.len() as u64 } else { 0 };
        deadline.after(Duration::from_nanos(ahead))
    }

    fn evict_for(&mut self, units: u64, wakes: &mut Vec<Waker>) {
        while self.queue.order == Order::NewestFirst && self.is_full(units) {
            let Some(oldest) = self.waiters.oldest_alone() else { return };
            let denied = self.denied(Reason::Evicted, None);
            wakes.extend(self.answer(oldest, Err(denied)));
        }
    }

    /// Takes a waiter out of the queue with an answer that it will hear. Returns its waker.
    fn answer(&mut self, rank: Rank, answer: Result<S::Grant, Denied>) -> Option<Waker> {
        let waiter = self.withdraw(rank)?;
        let answer = match answer {
            Ok(grant) => Answer::Granted(grant, waiter.load),
            Err(denied) => Answer::Denied(denied),
        };
        match waiter.who {
            Who::One { waker, .. } => {
                self.waiters.answer(rank, answer);
                waker
            }
            Who::Joint { .. } => unreachable!("an ask to several limits is answered by its group"),
        }
    }

    /// Takes a waiter out of the queue. To be dropped outside of the lock.
    pub(super) fn withdraw(&mut self, rank: Rank) -> Option<Waiter<S>> {
        let waiter = self.waiters.remove(rank)?;
        self.tail = None;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, rank));
        }
        if matches!(waiter.who, Who::One { is_thread: true, .. }) {
            self.leave_thread(rank);
        }
        Some(waiter)
    }

    pub(super) fn join_thread(&mut self, rank: Rank, waker: Waker) {
        self.threads.push_back((rank, waker));
    }

    pub(super) fn leave_thread(&mut self, rank: Rank) {
        self.leader_changed |= self.threads.front().is_some_and(|(first, _)| *first == rank);
        self.threads.retain(|(thread, _)| *thread != rank);
    }

    /// Adds an ask to several limits to this queue, in the order of its arrival.
    pub(super) fn stand(&mut self, rank: Rank, load: S::Load, joint: Arc<Joint>, awaited: bool) {
        match self.waiters.get_mut(rank).map(|waiter| &mut waiter.who) {
            Some(Who::Joint { awaited: known, .. }) => *known = awaited,
            _ => {
                self.tail = None;
                self.push(rank, Waiter { load, deadline: None, who: Who::Joint { joint, awaited } });
            }
        }
    }

    /// The answer for a waiter that is polled, or what is missing for it to be woken.
    ///
    /// Wakers are cloned and dropped outside of the lock: both run foreign code.
    pub(super) fn hear(&mut self, rank: Rank, waker: &Waker, spare: &mut Option<Waker>) -> Heard<S> {
        if let Some(answer) = self.waiters.hear(rank) {
            return Heard::Answered(answer);
        }
        let Some(Waiter { deadline, who: Who::One { waker: known, .. }, .. }) = self.waiters.get_mut(rank)
        else {
            unreachable!("it waits until it has heard its answer")
        };
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            if spare.is_none() {
                return Heard::NeedsWaker;
            }
            std::mem::swap(known, spare);
        }
        Heard::Waits { timed: S::TIMED || deadline.is_some() }
    }

    /// Takes out a waiter that is given up, or gives back what it was granted and has not heard of. Returns what has to
    /// be dropped outside of the lock.
    pub(super) fn leave(&mut self, now: Timestamp, rank: Rank) -> Option<Waiter<S>> {
        if let Some(Answer::Granted(grant, load)) = self.waiters.hear(rank) {
            self.state().give_back(now, grant, load);
        }
        self.withdraw(rank)
    }

    /// Grants to as many as can be granted, denies those that have waited for too long, and finds the next event.
    /// Returns `true` if there is more to do than fits one hold of the lock.
    ///
    /// An ask to several limits at the head is handed to `work`, which tries all of its limits outside of this lock.
    pub(super) fn admit(&mut self, now: Timestamp, work: &mut Work) -> bool {
        let mut next = None;
        let stops = self.paused || self.closed;
        while let Some(rank) = self.waiters.next(self.queue.order).filter(|_| !stops) {
            if work.wakes.len() >= BATCH {
                return true;
            }
            let Some(Waiter { load, who, .. }) = self.waiters.get(rank) else { break };
            let load = *load;
            let granted = match who {
                Who::One { .. } => self.state().take(now, load),
                Who::Joint { joint, awaited } => {
                    let later = self.state.ready(now, load);
                    if later.is_by(now) {
                        if *awaited {
                            work.attempt(joint.group());
                        }
                        break;
                    }
                    Err(later)
                }
            };
            match granted {
                Ok(grant) => work.wakes.extend(self.answer(rank, Ok(grant))),
                Err(Later::At(at)) => {
                    next = Some(at);
                    break;
                }
                Err(Later::Release | Later::Never) => break,
            }
        }
        while let Some((deadline, rank)) = self.deadlines.first().copied() {
            if deadline > now {
                next = Some(next.map_or(deadline, |at| at.min(deadline)));
                break;
            }
            if work.wakes.len() >= BATCH {
                return true;
            }
            let reason = if self.paused { Reason::Paused } else { Reason::Exhausted };
            let denied = self.denied(reason, None);
            work.wakes.extend(self.answer(rank, Err(denied)));
            // The next in the queue may be granted now.
            if self.waiters.next(self.queue.order).is_some_and(|first| first > rank) {
                return true;
            }
        }
        while let Some((&(deadline, _), joint)) = self.joints.deadlines.first_key_value() {
            if deadline > now {
                next = Some(next.map_or(deadline, |at| at.min(deadline)));
                break;
            }
            work.expire(joint);
            self.joints.deadlines.pop_first();
        }
        if next != self.next_event || self.leader_changed {
            self.leader_changed = false;
            work.wakes.extend(self.threads.front().map(|(_, waker)| waker.clone()));
        }
        self.next_event = next;
        false
    }

    /// After a change for the worse: denies at once those whose deadline can no longer be met and, if the limit became
    /// stricter, those that can never be granted.
    pub(super) fn recheck(&mut self, now: Timestamp, is_stricter: bool, wakes: &mut Vec<Waker>) {
        let alone = |(rank, waiter): (Rank, &Waiter<S>)| {
            matches!(waiter.who, Who::One { .. }).then_some((rank, waiter.load))
        };
        if is_stricter {
            let waiting: Vec<_> = self.waiters.iter().filter_map(alone).collect();
            for (rank, load) in waiting {
                if let Some(reason) = self.state().refuses(now, load) {
                    let denied = self.deny(now, load, reason);
                    wakes.extend(self.answer(rank, Err(denied)));
                }
            }
        }
        if self.deadlines.is_empty() || self.paused || self.queue.order == Order::NewestFirst {
            return;
        }
        let Some(mut plan) = self.state.plan(now) else { return };
        let mut late = Vec::new();
        for (rank, waiter) in self.waiters.iter() {
            match self.state.plan_ready(&mut plan, now, waiter.load) {
                Later::At(at) if waiter.deadline.is_none_or(|deadline| at <= deadline) => {
                    self.state.plan_take(&mut plan, at, waiter.load);
                }
                _ => late.extend(waiter.deadline.map(|_| rank)),
            }
        }
        for rank in late {
            let denied = self.denied(Reason::Exhausted, None);
            wakes.extend(self.answer(rank, Err(denied)));
        }
    }

    pub(super) fn close(&mut self, wakes: &mut Vec<Waker>) {
        self.closed = true;
        while let Some(rank) = self.waiters.oldest_alone() {
            let denied = self.denied(Reason::Closed, None);
            wakes.extend(self.answer(rank, Err(denied)));
        }
    }

    /// The time until which this thread may sleep: the first one serves the queue at the next event.
    pub(super) fn sleep_until(&self, rank: Rank) -> Option<Timestamp> {
        self.next_event.filter(|_| self.threads.front().is_some_and(|(first, _)| *first == rank))
    }

    pub(super) fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        let balance = self.state.balance(now);
        let (waiting, waiting_units) = self.waiting();
        Snapshot {
            capacity: self.state.capacity(),
            remaining: balance.remaining,
            debt: balance.debt,
            reset_after: match balance.full {
                When::At(at) => Some(at.since(now)),
                When::Never => None,
            },
            waiting,
            waiting_units,
        }
    }
}
