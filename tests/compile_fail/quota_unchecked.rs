//~ expected `RateLimiter<TokenBucket>`, found `Result<RateLimiter<TokenBucket>, ...>`
use tollgate::{Quota, TokenBucket};
fn main() {
    let _limiter: TokenBucket = TokenBucket::new(Quota::per_second(5));
}
