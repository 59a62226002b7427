//! Backups: the journal, the members' keys and, where the journal was trimmed, the base that it goes on from.
//!
//! ```text
//! journal ─┐                      ┌─▶ directory: what is new since the last manifest, then a manifest
//! keys    ─┼─ parts, then manifest┤
//! base    ─┘                      └─▶ stream: all of it, as a tar
//! directory | stream ──read──▶ every checksum and the chain ──▶ Unpacked, or nothing where it is only checked
//! ```
//!
//! A part is at most some megabytes, so that writing and reading need no more memory than that.
//!
//! # Invariants
//!
//! - A backup is what its manifest lists. The manifest is written last, under another name, and renamed; parts
//!   that a manifest lists are never written to again. So a backup that is cut off leaves the one before.
//! - The blocks of a backup are those of the journal, byte for byte, without a gap and up to `last`.
//! - Its keys are as of `last`: there is one for each member up to there, and none of those is destroyed that
//!   was erased later. Every run takes them anew and removes those of the run before, so that what was erased
//!   goes from the directory with the next run.
//! - What was written is read back from the disk and compared before the manifest is.
//!
//! # What is absent on purpose
//!
//! - The master key: with it beside the keys, whoever has the backup could read the members.
//! - Views, unless the journal cannot be folded from its beginning any more; the delivery log.
//! - Compression and encryption: both are for whoever keeps the files.

mod directory;
mod manifest;
mod part;
mod read;
mod tar;
mod write;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::journal::JournalError;
use crate::member_keys::KeysError;

pub use directory::{Directory, manifest_in};
pub use manifest::{Manifest, Part};
pub use read::{Source, Unpacked, check, holds, unpack};
pub use write::{Contents, to_directory, to_stream};

/// Where a backup is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or directory.
    Path(PathBuf),
    /// Standard output or input.
    Stream,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => path.display().fmt(f),
            Place::Stream => f.write_str("(stream)"),
        }
    }
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// All that the backup is now.
    pub manifest: Manifest,
    /// Events that were not in it before.
    pub events_added: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
}

/// Why there is no backup, or why it is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system.
    #[error("backup {place}: {source}")]
    Io {
        /// Which file or directory.
        place: Place,
        /// What the system says.
        source: io::Error,
    },
    /// Another backup is being written there.
    #[error("backup {path} is in use by another process: try again when that has ended", path = path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The directory is something else's.
    #[error(
        "backup {path}: there is no backup here, but {found}: name an empty directory, or the one of a backup",
        path = path.display()
    )]
    Foreign {
        /// Which directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// There is nothing to read.
    #[error("backup {path}: there is no manifest, so no backup was ever completed here", path = path.display())]
    None {
        /// Which directory.
        path: PathBuf,
    },
    /// It was made by a later version.
    #[error("backup {place} has format {found}, this program reads 1: use the version that wrote it, or a later one")]
    Version {
        /// Which manifest.
        place: Place,
        /// What it says.
        found: String,
    },
    /// What is there is not what was written.
    #[error("backup {place} is damaged at byte {offset}: {what}; take another copy of it")]
    Damaged {
        /// Which file.
        place: Place,
        /// Where in it the damage begins, at the latest.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The backup continues another journal.
    #[error(
        "backup {path} is of another journal, or this one has lost its end: at sequence {sequence} {what}; \
         back up to another directory",
        path = path.display()
    )]
    OtherJournal {
        /// Which directory.
        path: PathBuf,
        /// Where they part.
        sequence: u64,
        /// In which way.
        what: &'static str,
    },
    /// The journal lacks what the backup lacks.
    #[error(
        "backup {path} ends at sequence {last}, and the journal was trimmed and begins at {first}: \
         back up to another directory",
        path = path.display()
    )]
    Gap {
        /// Which directory.
        path: PathBuf,
        /// Where the backup ends.
        last: u64,
        /// Where the journal begins.
        first: u64,
    },
    /// The journal was trimmed, and what it goes on from is not there.
    #[error("the journal begins at sequence {first}, and there is no base that it goes on from: restore a backup")]
    NoBase {
        /// Where it begins.
        first: u64,
    },
    /// The journal, read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The members' keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl BackupError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BackupError {
        let place = Place::Path(path.into());
        move |source| BackupError::Io { place, source }
    }

    fn damaged(place: Place, offset: u64, what: impl fmt::Display) -> BackupError {
        BackupError::Damaged { place, offset, what: what.to_string() }
    }
}

/// Bytes as text.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
