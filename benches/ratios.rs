//! The README's table of ratios, from what criterion has measured: each line a goal, its median, and whether it is met.
//!
//! `bash benches/run` measures all of it and writes the table; `cargo bench --bench ratios` prints the table of what has
//! been measured so far, `-- --write` puts it between the markers of the README.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

const BEGIN: &str = "<!-- ratios -->\n";
const END: &str = "<!-- /ratios -->\n";

/// A line of the table.
struct Goal {
    what: &'static str,
    group: &'static str,
    row: &'static str,
    /// The row it is compared with, or what it is a figure of.
    beside: &'static str,
    aim: Aim,
}

#[derive(Clone, Copy)]
enum Aim {
    /// Time, or another figure, of the row: so many times the reference's at most.
    AtMost(f64),
    /// A figure of the row: so much at least.
    AtLeast(f64),
    /// Operations a second: so many times the reference's at least.
    Throughput(f64),
}

const fn goal(
    what: &'static str,
    group: &'static str,
    row: &'static str,
    beside: &'static str,
    aim: Aim,
) -> Goal {
    Goal { what, group, row, beside, aim }
}

use Aim::{AtLeast, AtMost, Throughput};

#[rustfmt::skip]
const GOALS: &[Goal] = &[
    goal("grant, one thread", "check/grant", "tollgate", "governor (std clock)", AtMost(0.9)),
    goal("grant, one thread, processor's counter", "check/grant", "tollgate (tsc)", "governor", AtMost(0.9)),
    goal("refuse, one thread", "check/refuse", "tollgate", "governor", AtMost(0.4)),
    goal("grant, striped, one thread", "check/grant", "tollgate striped", "governor", AtMost(0.12)),
    goal("grant, striped, 2 threads, throughput", "contended/grant/2", "tollgate striped", "governor", Throughput(40.0)),
    goal("grant, striped, 4 threads, throughput", "contended/grant/4", "tollgate striped", "governor", Throughput(40.0)),
    goal("grant, striped, 8 threads, throughput", "contended/grant/8", "tollgate striped", "governor", Throughput(40.0)),
    goal("grant, striped, 16 threads, throughput", "contended/grant/16", "tollgate striped", "governor", Throughput(40.0)),
    goal("grant, one word, 2 threads, throughput", "contended/grant/2", "tollgate", "floor: clock and CAS", Throughput(0.9)),
    goal("exact window, grant, one thread", "window/grant", "exact", "Mutex<VecDeque>", AtMost(0.8)),
    goal("exact window, refuse, one thread", "window/refuse", "exact", "Mutex<VecDeque>", AtMost(0.4)),
    goal("exact window, grant, 2 threads, throughput", "window/grant/2", "exact", "Mutex<VecDeque>", Throughput(1.0)),
    goal("exact window, refuse, 2 threads, throughput", "window/refuse/2", "exact", "Mutex<VecDeque>", Throughput(5.0)),
    goal("a million keys by rank, 2 threads, throughput", "keyed/zipf 1000000/2", "tollgate", "governor", Throughput(2.5)),
    goal("ten thousand keys, 2 threads, throughput", "keyed/uniform 10000/2", "tollgate", "governor", Throughput(3.0)),
    goal("one key, refused, 2 threads, throughput", "keyed/one refused/2", "tollgate", "governor", Throughput(8.0)),
    goal("a million keys by rank, processor's counter, 2 threads, throughput", "keyed/zipf 1000000/2", "tollgate (tsc)", "governor", Throughput(2.5)),
    goal("ten thousand keys, processor's counter, 2 threads, throughput", "keyed/uniform 10000/2", "tollgate (tsc)", "governor", Throughput(3.0)),
    goal("heap, each of a million keys", "keyed/memory", "tollgate", "bytes a key", AtMost(16.0)),
    goal("heap under a flood of new keys", "keyed/memory", "tollgate", "flooded", AtMost(1.0)),
    goal("slowest 1 % of known keys' asks, flooded", "keyed/flood/p99", "tollgate, flooded", "tollgate", AtMost(2.0)),
    goal("10,000 wait at 100,000/s: processor time", "wait/10000", "tollgate", "floor: Semaphore and ticker", AtMost(1.2)),
    goal("10,000 wait at 100,000/s: rate", "wait/10000", "tollgate", "achieved of asked", AtLeast(0.995)),
    goal("10,000 wait at 100,000/s: in order", "wait/10000", "tollgate", "in order", AtLeast(1.0)),
    goal("100,000 wait at 100,000/s: processor time", "wait/100000", "tollgate", "floor: Semaphore and ticker", AtMost(1.2)),
    goal("100,000 wait at 100,000/s: rate", "wait/100000", "tollgate", "achieved of asked", AtLeast(0.995)),
    goal("100,000 wait at 100,000/s: in order", "wait/100000", "tollgate", "in order", AtLeast(1.0)),
    goal("slots, one thread", "permit/slot", "tollgate", "tokio Semaphore", AtMost(0.6)),
    goal("slots, 2 threads, throughput", "contended/slot/2", "tollgate", "tokio Semaphore", Throughput(5.0)),
    goal("100 left of 1000 who wait", "wait/cancelled", "tollgate", "time of ideal", AtMost(1.1)),
    goal("tower layer, granted", "layer/tower", "tollgate", "tower RateLimit", AtMost(1.0)),
    goal("tower layer of no limit", "layer/tower", "tollgate, no limit", "bare", AtMost(1.0)),
    goal("HTTP layer, granted", "layer/http granted", "tollgate", "tower_governor", AtMost(0.55)),
    goal("HTTP layer, refused", "layer/http refused", "tollgate", "tower_governor", AtMost(0.01)),
];

