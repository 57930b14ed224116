//! The rows, in the order of the tables: the default configuration first, then other clocks.

mod clocks;
mod keyed;
mod layer;
mod one_limit;
pub mod one_word;
mod permit;
mod server;
mod waiting;
mod window;

use crate::bench::Bench;

pub fn measure(bench: &mut Bench) {
    bench.section("Default configuration, one limit");
    one_limit::measure(bench);
    one_word::measure(bench);
    bench.section("Default configuration, windows");
    window::measure(bench);
    bench.section("Default configuration, permits");
    permit::measure(bench);
    bench.section("Default configuration, a limit for each key");
    keyed::measure(bench);
    bench.section("Default configuration, waiting");
    waiting::measure(bench);
    bench.section("Default configuration, layers");
    layer::measure(bench);
    server::measure(bench);
    bench.section("Other clocks");
    clocks::measure(bench);
}
