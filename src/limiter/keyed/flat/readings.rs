//! The present reading, and the one before it.

use super::reading::{Reading, Scale};
use crate::algorithm::{Pace, TokenBucket};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::units::Timestamp;

/// Two readings, of which the version's lowest bit names the present one. Read without a lock: whoever has read one and
/// then finds the version as it was has read it whole.
pub(super) struct Readings {
    version: AtomicU64,
    two: [Cell; 2],
    changed_ns: AtomicU64,
}

/// A reading in words.
#[derive(Default)]
struct Cell {
    scale: [AtomicU64; 5],
    bucket: [AtomicU64; 6],
}

impl Readings {
    pub(super) fn new(reading: &Reading) -> Self {
        let readings = Self {
            version: AtomicU64::new(0),
            two: [Cell::default(), Cell::default()],
            changed_ns: AtomicU64::new(0),
        };
        readings.two.iter().for_each(|cell| cell.write(reading));
        readings
    }

    fn cell(&self, version: u32) -> &Cell {
        &self.two[version as usize & 1]
    }

    /// The version, and what decisions need of it. To be believed once [`is_at`](Self::is_at) says so.
    #[inline]
    pub(super) fn scale(&self) -> (u32, Scale) {
        let version = self.version.load(Ordering::Acquire) as u32;
        (version, self.cell(version).scale())
    }

    #[inline]
    pub(super) fn is_at(&self, version: u32) -> bool {
        // Acquire before the load: if any of the reads before saw a later value, the load sees the later version.
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) as u32 == version
    }

    /// The reading of a version, whole if it is the present one still.
    pub(super) fn read(&self, version: u32) -> Reading {
        self.cell(version).read()
    }

    pub(super) fn starts_late(&self, version: u32) -> bool {
        self.read(version).late > 0
    }

    /// The present one, the one before it, and when it changed.
    pub(super) fn both(&self, version: u32) -> (Reading, Reading, Timestamp) {
        let changed = Timestamp::from_ns(self.changed_ns.load(Ordering::Relaxed));
        (self.read(version), self.read(version.wrapping_sub(1)), changed)
    }

    pub(super) fn is_reading(&self, reading: &Reading) -> bool {
        self.read(self.version.load(Ordering::Acquire) as u32) == *reading
    }

    /// Makes another one the present one. By one at a time, when no word is left of the one before.
    pub(super) fn change(&self, reading: &Reading, now_ns: u64) {
        let version = self.version.load(Ordering::Relaxed);
        // The cell that is written is nobody's to read, but for one who has slept through a change: it will not find
        // its version again. The writes are not seen before the version is: release.
        fence(Ordering::Release);
        self.changed_ns.store(now_ns, Ordering::Relaxed);
        self.cell(version.wrapping_add(1) as u32).write(reading);
        self.version.store(version.wrapping_add(1), Ordering::Release);
    }
}

impl Cell {
    #[inline]
    fn scale(&self) -> Scale {
        let [mul, shift, unit, burst, due_ns] = &self.scale;
        Scale {
            mul: mul.load(Ordering::Relaxed),
            shift: shift.load(Ordering::Relaxed),
            unit: unit.load(Ordering::Relaxed),
            burst: burst.load(Ordering::Relaxed),
            due_ns: due_ns.load(Ordering::Relaxed),
        }
    }

    fn read(&self) -> Reading {
        let [burst, initial, ticks_per_ns, ticks_per_unit, burst_ticks, late] =
            self.bucket.each_ref().map(|word| word.load(Ordering::Relaxed));
        let bucket =
            TokenBucket::of_parts(burst, initial, Pace { ticks_per_ns, ticks_per_unit, burst_ticks });
        Reading { bucket, scale: self.scale(), late }
    }

    fn write(&self, reading: &Reading) {
        let Scale { mul, shift, unit, burst, due_ns } = reading.scale;
        let store = |words: &[AtomicU64], values: &[u64]| {
            words.iter().zip(values).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
        };
        store(&self.scale, &[mul, shift, unit, burst, due_ns]);
        let (burst, initial, pace) = reading.bucket.parts();
        let Pace { ticks_per_ns, ticks_per_unit, burst_ticks } = pace;
        store(&self.bucket, &[burst, initial, ticks_per_ns, ticks_per_unit, burst_ticks, reading.late]);
    }
}
