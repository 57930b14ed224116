//! Asks to several limits: all of them grant at one instant, or none does.
//!
//! **Rule.**
//! 1. Nothing is taken before all limits can grant at one instant; then all are taken at that instant, under all their
//!    locks. So no limit hands out more than it promises, and a charge is dated when the whole ask is granted.
//! 2. Asks to the same limits form a [`Group`], in the order of arrival. Only the first, the *leader*, stands in the
//!    queue of a limit, in general in one: that of the first limit that refused it. Its position is by its rank.
//! 3. A limit whose head is a leader that it could grant to offers it a try. If another limit refuses, the leader moves
//!    to that one's queue with its rank. Those behind it are not kept waiting: it is no longer ahead of them.
//! 4. That alone starves: limits kept busy by others are never free at the same instant. So the leader counts how often
//!    it was *overtaken*: a limit refuses that could have granted at the try before, which time alone does not bring
//!    about. After [`PATIENCE`] of those it keeps the head of limits that could grant while it waits for the others. This
//!    is the only time at which units are left idle, so a limit is kept only if the others are expected to take no
//!    longer than the leader has waited for that limit: one of ten a second is not kept idle for one of one an hour. The
//!    limit with the longest wait is kept as soon as it could grant, then the next: the leader waits once for each.
//!
//! Nothing is taken while a head is kept, and positions in all queues are by rank: the oldest ask is ahead everywhere,
//! so there is no deadlock. A queue that serves the newest first has no head to keep.
//!
//! Whoever drives a limit makes the try, on any thread: a future that is leaked or never polled again costs its own
//! grant and stops nobody.
//!
//! **Locks.** A group's lock comes before those of limits; limits are locked in the order of their addresses. No group
//! is locked under a limit's lock: what is left to do is noted in [`Work`] and done once the limit is unlocked.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::member::{Driven, LockedMember, Members, Wait};
use super::queue::{Rank, next_rank};
use super::wake::{Panicked, in_drop, wake_all};
use crate::sync::Mutex;
use crate::types::{Denied, Reason};
use crate::units::Timestamp;

/// How often a leader is overtaken before it keeps the heads of queues.
const PATIENCE: u32 = 4;

/// An ask to several limits that waits.
pub(crate) struct Joint {
    rank: Rank,
    members: Arc<Members>,
    /// By the clock of the first member.
    deadline: Option<Timestamp>,
    group: Arc<Group>,
    outcome: Mutex<Told>,
}

/// What is between the one who waits and the ones who drive.
struct Told {
    waker: Option<Waker>,
    answer: Option<Result<(), Denied>>,
}

/// The asks that wait for the same limits, in the order of arrival.
pub(crate) struct Group {
    asks: Mutex<Asks>,
}

#[derive(Default)]
struct Asks {
    queue: BTreeMap<Rank, Arc<Joint>>,
    leader: Option<Leader>,
}

/// The progress of the first ask.
struct Leader {
    rank: Rank,
    overtaken: u32,
    /// In the order of its members.
    at: Vec<Progress>,
}

/// How a leader fares at one limit.
#[derive(Clone, Default)]
struct Progress {
    /// It stands in the queue.
    stands: bool,
    /// The limit could have granted at the last try.
    is_ready: bool,
    /// The first try since then at which the limit refused.
    refused_at: Option<Timestamp>,
    /// The longest time from a refusal until the limit could grant, as far as it is known.
    longest: Duration,
}

/// One thing to do while no lock is held.
#[derive(Clone)]
enum Step {
    /// The leader of a group may be granted.
    Try(Arc<Group>),
    /// Asks of a group may have to be denied.
    Review(Arc<Group>),
    /// The longest wait of an ask is over.
    Expire(Arc<Joint>),
    /// The queue of a limit has to be served.
    Serve(Arc<dyn Driven>),
}

