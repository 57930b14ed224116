//! What the groups of the suite share: rows that criterion times, and ratios of rows that are timed side by side.
//!
//! Criterion takes one row after another, so on a machine that others use too, a quotient of two rows' medians
//! compares two different minutes. Here a ratio is a row of its own: each of its samples runs a short batch of the row
//! and a short batch of its reference, one right after the other, in turns which comes first, and the sample is the
//! quotient. What criterion then reports is the median of paired ratios, with its interval.
//!
//! Names, as `benchmark.json` has them: a time in nanoseconds is `group / row`, a ratio is `group / row / reference`, another figure is
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

/// How many nanoseconds so many operations take.
type Batch<'a> = Box<dyn FnMut(u64) -> f64 + 'a>;

struct Row<'a> {
    name: String,
    batch: Batch<'a>,
    /// Whether whole nanoseconds for all of the operations tell enough.
    is_timed: bool,
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
        let batch = move |count| {
            let start = ThreadTime::now();
            for _ in 0..count {
                black_box(op());
            }
            start.elapsed().as_nanos() as f64
        };
        self.push(name, references, true, Box::new(batch));
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
        self.batch(name, references, move || threads::throughput(threads, &op));
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
        self.batch(name, references, move || threads::latency(threads, percentile, &op));
    }

    /// Anything that says in its own way how many nanoseconds an operation takes.
    pub fn batch(&mut self, name: &str, references: &[&str], mut batch: impl FnMut() -> f64 + 'a) {
        self.push(name, references, false, Box::new(move |count| count as f64 * batch()));
    }

    fn push(&mut self, name: &str, references: &[&str], is_timed: bool, batch: Batch<'a>) {
        let references = references.iter().map(|&name| name.to_owned()).collect();
        self.rows.push(Row { name: name.to_owned(), batch, is_timed, references });
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
        for row in self.rows.iter_mut().filter(|row| row.is_timed) {
            times.bench_function(&row.name, |b| {
                b.iter_custom(|count| Duration::from_nanos((row.batch)(count) as u64));
            });
        }
        times.finish();
        let mut figures = self.suite.figures.benchmark_group(&self.name);
        figures.sampling_mode(SamplingMode::Flat);
        for row in self.rows.iter_mut().filter(|row| !row.is_timed) {
            figures.bench_function(&row.name, |b| b.iter_custom(&mut row.batch));
        }
        for row in 0..self.rows.len() {
            for name in self.rows[row].references.clone() {
                let reference = self.rows.iter().position(|row| row.name == name);
                let reference = reference.unwrap_or_else(|| panic!("{}: no row {name}", self.name));
                let id = BenchmarkId::new(&self.rows[row].name, &name);
                let (rows, mut first) = (&mut self.rows, false);
                figures.bench_function(id, |b| {
                    b.iter_custom(|count| {
                        first = !first;
                        count as f64 * paired(rows, row, reference, first, count)
                    });
                });
            }
        }
        figures.finish();
    }
}

/// A batch of one row as a multiple of a batch of the other, taken one after the other.
fn paired(rows: &mut [Row<'_>], row: usize, reference: usize, first: bool, count: u64) -> f64 {
    let mut run = |row: usize| (rows[row].batch)(count).max(f64::MIN_POSITIVE);
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
