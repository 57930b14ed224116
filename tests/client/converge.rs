//! Guards before simulated upstreams of each kind: a right limit is never broken, and a wrong one is found out.

use std::sync::Arc;
use std::time::Duration;

use tollgate::client::Guard;
use tollgate::{Compose, FixedWindow, Quota, TokenBucket};

use crate::strategy::{AnyStrategy, Outcome, SemaphoreAndSleep, TASKS, TowerRateLimit, UntilReady, run};
use crate::upstream::{Law, Style};

const MINUTE: Duration = Duration::from_secs(60);
/// The most throttled calls while a wrong limit is found out.
const HANDFUL: u64 = 20;
const STYLES: [(Style, Law); 9] = [
    (Style::Draft10, Law::Fixed { limit: 100, window: MINUTE }),
    (Style::Epoch, Law::Fixed { limit: 100, window: MINUTE }),
    (Style::GitHub, Law::Fixed { limit: 100, window: MINUTE }),
    (Style::OpenAi, Law::Bucket { per_second: 10.0, burst: 60.0 }),
    (Style::Discord, Law::Fixed { limit: 10, window: Duration::from_secs(1) }),
    (Style::Shopify, Law::Bucket { per_second: 2.0, burst: 40.0 }),
    (Style::Bare, Law::Fixed { limit: 100, window: MINUTE }),
    (Style::Bare, Law::Bucket { per_second: 10.0, burst: 20.0 }),
    (Style::Silent, Law::Bucket { per_second: 10.0, burst: 20.0 }),
];

/// The limit that a caller would configure who knows `times` the truth.
fn quota(law: Law, times: f64) -> Quota {
    let scaled = |units: f64| ((units * times) as u64).max(1);
    match law {
        Law::Fixed { limit, window } => Quota::per(scaled(limit as f64), window),
        Law::Bucket { per_second, burst } => Quota::per_second(scaled(per_second)).burst(scaled(burst)),
    }
}

fn guard<L>(limits: L) -> Arc<dyn AnyStrategy>
where
    L: Compose<Fault = std::convert::Infallible, Part: Send, Permit: Send> + Clone + Send + Sync + 'static,
    L::Acquire: Send,
    L::Permit: Send,
{
    Arc::new(Guard::builder(limits).ceiling(2 * MINUTE).build().expect("good options"))
}

async fn limited(law: Law, style: Style, times: f64) -> Outcome {
    run(law, style, |_| {
        let quota = quota(law, times);
        match law {
            // In step with the upstream's windows, and behind them by the way there.
            Law::Fixed { .. } => guard(FixedWindow::new(quota).expect("a good quota")),
            Law::Bucket { .. } => guard(TokenBucket::new(quota).expect("a good quota")),
        }
    })
    .await
}

async fn learning(law: Law, style: Style, start_at: Option<f64>) -> Outcome {
    run(law, style, |_| {
        let mut builder = Guard::learning_builder().ceiling(2 * MINUTE);
        if let Some(times) = start_at {
            builder = builder.start_at(quota(law, times));
        }
        Arc::new(builder.build().expect("good options"))
    })
    .await
}

#[track_caller]
fn converges(what: &str, style: Style, law: Law, outcome: Outcome) {
    let seen = format!("{what}, {style:?} {law:?}: {outcome:?}");
    println!("{seen}");
    assert_eq!(outcome.bans, 0, "{seen}");
    assert!(outcome.throttled <= HANDFUL, "{seen}");
    assert!(outcome.used >= 0.95, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_right_limit_is_never_broken_and_used_to_the_full() {
    for (style, law) in STYLES {
        let outcome = limited(law, style, 1.0).await;
        println!("right, {style:?} {law:?}: {outcome:?}");
        assert_eq!(outcome.throttled, 0, "{style:?} {law:?}: {outcome:?}");
        assert!(outcome.used >= 0.95, "{style:?} {law:?}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_half_is_kept_because_it_was_asked_for() {
    for (style, law) in STYLES {
        let outcome = limited(law, style, 0.5).await;
        println!("half, {style:?} {law:?}: {outcome:?}");
        assert_eq!(outcome.throttled, 0, "{style:?} {law:?}: {outcome:?}");
        assert!((0.475..=0.51).contains(&outcome.used), "{style:?} {law:?}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_ten_times_is_found_out() {
    for (style, law) in STYLES {
        converges("ten times", style, law, limited(law, style, 10.0).await);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_it_is_found_out() {
    for (style, law) in STYLES {
        converges("none", style, law, learning(law, style, None).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guess_of_half_or_ten_times_is_found_out() {
    for (style, law) in STYLES {
        for times in [0.5, 10.0] {
            converges(&format!("guess of {times}"), style, law, learning(law, style, Some(times)).await);
        }
    }
}

/// `cargo test --features client --test client table -- --nocapture`
#[tokio::test(start_paused = true)]
async fn table_of_alternatives() {
    println!("{TASKS} tasks, three virtual minutes; capacity is what was used of the last minute's");
    println!(
        "{:<44} {:>15} {:>9} {:>5} {:>7} {:>9}",
        "upstream, limit", "", "throttled", "bans", "served", "capacity"
    );
    let row = |what: &str, who: &str, outcome: Outcome| {
        let Outcome { throttled, bans, served, used } = outcome;
        println!("{what:<44} {who:>15} {throttled:>9} {bans:>5} {served:>7} {:>8.1}%", used * 100.0);
    };
    for (style, law) in STYLES {
        let name = match law {
            Law::Fixed { limit, window } => format!("{style:?}, {limit} per {window:?}"),
            Law::Bucket { per_second, burst } => format!("{style:?}, {per_second}/s burst {burst}"),
        };
        for (limit, times) in [("right", 1.0), ("half", 0.5), ("ten times", 10.0)] {
            let what = format!("{name}, {limit}");
            let ours = limited(law, style, times).await;
            let theirs = [
                ("governor", run(law, style, |_| Arc::new(UntilReady::new(quota(law, times)))).await),
                ("tower", run(law, style, |_| Arc::new(TowerRateLimit::new(quota(law, times)))).await),
            ];
            row(&what, "guard", ours);
            for (who, outcome) in theirs {
                row(&what, who, outcome);
                assert!(ours.throttled <= outcome.throttled, "{what}, {who}: {ours:?} {outcome:?}");
                assert!(ours.bans <= outcome.bans, "{what}, {who}: {ours:?} {outcome:?}");
            }
        }
        let what = format!("{name}, none");
        let ours = learning(law, style, None).await;
        let slots = run(law, style, |_| Arc::new(SemaphoreAndSleep(tokio::sync::Semaphore::new(20)))).await;
        row(&what, "guard", ours);
        row(&what, "semaphore+sleep", slots);
        assert!(ours.throttled < slots.throttled && ours.used >= 0.95, "{ours:?} {slots:?}");
    }
}
