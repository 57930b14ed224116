use super::{FastPath, Outcome, Sealed};
use crate::algorithm::{Algorithm, SlidingWindow};
use crate::sync::per_thread::Padded;
use crate::sync::{AtomicU64, OnceLock, Ordering, fence, spin, yield_now};
use crate::units::Timestamp;

/// The head that says the log is behind the lock.
const HELD: u64 = u64::MAX;
/// The last time that fits a place.
const GONE_MAX_NS: u64 = u64::MAX >> 1;
/// The largest limit that has a ring: 128 KiB.
const SLOTS_MAX: u64 = 1 << PLACE_BITS;
/// A head is a lap and a place: a ring of one place takes a lap of 2⁵⁰ turns, years of them, to come to a head again.
const PLACE_BITS: u32 = 14;
const PLACE: u64 = SLOTS_MAX - 1;

/// The log of an exact sliding window as a ring with one place for each unit of the limit.
///
/// The unit admitted next takes the place of the one admitted *limit* units before it, if that has left the window.
/// That keeps the promise whatever the order of the readings of the clock: of all units that ever take one place, no two
/// are within one window, and there are *limit* places.
///
/// | head | meaning | leaves by |
/// |---|---|---|
/// | any but `HELD` | the lap and the place of the next unit; nobody waits | compare-exchange by anyone; swap to `HELD` under the lock |
/// | `HELD` | the log is behind the lock | store under the lock, once nobody waits |
///
/// A place holds when its unit is gone, and whether that unit came in an odd lap: whoever moves the head past a place
/// fills it next, and until then it shows the wrong lap. Whoever comes to it a lap later waits until it is filled; the
/// lock would have to wait, too.
///
/// To move the log between the lock and the ring takes a time that grows with the limit. Asks that need the lock
/// (costs of several units, refunds, waits, looks) therefore let as many others pass through the lock before the
/// ring is used again. A key's limiter begins so too: its memory grows with its use. Any other uses the ring at once.
#[derive(Debug)]
pub struct WindowRing {
    /// Apart from what is only read while it is written.
    head: Padded<AtomicU64>,
    window_ns: AtomicU64,
    limit: AtomicU64,
    /// The lap that the ring was closed in. Never goes back, so no head comes twice under different readings.
    lap: AtomicU64,
    /// How often the lock has been taken since.
    passed: AtomicU64,
    places: OnceLock<Box<[AtomicU64]>>,
}

/// A unit in its place.
const fn filled(gone_ns: u64, lap: u64) -> u64 {
    gone_ns << 1 | (lap & 1)
}

const fn is_of(place: u64, lap: u64) -> bool {
    place & 1 == lap & 1
}

impl WindowRing {
    /// What the ring shows to an ask of one unit.
    #[inline]
    fn see(&self, cost: u64) -> Sight<'_> {
        if cost != 1 {
            return Sight::Shut;
        }
        // Acquire: what the head is read by was written before it was released.
        let head = self.head.0.load(Ordering::Acquire);
        if head == HELD {
            return Sight::Shut;
        }
        let (lap, at) = (head >> PLACE_BITS, head & PLACE);
        let Some(place) = self.places.get().and_then(|places| places.get(at as usize)) else {
            return Sight::Shut;
        };
        // Relaxed: nothing is read by what it says, except for what follows a look at whether the head is still the same.
        let unit = place.load(Ordering::Relaxed);
        if !is_of(unit, lap.wrapping_sub(1)) {
            return Sight::Unfilled { head };
        }
        let is_last = at + 1 == self.limit.load(Ordering::Relaxed);
        let next = if is_last { (lap + 1) << PLACE_BITS } else { head + 1 };
        Sight::Next(Turn { head, next, lap, place, gone_ns: unit >> 1 })
    }

    /// The latest reading of the clock that the ring knows of: whose unit was admitted last. `None` if that one is about to
    /// fill it in.
    #[inline]
    fn latest_ns(&self, head: u64) -> Option<u64> {
        let (lap, at) = (head >> PLACE_BITS, head & PLACE);
        let (lap, at) = match at.checked_sub(1) {
            Some(at) => (lap, at),
            None => (lap.wrapping_sub(1), self.limit.load(Ordering::Relaxed).wrapping_sub(1)),
        };
        let unit = self.places.get()?.get(at as usize)?.load(Ordering::Relaxed);
        is_of(unit, lap).then(|| (unit >> 1).saturating_sub(self.window_ns.load(Ordering::Relaxed)))
    }

    /// `true` if the head is what it was, and so were the readings it was read by.
    #[inline]
    fn is_still(&self, head: u64) -> bool {
        // Acquire: if any of the reads before saw a later value, the load below sees the later head.
        fence(Ordering::Acquire);
        self.head.0.load(Ordering::Relaxed) == head
    }
}

enum Sight<'a> {
    Next(Turn<'a>),
    /// The place at this head does not hold the unit of the lap before yet, or the head has been moved on.
    Unfilled {
        head: u64,
    },
    /// Only the lock can tell.
    Shut,
}

