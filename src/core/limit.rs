//! One limit: the lock, the fast path, and the loop that serves the queue.

use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::joint::Work;
use super::member::Driven;
use super::options::{Named, Queue};
use super::queue::{Answer, Rank, Waiter, Who};
use super::state::{Charge, LimitState, Load, Outcome};
use super::waiting::{Entry, Heard, Newcomer, Waiting};
use crate::algorithm::Grant;
use crate::clock::Clock;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::types::{Denied, Snapshot};
use crate::units::{Name, Timestamp};

/// A limit: its state, its queue, its clock. Handles share one in an [`Arc`].
pub(crate) struct Limit<S: LimitState, C: Clock> {
    fast: S::FastPath,
    clock: C,
    name: Option<Name>,
    waiting: Mutex<Waiting<S, C::Timer>>,
    /// Calls to serve the queue that have not been answered. Whoever raises it from zero serves the queue; the others
    /// leave it to that one, which makes it safe to be called from inside of setting a timer.
    calls: AtomicUsize,
}

/// A limit under its lock. The state is in there, not on the fast path, for as long as this lives.
pub(super) struct Locked<'a, S: LimitState, C: Clock> {
    limit: &'a Limit<S, C>,
    waiting: MutexGuard<'a, Waiting<S, C::Timer>>,
    /// The clock, read under the lock, and never before a time that was seen under it.
    pub(super) now: Timestamp,
}

impl<S: LimitState, C: Clock> Locked<'_, S, C> {
    pub(super) fn waiting(&mut self) -> &mut Waiting<S, C::Timer> {
        &mut self.waiting
    }

    pub(super) fn peek(&self) -> &Waiting<S, C::Timer> {
        &self.waiting
    }
}

impl<S: LimitState, C: Clock> Drop for Locked<'_, S, C> {
    fn drop(&mut self) {
        let waiting = &mut *self.waiting;
        if waiting.may_open() {
            waiting.is_open = waiting.state().open(&self.limit.fast);
        }
    }
}

impl<S: LimitState, C: Clock> Limit<S, C> {
    pub(crate) fn new(state: S, options: Named<C>) -> Self {
        let Named { clock, queue, name } = options;
        let fast = state.fast_path();
        let waiting = Waiting::new(state, queue, name.clone(), clock.now());
        let limit = Self { fast, clock, name, waiting: Mutex::new(waiting), calls: AtomicUsize::new(0) };
        drop(limit.lock());
        limit
    }

    pub(crate) const fn clock(&self) -> &C {
        &self.clock
    }

    pub(crate) const fn fast(&self) -> &S::FastPath {
        &self.fast
    }

    /// Prepares the fast path for a limiter of its own, in place of one of many keys.
    pub(crate) fn expect_use(&self) {
        S::expect_use(&self.fast);
        drop(self.lock());
    }

