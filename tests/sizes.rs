//! What is held while one waits or works, and what is kept for each limit, is small: a type that outgrows its line here
//! does not compile. The numbers are those of a 64-bit machine.
#![cfg(all(feature = "tokio", feature = "tower", target_pointer_width = "64", not(tollgate_loom)))]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tollgate::algorithm::{self, Algorithm};
use tollgate::tower::{Limit, Raise, Shed, Wait};
use tollgate::{
    AcquireAll, AcquireKeyed, AcquireRate, AcquireSlots, AcquireStriped, AndPermit, Ask, Concurrency, Denied,
    Error, Keyed, KeyedPermit, PairPart, Quota, RatePart, RatePermit, SlidingWindow, Slots, SlotsPart,
    Striped, StripedPermit, TokenBucket,
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
    24: Keyed<u64, Bucket>;
    // States of the algorithms alone.
    80: State<Bucket>;
    40: State<Window>;
    24: State<algorithm::SlidingCounter>;
    56: State<algorithm::FixedWindow>;
    // Permits.
    32: RatePermit<Bucket>;
    32: RatePermit<Window>;
    64: StripedPermit;
    64: KeyedPermit<Bucket>;
    16: Slots;
    48: AndPermit<(RatePermit<Bucket>, Slots)>;
    // Waits.
    56: AcquireRate<Bucket>;
    104: AcquireStriped;
    64: AcquireSlots;
    64: AcquireKeyed<Bucket>;
    376: AcquireAll<PairPart<RatePart<Bucket>, SlotsPart>>;
    // A layer: the service, and what its call returns; the bare service's is 16.
    32: Layered<Wait>;
    72: <Layered<Wait> as Service<u64>>::Future;
    56: <Layered<Shed> as Service<u64>>::Future;
    // Asks and answers.
    24: Ask;
    48: Denied;
    48: Error<Infallible>;
    56: Quota;
}
