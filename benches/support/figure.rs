use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// A number that is not a time: a ratio, or a count. Rows of figures give their values themselves.
pub struct Figure;

impl Measurement for Figure {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {
        unreachable!("a figure is given, not timed");
    }

    fn end(&self, (): ()) -> f64 {
        unreachable!("a figure is given, not timed");
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Plain
    }
}

struct Plain;

impl ValueFormatter for Plain {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        ""
    }

    fn scale_throughputs(&self, _typical: f64, _per: &Throughput, _values: &mut [f64]) -> &'static str {
        ""
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        ""
    }
}
