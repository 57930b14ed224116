//~ does not limit `http::request::Parts`
//~ a limiter of keys becomes a limiter of requests with `.by(|request| key)`
use tollgate::http::Client;
use tollgate::{LimitLayer, Quota, SlidingWindow};
fn main() {
    let per_client = SlidingWindow::new(Quota::per_minute(100)).unwrap().keyed::<Client>();
    let _ = LimitLayer::http(per_client);
}
