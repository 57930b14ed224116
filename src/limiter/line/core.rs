//! The lock, the timers, and moving the line on.

use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::Line;
use super::gate::{Charge, Gate, Load};
use super::inner::{Entry, Heard, Inner};
use super::queue::{Answer, Ticket, Waiter};
use super::wakes::{Panicked, wake_all};
use crate::algorithm::Grant;
use crate::clock::Clock;
use crate::decision::{Denied, Snapshot};
use crate::limiter::door::{Glance, Sealed};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::units::{Name, Timestamp};

/// The shortest wait that a clock's horizon, some ticks of ten milliseconds at most ahead, is likely to fall short of.
const HORIZON_PAYS_NS: u64 = 20_000_000;

/// A limit: its gate, its line, its clock. Handles share one in an [`Arc`].
pub(crate) struct Core<G: Gate, C: Clock> {
    pub(in crate::limiter) door: G::Door,
    /// The last ask was refused for long: the next is likely to be, and looks at the clock's horizon first. A hint.
    is_spent: AtomicBool,
    clock: C,
    name: Option<Name>,
    line: Line,
    inner: Mutex<Inner<G, C::Timer>>,
    /// Calls to move the line that have not been answered. Whoever raises it from zero moves the line; the others
    /// leave it to that one, which also makes it safe to be called from inside of setting a timer.
    calls: AtomicUsize,
}

impl<G: Gate, C: Clock> Core<G, C> {
    pub(crate) fn new(gate: G, line: Line, name: Option<Name>, clock: C) -> Self {
        let door = gate.build_door(Sealed(()));
        let inner = Inner::new(gate, line, name.clone(), clock.now());
        let core = Self {
            door,
            is_spent: AtomicBool::new(false),
            clock,
            name,
            line,
            inner: Mutex::new(inner),
            calls: AtomicUsize::new(0),
        };
        core.with(|_, _| ());
        core
    }

    pub(crate) const fn clock(&self) -> &C {
        &self.clock
    }

    /// Does something under the lock: the state is in the gate while it does, and behind the door again after it if
    /// nobody waits.
    fn with<R>(&self, act: impl FnOnce(&mut Inner<G, C::Timer>, Timestamp) -> R) -> R {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if inner.door_open {
            inner.gate.shut(&self.door);
            inner.door_open = false;
        }
        let now = self.clock.now().max(inner.latest);
        inner.latest = now;
        let answer = act(inner, now);
        if inner.may_open() {
            inner.door_open = inner.gate.open(&self.door);
        }
        answer
    }

    /// Looks at the gate alone.
    pub(crate) fn with_gate<R>(&self, act: impl FnOnce(&mut G, Timestamp) -> R) -> R {
        self.with(|inner, now| act(&mut inner.gate, now))
    }

    /// Takes `load` if it may be had now, and makes what is wanted of the grant. Lock-free while nobody waits,
    /// where the gate has a door for it.
    // Always inlined, so that a refusal is made where it is wanted: it is too large to be handed over for nothing.
    #[inline(always)]
    pub(crate) fn take<R>(&self, load: G::Load, granted: impl FnOnce(G::Grant) -> R) -> Result<R, Denied> {
        match self.glance(load) {
            Glimpse::Go(now) => Ok(granted(G::grant_at_door(now, load))),
            Glimpse::For(wait_ns) => Err(Denied::exhausted_for(wait_ns, self.name.clone())),
            Glimpse::Until(at) => Err(Denied::exhausted_until(at, C::HORIZON.now, self.name.clone())),
            Glimpse::Shut => self.take_locked(load).map(granted),
        }
    }

    /// The refusal, if too little is left for so long that it is certain without a reading of the clock.
    #[inline(always)]
    pub(crate) fn certainly_denied(&self, load: G::Load) -> Option<Denied> {
        let at = self.spent_until(load)?;
        Some(Denied::exhausted_until(at, C::HORIZON.now, self.name.clone()))
    }

    #[inline]
    fn spent_until(&self, load: G::Load) -> Option<Timestamp> {
        let horizon = C::HORIZON.read.filter(|_| self.is_spent.load(Ordering::Relaxed))?;
        // Before the clock: the time that passes in between makes it later, which is the safe side.
        let at = G::free_at(&self.door, load).filter(|_| load.units() > 0)?;
        (horizon() < at).then_some(at)
    }

