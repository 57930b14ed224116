//~ cannot decide about `()` on the spot
//~ shedding needs a limiter in process; a remote one can only be awaited
use tollgate::{LimiterExt, Quota, TokenBucket};
fn sheds<L: tollgate::Limiter>(_: L) {}
fn main() {
    sheds(TokenBucket::new(Quota::per_second(5)).unwrap().boxed::<()>());
}
