//! A journal made of the blocks of another, all at once: where a backup is restored.
//!
//! # Invariants
//!
//! - Nothing is a journal before [`finish`](Import::finish): whoever does not get there throws the directory away.

use std::path::{Path, PathBuf};

use super::{CACHE_BYTES, insert, journal_error};
use crate::block::Block;
use crate::journal::JournalError;
use crate::layout::trimmed_key;
use crate::sled_door;

/// A journal that is being filled.
#[derive(Debug)]
pub(crate) struct Import {
    path: PathBuf,
    db: sled::Db,
}

impl Import {
    /// Begins one in the directory `path`, which must not be there.
    pub(crate) fn begin(path: &Path) -> Result<Import, JournalError> {
        let db = sled_door::open(path, CACHE_BYTES).map_err(|error| journal_error(path, 1, error))?;
        Ok(Import { path: path.to_owned(), db })
    }

    /// Adds a block, which continues the one before: the caller has seen to it.
    pub(crate) fn push(&mut self, block: &Block) -> Result<(), JournalError> {
        let sequence = block.first_sequence();
        sled_door::call(|| insert(&self.db, sequence, block.as_bytes()))
            .map_err(|error| journal_error(&self.path, sequence, error))
    }

    /// Writes all down, as a journal whose first sequence is `first`.
    pub(crate) fn finish(self, first: u64) -> Result<(), JournalError> {
        let written = sled_door::call(|| {
            if first > 1 {
                self.db.insert(trimmed_key(), &first.to_be_bytes())?;
            }
            self.db.flush().map(drop)
        });
        written.map_err(|error| journal_error(&self.path, first, error))?;
        sled_door::close(&self.path, || drop(self.db));
        Ok(())
    }
}
