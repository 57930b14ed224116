//~ the trait bound
//~ Name
use tollgate::{Quota, TokenBucket};
fn main() {
    // A name goes into headers: it is checked when it is made, so bytes from anywhere are no name.
    let _ = TokenBucket::builder(Quota::per_minute(100)).name(b"bytes".as_slice()).build();
}
