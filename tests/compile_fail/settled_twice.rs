//~ use of moved value: `permit`
use tollgate::{Permit, Quota, TokenBucket};
fn main() {
    let permit = TokenBucket::new(Quota::per_second(5)).unwrap().try_acquire(1).unwrap();
    permit.settle(3.into());
    permit.refund();
}
