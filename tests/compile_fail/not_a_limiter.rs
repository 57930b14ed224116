//~ `Quota` does not limit `u32`
//~ a quota becomes a limiter with `TokenBucket::new(quota)?`
fn limited<L: tollgate::Limiter<u32>>(_: L) {}
fn main() {
    limited(tollgate::Quota::per_second(5));
}