/// A median and its interval.
#[derive(Clone, Copy)]
struct Median {
    value: f64,
    from: f64,
    to: f64,
}

impl Median {
    fn inverse(self) -> Self {
        Self { value: 1.0 / self.value, from: 1.0 / self.to, to: 1.0 / self.from }
    }
}

type Results = HashMap<[String; 3], Median>;

/// Criterion's folder: under the target folder this program is in, if nobody says otherwise.
fn folder() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(home) = env::var_os("CRITERION_HOME") {
        return Ok(home.into());
    }
    let program = env::current_exe()?;
    let target = program.ancestors().nth(3).ok_or("this program is in no target folder")?;
    Ok(target.join("criterion"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read(folder: &Path, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let parse = |name| Ok::<Value, Box<dyn Error>>(serde_json::from_slice(&fs::read(folder.join(name))?)?);
    if folder.ends_with("new") && folder.join("estimates.json").is_file() {
        let (id, estimates) = (parse("benchmark.json")?, parse("estimates.json")?);
        let median = &estimates["median"];
        let number = |value: &Value| value.as_f64().ok_or("an estimate is no number");
        let interval = &median["confidence_interval"];
        let median = Median {
            value: number(&median["point_estimate"])?,
            from: number(&interval["lower_bound"])?,
            to: number(&interval["upper_bound"])?,
        };
        results.insert([text(&id["group_id"]), text(&id["function_id"]), text(&id["value_str"])], median);
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, results)?;
        }
    }
    Ok(())
}

fn number(value: f64) -> String {
    let decimals = match value {
        ..0.1 => 4,
        ..0.98 => 3,
        ..1.02 => 4,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn table(results: &Results) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut table =
        format!("| on {cores} cores | beside | goal | median (95 %) | |\n|---|---|---|---|---|\n");
    for Goal { what, group, row, beside, aim } in GOALS {
        let key = [*group, *row, *beside].map(str::to_owned);
        let aimed = match aim {
            AtMost(most) => format!("≤ {most}"),
            AtLeast(least) | Throughput(least) => format!("≥ {least}"),
        };
        let line = match results.get(&key) {
            None => format!("| {what} | {beside} | {aimed} | not measured | |"),
            Some(&median) => {
                let (median, met) = match *aim {
                    AtMost(most) => (median, median.value <= most),
                    AtLeast(least) => (median, median.value >= least),
                    Throughput(least) => (median.inverse(), median.inverse().value >= least),
                };
                let [value, from, to] = [median.value, median.from, median.to].map(number);
                let verdict = if met { "met" } else { "missed" };
                format!("| {what} | {beside} | {aimed} | {value} ({from} to {to}) | {verdict} |")
            }
        };
        writeln!(table, "{line}").expect("strings take all that is written");
    }
    table
}

fn write(readme: &Path, table: &str) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(readme)?;
    let begin = text.find(BEGIN).ok_or("the README has no <!-- ratios --> marker")? + BEGIN.len();
    let length = text[begin..].find(END).ok_or("the README has no <!-- /ratios --> marker")?;
    fs::write(readme, format!("{}\n{table}\n{}", &text[..begin], &text[begin + length..]))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut results = Results::new();
    read(&folder()?, &mut results)?;
    let table = table(&results);
    print!("{table}");
    if env::args().any(|argument| argument == "--all") {
        let mut all: Vec<_> = results.iter().collect();
        all.sort_by(|one, other| one.0.cmp(other.0));
        println!();
        for ([group, row, beside], median) in all {
            println!("{group} | {row} | {beside} | {}", number(median.value));
        }
    }
    if env::args().any(|argument| argument == "--write") {
        write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), &table)?;
    }
    Ok(())
}
