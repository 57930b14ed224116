//! What is held while one waits or works, and what is kept for each limit, is small: a type that outgrows its line here
//! does not compile. The numbers are those of a 64-bit machine.
#![cfg(all(feature = "tokio", feature = "tower", target_pointer_width = "64", not(tollgate_loom)))]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tollgate::algorithm::{self, Algorithm};
use tollgate::tower::{Limit, Raise, Shed, Wait};
use tollgate::{
    AcquireBoth, AcquireKeyed, AcquireRate, AcquireSlots, AcquireStriped, Ask, BothPermits, Concurrency,
    Denied, Error, HashStore, KeyState, Keyed, Quota, RatePermit, SlidingWindow, Slots, Striped,
    StripedPermit, TokenBucket, TokioClock,
};
use tower::Service;

type State<A> = <A as Algorithm>::State;
type Bucket = algorithm::TokenBucket;
type Window = algorithm::SlidingWindow;
/// A service that does nothing, and what it is in a layer.
#[derive(Clone)]
struct Bare;

impl Service<u64> for Bare {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, word: u64) -> Self::Future {
        ready(Ok(word))
    }
}

type Layered<M> = Limit<Bare, TokenBucket, M, Raise>;

macro_rules! at_most {
    ($($bytes:literal: $held:ty;)*) => {
        $(const _: () = assert!(
            size_of::<$held>() <= $bytes,
            concat!(stringify!($held), " is larger than ", $bytes, " bytes")
        );)*

        /// For who changes them: what each type takes.
        #[test]
        fn sizes() {
            $(println!("{:4} of {:4} {}", size_of::<$held>(), $bytes, stringify!($held));)*
        }
    };
}

at_most! {
    // Handles.
    8: TokenBucket;
    8: SlidingWindow;
    24: Concurrency;
    24: Striped;
    8: Keyed<u64, Bucket>;
    // States of the algorithms alone.
    80: State<Bucket>;
    40: State<Window>;
    24: State<algorithm::SlidingCounter>;
    56: State<algorithm::FixedWindow>;
    // Permits.
    32: RatePermit<Bucket>;
    32: RatePermit<Window>;
    64: StripedPermit;
    16: Slots;
    48: BothPermits<RatePermit<Bucket>, Slots>;
    // Waits.
    72: AcquireRate<Bucket>;
    120: AcquireStriped;
    80: AcquireSlots;
    72: AcquireKeyed<u64, Bucket, TokioClock, HashStore<u64, KeyState<Bucket, TokioClock>>>;
    440: AcquireBoth<AcquireRate<Bucket>, AcquireSlots, RatePermit<Bucket>, Slots>;
    // A layer: the service, and what its call returns; the bare service's is 16.
    32: Layered<Wait>;
    88: <Layered<Wait> as Service<u64>>::Future;
    56: <Layered<Shed> as Service<u64>>::Future;
    // Asks and answers.
    24: Ask;
    48: Denied;
    48: Error<Infallible>;
    56: Quota;
}
