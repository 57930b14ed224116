use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128, SipHasher24};

/// What is kept of a text that a client chose: 128 bits of a keyed hash (SipHash-2-4). It cannot be turned back into the
/// text, nor can texts be found that share one, without the [`Secret`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u128);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:032x})", self.0)
    }
}

/// What fingerprints are keyed with. Random in each process unless told; processes that share one make the same
/// fingerprints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    /// The secret `bytes`.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// This process's own: made once, from the system's randomness.
    #[must_use]
    pub fn of_process() -> Self {
        static OURS: OnceLock<Secret> = OnceLock::new();
        *OURS.get_or_init(|| {
            // The standard library seeds its hasher from the system, and hashing nothing tells nothing of the seed.
            let word = || RandomState::new().build_hasher().finish().to_le_bytes();
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&word());
            bytes[8..].copy_from_slice(&word());
            Self(bytes)
        })
    }

    /// The fingerprint of `text`.
    #[must_use]
    pub fn fingerprint(&self, text: &[u8]) -> Fingerprint {
        self.fingerprint_of([text])
    }

    /// The fingerprint of several texts: no two lists of texts share one because of where one text ends and the next
    /// begins.
    pub fn fingerprint_of<'a>(&self, texts: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for text in texts {
            hasher.write(&(text.len() as u64).to_le_bytes());
            hasher.write(text);
        }
        Fingerprint(hasher.finish128().as_u128())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
