//! Keyed views: small rows in tables, disposable, rebuilt from the journal when in doubt.
//!
//! # Invariants
//!
//! - What was written before a `sync` that returned `Ok` is on disk.
//! - Writes reach the disk in the order they were made: a row that survived proves those before it.
//!   So a checkpoint row is written last, after a sync, and then synced itself.
//!
//! # What is absent on purpose
//!
//! - No transactions: what must be atomic is one row, or made so by the checkpoint.

use std::{io, path::PathBuf};

use crate::layout::Table;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A key and its new value, or `None` to delete it.
pub type RowChange = (Vec<u8>, Option<Vec<u8>>);

/// The keyed views.
pub trait Rows: Send + Sync + 'static {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    ///
    /// [`RowsError`] if the store fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;

    /// Puts or deletes rows, in order. On disk only after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// [`RowsError`] if the store fails; some of the rows may have been written then.
    fn write(&self, table: Table, rows: &[RowChange]) -> Result<(), RowsError>;

    /// At most `limit` rows whose key is `from` or after, ascending.
    ///
    /// # Errors
    ///
    /// [`RowsError`] if the store fails.
    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, RowsError>;

    /// Returns when all that was written is on disk.
    ///
    /// # Errors
    ///
    /// [`RowsError`] if the store fails; nothing is known then but what earlier syncs said.
    fn sync(&self) -> Result<(), RowsError>;

    /// Space taken on disk.
    fn size_bytes(&self) -> u64;
}

/// How the views failed.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The disk or the file system.
    #[error("views {path}: {source}", path = path.display())]
    Io {
        /// Which views.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space, no quota, or a file size limit.
    #[error("views {path} have no space left: {source}", path = path.display())]
    Full {
        /// Which views.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store below cannot read what it wrote: set the views aside and rebuild them.
    #[error("views {path} are damaged: {what}", path = path.display())]
    Damaged {
        /// Which views.
        path: PathBuf,
        /// What the store said.
        what: String,
    },
}

impl RowsError {
    /// Whether space, quota or a size limit ran out.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether what is stored is not what it should be, rather than that the disk fails: sled reports some
    /// corruption as an error of the system.
    pub fn is_damage(&self) -> bool {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => matches!(source.kind(), UnexpectedEof | InvalidData | NotFound),
            Self::Full { .. } => false,
        }
    }

    /// The store is well, but rows cannot be sealed.
    pub(crate) fn from_keys(error: crate::member_keys::KeysError) -> Self {
        use crate::member_keys::KeysError;
        match error {
            KeysError::Io { path, source } => Self::from_io(path, source),
            error => Self::Io { path: PathBuf::from("member keys"), source: io::Error::other(error) },
        }
    }

    /// Sorts an error of the system into [`Full`](Self::Full) and [`Io`](Self::Io).
    pub(crate) fn from_io(path: PathBuf, source: io::Error) -> Self {
        if crate::journal::is_full(&source) { Self::Full { path, source } } else { Self::Io { path, source } }
    }
}