/// What is left to do while no lock is held, and who is to be woken.
#[derive(Default)]
pub(crate) struct Work {
    /// The last is done first.
    steps: VecDeque<Step>,
    /// The one that is being done.
    current: Option<Step>,
    pub(super) wakes: Vec<Waker>,
    panicked: Panicked,
}

impl Work {
    /// Notes that the leader of a group may be granted.
    pub(super) fn attempt(&mut self, group: &Arc<Group>) {
        self.steps.push_back(Step::Try(Arc::clone(group)));
    }

    /// Notes that asks of a group may have to be denied.
    pub(super) fn review(&mut self, group: &Arc<Group>) {
        self.steps.push_back(Step::Review(Arc::clone(group)));
    }

    /// Notes that the longest wait of an ask is over. It is inclusive: what may be granted now comes first.
    pub(super) fn expire(&mut self, joint: &Arc<Joint>) {
        self.serve_all(&joint.members);
        self.steps.push_front(Step::Expire(Arc::clone(joint)));
    }

    /// Notes that the queue of a limit has to be served.
    pub(super) fn serve(&mut self, limit: Arc<dyn Driven>) {
        self.steps.push_back(Step::Serve(limit));
    }

    fn serve_all(&mut self, members: &Members) {
        members.iter().for_each(|member| self.serve(member.as_driven()));
    }

    /// Wakes all that have been answered. No lock is held.
    pub(super) fn wake(&mut self) {
        let panicked = std::mem::take(&mut self.panicked);
        self.panicked = panicked.or(wake_all(std::mem::take(&mut self.wakes)));
    }

    /// Does all that is left, and what follows from it. A panic of a waker continues afterwards.
    pub(crate) fn finish(mut self) {
        self.run();
        std::mem::take(&mut self.panicked).resume();
    }

    fn run(&mut self) {
        self.wake();
        while let Some(step) = self.steps.pop_back() {
            self.current = Some(step.clone());
            match step {
                Step::Try(group) => group.asks.lock().attempt(self),
                Step::Review(group) => group.asks.lock().review(self),
                Step::Expire(joint) => joint.withdraw(Some(Reason::Exhausted), self),
                Step::Serve(limit) => limit.serve(self),
            }
            self.current = None;
            self.wake();
        }
    }
}

/// After a panic of foreign code (a clock, an algorithm) the step is tried once more and the others are done: nobody else
/// may come to do them. Those who have been answered are woken in any case.
impl Drop for Work {
    fn drop(&mut self) {
        self.steps.extend(self.current.take());
        if !self.steps.is_empty() || !self.wakes.is_empty() {
            drop(catch_unwind(AssertUnwindSafe(|| self.run())));
            drop(wake_all(std::mem::take(&mut self.wakes)));
        }
    }
}

type Locked<'a> = Vec<Box<dyn LockedMember + 'a>>;

/// All members, locked in the order of their addresses, in their own order.
fn lock_all(members: &Members) -> Locked<'_> {
    let mut locked: Vec<_> = members.lock_order().map(|index| (index, members.get(index).lock())).collect();
    locked.sort_by_key(|(index, _)| *index);
    locked.into_iter().map(|(_, member)| member).collect()
}

