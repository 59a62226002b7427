//! The binary as it is called. That there is a test of it also has `cargo test --workspace` build it, with the
//! features of everything else: the process tests need no second build of the server (`tests/src/server.rs`).

use std::process::{Command, Output};

fn punchline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_punchline")).args(arguments).output().expect("the binary runs")
}

#[test]
fn says_its_version_and_what_is_wrong_with_a_call() {
    let version = punchline(&["--version"]);
    let expected = concat!("punchline ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((version.status.code(), String::from_utf8_lossy(&version.stdout).as_ref()), (Some(0), expected));
    let wrong = punchline(&["serv"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("serve") && wrong.stdout.is_empty(), "{said}");
}
