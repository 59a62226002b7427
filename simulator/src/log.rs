//! What happened in a run, step by step, and its digest.

use std::fmt;

/// The event log of a run: two runs are the same if their digests are.
#[derive(Debug)]
pub struct Log {
    lines: Vec<String>,
    digest: u64,
    at_ms: i64,
    step: u64,
}

impl Default for Log {
    fn default() -> Log {
        // FNV-1a's offset.
        Log { lines: Vec::new(), digest: 0xcbf2_9ce4_8422_2325, at_ms: 0, step: 0 }
    }
}

impl Log {
    /// What follows happens at this step and time.
    pub fn now(&mut self, step: u64, at_ms: i64) {
        (self.step, self.at_ms) = (step, at_ms);
    }

    /// Takes a line down.
    pub fn line(&mut self, what: fmt::Arguments<'_>) {
        let line = format!("{:>6} {:>9} ms  {what}", self.step, self.at_ms);
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