impl Joint {
    /// Adds an ask to the group of those that wait for the same limits. Whoever gets it must [`begin`](Self::begin) it
    /// once it has noted that it waits.
    ///
    /// `longest` is the longest wait from now; `is_thread` is set for a thread, which waits without timers. `rank` is
    /// that of an ask that was granted before and comes back.
    pub(crate) fn enter(
        members: Members,
        longest: Option<Duration>,
        waker: &Waker,
        is_thread: bool,
        rank: Option<Rank>,
    ) -> Result<Arc<Self>, Denied> {
        let members = Arc::new(members);
        let rank = rank.unwrap_or_else(next_rank);
        let ids = members.ids();
        let deadline = longest.and_then(|longest| members.first().deadline(longest));
        // A wait beyond the end of time is none.
        let longest = longest.filter(|_| deadline.is_some());
        // Cloned outside of the locks: it is foreign code.
        let outcome = Mutex::new(Told { waker: Some(waker.clone()), answer: None });
        let joint = |group| Arc::new(Self { rank, members: Arc::clone(&members), deadline, group, outcome });
        loop {
            let known = members.get(members.home()).lock().group(&ids);
            let group = known.clone().unwrap_or_default();
            let mut asks = group.asks.lock();
            let mut locked = lock_all(&members);
            let current = locked[members.home()].group(&ids);
            if current.as_ref().map(Arc::as_ptr) != known.as_ref().map(Arc::as_ptr) {
                // The last of the group has left meanwhile, or somebody else has made one.
                continue;
            }
            // From here on, nothing foreign runs before the ask is known to all.
            asks.refuse_to_wait(&mut locked, longest, is_thread)?;
            let joint = joint(Arc::clone(&group));
            for member in &mut locked {
                if known.is_none() {
                    member.add_group(&ids, &group);
                }
                member.count(true, deadline.is_some());
                if is_thread {
                    member.join_thread(rank, waker.clone());
                }
            }
            if let Some(deadline) = deadline {
                locked[0].add_deadline(deadline, rank, &joint);
            }
            asks.queue.insert(rank, Arc::clone(&joint));
            return Ok(joint);
        }
    }

    /// Tries the ask if it is the first of its group, and sets the timers for it.
    pub(crate) fn begin(&self) {
        let mut work = Work::default();
        work.serve_all(&self.members);
        if self.group.asks.lock().leads(self.rank) {
            work.attempt(&self.group);
        }
        work.finish();
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) const fn group(&self) -> &Arc<Group> {
        &self.group
    }

    pub(crate) const fn rank(&self) -> Rank {
        self.rank
    }

    /// The answer; `Ok` once all limits have granted. The grants are claimed by their tickets.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Denied>> {
        let mut spare = None;
        loop {
            let mut told = self.outcome.lock();
            if let Some(answer) = told.answer.take() {
                return Poll::Ready(answer);
            }
            if told.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                break;
            }
            if spare.is_some() {
                std::mem::swap(&mut told.waker, &mut spare);
                break;
            }
            // Cloned outside of the lock: it is foreign code.
            drop(told);
            spare = Some(cx.waker().clone());
        }
        // The task may have moved to another runtime since.
        let mut work = Work::default();
        for (index, member) in self.members.iter().enumerate() {
            if member.make_timer(self.deadline.is_some() && index == 0) {
                work.serve(member.as_driven());
            }
        }
        work.finish();
        Poll::Pending
    }

    /// Sleeps as a thread until the next event of any of the limits, then serves them.
    pub(crate) fn park(&self) {
        let until = self.members.iter().filter_map(|member| member.sleep_for(self.rank)).min();
        self.members.first().park(until);
        let mut work = Work::default();
        work.serve_all(&self.members);
        work.finish();
    }

    /// Gives up: leaves the queues. What was granted and not claimed goes back with its tickets.
    pub(crate) fn cancel(self: &Arc<Self>) {
        in_drop(|| {
            let mut work = Work::default();
            self.withdraw(None, &mut work);
            work.finish();
        });
    }

    /// Takes the ask out of its group unless it has been answered. With a reason it is denied.
    fn withdraw(self: &Arc<Self>, reason: Option<Reason>, work: &mut Work) {
        let mut asks = self.group.asks.lock();
        if !asks.queue.contains_key(&self.rank) {
            return;
        }
        let mut locked = lock_all(&self.members);
        let denied = reason.map(|reason| {
            let paused = locked.iter().position(|member| member.is_paused());
            match (reason, paused) {
                (Reason::Exhausted, Some(index)) => locked[index].deny(Reason::Paused),
                _ => locked[0].deny(reason).after(None),
            }
        });
        asks.leave(self, &mut locked);
        drop(locked);
        work.serve_all(&self.members);
        if asks.leader.is_none() {
            work.attempt(&self.group);
        }
        if let Some(denied) = denied {
            work.wakes.extend(self.answer(Err(denied)));
        }
    }

    fn answer(&self, answer: Result<(), Denied>) -> Option<Waker> {
        let mut told = self.outcome.lock();
        told.answer = Some(answer);
        told.waker.take()
    }

    /// The denial, if a limit alone takes longer now than the ask would wait.
    fn too_late(&self, locked: &mut Locked<'_>) -> Option<Denied> {
        let left = self.deadline?.since(locked[0].now());
        locked.iter_mut().find_map(|member| {
            let wait = member.wait_alone().known().filter(|wait| *wait > left)?;
            Some(member.deny(Reason::Exhausted).after(Some(wait)))
        })
    }
}

