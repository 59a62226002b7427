//! The one command that README begins with: it checks itself, and says so with its exit code.

use std::process::Command;

use punchline_tests::server::binary;

#[test]
fn the_demo_keeps_its_word() {
    let output = Command::new(binary()).args(["--output", "json", "demo"]).output().expect("the binary runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let noted = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{noted}");
    let told: serde_json::Value = serde_json::from_str(&told).expect("a document");
    assert_eq!(told["checks"], "all hold", "{told}");
    assert_eq!(told["accepted"], 2_700, "{told}");
}
