//! Compiles the protos with `protox`, so that no `protoc` need be installed.

use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in ["punchline/v1", "punchline/journal/v1"] {
        println!("cargo:rerun-if-changed={dir}");
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "proto") {
                println!("cargo:rerun-if-changed={}", path.display());
                files.push(path);
            }
        }
    }
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves the API only: the journal's format is nobody else's business.
    let mut api = descriptors.clone();
    api.file.retain(|f| !f.package().starts_with("punchline.journal"));
    std::fs::write(Path::new(&out).join("api.bin"), api.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        // They are four times as large as the others of their kind, and rare.
        .boxed(".punchline.journal.v1.Event.kind.subscription_created")
        .boxed(".punchline.journal.v1.Event.kind.subscription_updated")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(descriptors)?;
    Ok(())
}
