//! The law of the source tree: a module uses only what stands above it, and files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, as the crate's first page of documentation prints them; `sync` is the switch to loom below them all.
const FLOORS: [&[&str]; 11] = [
    &["units", "sync"],
    &["types"],
    &["algorithm"],
    &["clock"],
    &["core"],
    &["limiter"],
    &["combine"],
    &["service"],
    &["contract", "pace", "tower"],
    &["client", "http"],
    &["rules"],
];

/// Modules that know the trait, never a limiter.
const KNOW_NO_LIMITER: [&str; 5] = ["contract", "pace", "tower", "client", "http"];

const LINES_MAX: usize = 600;
/// At the head of a file that has to be longer, before the reason.
const EXCUSE: &str = "// Longer than 600 lines:";

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.starts_with("//"))
}

/// Modules of the crate that a line of code names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

fn breaches(module: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(own) = floor_of(module) else {
        return vec![format!("{module} stands on no floor: add it to the map")];
    };
    for (number, line) in code_lines(text) {
        for used in named(line) {
            if floor_of(used).is_some_and(|floor| floor > own || (floor == own && used != module)) {
                found.push(format!("line {number}: {module} may not use {used}: {line}"));
            }
        }
        let concrete =
            ["RateLimiter", "Concurrency", "Keyed", "Striped", "limiter::rate", "limiter::concurrency"];
        if KNOW_NO_LIMITER.contains(&module) && concrete.iter().any(|name| line.contains(name)) {
            found.push(format!("line {number}: {module} knows the trait, never a limiter: {line}"));
        }
        let reads_time = line.contains("Instant::now") || line.contains("SystemTime::now");
        if reads_time && module != "clock" {
            found.push(format!("line {number}: only clock reads time: {line}"));
        }
    }
    found
}

#[test]
fn modules_use_only_what_stands_above_them() {
    let mut all = Vec::new();
    for path in sources() {
        let module = module_of(&path);
        if module != "lib" {
            let found = breaches(&module, &fs::read_to_string(&path).unwrap());
            all.extend(found.into_iter().map(|breach| format!("{}: {breach}", path.display())));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_breach_would_be_seen() {
    assert_eq!(breaches("algorithm", "use crate::clock::Clock;").len(), 1);
    assert_eq!(breaches("tower", "use crate::limiter::{Limiter, RateLimiter};").len(), 1);
    assert_eq!(breaches("limiter", "let now = Instant::now();").len(), 1);
    assert_eq!(breaches("new_room", "").len(), 1);
    assert!(breaches("clock", "use crate::units::Timestamp; // crate::tower").len() == 1);
    assert!(breaches("clock", "/// [`crate::tower`]\nuse crate::units::Timestamp;").is_empty());
}

#[test]
fn files_stay_small() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX || text.starts_with(EXCUSE), "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_map_in_the_documentation_names_every_floor() {
    let map = include_str!("../src/docs/intro.md");
    for module in FLOORS.iter().flat_map(|floor| floor.iter()) {
        assert!(map.contains(module), "{module} is missing from the map in src/docs/intro.md");
    }
}
