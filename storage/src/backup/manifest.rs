//! The manifest: what a backup consists of. A text file, for people too.
//!
//! ```text
//! punchline backup 1
//! { JSON }
//! sha256 <of all lines before, in hex>
//! ```

use punchline_engine::time::UnixMillis;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::part::Name;
use super::{BackupError, Place, hex};
use crate::block::BlockHash;

/// Its name in a directory and in a stream.
pub(super) const NAME: &str = "manifest";

const FIRST_LINE: &str = "punchline backup ";
const FORMAT: &str = "1";

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, in hex.
    pub sha256: String,
}

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How many times this backup was brought up to date, the first time included.
    pub run: u64,
    /// When the last run was begun, ms since 1970.
    made_at_ms: i64,
    /// First sequence in it.
    pub first: u64,
    /// Last sequence in it, `first - 1` where there is none.
    pub last: u64,
    /// Hash of its last block, in hex; zeros where there is none.
    pub last_hash: String,
    /// Its files, in the order in which they are read.
    pub parts: Vec<Part>,
}

impl Manifest {
    pub(super) fn new(run: u64, made_at: UnixMillis, first: u64) -> Manifest {
        // What comes before a journal that was trimmed only its first block knows.
        let last_hash = if first == 1 { BlockHash::NONE.to_string() } else { String::new() };
        Manifest { run, made_at_ms: made_at.0, first, last: first - 1, last_hash, parts: Vec::new() }
    }

    /// The same, for another run.
    pub(super) fn again(&self, made_at: UnixMillis) -> Manifest {
        Manifest { run: self.run + 1, made_at_ms: made_at.0, ..self.clone() }
    }

    /// As of when it is: the last run was begun then.
    pub fn made_at(&self) -> UnixMillis {
        UnixMillis(self.made_at_ms)
    }

    /// How large its files are, taken together.
    pub fn size_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    pub(super) fn encode(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("a manifest consists of what JSON can say");
        let text = format!("{FIRST_LINE}{FORMAT}\n{json}\n");
        let digest = hex(&Sha256::digest(&text));
        format!("{text}sha256 {digest}\n")
    }

    /// Reads what is at `place`.
    pub(super) fn decode(place: &Place, bytes: &[u8]) -> Result<Manifest, BackupError> {
        let damaged = |offset: usize, what: String| BackupError::damaged(place.clone(), offset as u64, what);
        let text = str::from_utf8(bytes).map_err(|error| damaged(error.valid_up_to(), "it is no UTF-8".into()))?;
        let (first_line, rest) = text.split_once('\n').unwrap_or((text, ""));
        let format = first_line.strip_prefix(FIRST_LINE);
        let format = format.ok_or_else(|| damaged(0, "it does not begin as a manifest does".into()))?;
        if format != FORMAT {
            return Err(BackupError::Version { place: place.clone(), found: format.to_owned() });
        }
        let end = text.rfind("sha256 ").filter(|end| *end > first_line.len());
        let end = end.ok_or_else(|| damaged(bytes.len(), "it has no checksum: its end is missing".into()))?;
        let digest = hex(&Sha256::digest(&text[..end]));
        if text[end..] != format!("sha256 {digest}\n") {
            return Err(damaged(0, "its checksum is another".into()));
        }
        let json = &rest[..end - first_line.len() - 1];
        let manifest: Manifest =
            serde_json::from_str(json).map_err(|e| damaged(first_line.len() + 1, e.to_string()))?;
        match manifest.parts.iter().find(|part| Name::parse(&part.name).is_none()) {
            Some(part) => Err(damaged(0, format!("{:?} is no part of a backup", part.name))),
            None => Ok(manifest),
        }
    }
}