impl Default for Group {
    fn default() -> Self {
        Self { asks: Mutex::new(Asks::default()) }
    }
}

impl Asks {
    /// Denies an ask that can never be granted, or not within its longest wait, or that finds a full queue.
    fn refuse_to_wait(
        &self,
        locked: &mut Locked<'_>,
        longest: Option<Duration>,
        is_thread: bool,
    ) -> Result<(), Denied> {
        for member in locked.iter_mut() {
            if let Some(reason) = member.refuses() {
                return Err(member.deny(reason));
            }
        }
        // Behind others, an ask without a longest wait need not know when it is granted.
        let knows = longest.is_some() || self.queue.is_empty();
        let waits: Vec<Wait> = if knows {
            locked.iter_mut().map(|member| member.wait(&mut self.queue.values())).collect()
        } else {
            Vec::new()
        };
        // The member that binds longest denies.
        let binding = waits.iter().enumerate().max_by_key(|(_, wait)| **wait);
        let known = binding.and_then(|(_, wait)| wait.known());
        let is_late = |longest| waits.iter().filter_map(Wait::known).max() > Some(longest);
        if let Some((binding, wait)) = binding {
            if *wait == Wait::Never || longest.is_some_and(is_late) {
                return Err(locked[binding].deny(Reason::Exhausted).after(known));
            }
        }
        if let Some(full) = locked.iter_mut().find(|member| member.is_full()) {
            return Err(full.deny(Reason::QueueFull).after(known));
        }
        if !is_thread {
            for (index, member) in locked.iter_mut().enumerate() {
                if !member.make_timer(longest.is_some() && index == 0) {
                    return Err(member.deny(Reason::NoTimer).after(known));
                }
            }
        }
        Ok(())
    }

    fn leads(&self, rank: Rank) -> bool {
        self.queue.first_key_value().is_some_and(|(first, _)| *first == rank)
    }

    /// Takes an ask out of the group and out of the queues of limits.
    fn leave(&mut self, joint: &Joint, locked: &mut Locked<'_>) {
        self.queue.remove(&joint.rank);
        self.leader.take_if(|leader| leader.rank == joint.rank);
        for member in locked.iter_mut() {
            member.leave(joint.rank);
            member.count(false, joint.deadline.is_some());
            member.leave_thread(joint.rank);
        }
        if let Some(deadline) = joint.deadline {
            locked[0].remove_deadline(deadline, joint.rank);
        }
        if self.queue.is_empty() {
            // Nobody waits any more: newcomers make another group.
            let ids = joint.members.ids();
            locked.iter_mut().for_each(|member| member.remove_group(&ids));
        }
    }

    /// Tries the first ask, and those behind it for as long as they are granted.
    fn attempt(&mut self, work: &mut Work) {
        while let Some((&rank, joint)) = self.queue.first_key_value() {
            let joint = Arc::clone(joint);
            let mut locked = lock_all(&joint.members);
            if let Some(before) = self.leader.take_if(|leader| leader.rank != rank) {
                // One that has come back is ahead of the one that led.
                locked.iter_mut().for_each(|member| member.leave(before.rank));
                work.serve_all(&joint.members);
            }
            let leader = self.leader.get_or_insert_with(|| Leader::new(rank, locked.len()));
            if leader.look(&mut locked) && take_all(&mut locked) {
                self.leave(&joint, &mut locked);
                drop(locked);
                work.wakes.extend(joint.answer(Ok(())));
                work.serve_all(&joint.members);
                continue;
            }
            leader.stand(&joint, &mut locked, work);
            return;
        }
    }