    /// Takes `load` through the door, or tells what it shows.
    #[inline(never)]
    pub(super) fn glance(&self, load: G::Load) -> Glimpse {
        if load.units() == 0 {
            return Glimpse::Shut;
        }
        if let Some(at) = self.spent_until(load) {
            return Glimpse::Until(at);
        }
        let now = self.glance_time();
        match G::look(&self.door, now, load) {
            Glance::Go => {
                self.note_spent(false);
                Glimpse::Go(now)
            }
            Glance::At(at) => {
                let wait_ns = at.as_ns().saturating_sub(now.as_ns());
                self.note_spent(wait_ns >= HORIZON_PAYS_NS);
                Glimpse::For(wait_ns)
            }
            Glance::Shut => Glimpse::Shut,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn take_locked(&self, load: G::Load) -> Result<G::Grant, Denied> {
        self.with(|inner, now| inner.take_or_tell(now, load))
    }

    /// What a look through the door goes by.
    #[inline]
    fn glance_time(&self) -> Timestamp {
        if G::TIMED { self.clock.now() } else { Timestamp::ZERO }
    }

    /// Written only when it changes: the line it stands on is shared by all who ask.
    #[inline]
    fn note_spent(&self, is_spent: bool) {
        if C::HORIZON.read.is_some() && self.is_spent.load(Ordering::Relaxed) != is_spent {
            self.is_spent.store(is_spent, Ordering::Relaxed);
        }
    }

    /// Until when an ask waits that waits no longer than that. Zero: not at all; `None`: for as long as it takes.
    #[inline]
    pub(crate) fn deadline(&self, max_wait: Option<Duration>) -> Option<Timestamp> {
        match max_wait? {
            Duration::ZERO => Some(Timestamp::ZERO),
            wait => self.deadline_in(wait),
        }
    }

    #[cold]
    #[inline(never)]
    fn deadline_in(&self, wait: Duration) -> Option<Timestamp> {
        Some(self.clock.now().after(wait)).filter(|at| *at < Timestamp::MAX)
    }

    pub(crate) const fn line(&self) -> Line {
        self.line
    }

    pub(crate) const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub(crate) fn ready_in(&self, load: G::Load) -> Result<Duration, Denied> {
        self.with(|inner, now| inner.ready_in(now, load))
    }

    /// Whether nobody waits, and it is neither paused nor closed.
    pub(crate) fn is_open(&self) -> bool {
        self.with(|inner, _| inner.may_open())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.with(Inner::snapshot)
    }
}

impl<G: Gate, C: Clock> Core<G, C> {
    /// The first poll of an ask that may have to wait.
    pub(super) fn enter(
        self: &Arc<Self>,
        load: G::Load,
        deadline: Option<Timestamp>,
        waker: &Waker,
        is_thread: bool,
        rank: u64,
    ) -> Result<Told<G>, Ticket> {
        // Made and dropped outside the lock, as every waker is.
        let mut newcomer = Some(Waiter::new(load, deadline, waker.clone(), is_thread, rank));
        let mut wakes = Vec::new();
        let entry = self.with(|inner, now| inner.enter(now, &mut newcomer, &self.clock, &mut wakes));
        let panicked = wake_all(wakes);
        match entry {
            Entry::Granted(grant) => Ok(Ok(grant)),
            Entry::Denied(denied) => Ok(Err(denied)),
            Entry::Queued { ticket, must_drive } => {
                if must_drive {
                    self.drive();
                }
                panicked.resume();
                Err(ticket)
            }
        }
    }

    /// A later poll of an ask that waits.
    pub(super) fn hear(self: &Arc<Self>, ticket: Ticket, waker: &Waker) -> Option<Told<G>> {
        let mut spare = None;
        loop {
            // Not through `with`: the door is shut while the ask waits, and listening changes nothing.
            let mut inner = self.inner.lock();
            match inner.hear(ticket, waker, &mut spare) {
                Heard::Answered(Some(Answer::Granted(grant))) => return Some(Ok(grant)),
                Heard::Answered(Some(Answer::Denied(denied))) => return Some(Err(denied)),
                Heard::Answered(None) => return None,
                Heard::NeedsWaker => {
                    drop(inner);
                    spare = Some(waker.clone());
                }
                Heard::Waits { timed } => {
                    // The task may have moved to another runtime since it joined the line.
                    let new_timer = timed && inner.timers.make(&self.clock) == Some(true);
                    drop(inner);
                    if new_timer {
                        self.drive();
                    }
                    return None;
                }
            }
        }
    }

    /// An ask that is given up, or whose answer nobody hears.
    pub(super) fn leave(self: &Arc<Self>, ticket: Ticket) {
        let waiter = self.with(|inner, now| inner.leave(now, ticket));
        drop(waiter);
        self.drive();
    }

    /// Sleeps as the thread behind `ticket`, then moves the line.
    pub(super) fn park(self: &Arc<Self>, ticket: Ticket) {
        let until = self.inner.lock().sleep_until(ticket);
        self.clock.park(until);
        self.drive();
    }

    pub(crate) fn give_back(self: &Arc<Self>, grant: G::Grant, load: G::Load) {
        self.improve(|gate, now| gate.give_back(now, grant, load));
    }

    /// A change for the better: nobody's wait grows, so the line is not walked.
    pub(crate) fn improve<R>(self: &Arc<Self>, act: impl FnOnce(&mut G, Timestamp) -> R) -> R {
        self.alter(|inner, now, _| act(&mut inner.gate, now))
    }

    /// Changes the gate and lets those who wait see it.
    pub(crate) fn change<R>(self: &Arc<Self>, act: impl FnOnce(&mut G, Timestamp) -> R) -> R {
        self.alter(|inner, now, wakes| {
            let capacity_before = inner.gate.capacity();
            let answer = act(&mut inner.gate, now);
            inner.recheck(now, capacity_before, wakes);
            answer
        })
    }

    pub(crate) fn close(self: &Arc<Self>) {
        self.alter(|inner, _, wakes| inner.close(wakes));
    }

    pub(crate) fn pause(self: &Arc<Self>, paused: bool) {
        self.alter(|inner, now, wakes| {
            inner.paused = paused;
            inner.recheck(now, 0, wakes);
        });
    }

    fn alter<R>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Inner<G, C::Timer>, Timestamp, &mut Vec<Waker>) -> R,
    ) -> R {
        let mut wakes = Vec::new();
        let (answer, wait) = self.with(|inner, now| {
            let waited = !inner.queue.is_empty();
            (act(inner, now, &mut wakes), waited)
        });
        let panicked = wake_all(wakes);
        if wait {
            self.drive();
        }
        panicked.resume();
        answer
    }

