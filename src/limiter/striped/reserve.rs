use crate::units::QuotaError;

/// Most units in a portion: a draw costs some eighty nanoseconds, so this makes it a third of one a unit.
const PORTION_MAX: u64 = 256;
/// A smaller portion is not worth the looking.
const PORTION_MIN: u64 = 4;
/// The reserve is at most this part of the burst.
const PART: u64 = 16;

/// What is set aside of a burst for threads to hold: so many portions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserve {
    pub(super) threads: u64,
    pub(super) portion: u64,
}

impl Reserve {
    const NONE: Self = Self { threads: 0, portion: 0 };

    pub(super) const fn units(self) -> u64 {
        self.threads * self.portion
    }
}

/// How much is set aside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sizing {
    /// As the burst allows, for up to so many threads.
    Fitted { threads: u64 },
    /// As asked for.
    Fixed { threads: u64, portion: u64 },
}

impl Sizing {
    /// For all threads a machine runs at once, and as many again.
    pub(super) fn fitted() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::Fitted { threads: (cores as u64 * 2).clamp(16, 256) }
    }

    pub(super) const fn threads(self) -> u64 {
        match self {
            Self::Fitted { threads } | Self::Fixed { threads, .. } => threads,
        }
    }

    pub(super) fn of(self, burst: u64) -> Result<Reserve, QuotaError> {
        match self {
            Self::Fitted { threads } => {
                let most = burst / PART;
                let threads = threads.min(most / PORTION_MIN);
                Ok(match threads {
                    0 | 1 => Reserve::NONE,
                    _ => Reserve { threads, portion: (most / threads).min(PORTION_MAX) },
                })
            }
            Self::Fixed { threads, portion } => match threads.checked_mul(portion) {
                Some(0) => Ok(Reserve::NONE),
                Some(units) if units < burst => Ok(Reserve { threads, portion }),
                units => Err(QuotaError::ReserveTooLarge { reserve: units.unwrap_or(u64::MAX), burst }),
            },
        }
    }
}
