//! What the groups of the suite share: rows that criterion times, and ratios of rows that are timed side by side.
//!
//! Criterion takes one row after another, so on a machine that others use too, a quotient of two rows' medians
//! compares two different minutes. Here a ratio is a row of its own: each of its samples runs a short batch of the row
//! and a short batch of its reference, one right after the other, in turns which comes first, and the sample is the
//! quotient. What criterion then reports is the median of paired ratios, with its interval.
//!
//! Names, as `benchmark.json` has them: a time is `group / row`, a ratio is `group / row / reference`, another figure is
//! `group / row / what it is`.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "each group uses its part of this"
)]

mod figure;
pub mod floors;
pub mod forms;
pub mod peers;
pub mod threads;
pub mod zipf;

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::{BenchmarkId, Criterion, SamplingMode};

use figure::Figure;

/// Samples of a row, and rounds of a ratio.
const ROUNDS: u32 = 31;

/// The groups of one bench target.
pub struct Suite {
    times: Criterion,
    figures: Criterion<Figure>,
}

impl Suite {
    /// A suite whose samples take about `sample` each. Arguments of criterion (`--sample-size`,
    /// `--measurement-time`, a filter) have the last word.
    pub fn new(sample: Duration) -> Self {
        let configured = || {
            Criterion::default()
                .sample_size(ROUNDS as usize)
                .nresamples(2_000)
                .warm_up_time(4 * sample)
                .measurement_time(ROUNDS * sample)
        };
        Self {
            times: configured().configure_from_args(),
            // Many figures are the same in every run, and criterion cannot compare what does not vary: it finds no
            // baseline of this name.
            figures: configured()
                .with_measurement(Figure)
                .configure_from_args()
                .retain_baseline("none".to_owned(), false),
        }
    }

    pub fn group<'a>(&'a mut self, name: &str) -> Group<'a> {
        Group { suite: self, name: name.to_owned(), rows: Vec::new() }
    }
}

/// How long so many operations take.
type Batch<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Row<'a> {
    name: String,
    batch: Batch<'a>,
    references: Vec<String>,
}

/// Rows that belong beside each other: this crate's, their peers and their floor, doing equivalent work.
#[must_use = "a group runs when it is finished"]
pub struct Group<'a> {
    suite: &'a mut Suite,
    name: String,
    rows: Vec<Row<'a>>,
}

impl<'a> Group<'a> {
    /// One operation on one thread, by the processor time it takes.
    pub fn row<R>(&mut self, name: &str, references: &[&str], mut op: impl FnMut() -> R + 'a) {
        self.batch(name, references, move |count| {
            let start = ThreadTime::now();
            for _ in 0..count {
                black_box(op());
            }
            start.elapsed()
        });
    }

    /// One operation of `threads` threads at once, by the time all of them take. `op` makes what each thread does from
    /// its number.
    pub fn contended<O: FnMut() -> R, R>(
        &mut self,
        name: &str,
        references: &[&str],
        threads: usize,
        op: impl Fn(usize) -> O + Sync + 'a,
    ) {
        self.batch(name, references, move |count| threads::throughput(threads, count, &op));
    }

    /// What the slowest in a hundred or a thousand operations take while `threads` threads work at once.
    pub fn percentile<O: FnMut() -> R, R>(
        &mut self,
        name: &str,
        references: &[&str],
        percentile: f64,
        threads: usize,
        op: impl Fn(usize) -> O + Sync + 'a,
    ) {
        self.batch(name, references, move |count| {
            threads::latency(threads, percentile, &op) * u32::try_from(count).unwrap()
        });
    }

    /// Anything that says how long so many operations took.
    pub fn batch(&mut self, name: &str, references: &[&str], batch: impl FnMut(u64) -> Duration + 'a) {
        let references = references.iter().map(|&name| name.to_owned()).collect();
        self.rows.push(Row { name: name.to_owned(), batch: Box::new(batch), references });
    }

    /// Numbers found out in another way, one or many: what `what` is for the row.
    pub fn figure(&mut self, name: &str, what: &str, values: &[f64]) {
        let mut figures = self.suite.figures.benchmark_group(&self.name);
        // As few samples as criterion allows, each one of the values; nothing to warm up.
        figures.sampling_mode(SamplingMode::Flat).sample_size(values.len().max(10));
        figures.warm_up_time(Duration::from_nanos(1));
        let mut values = values.iter().cycle();
        figures.bench_function(BenchmarkId::new(name, what), |b| {
            // Criterion takes nothing that is zero.
            b.iter_custom(|count| count as f64 * values.next().unwrap().max(f64::MIN_POSITIVE));
        });
        figures.finish();
    }

    /// Runs every row, then every ratio.
    pub fn finish(mut self) {
        let mut times = self.suite.times.benchmark_group(&self.name);
        times.sampling_mode(SamplingMode::Flat);
        for row in &mut self.rows {
            times.bench_function(&row.name, |b| b.iter_custom(&mut row.batch));
        }
        times.finish();
        let mut ratios = self.suite.figures.benchmark_group(&self.name);
        ratios.sampling_mode(SamplingMode::Flat);
        for row in 0..self.rows.len() {
            for name in self.rows[row].references.clone() {
                let reference = self.rows.iter().position(|row| row.name == name);
                let reference = reference.unwrap_or_else(|| panic!("{}: no row {name}", self.name));
                let id = BenchmarkId::new(&self.rows[row].name, &name);
                let (rows, mut first) = (&mut self.rows, false);
                ratios.bench_function(id, |b| {
                    b.iter_custom(|count| {
                        first = !first;
                        count as f64 * paired(rows, row, reference, first, count)
                    });
                });
            }
        }
        ratios.finish();
    }
}

/// A batch of one row as a multiple of a batch of the other, taken one after the other.
fn paired(rows: &mut [Row<'_>], row: usize, reference: usize, first: bool, count: u64) -> f64 {
    let mut run = |row: usize| (rows[row].batch)(count).as_nanos().max(1) as f64;
    if first {
        let time = run(row);
        time / run(reference)
    } else {
        let time = run(reference);
        run(row) / time
    }
}

/// The answer of a future that need not wait.
#[inline]
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits"),
    }
}
