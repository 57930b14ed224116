//! How a slot and the head of its bucket are packed.

use super::reading::CIRCLE;

/// Bits of the time in a slot: those of the circle.
const TIME_BITS: u32 = CIRCLE.trailing_zeros();
const TIME: u64 = CIRCLE - 1;
/// In place of a time: the key's state lives in the map.
const AWAY: u64 = TIME;

/// A slot: | fingerprint, 21 bits, never zero | generation of its reading, 1 bit | theoretical arrival time, 42 bits |.
/// All zero: free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limiter::keyed) struct Word(pub(super) u64);

impl Word {
    pub(super) const FREE: Self = Self(0);

    pub(super) const fn new(fingerprint: u64, generation: u64, time: u64) -> Self {
        let time = time & TIME;
        // A time that reads as a mark is moved on by one tick.
        let time = if time == AWAY { 0 } else { time };
        Self(fingerprint << (TIME_BITS + 1) | generation << TIME_BITS | time)
    }

    pub(super) const fn away(fingerprint: u64) -> Self {
        Self(fingerprint << (TIME_BITS + 1) | AWAY)
    }

    pub(super) const fn fingerprint(self) -> u64 {
        self.0 >> (TIME_BITS + 1)
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> TIME_BITS & 1
    }

    pub(super) const fn time(self) -> u64 {
        self.0 & TIME
    }

    pub(super) const fn is_free(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn is_away(self) -> bool {
        self.time() == AWAY
    }
}

/// Of a key's hash: the shard it is of, the fingerprint, and which two buckets it may live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limiter::keyed) struct Id {
    pub(in crate::limiter::keyed) hash: u64,
}

const FINGERPRINT_BITS: u32 = 63 - TIME_BITS;

impl Id {
    /// Keys that share it and a neighbourhood share a state, and the shard too: one lock orders them.
    pub(in crate::limiter::keyed) const fn fingerprint(self) -> u64 {
        let bits = self.hash & ((1 << FINGERPRINT_BITS) - 1);
        if bits == 0 { 1 } else { bits }
    }

    /// The bucket it is looked for first.
    #[inline]
    pub(super) const fn first(self, count: u64) -> u64 {
        ((self.hash >> 32) * count) >> 32
    }

    /// The two buckets. Of two keys of one fingerprint either both are the same or none is: the second is what is
    /// missing from the first to a sum that the fingerprint tells.
    #[inline]
    pub(super) const fn buckets(self, count: u64) -> (u64, u64) {
        let first = self.first(count);
        let spread = self.fingerprint().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let sum = (spread * count) >> 32;
        (first, if sum >= first { sum - first } else { sum + count - first })
    }
}

const TURNED_SHIFT: u32 = 30;
const PINS: u64 = (1 << TURNED_SHIFT) - 1;

/// The head of a bucket: | when its times were last brought up, in 2³⁰ ns, 34 bits | permits out of its keys, 30 bits |.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head(pub(super) u64);

impl Head {
    pub(super) const PIN: u64 = 1;

    pub(super) const fn turned_ns(self) -> u64 {
        self.0 & !PINS
    }

    pub(super) const fn turned(self, now_ns: u64) -> Self {
        Self(now_ns & !PINS | self.0 & PINS)
    }

    pub(super) const fn is_pinned(self) -> bool {
        self.0 & PINS != 0
    }

    pub(super) const fn may_pin(self) -> bool {
        self.0 & PINS < PINS / 2
    }

    pub(super) const fn same_turn(self, other: Self) -> bool {
        self.turned_ns() == other.turned_ns()
    }
}
