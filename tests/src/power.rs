//! Cuts of the power: `power/power.c`, which is preloaded into the server, and what the disk holds afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What a server ends with when the power goes.
pub const CUT: i32 = 137;

/// The mains.
#[derive(Debug)]
pub struct Power {
    dir: TempDir,
}

impl Power {
    /// On, for as long as nobody [plans](Power::plan) otherwise.
    ///
    /// # Panics
    ///
    /// If the library does not compile.
    pub fn new() -> Power {
        let power = Power { dir: TempDir::with_prefix("punchline-power-").expect("a temporary directory can be made") };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/power/power.c");
        let flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-o"];
        let status = Command::new("cc").args(flags).arg(power.library()).args([source, "-lpthread"]).status();
        assert!(status.expect("cc runs").success(), "{source} does not compile");
        power.plan(0, 0);
        power
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("power.so")
    }

    /// What a server is run through.
    pub fn through(&self) -> Vec<String> {
        let preload = format!("LD_PRELOAD={}", self.library().display());
        vec!["env".into(), preload, format!("POWER_DIR={}", self.dir.path().display())]
    }

    /// The server that is started next loses power at its so-manieth write or sync; 0: never. What becomes of
    /// what is not synced is up to the seed.
    ///
    /// # Panics
    ///
    /// If it cannot be written down.
    pub fn plan(&self, cut_at: u64, seed: u64) {
        std::fs::write(self.dir.path().join("plan"), format!("{cut_at} {seed}\n")).expect("a plan can be written");
    }

    /// Makes the data directory what the disk holds after the cut.
    ///
    /// # Panics
    ///
    /// If there was none.
    pub fn back(&self, data_dir: &Path) {
        std::fs::remove_dir_all(data_dir).expect("the data directory is there");
        std::fs::rename(self.dir.path().join("left"), data_dir).expect("the power was cut");
    }
}

impl Default for Power {
    fn default() -> Power {
        Power::new()
    }
}