    /// Moves the line on: admits and wakes whoever may go, and sets the timers for the next.
    pub(crate) fn drive(self: &Arc<Self>) {
        // AcqRel: whoever leaves the work to us has made its change under the lock before, and we see its call.
        if self.calls.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let mut answered = 1;
        let mut panicked = Panicked::none();
        loop {
            let mut wakes = Vec::new();
            let due = self.with(|inner, now| {
                inner.admit(now, &mut wakes) || inner.arm(|| Waker::from(Arc::clone(self)))
            });
            panicked = panicked.or(wake_all(wakes));
            if due {
                continue;
            }
            match self.calls.compare_exchange(answered, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(calls) => answered = calls,
            }
        }
        panicked.resume();
    }
}

/// What has come of a look through the door.
// A tag and a word: it comes back in two registers.
#[derive(Clone, Copy)]
pub(super) enum Glimpse {
    /// Taken, at this time.
    Go(Timestamp),
    /// Too little is left for so many nanoseconds.
    For(u64),
    /// Too little is left until this time, certain without a reading of the clock.
    Until(Timestamp),
    /// Only the lock can tell.
    Shut,
}

impl<G: Gate<Load = u64, Grant = Grant>, C: Clock> Core<G, C> {
    pub(crate) fn settle(self: &Arc<Self>, grant: Grant, actual: u64)
    where
        G: Charge,
    {
        if actual == grant.units {
            return;
        }
        match actual.checked_sub(grant.units) {
            Some(more) => self.change(|gate, now| gate.charge(now, more)),
            None => self.give_back(grant, grant.units - actual),
        }
    }
}

/// What an ask is answered.
pub(super) type Told<G> = Result<<G as Gate>::Grant, Denied>;

/// A timer fired.
impl<G: Gate, C: Clock> Wake for Core<G, C> {
    fn wake(self: Arc<Self>) {
        self.drive();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.drive();
    }
}

impl<G: Gate, C: Clock> fmt::Debug for Core<G, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("name", &self.name()).field("now", &self.snapshot()).finish()
    }
}
