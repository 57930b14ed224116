use crate::sync::{AtomicU64, Ordering};

const FREE_BITS: u32 = 24;
/// The most slots that a word says are free.
pub(super) const FREE_MAX: u64 = (1 << FREE_BITS) - 1;
/// The bit that says the count is behind the lock: the word says that none is free.
const HELD: u64 = 1 << FREE_BITS;
const ONE_TURN: u64 = HELD << 1;

/// Free slots in an atomic word on cache lines of its own.
///
/// | word | meaning | leaves by |
/// |---|---|---|
/// | without `HELD` | how many are free, and above that the turn; nobody waits | compare-exchange by anyone; to `HELD` under the lock |
/// | with `HELD` | the count is behind the lock | store under the lock, once nobody waits |
///
/// The turn moves on whenever the count grows, and whenever the word is opened: while it stands still, slots are at most
/// taken. It comes round after 2³⁹ turns, half an hour's work for a processor that does nothing else.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Stripe {
    word: AtomicU64,
    /// Of the first stripe: the most slots that can be refused for want of free ones. Written only while the word is
    /// `HELD`.
    most: AtomicU64,
}

impl Stripe {
    pub(super) fn held() -> Self {
        Self { word: AtomicU64::new(HELD), most: AtomicU64::new(0) }
    }

    #[inline]
    pub(super) fn take(&self, units: u64) -> bool {
        self.update(|word| (word & FREE_MAX >= units).then(|| word - units)).is_ok()
    }

    #[inline]
    pub(super) fn put_back(&self, units: u64) -> bool {
        let next = |word: u64| {
            let fits = units + (word & (HELD | FREE_MAX)) <= FREE_MAX;
            fits.then(|| word.wrapping_add(ONE_TURN + units))
        };
        self.update(next).is_ok()
    }

    /// Takes the word behind the lock, and what is free with it.
    pub(super) fn hold(&self) -> u64 {
        let held = self.update(|word| (word & HELD == 0).then_some((word & !FREE_MAX) | HELD));
        held.map_or(0, |word| word & FREE_MAX)
    }

    #[inline]
    fn update(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        // Acquire and release: what was done under a slot happens before what is done under it next.
        self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next)
    }

    /// Puts so many free ones at the word, which is `HELD`.
    pub(super) fn open(&self, free: u64, most: u64) {
        let turn = self.word.load(Ordering::Relaxed).wrapping_add(HELD);
        // Release: whoever sees it also sees that the word is HELD.
        self.most.store(most, Ordering::Release);
        self.word.store(turn | free, Ordering::Release);
    }

    /// How many are free, and the turn, unless the word is held.
    #[inline]
    pub(super) fn look(&self) -> Option<(u64, u64)> {
        // Acquire: what is looked at next is looked at later, and as it was when the word was opened or since.
        let word = self.word.load(Ordering::Acquire);
        (word & HELD == 0).then_some((word & FREE_MAX, word >> FREE_BITS))
    }

    /// The turn, or the half of the next if the word is held.
    #[inline]
    pub(super) fn turn(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> FREE_BITS
    }

    #[inline]
    pub(super) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}