/// Whose place is taken next, when that unit is gone, and by what head that is told.
struct Turn<'a> {
    head: u64,
    next: u64,
    lap: u64,
    place: &'a AtomicU64,
    gone_ns: u64,
}

/// As often as the lock has to be taken before any ring is used again.
const LONG_PASSED: u64 = SLOTS_MAX;
/// How often is looked at a place that is about to be filled: longer than that takes, unless whoever does it has lost the
/// processor.
const SPINS: u32 = 100;
/// For so long one who has lost the head leaves it to the other, who can take several units meanwhile.
const LEFT_ALONE: u32 = 32;

#[cold]
fn wait_a_little(waits: &mut u32) {
    if *waits < SPINS {
        *waits += 1;
        spin(1);
    } else {
        yield_now();
    }
}

impl FastPath<SlidingWindow> for WindowRing {
    fn build(_: Sealed) -> Self {
        Self {
            head: Padded(AtomicU64::new(HELD)),
            window_ns: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            lap: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            places: OnceLock::new(),
        }
    }

    #[inline]
    fn try_take(&self, now: Timestamp, cost: u64, take: bool) -> Outcome {
        let (mut now_ns, mut waits) = (now.as_ns(), 0);
        loop {
            let Turn { head, next, lap, place, gone_ns } = match self.see(cost) {
                Sight::Next(turn) => turn,
                Sight::Unfilled { head } => {
                    if self.is_still(head) {
                        wait_a_little(&mut waits);
                    }
                    continue;
                }
                Sight::Shut => return Outcome::Contended,
            };
            if now_ns < gone_ns {
                let latest_ns = self.latest_ns(head);
                if !self.is_still(head) {
                    continue;
                }
                match latest_ns {
                    // Others have come since the clock was read: by now it shows their time at least.
                    Some(latest_ns) if now_ns < latest_ns => now_ns = latest_ns,
                    None if waits < SPINS => wait_a_little(&mut waits),
                    _ => return Outcome::WaitUntil(Timestamp::from_ns(gone_ns)),
                }
                continue;
            }
            if !take {
                if self.is_still(head) {
                    return Outcome::Taken;
                }
                continue;
            }
            let gone_ns = now_ns.saturating_add(self.window_ns.load(Ordering::Relaxed));
            if gone_ns > GONE_MAX_NS {
                return Outcome::Contended;
            }
            if self.head.0.compare_exchange(head, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // Release: whoever sees it and looks again also sees that the head has moved on.
                place.store(filled(gone_ns, lap), Ordering::Release);
                return Outcome::Taken;
            }
            // By turns, both would take longer.
            spin(LEFT_ALONE);
        }
    }

    fn expect_use(&self) {
        self.passed.store(LONG_PASSED, Ordering::Relaxed);
    }

    fn close(&self, _algorithm: &SlidingWindow, state: &mut <SlidingWindow as Algorithm>::State) {
        let head = self.head.0.swap(HELD, Ordering::AcqRel);
        let (lap, at) = (head >> PLACE_BITS, (head & PLACE) as usize);
        let window_ns = self.window_ns.load(Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed) as usize;
        let places = self.places.get().map_or(&[][..], |places| &places[..limit]);
        let unit_in = |index: usize| loop {
            let unit = places[index].load(Ordering::Relaxed);
            if is_of(unit, if index < at { lap } else { lap.wrapping_sub(1) }) {
                break unit >> 1;
            }
            // Whoever has moved the head past it is about to fill it.
            yield_now();
        };
        let gone_ns = (at..limit).chain(0..at).map(unit_in).filter(|gone_ns| *gone_ns > 0);
        // The readings of those who came together may be a little out of order.
        state.put_times(gone_ns.map(|gone_ns| gone_ns - window_ns));
        self.lap.store(lap + 2, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
    }

    fn open(&self, algorithm: &SlidingWindow, state: &mut <SlidingWindow as Algorithm>::State) -> bool {
        let Some((window_ns, limit)) = algorithm.exact().filter(|(_, limit)| *limit <= SLOTS_MAX) else {
            return false;
        };
        let passed = self.passed.load(Ordering::Relaxed) + 1;
        self.passed.store(passed, Ordering::Relaxed);
        let leaves = state.newest_ns().saturating_add(window_ns);
        if passed <= limit || state.used() > limit || leaves > GONE_MAX_NS {
            return false;
        }
        let places = self.places.get_or_init(|| (0..limit).map(|_| AtomicU64::new(0)).collect());
        let Some(places) = places.get(..limit as usize) else { return false };
        let lap = self.lap.load(Ordering::Relaxed);
        let before = lap.wrapping_sub(1);
        let empty = places.len() - state.used() as usize;
        let gone = std::iter::repeat_n(0, empty).chain(state.take_times().map(|at_ns| at_ns + window_ns));
        // Release before the writes: whoever sees one of them also sees that the head is HELD.
        fence(Ordering::Release);
        for (place, gone_ns) in places.iter().zip(gone) {
            place.store(filled(gone_ns, before), Ordering::Relaxed);
        }
        self.window_ns.store(window_ns, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.head.0.store(lap << PLACE_BITS, Ordering::Release);
        true
    }
}
