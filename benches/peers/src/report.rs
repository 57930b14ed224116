//! What a run found: printed, saved, compared with another run, written into the README.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::{Floor, Ratio, Row};

const BEGIN: &str = "<!-- ratios -->\n";
const END: &str = "<!-- /ratios -->\n";

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub cores: usize,
    pub is_quick: bool,
    pub floors: Vec<Floor>,
    pub rows: Vec<Row>,
}

/// About three digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A ratio with its interval.
pub fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or("-".to_owned(), |Ratio { median, from, to }| {
        format!("{median:.3} ({from:.3} to {to:.3})")
    })
}

impl Report {
    pub fn read(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(serde_json::from_slice(&fs::read(path)?).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub fn save(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)?)?)
    }

    /// The tables in Markdown, one for each section.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let kind = if self.is_quick { ", short samples" } else { "" };
        let floors: Vec<_> =
            self.floors.iter().map(|floor| format!("{} {:.1}", floor.name, floor.nanos)).collect();
        writeln!(text, "On {} cores{kind}. Floors, in ns: {}.", self.cores, floors.join(", ")).unwrap();
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                write!(text, "\n**{section}**\n\n| | beside | ours | theirs | ours / theirs (95 %) |\n").unwrap();
                text.push_str("|---|---|---:|---:|---:|\n");
            }
            let figure = |value| format!("{} {}", number(value), row.unit);
            let (ours, theirs) = (figure(row.ours), figure(row.theirs));
            writeln!(text, "| {} | {} | {ours} | {theirs} | {} |", row.row, row.peer, ratio(row.ratio)).unwrap();
        }
        text
    }

    /// The rows of this run beside those of a later one, as changes of the ratio to the same peer: a machine that is
    /// slower today is slower for both. The interval of a change takes the least favourable ends of both intervals.
    pub fn compare(&self, later: &Self) -> String {
        let mut text = String::from("| floor | before, ns | after, ns |\n|---|---:|---:|\n");
        for floor in &self.floors {
            if let Some(after) = later.floors.iter().find(|after| after.name == floor.name) {
                writeln!(text, "| {} | {:.1} | {:.1} |", floor.name, floor.nanos, after.nanos).unwrap();
            }
        }
        text.push_str("\n| | beside | ours before | ours after | ratio before | ratio after | after / before (95 %) |\n");
        text.push_str("|---|---|---:|---:|---:|---:|---:|\n");
        for row in &self.rows {
            let same = |other: &&Row| other.row == row.row && other.peer == row.peer;
            let Some(after) = later.rows.iter().find(same) else {
                writeln!(text, "| {} | {} | {} | not measured | | | |", row.row, row.peer, number(row.ours)).unwrap();
                continue;
            };
            let change = row.ratio.zip(after.ratio).map(|(before, after)| Ratio {
                median: after.median / before.median,
                from: after.from / before.to,
                to: after.to / before.from,
            });
            let median = |row: &Row| row.ratio.map_or("-".to_owned(), |ratio| format!("{:.3}", ratio.median));
            writeln!(
                text,
                "| {} | {} | {} {} | {} {} | {} | {} | {} |",
                row.row,
                row.peer,
                number(row.ours),
                row.unit,
                number(after.ours),
                after.unit,
                median(row),
                median(after),
                ratio(change),
            )
            .unwrap();
        }
        text
    }

    /// Replaces what is between the markers of the README.
    pub fn write(&self) -> Result<(), Box<dyn Error>> {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
        let text = fs::read_to_string(&readme)?;
        let begin = text.find(BEGIN).ok_or("the README has no <!-- ratios --> marker")? + BEGIN.len();
        let length = text[begin..].find(END).ok_or("the README has no <!-- /ratios --> marker")?;
        let (before, after) = (&text[..begin], &text[begin + length..]);
        Ok(fs::write(readme, format!("{before}\n{}\n{after}", self.tables()))?)
    }
}