    pub(crate) const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub(super) fn lock(&self) -> Locked<'_, S, C> {
        let mut waiting = self.waiting.lock();
        if waiting.is_open {
            waiting.is_open = false;
            waiting.state().close(&self.fast);
        }
        // After the fast path is closed: what it granted was granted before now.
        let now = self.clock.now().max(waiting.latest);
        waiting.latest = now;
        Locked { limit: self, waiting, now }
    }

    /// Looks at the state under the lock.
    pub(crate) fn with_state<R>(&self, look: impl FnOnce(&mut S, Timestamp) -> R) -> R {
        let mut locked = self.lock();
        let now = locked.now;
        look(locked.waiting().state(), now)
    }

    /// The outcome of the fast path, and the time it was decided at. Lock-free while nobody waits.
    #[inline]
    pub(super) fn try_fast(&self, load: S::Load, take: bool) -> (Timestamp, Outcome) {
        if load.units() == 0 {
            return (Timestamp::ZERO, Outcome::Contended);
        }
        let now = if S::TIMED { self.clock.now() } else { Timestamp::ZERO };
        (now, S::try_fast(&self.fast, now, load, take))
    }

    /// Takes `load` if it can be granted now, without passing one that waits, and makes a permit of the grant.
    // Always inlined, and the permit made in here: the permit or the denial is built where it is returned. Moving either
    // took a fifth of a decision.
    #[inline(always)]
    pub(crate) fn take<R>(&self, load: S::Load, permit: impl FnOnce(S::Grant) -> R) -> Result<R, Denied> {
        match self.try_fast(load, true) {
            (now, Outcome::Taken) => Ok(permit(S::fast_grant(now, load))),
            (now, Outcome::WaitUntil(at)) => Err(self.exhausted(now, at)),
            (_, Outcome::Contended) => self.take_locked(load).map(permit),
        }
    }

    /// Tells if `load` could be granted now. Takes nothing.
    pub(crate) fn peek(&self, load: S::Load) -> Result<(), Denied> {
        match self.try_fast(load, false) {
            (_, Outcome::Taken) => Ok(()),
            (now, Outcome::WaitUntil(at)) => Err(self.exhausted(now, at)),
            (_, Outcome::Contended) => match self.ready_in(load)? {
                Duration::ZERO => Ok(()),
                wait => Err(Denied::exhausted(Some(wait.as_nanos() as u64), self.name.clone())),
            },
        }
    }

    #[inline]
    fn exhausted(&self, now: Timestamp, at: Timestamp) -> Denied {
        // A state without times is released, not refilled.
        let wait_ns = S::TIMED.then(|| at.as_ns().saturating_sub(now.as_ns()));
        Denied::exhausted(wait_ns, self.name.clone())
    }

    #[cold]
    #[inline(never)]
    fn take_locked(&self, load: S::Load) -> Result<S::Grant, Denied> {
        let mut locked = self.lock();
        let now = locked.now;
        locked.waiting().take_or_deny(now, load)
    }

    /// The time at which an ask with this longest wait gives up. `None`: never.
    #[inline]
    pub(crate) fn deadline(&self, max_wait: Option<Duration>) -> Option<Timestamp> {
        match max_wait? {
            // Any time in the past: it does not wait, and the clock need not be read.
            Duration::ZERO => Some(Timestamp::ZERO),
            wait => self.deadline_in(wait),
        }
    }

    #[cold]
    #[inline(never)]
    fn deadline_in(&self, wait: Duration) -> Option<Timestamp> {
        Some(self.clock.now().after(wait)).filter(|at| *at < Timestamp::MAX)
    }

    pub(crate) fn queue(&self) -> Queue {
        self.waiting.lock().queue
    }

    pub(crate) fn ready_in(&self, load: S::Load) -> Result<Duration, Denied> {
        let mut locked = self.lock();
        let now = locked.now;
        locked.waiting().ready_in(now, load)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut locked = self.lock();
        let now = locked.now;
        locked.waiting().snapshot(now)
    }
}

impl<S: LimitState, C: Clock> Limit<S, C> {
    /// Adds an ask to the queue, unless it is decided at once. Whoever gets `Queued { must_serve: true }` must call
    /// [`drive`](Self::drive) once it has noted that it waits.
    pub(super) fn enter(
        self: &Arc<Self>,
        rank: Rank,
        load: S::Load,
        deadline: Option<Timestamp>,
        waker: &Waker,
        is_thread: bool,
    ) -> Entry<S> {
        // Made and dropped outside of the lock, as every waker is.
        let who = Who::One { waker: Some(waker.clone()), is_thread };
        let waiter = Waiter { load, deadline, who };
        let mut newcomer = Some(Newcomer { rank, waiter, thread: is_thread.then(|| waker.clone()) });
        let mut work = Work::default();
        let entry = {
            let mut locked = self.lock();
            let now = locked.now;
            locked.waiting().enter(now, &mut newcomer, &self.clock, &mut work.wakes)
        };
        work.finish();
        entry
    }

    /// The answer to an ask that waits, if there is one.
    pub(super) fn hear(self: &Arc<Self>, rank: Rank, waker: &Waker) -> Option<Answer<S>> {
        let mut spare = None;
        loop {
            // Not through `lock`: the fast path is closed while the ask waits, and listening changes nothing.
            let mut waiting = self.waiting.lock();
            match waiting.hear(rank, waker, &mut spare) {
                Heard::Answered(answer) => return Some(answer),
                Heard::NeedsWaker => {
                    drop(waiting);
                    spare = Some(waker.clone());
                }
                Heard::Waits { timed } => {
                    // The task may have moved to another runtime since it joined the queue.
                    let new_timer = timed && waiting.timers.make(&self.clock) == Some(true);
                    drop(waiting);
                    if new_timer {
                        self.drive();
                    }
                    return None;
                }
            }
        }
    }

    /// An ask is given up, or its answer is not heard.
    pub(super) fn leave(self: &Arc<Self>, rank: Rank) {
        let waiter = {
            let mut locked = self.lock();
            let now = locked.now;
            locked.waiting().leave(now, rank)
        };
        drop(waiter);
        self.drive();
    }

    /// Sleeps as the thread with this rank, then serves the queue.
    pub(super) fn park(self: &Arc<Self>, rank: Rank) {
        let until = self.sleep_until(rank);
        self.clock.park(until);
        self.drive();
    }

