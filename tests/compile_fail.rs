//! The most likely mistakes do not compile, and the compiler says what to do: each file of `tests/compile_fail` begins
//! with what must be said. Compared line by line, not as a whole, so that a newer compiler's wording elsewhere is no
//! failure.
#![cfg(not(tollgate_loom))]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[test]
fn mistakes_are_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    let bins = project.join("src/bin");
    let _ = fs::remove_dir_all(&bins);
    fs::create_dir_all(&bins).unwrap();
    let manifest = format!(
        "[package]\nname = \"compile_fail\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\ntollgate = {{ path = {root:?}, features = [\"http\"] }}\n"
    );
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    // The same versions as outside, so that nothing has to be fetched.
    fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();

    let mut failures = Vec::new();
    let mut cases: Vec<_> =
        fs::read_dir(root.join("tests/compile_fail")).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in &cases {
        let name = case.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(case).unwrap();
        fs::write(bins.join(format!("{name}.rs")), &text).unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["check", "--quiet", "--offline", "--bin", name])
            .current_dir(&project)
            .env("CARGO_TARGET_DIR", project.join("target"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let missing: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("//~ "))
            .filter(|words| !said.contains(words))
            .collect();
        if output.status.success() {
            failures.push(format!("{name} compiles"));
        } else if !missing.is_empty() {
            failures.push(format!("{name}: {missing:?} was not said, but:\n{said}"));
        }
        fs::remove_file(bins.join(format!("{name}.rs"))).unwrap();
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
