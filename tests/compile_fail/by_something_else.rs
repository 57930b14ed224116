//~ does not say which key a `u32` is about
//~ give `.by` a function such as
use tollgate::{KeyOf, Quota, SlidingWindow};
fn key_of_number<F: KeyOf<u32>>(_: F) {}
fn main() {
    key_of_number("tenant");
    let _ = SlidingWindow::new(Quota::per_minute(100));
}