    fn sleep_until(&self, rank: Rank) -> Option<Timestamp> {
        self.waiting.lock().sleep_until(rank)
    }

    pub(crate) fn give_back(self: &Arc<Self>, grant: S::Grant, load: S::Load) {
        self.improve(|state, now| state.give_back(now, grant, load));
    }

    /// Changes the state for the better: nobody's wait grows, so the queue is not checked.
    pub(crate) fn improve<R>(self: &Arc<Self>, act: impl FnOnce(&mut S, Timestamp) -> R) -> R {
        self.alter(|waiting, now, _| act(waiting.state(), now))
    }

    /// Changes the state, and lets the waiters see it at once.
    pub(crate) fn change<R>(self: &Arc<Self>, act: impl FnOnce(&mut S, Timestamp) -> R) -> R {
        self.alter(|waiting, now, work| {
            let before = waiting.peek_state().strictness();
            let answer = act(waiting.state(), now);
            let is_stricter = waiting.peek_state().strictness() > before;
            waiting.recheck(now, is_stricter, &mut work.wakes);
            let reviews = is_stricter || waiting.joints.timed > 0;
            let note = if reviews { Work::review } else { Work::attempt };
            waiting.joints.groups.values().for_each(|group| note(work, group));
            answer
        })
    }

    pub(crate) fn close(self: &Arc<Self>) {
        self.alter(|waiting, _, work| {
            waiting.close(&mut work.wakes);
            waiting.joints.groups.values().for_each(|group| work.review(group));
        });
    }

    pub(crate) fn pause(self: &Arc<Self>, paused: bool) {
        self.alter(|waiting, now, work| {
            waiting.paused = paused;
            waiting.recheck(now, false, &mut work.wakes);
            // One that keeps other limits idle while it waits for this one does so no longer.
            waiting.joints.groups.values().for_each(|group| work.attempt(group));
        });
    }

    fn alter<R>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Waiting<S, C::Timer>, Timestamp, &mut Work) -> R,
    ) -> R {
        let mut work = Work::default();
        let (answer, somebody_waits) = {
            let mut locked = self.lock();
            let now = locked.now;
            let somebody_waits = !locked.peek().waiters.is_empty() || locked.peek().joints.asks > 0;
            (act(locked.waiting(), now, &mut work), somebody_waits)
        };
        if somebody_waits {
            work.serve(Arc::clone(self) as Arc<dyn Driven>);
        }
        work.finish();
        answer
    }

    /// Serves the queue: grants to as many as can be granted, wakes them, and sets the timers for the next event.
    pub(crate) fn drive(self: &Arc<Self>) {
        let mut work = Work::default();
        work.serve(Arc::clone(self) as Arc<dyn Driven>);
        work.finish();
    }

    fn serve(self: &Arc<Self>, work: &mut Work) {
        // AcqRel: whoever leaves the work to us has made its change under the lock before, and we see its call.
        if self.calls.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let mut serving = Serving { calls: &self.calls, is_done: false };
        let mut answered = 1;
        loop {
            let due = {
                let mut locked = self.lock();
                let now = locked.now;
                locked.waiting().admit(now, work) || locked.waiting().arm(|| Waker::from(Arc::clone(self)))
            };
            work.wake();
            if due {
                continue;
            }
            match self.calls.compare_exchange(answered, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(calls) => answered = calls,
            }
        }
        serving.is_done = true;
    }
}

/// A panic of foreign code (a clock, an algorithm) while the queue is served: the next call serves it again.
struct Serving<'a> {
    calls: &'a AtomicUsize,
    is_done: bool,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.calls.store(0, Ordering::Release);
        }
    }
}

impl<S: LimitState, C: Clock> Driven for Limit<S, C> {
    fn serve(self: Arc<Self>, work: &mut Work) {
        Self::serve(&self, work);
    }
}

impl<S: LimitState<Load = u64, Grant = Grant>, C: Clock> Limit<S, C> {
    /// Replaces what was granted by what it cost.
    pub(crate) fn settle(self: &Arc<Self>, grant: Grant, actual: u64)
    where
        S: Charge,
    {
        if actual == grant.units {
            return;
        }
        match actual.checked_sub(grant.units) {
            Some(more) => self.change(|state, now| state.charge(now, more)),
            None => self.give_back(grant, grant.units - actual),
        }
    }
}

/// A timer fired.
impl<S: LimitState, C: Clock> Wake for Limit<S, C> {
    fn wake(self: Arc<Self>) {
        self.drive();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.drive();
    }
}

impl<S: LimitState, C: Clock> fmt::Debug for Limit<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("name", &self.name()).field("now", &self.snapshot()).finish()
    }
}
