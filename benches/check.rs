//! One decision, one thread: grants, refusals, and a limit asked for more than it admits.

mod support;

use std::hint::black_box;
use std::time::Duration;

use support::forms::{Load, each_bucket};
use support::{Suite, floors, peers};

fn check(suite: &mut Suite, load: Load) {
    let mut group = suite.group(&format!("check/{}", load.name()));
    each_bucket!(load, |name, limiter| {
        group.row(name, &["governor", "governor (std clock)", "floor: clock and CAS"], move || {
            load.expect(limiter.check(black_box(1)).is_ok());
        });
    });
    let governor = peers::governor(load);
    group.row("governor", &[], move || load.expect(governor.check().is_ok()));
    let governor = peers::governor_std(load);
    group.row("governor (std clock)", &[], move || load.expect(governor.check().is_ok()));
    let ratelimit = peers::ratelimit(load);
    group.row("ratelimit", &[], move || load.expect(ratelimit.try_wait().is_ok()));
    let leaky = peers::leaky_bucket(load);
    group.row("leaky-bucket", &[], move || load.expect(leaky.try_acquire(1)));
    let cas = floors::CasLoop::default();
    group.row("floor: clock and CAS", &[], move || cas.step());
    let atomic = floors::Atomic::default();
    group.row("floor: atomic", &[], move || atomic.step());
    group.row("floor: clock", &[], floors::clock);
    group.finish();
}

fn main() {
    let mut suite = Suite::new(Duration::from_millis(3));
    for load in [Load::Grant, Load::Refuse, Load::AtLimit] {
        check(&mut suite, load);
    }
}
