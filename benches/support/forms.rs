//! The forms of this crate's limits, a line each, and what they are asked.

use tollgate::Quota;

use super::floors::DAY;

/// What a limit is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Admits all: fast enough that no ask is ever refused.
    Grant,
    /// Refuses all.
    Refuse,
    /// Asked for more than the million a second it admits.
    AtLimit,
}

impl Load {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Refuse => "refuse",
            Self::AtLimit => "at limit",
        }
    }

    pub const fn quota(self) -> Quota {
        match self {
            Self::Grant => Quota::per_second(1_000_000_000),
            Self::Refuse => Quota::per(1, DAY),
            Self::AtLimit => Quota::per_second(1_000_000).burst(10_000),
        }
    }

    /// Whether an answer is one of those this load gives. Checked on every call, so that no row measures another load
    /// than it says.
    #[inline]
    #[track_caller]
    pub fn expect(self, admitted: bool) {
        match self {
            Self::Grant => assert!(admitted, "a refusal among grants"),
            Self::Refuse => assert!(!admitted, "a grant among refusals"),
            Self::AtLimit => {}
        }
    }
}

/// Does `$body` for each form of the token bucket with a limiter that meets `$load`.
macro_rules! each_bucket {
    ($load:expr, |$name:ident, $limiter:ident| $body:block) => {
        $crate::support::forms::each_bucket!(@ $load, $name, $limiter, $body,
            "tollgate" => |quota| tollgate::TokenBucket::builder(quota).clock(tollgate::SystemClock::default()).build(),
            "tollgate striped" => |quota| {
                tollgate::TokenBucket::builder(quota).clock(tollgate::SystemClock::default()).striped().build()
            },
            #[cfg(feature = "tsc")]
            "tollgate (tsc)" =>
                |quota| tollgate::TokenBucket::builder(quota).clock(tollgate::clock::TscClock::default()).build(),
            "tollgate (tokio clock)" => |quota| tollgate::TokenBucket::new(quota),
        );
    };
    (@ $load:expr, $name:ident, $limiter:ident, $body:block,
        $($(#[$meta:meta])* $form:literal => |$quota:ident| $build:expr,)*
    ) => {
        $($(#[$meta])* {
            let $name = $form;
            let $quota = $load.quota();
            let $limiter = $crate::support::peers::spent($load, $build.unwrap(), |limiter| limiter.check(1).is_ok());
            $body
        })*
    };
}
pub(crate) use each_bucket;

/// Does `$body` for each keyed form with a function that makes a limiter of `$quota` for each of at most so many keys.
macro_rules! each_keyed {
    ($load:expr, |$name:ident, $make:ident| $body:block) => {
        $crate::support::forms::each_keyed!(@ $load, $name, $make, $body,
            "tollgate" => |quota, cap| {
                let bucket = tollgate::TokenBucket::builder(quota).clock(tollgate::SystemClock::default());
                bucket.keyed::<u64>().max_keys(cap).build().unwrap()
            },
            #[cfg(feature = "tsc")]
            "tollgate (tsc)" => |quota, cap| {
                let bucket = tollgate::TokenBucket::builder(quota).clock(tollgate::clock::TscClock::default());
                bucket.keyed::<u64>().max_keys(cap).build().unwrap()
            },
        );
    };
    (@ $load:expr, $name:ident, $make:ident, $body:block,
        $($(#[$meta:meta])* $form:literal => |$quota:ident, $cap:ident| $build:expr,)*
    ) => {
        $($(#[$meta])* {
            let $name = $form;
            let $make = |$cap: usize| {
                let $quota = $load;
                $build
            };
            $body
        })*
    };
}
pub(crate) use each_keyed;

/// Does `$body` for each kind of window with a limiter of `$quota` that meets `$load`.
macro_rules! each_window {
    ($load:expr, $quota:expr, |$name:ident, $limiter:ident| $body:block) => {
        $crate::support::forms::each_window!(@ $load, $quota, $name, $limiter, $body,
            "exact" => |quota| tollgate::SlidingWindow::builder(quota),
            "segmented" => |quota| tollgate::SlidingWindow::builder(quota).segments(100),
            "counter" => |quota| tollgate::SlidingCounter::builder(quota),
            "fixed" => |quota| tollgate::FixedWindow::builder(quota),
        );
    };
    (@ $load:expr, $quota:expr, $name:ident, $limiter:ident, $body:block,
        $($(#[$meta:meta])* $form:literal => |$of:ident| $build:expr,)*
    ) => {
        $($(#[$meta])* {
            let $name = $form;
            let $of = $quota;
            let limiter = $build.clock(tollgate::SystemClock::default()).build().unwrap();
            let $limiter = $crate::support::peers::spent($load, limiter, |limiter| limiter.check(1).is_ok());
            $body
        })*
    };
}
pub(crate) use each_window;
