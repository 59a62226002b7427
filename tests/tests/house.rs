//! House rules that a machine can say (DESIGN section 2, STYLE rules 9 and 15).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// Longest source file.
const FILE_LINES_MAX: usize = 800;

/// Who may import whom: crate, then all of ours that it may depend on, in whatever way.
const LAYERS: [(&str, &[&str]); 9] = [
    ("punchline-proto", &[]),
    ("punchline-engine", &[]),
    ("punchline-storage", &["punchline-proto", "punchline-engine"]),
    ("punchline-delivery", &["punchline-engine"]),
    ("punchline-runtime", &["punchline-engine", "punchline-storage", "punchline-delivery"]),
    (
        "punchline",
        &["punchline-proto", "punchline-engine", "punchline-storage", "punchline-delivery", "punchline-runtime"],
    ),
    ("simulator", &["punchline-engine", "punchline-storage", "punchline-delivery", "punchline-runtime"]),
    ("punchline-tests", &["punchline-proto"]),
    (
        "punchline-benches",
        &[
            "punchline",
            "punchline-proto",
            "punchline-engine",
            "punchline-storage",
            "punchline-delivery",
            "punchline-runtime",
            "punchline-tests",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate stands in the workspace").to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata runs")
}

/// What breaks the table, given each crate with all that it depends on.
fn against_the_layers(crates: &[(&str, Vec<&str>)]) -> Vec<String> {
    let ours: BTreeSet<&str> = crates.iter().map(|(name, _)| *name).collect();
    let mut faults = Vec::new();
    for (name, depends_on) in crates {
        let Some((_, allowed)) = LAYERS.iter().find(|(of, _)| of == name) else {
            faults.push(format!("{name} has no place in the table"));
            continue;
        };
        for other in depends_on {
            let is_ours = ours.contains(other) || other.starts_with("punchline");
            if is_ours && other != name && !allowed.contains(other) {
                faults.push(format!("{name} must not depend on {other}"));
            }
            if *other == "sled" && *name != "punchline-storage" {
                faults.push(format!("{name} must not depend on sled: only storage says sled"));
            }
        }
    }
    faults
}

#[test]
fn arrows_only_run_down() {
    let metadata = metadata();
    let crates: Vec<(&str, Vec<&str>)> = (metadata.packages.iter())
        .map(|package| (package.name.as_str(), package.dependencies.iter().map(|d| d.name.as_str()).collect()))
        .collect();
    assert!(crates.len() >= LAYERS.len(), "cargo metadata shows all of ours: {crates:?}");
    assert_eq!(against_the_layers(&crates), Vec::<String>::new());
}

#[test]
fn the_table_bites() {
    for (name, depends_on, fault) in [
        ("punchline-engine", "punchline-proto", Some("punchline-engine must not depend on punchline-proto")),
        ("punchline-delivery", "punchline-storage", Some("punchline-delivery must not depend on punchline-storage")),
        ("punchline-storage", "punchline-delivery", Some("punchline-storage must not depend on punchline-delivery")),
        ("punchline-tests", "punchline-engine", Some("punchline-tests must not depend on punchline-engine")),
        ("punchline-runtime", "sled", Some("punchline-runtime must not depend on sled: only storage says sled")),
        ("punchline-new", "serde", Some("punchline-new has no place in the table")),
        ("punchline-storage", "sled", None),
        ("punchline", "punchline-runtime", None),
    ] {
        let faults = against_the_layers(&[(name, vec![depends_on])]);
        assert_eq!(faults.first().map(String::as_str), fault, "{name} → {depends_on}");
    }
}

/// Every Rust file of ours: path from the root, and text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for package in metadata().packages {
        let dir = package.manifest_path.parent().expect("a manifest stands in a directory");
        walk(dir.as_std_path(), &mut found);
    }
    assert!(found.iter().any(|(path, _)| path == "tests/tests/house.rs"), "this file is among them");
    found
}

fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a directory can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let short = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            found.push((short, fs::read_to_string(&path).expect("a source file is text")));
        }
    }
}

/// The real sync, and an option of the allocator.
const UNCHECKED_IN: [&str; 2] = ["storage/src/sync.rs", "server/src/main.rs"];

/// What breaks a rule in one file.
fn faults_of(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let count = text.lines().count();
    if count > FILE_LINES_MAX {
        faults.push(format!("{path} has {count} lines, more than {FILE_LINES_MAX}"));
    }
    // Written so that this file does not find itself.
    let unfinished = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    let unchecked = concat!("un", "safe");
    for (i, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let at = format!("{path}:{}", i + 1);
        if unfinished.iter().any(|word| code.contains(word)) {
            faults.push(format!("{at}: unfinished"));
        }
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.into_iter().any(|word| word == unchecked) && !UNCHECKED_IN.contains(&path) {
            faults.push(format!("{at}: {unchecked} stands in {} only", UNCHECKED_IN.join(" and ")));
        }
    }
    faults
}

#[test]
fn files_keep_the_rules() {
    let faults: Vec<String> = sources().iter().flat_map(|(path, text)| faults_of(path, text)).collect();
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn the_rules_bite() {
    let long = "\n".repeat(FILE_LINES_MAX + 1);
    let unchecked = concat!("fn f() { un", "safe { g() } }");
    for (path, text, bites) in [
        ("a.rs", long.as_str(), true),
        ("a.rs", &long[1..], false),
        ("a.rs", concat!("fn f() { todo", "!() }"), true),
        ("a.rs", concat!("fn f() { unimplemented", "!(\"later\") }"), true),
        ("a.rs", unchecked, true),
        ("storage/src/sync.rs", unchecked, false),
        ("a.rs", concat!("// un", "safe would do"), false),
        ("a.rs", concat!("#![deny(un", "safe_code)]"), false),
    ] {
        assert_eq!(!faults_of(path, text).is_empty(), bites, "{path}: {}", text.trim());
    }
}
