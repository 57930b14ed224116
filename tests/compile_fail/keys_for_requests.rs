//~ does not limit `Request`
//~ a limiter of keys becomes a limiter of requests with `.by(|request| key)`
use tollgate::{Quota, SlidingWindow};
struct Request;
fn limited<L: tollgate::Limiter<Request>>(_: L) {}
fn main() {
    limited(SlidingWindow::new(Quota::per_minute(100)).unwrap().keyed::<String>());
}
