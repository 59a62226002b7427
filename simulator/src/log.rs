//! What happened in a run, step by step, and its digest.

use std::fmt;
use std::sync::Arc;

use crate::time::SimulatedClock;

/// The event log of a run: two runs are the same if their digests are.
#[derive(Debug)]
pub struct Log {
    lines: Vec<String>,
    digest: u64,
    clock: Arc<SimulatedClock>,
    /// At which what is taken down happens.
    pub step: u64,
}

impl Log {
    /// An empty one, by this clock.
    pub fn new(clock: Arc<SimulatedClock>) -> Log {
        // FNV-1a's offset.
        Log { lines: Vec::new(), digest: 0xcbf2_9ce4_8422_2325, clock, step: 0 }
    }

    /// Takes a line down.
    pub fn line(&mut self, what: fmt::Arguments<'_>) {
        let line = format!("{:>6} {:>9} ms  {what}", self.step, self.clock.passed_ms());
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.push(line);
    }

    /// All lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// FNV-1a of all lines.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}
