//! The keys of requests, drawn before anything is measured.

/// Draws of each distribution. Requests go through them again and again.
const DRAWS: usize = 1 << 20;

/// A fixed sequence of draws from `0..1`: every run asks for the same keys.
struct Draws(u64);

impl Iterator for Draws {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Some(((word ^ (word >> 31)) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

fn draws() -> impl Iterator<Item = f64> {
    Draws(42).take(DRAWS)
}

/// Every key as often as any other.
pub fn uniform(keys: u64) -> Vec<u64> {
    draws().map(|draw| spread((draw * keys as f64) as u64)).collect()
}

/// The key of rank `n` in proportion to `1 / n`.
pub fn zipf(keys: u64) -> Vec<u64> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    draws().map(|draw| spread(sums.partition_point(|&up_to| up_to < draw * sum) as u64)).collect()
}

/// Maps numbers in a row to keys that are none. One to one.
pub const fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A key as text of 32 bytes.
pub fn text(key: u64) -> String {
    format!("tenant-{key:016x}-eu-west-1")[..32].to_owned()
}

/// Goes through the draws, from another position in each thread.
pub fn walk<'d, K>(draws: &'d [K], thread: usize) -> impl FnMut() -> &'d K {
    let mut at = thread * draws.len() / 3;
    move || {
        at += 1;
        if at >= draws.len() {
            at = 0;
        }
        &draws[at]
    }
}
