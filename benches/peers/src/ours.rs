//! The limiters of this crate. Where nothing else is said, they are what `new` gives.

use std::hash::Hash;

use tollgate::{Clock, Keyed, Quota, Striped, TokenBucket, algorithm};

use crate::load::Load;

pub fn bucket(load: Load) -> TokenBucket {
    load.prepare(TokenBucket::new(load.quota()).unwrap(), |limiter| limiter.check(1).is_ok())
}

pub fn bucket_on<C: Clock>(load: Load, clock: C) -> TokenBucket<C> {
    let limiter = TokenBucket::builder(load.quota()).clock(clock).build().unwrap();
    load.prepare(limiter, |limiter| limiter.check(1).is_ok())
}

pub fn striped(load: Load) -> Striped {
    let limiter = TokenBucket::builder(load.quota()).striped().build().unwrap();
    load.prepare(limiter, |limiter| limiter.check(1).is_ok())
}

pub type KeyedBucket<K> = Keyed<K, algorithm::TokenBucket>;

/// A limit for each of at most `keys` keys.
pub fn keyed<K: Hash + Eq + Clone + Send + Sync + 'static>(quota: Quota, keys: usize) -> KeyedBucket<K> {
    TokenBucket::builder(quota).keyed().max_keys(keys).build().unwrap()
}

pub fn keyed_on<C: Clock>(quota: Quota, keys: usize, clock: C) -> Keyed<u64, algorithm::TokenBucket, C> {
    TokenBucket::builder(quota).clock(clock).keyed().max_keys(keys).build().unwrap()
}
