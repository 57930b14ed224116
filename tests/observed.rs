//! What is seen of a limit: meters by its name and never by key, and a log that clients cannot fill.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tollgate::{Ask, LimiterExt, Quota, TokenBucket, limiter_fn};
use tollgate::{Error, Limiter, NameError, RatePermit};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// All that `act` has metered, by name and labels.
fn metered(act: impl FnOnce()) -> BTreeMap<String, f64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, act);
    let all = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let mut name = key.key().name().to_owned();
        for label in key.key().labels() {
            write!(name, " {}={}", label.key(), label.value()).unwrap();
        }
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.iter().map(|value| value.into_inner()).sum(),
        };
        (name, value)
    });
    all.collect()
}

#[test]
fn every_outcome_is_counted_by_the_limits_name() {
    let seen = metered(|| {
        let limit = TokenBucket::new(Quota::per_hour(10)).unwrap().keyed::<String>();
        let limit = limit.observed("api").unwrap();
        for _ in 0..12 {
            let _ = limit.try_acquire(&"secret-of-ann".to_owned(), 1.into());
        }
        let _ = limit.try_acquire(&"bob".to_owned(), 11.into());
    });
    assert_eq!(seen["tollgate_admitted_total limit=api"], 10.0);
    // Of ten the eighth leaves two, which is a fifth.
    assert_eq!(seen["tollgate_near_total limit=api"], 3.0);
    assert_eq!(seen["tollgate_refused_total limit=api reason=exhausted"], 2.0);
    assert_eq!(seen["tollgate_refused_total limit=api reason=exceeds_capacity"], 1.0);
    assert!(seen.contains_key("tollgate_keys limit=api"));
    assert!(seen.keys().all(|name| !name.contains("ann") && !name.contains("bob")), "{seen:?}");
}

#[test]
fn a_limit_on_trial_counts_what_it_would_have_refused() {
    let seen = metered(|| {
        let limit = TokenBucket::new(Quota::per_hour(1)).unwrap().shadow().observed("trial").unwrap();
        for _ in 0..3 {
            assert!(limit.try_acquire(&(), 1.into()).is_ok());
        }
    });
    assert_eq!(seen["tollgate_admitted_total limit=trial"], 3.0);
    assert_eq!(seen["tollgate_shadow_refused_total limit=trial"], 2.0);
}

#[test]
fn waits_and_faults_and_keys_are_metered() {
    let seen = metered(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let limit = TokenBucket::new(Quota::per_second(1)).unwrap().observed("slow").unwrap();
            for _ in 0..3 {
                drop(Limiter::<()>::acquire(&limit, &(), Ask::ONE).await.unwrap());
            }
            let down = limiter_fn(|_: &(), _| async {
                Err::<RatePermit<tollgate::algorithm::TokenBucket>, _>(Error::Fault("down"))
            });
            assert!(down.observed("remote").unwrap().acquire(&(), Ask::ONE).await.is_err());

            let keyed =
                TokenBucket::builder(Quota::per_second(1)).keyed::<u32>().max_keys(2).build().unwrap();
            let keyed = keyed.observed("keyed").unwrap();
            for key in 0..4 {
                let _ = keyed.try_acquire(&key, 1.into());
            }
            tokio::time::advance(Duration::from_secs(2)).await;
            for key in 4..6 {
                let _ = keyed.try_acquire(&key, 1.into());
            }
            tokio::time::advance(Duration::from_secs(2)).await;
            let _ = keyed.try_acquire(&5, 1.into());
        });
    });
    assert_eq!(seen["tollgate_wait_seconds limit=slow"], 2.0);
    assert_eq!(seen["tollgate_faults_total limit=remote"], 1.0);
    assert_eq!(seen["tollgate_keys limit=keyed"], 2.0);
    assert_eq!(seen["tollgate_keys_refused_total limit=keyed"], 2.0);
    assert_eq!(seen["tollgate_keys_evicted_total limit=keyed"], 2.0);
}

/// Events under the target `tollgate`, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "tollgate" {
            let mut line = Line(format!("{} ", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

#[test]
fn a_million_refusals_are_a_line_a_second() {
    let log = Log::default();
    // For all threads: with one for this thread alone, another test that comes first to an event turns it off for good.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let limit =
            TokenBucket::new(Quota::per_hour(1)).unwrap().keyed::<String>().observed("sampled").unwrap();
        let key = "secret-of-ann".to_owned();
        drop(limit.try_acquire(&key, 1.into()).unwrap());
        for _ in 0..1_000_000 {
            assert!(limit.try_acquire(&key, 1.into()).is_err());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limit.try_acquire(&key, 1.into()).is_err());
    });
    let mut lines = std::mem::take(&mut *log.0.lock().unwrap());
    lines.retain(|line| line.contains("limit=\"sampled\""));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("DEBUG"), "{lines:?}");
    assert!(lines[1].contains("held_back=999999"), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("ann")), "{lines:?}");
}

#[test]
fn a_name_that_cannot_be_a_label_is_refused() {
    let limit = TokenBucket::new(Quota::per_hour(1)).unwrap();
    assert_eq!(limit.observed("").unwrap_err(), NameError::Empty);
}