    /// After a change for the worse of one of the limits: denies those that can never be granted, or not in time.
    fn review(&mut self, work: &mut Work) {
        let all: Vec<_> = self.queue.values().map(Arc::clone).collect();
        for joint in all {
            let mut locked = lock_all(&joint.members);
            let refused = locked
                .iter_mut()
                .find_map(|member| member.refuses().map(|reason| member.deny(reason)))
                .or_else(|| joint.too_late(&mut locked));
            if let Some(denied) = refused {
                self.leave(&joint, &mut locked);
                drop(locked);
                work.wakes.extend(joint.answer(Err(denied)));
                work.serve_all(&joint.members);
            }
        }
        self.attempt(work);
    }
}

/// Takes from all, or from none.
fn take_all(locked: &mut Locked<'_>) -> bool {
    let failed = locked.iter_mut().position(|member| !member.take());
    if let Some(failed) = failed {
        locked[..failed].iter_mut().for_each(|member| member.take_back());
    }
    failed.is_none()
}

impl Leader {
    fn new(rank: Rank, members: usize) -> Self {
        Self { rank, overtaken: 0, at: vec![Progress::default(); members] }
    }

    /// Finds out which limits could grant. `true`: all of them.
    fn look(&mut self, locked: &mut Locked<'_>) -> bool {
        let mut was_overtaken = false;
        for (at, member) in self.at.iter_mut().zip(locked.iter_mut()) {
            let is_ready = member.could_grant(self.rank);
            was_overtaken |= at.is_ready && !is_ready;
            at.is_ready = is_ready;
            let now = member.now();
            let refused_at = if is_ready { at.refused_at.take() } else { at.refused_at.or(Some(now)) };
            let waited = refused_at.map_or(Duration::ZERO, |refused_at| now.since(refused_at));
            let left = if is_ready { None } else { member.wait_alone().known() };
            at.longest = at.longest.max(waited.saturating_add(left.unwrap_or_default()));
            if !is_ready {
                at.refused_at = refused_at;
            }
        }
        self.overtaken += u32::from(was_overtaken);
        self.at.iter().all(|at| at.is_ready)
    }

    /// After a try that failed: stands where it was refused, and once it has no patience left keeps what it could have.
    fn stand(&mut self, joint: &Arc<Joint>, locked: &mut Locked<'_>, work: &mut Work) {
        let is_patient = self.overtaken < PATIENCE;
        let all_ready = self.at.iter().all(|at| at.is_ready);
        // How long those that refuse are expected to take.
        let mut left = Duration::ZERO;
        // Where all could grant and one did not keep its word, the first is waited at.
        let mut awaited = 0;
        for (index, (at, member)) in self.at.iter().zip(locked.iter_mut()).enumerate().rev() {
            if !at.is_ready {
                left = left.max(member.expected_wait().unwrap_or(at.longest));
                if is_patient || self.at[awaited].is_ready || at.longest >= self.at[awaited].longest {
                    awaited = index;
                }
            }
        }
        for (index, (at, member)) in self.at.iter_mut().zip(locked.iter_mut()).enumerate() {
            let keeps = !is_patient && at.is_ready && at.longest >= left && member.can_be_kept();
            let stands = keeps || index == awaited;
            if stands {
                member.stand(self.rank, joint, index == awaited);
            } else if at.stands {
                member.leave(self.rank);
            }
            if (stands || at.stands) && !all_ready {
                work.serve(joint.members.get(index).as_driven());
            }
            at.stands = stands;
        }
    }
}
