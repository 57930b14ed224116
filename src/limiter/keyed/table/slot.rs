//! The bits of a slot, of the head of a bucket, and of a key's hash.

use super::encoding::CIRCLE;

/// Bits of the time in a slot: those of the circle.
const TIME_BITS: u32 = CIRCLE.trailing_zeros();
const TIME: u64 = CIRCLE - 1;
/// In place of a time: the key's state is in the map.
const MOVED: u64 = TIME;

/// A slot: | fingerprint, 21 bits, never zero | lowest bit of the quota's revision | theoretical arrival time, 42 bits |.
/// All zero: free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub(super) u64);

impl Slot {
    pub(super) const FREE: Self = Self(0);

    pub(super) const fn new(fingerprint: u64, revision: u32, time: u64) -> Self {
        let time = time & TIME;
        // A time that reads as a mark is moved on by one tick.
        let time = if time == MOVED { 0 } else { time };
        Self(fingerprint << (TIME_BITS + 1) | (revision as u64 & 1) << TIME_BITS | time)
    }

    /// The mark of a key whose state is in the map.
    pub(super) const fn moved(fingerprint: u64) -> Self {
        Self(fingerprint << (TIME_BITS + 1) | MOVED)
    }

    pub(super) const fn fingerprint(self) -> u64 {
        self.0 >> (TIME_BITS + 1)
    }

    /// The time was written under this revision of the quota, or under one of the same lowest bit.
    pub(super) const fn is_of(self, revision: u32) -> bool {
        self.0 >> TIME_BITS & 1 == revision as u64 & 1
    }

    pub(super) const fn time(self) -> u64 {
        self.0 & TIME
    }

    pub(super) const fn is_free(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn is_moved(self) -> bool {
        self.time() == MOVED
    }

    pub(super) const fn is_live(self) -> bool {
        !self.is_free() && !self.is_moved()
    }
}

/// A key's hash: it gives the shard of the key, its fingerprint, and the two buckets it may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limiter::keyed) struct Id {
    pub(in crate::limiter::keyed) hash: u64,
}

const FINGERPRINT_BITS: u32 = 63 - TIME_BITS;

impl Id {
    /// An id that finds what is in this bucket under this fingerprint.
    pub(super) const fn of_slot(fingerprint: u64, bucket: u64, count: u64) -> Self {
        Self { hash: ((bucket << 32).div_ceil(count)) << 32 | fingerprint }
    }

    /// What keys that share a slot have in common: the fingerprint, and the two buckets.
    pub(in crate::limiter::keyed) fn neighbourhood(self, count: u64) -> u64 {
        let (first, second) = self.buckets(count);
        self.fingerprint() << 32 | first.min(second)
    }

    /// Keys that share a slot share this, and so the shard: one lock orders them.
    pub(in crate::limiter::keyed) const fn fingerprint(self) -> u64 {
        let bits = self.hash & ((1 << FINGERPRINT_BITS) - 1);
        if bits == 0 { 1 } else { bits }
    }

    /// The bucket that is searched first.
    #[inline]
    pub(super) const fn first(self, count: u64) -> u64 {
        ((self.hash >> 32) * count) >> 32
    }

    /// The two buckets. Two keys of one fingerprint have both buckets in common or none: the second is the difference
    /// between the first and a sum that depends on the fingerprint alone.
    #[inline]
    pub(super) const fn buckets(self, count: u64) -> (u64, u64) {
        let first = self.first(count);
        let spread = self.fingerprint().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let sum = (spread * count) >> 32;
        (first, if sum >= first { sum - first } else { sum + count - first })
    }
}

const REBASED_SHIFT: u32 = 30;
const PINS: u64 = (1 << REBASED_SHIFT) - 1;

/// The head of a bucket: | when its times were last rebased, in 2³⁰ ns, 34 bits | pins, 30 bits |. A pin is a permit of
/// one of its keys, and keeps its slots from being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head(pub(super) u64);

impl Head {
    pub(super) const PIN: u64 = 1;

    pub(super) const fn rebased_ns(self) -> u64 {
        self.0 & !PINS
    }

    pub(super) const fn rebased(self, now_ns: u64) -> Self {
        Self(now_ns & !PINS | self.0 & PINS)
    }

    pub(super) const fn is_pinned(self) -> bool {
        self.0 & PINS != 0
    }

    pub(super) const fn may_pin(self) -> bool {
        self.0 & PINS < PINS / 2
    }

    /// The times of the bucket have not been rebased between the two.
    pub(super) const fn same_base(self, other: Self) -> bool {
        self.rebased_ns() == other.rebased_ns()
    }
}
