//! Rows: paired samples of this crate and of one peer, and what they come to.
//!
//! Machines that others use too are faster in one minute than in the next, so that medians of two series compare two
//! minutes. Here each pair takes a sample of this crate and one of the peer directly after each other, the order
//! swapped from pair to pair, and the ratio of a row is the median of the ratios of its pairs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One row of a table. All figures are such that less is better.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub section: String,
    pub row: String,
    pub peer: String,
    pub unit: String,
    /// Medians.
    pub ours: f64,
    pub theirs: f64,
    /// Absent if the peer's figure is zero.
    pub ratio: Option<Ratio>,
    pub pairs: usize,
}

/// Ours divided by theirs: the median of the pairs' ratios with its interval of 95 %.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ratio {
    pub median: f64,
    pub from: f64,
    pub to: f64,
}

/// A cost of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Floor {
    pub name: String,
    pub nanos: f64,
}

/// The rows so far, and how to take more.
pub struct Bench {
    is_quick: bool,
    filters: Vec<String>,
    section: &'static str,
    pub rows: Vec<Row>,
}

impl Bench {
    pub fn new(is_quick: bool, filters: Vec<String>) -> Self {
        Self { is_quick, filters, section: "", rows: Vec::new() }
    }

    /// Pairs of a row.
    pub const fn pairs(&self) -> usize {
        if self.is_quick { 7 } else { 21 }
    }

    /// Pairs of a row whose samples take longer than the usual ones, or are processes of their own.
    pub const fn choose(&self, quick: usize, full: usize) -> usize {
        if self.is_quick { quick } else { full }
    }

    /// The time of a sample.
    pub const fn span(&self) -> Duration {
        Duration::from_millis(if self.is_quick { 8 } else { 30 })
    }

    pub const fn section(&mut self, title: &'static str) {
        self.section = title;
    }

    /// Is the row one of those asked for? Without filters all are.
    pub fn wants(&self, row: &str, peer: &str) -> bool {
        let name = format!("{} / {row} / {peer}", self.section);
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// A row whose figures are times: `ours` makes what takes a sample of nanoseconds.
    pub fn against<'b, M>(&'b mut self, row: &'b str, ours: M) -> Against<'b, M> {
        Against { bench: self, row, ours }
    }

    /// Records pairs of figures, ours first.
    pub fn record(&mut self, row: &str, peer: &str, unit: &str, pairs: &[(f64, f64)]) {
        let of = |figure: fn(&(f64, f64)) -> f64| pairs.iter().map(figure).collect::<Vec<_>>();
        let (ours, theirs) = (median(of(|pair| pair.0)), median(of(|pair| pair.1)));
        let ratio = pairs.iter().all(|pair| pair.1 != 0.0).then(|| Ratio::of(of(|pair| pair.0 / pair.1)));
        let row = Row {
            section: self.section.to_owned(),
            row: row.to_owned(),
            peer: peer.to_owned(),
            unit: unit.to_owned(),
            ours,
            theirs,
            ratio,
            pairs: pairs.len(),
        };
        eprintln!("{} / {}: {}", row.row, row.peer, crate::report::ratio(row.ratio));
        self.rows.push(row);
    }

    /// Measures a cost of the machine.
    pub fn floor(&self, name: &str, sample: &mut dyn FnMut(Duration) -> f64) -> Floor {
        let span = self.span() / 4;
        sample(span);
        Floor { name: name.to_owned(), nanos: median((0..self.pairs()).map(|_| sample(span)).collect()) }
    }
}

/// A row of times, waiting for its peers.
pub struct Against<'b, M> {
    bench: &'b mut Bench,
    row: &'b str,
    ours: M,
}

impl<M, S> Against<'_, M>
where
    M: Fn() -> S,
    S: FnMut(Duration) -> f64,
{
    /// Measures the row beside one peer. Neither side is made if the row is not asked for.
    pub fn peer<P>(&mut self, peer: &str, theirs: impl FnOnce() -> P) -> &mut Self
    where
        P: FnMut(Duration) -> f64,
    {
        let (span, pairs) = (self.bench.span(), self.bench.pairs());
        self.peer_in(peer, span, pairs, theirs)
    }

    /// The same with samples of another length.
    pub fn peer_in<P>(
        &mut self,
        peer: &str,
        span: Duration,
        pairs: usize,
        theirs: impl FnOnce() -> P,
    ) -> &mut Self
    where
        P: FnMut(Duration) -> f64,
    {
        if self.bench.wants(self.row, peer) {
            let (mut ours, mut theirs) = ((self.ours)(), theirs());
            // What either side has to load or to grow is loaded before it counts.
            ours(span / 4);
            theirs(span / 4);
            let pairs = paired(pairs, || ours(span), || theirs(span));
            self.bench.record(self.row, peer, "ns", &pairs);
        }
        self
    }
}

/// Takes pairs, ours first in every second one.
pub fn paired(
    count: usize,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> Vec<(f64, f64)> {
    let pair = |number| {
        if number % 2 == 0 {
            let figure = ours();
            (figure, theirs())
        } else {
            let figure = theirs();
            (ours(), figure)
        }
    };
    (0..count).map(pair).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Ratio {
    /// The median of some ratios. The interval is from one order statistic to another: a value is on either side of the
    /// true median with the same probability, so that the count on one side is binomial. Below six values there is no
    /// interval of 95 %, and it is from the least to the greatest.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (mut term, mut below, mut rank) = (0.5f64.powi(count as i32), 0.0, 0);
        for outside in 0..count / 2 {
            below += term;
            if below > 0.025 {
                break;
            }
            rank = outside;
            term *= (count - outside) as f64 / (outside + 1) as f64;
        }
        Self { from: values[rank], to: values[count - 1 - rank], median: median(values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_the_order_statistics_of_the_binomial_distribution() {
        let of = |count: u32| Ratio::of((1..=count).map(f64::from).collect());
        // (count, from, to), as tables of confidence intervals for the median have them
        for (count, from, to) in [(5, 1.0, 5.0), (7, 1.0, 7.0), (9, 2.0, 8.0), (21, 6.0, 16.0), (41, 14.0, 28.0)] {
            let ratio = of(count);
            assert_eq!((ratio.from, ratio.to), (from, to), "{count} values");
        }
    }

    #[test]
    fn a_peer_at_zero_has_no_ratio() {
        let mut bench = Bench::new(true, Vec::new());
        bench.record("row", "peer", "%", &[(1.0, 0.0), (1.0, 2.0)]);
        bench.record("row", "peer", "%", &[(1.0, 2.0), (3.0, 6.0)]);
        assert!(bench.rows[0].ratio.is_none());
        assert_eq!(bench.rows[1].ratio.unwrap().median, 0.5);
    }
}
