//! A guard against regressions that does not depend on the clock: instructions of each hot path, counted by
//! callgrind and held against `benches/instructions.txt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::hot::PATHS;
use crate::report::line;

/// Further from what is written down than this is a finding.
const TOLERANCE: f64 = 0.10;

const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Counts every path; fails where one is above what is written down, or `write`s down what it counted.
pub fn check(write: bool) -> ExitCode {
    let counted: Vec<(&str, u64)> = PATHS.iter().map(|path| (path.name, each(path.name, path.operations))).collect();
    if write {
        let lines: String = counted.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        let head = format!(
            "# Instructions of one operation under callgrind, built in this profile; written by\n# `punchline-benches instructions --write`.\nprofile {PROFILE}\n"
        );
        fs::write(file(), head + &lines).expect("the file can be written");
    }
    let text = fs::read_to_string(file()).expect("benches/instructions.txt is there");
    let written = |name: &str| text.lines().filter_map(|line| line.split_once(' ')).find(|(of, _)| *of == name);
    let profile = written("profile").map(|(_, profile)| profile);
    if profile != Some(PROFILE) {
        line(&format!("this is built in the profile {PROFILE}, what is written down in {profile:?}"));
        return ExitCode::FAILURE;
    }
    let mut ok = true;
    for (name, count) in counted {
        let expected: Option<u64> = written(name).and_then(|(_, count)| count.parse().ok());
        let (verdict, is_ok) = judge(count, expected);
        line(&format!("{name:<10} {count:>10} instructions, {verdict}"));
        ok &= is_ok;
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge(count: u64, expected: Option<u64>) -> (String, bool) {
    let Some(expected) = expected else { return ("and nothing is written down".into(), false) };
    let change = count as f64 / expected as f64 - 1.0;
    let so_much = format!("{:+.1} % of the {expected} that are written down", 100.0 * change);
    if change > TOLERANCE {
        (format!("{so_much}: TOO MANY"), false)
    } else if change < -TOLERANCE {
        (format!("{so_much}: lower it there, with --write"), true)
    } else {
        (so_much, true)
    }
}

/// Instructions of one operation: twice as many operations need so many more. What is done once cancels out.
fn each(name: &str, operations: u64) -> u64 {
    let (n, twice) = (total(name, operations), total(name, 2 * operations));
    twice.saturating_sub(n) / operations
}

fn total(name: &str, operations: u64) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["hot", name, &operations.to_string()])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} under valgrind: {said}");
    // `==1234== Collected : 123456`
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, count)| count.trim().parse().ok()).expect("callgrind says what it collected")
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn only_more_is_a_failure() {
        for (count, expected, ok) in [
            (100, Some(100), true),
            (109, Some(100), true),
            (111, Some(100), false),
            (80, Some(100), true),
            (1, None, false),
        ] {
            assert_eq!(judge(count, expected).1, ok, "{count} of {expected:?}");
        }
        assert!(judge(80, Some(100)).0.contains("lower it"), "who is faster is told to write it down");
    }
}
