//! Measures this crate beside others: `bash benches/run` builds and runs it. The options are in [`USAGE`].

mod bench;
mod floors;
mod heap;
mod keys;
mod load;
mod ours;
mod peers;
mod report;
mod rows;
mod sample;
mod threads;

use std::env;
use std::error::Error;
use std::path::PathBuf;

use bench::Bench;
use report::Report;

const USAGE: &str = "\
benches/run [--quick] [--json FILE] [FILTER...]   measures and prints the tables
benches/run --write [--json FILE]                 measures all rows and writes the tables into the README
benches/run --compare BEFORE AFTER                compares two files that --json wrote

  --quick   takes fewer and shorter samples: good for a look, not for a figure
  FILTER    takes the rows whose `section / row / peer` contains one of the filters";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (mut is_quick, mut writes, mut json, mut filters) = (false, false, None, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--write" => writes = true,
            "--json" => json = Some(PathBuf::from(value()?)),
            "--compare" => {
                let (before, after) = (Report::read(value()?.as_ref())?, Report::read(value()?.as_ref())?);
                print!("{}", before.compare(&after));
                return Ok(());
            }
            rows::one_word::CHILD => {
                rows::one_word::child(&value()?, value()?.parse()?);
                return Ok(());
            }
            option if option.starts_with('-') => {
                println!("{USAGE}");
                return if option == "--help" { Ok(()) } else { Err(format!("no option {option}").into()) };
            }
            _ => filters.push(argument),
        }
    }
    if writes && (is_quick || !filters.is_empty()) {
        return Err("--write takes all rows with full samples".into());
    }
    let mut bench = Bench::new(is_quick, filters);
    let floors = floors::measure(&bench);
    rows::measure(&mut bench);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let report = Report { cores, is_quick, floors, rows: bench.rows };
    print!("{}", report.tables());
    if let Some(path) = json {
        report.save(&path)?;
    }
    if writes {
        report.write()?;
    }
    Ok(())
}
