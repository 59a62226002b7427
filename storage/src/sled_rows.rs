//! The keyed views on sled: `<data>/views/`, one tree per table, churned and disposable.
//!
//! # Invariants
//!
//! - A sync covers everything written before it, also pages so large that sled puts them into files
//!   of their own under `blobs/`, which it never syncs itself.
//!
//! # What is absent on purpose
//!
//! - No repair. Views that do not open or do not read are set aside and rebuilt (`data_dir.rs`).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    layout::Table,
    rows::{Row, RowChange, Rows, RowsError},
    sled_door::{self, DoorError},
    sync,
};

/// Memory sled may use for pages of the views, unless told otherwise.
pub const CACHE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// Views in a directory of their own.
pub struct SledRows {
    path: PathBuf,
    /// `Some` until dropped; an option so that dropping can go through the door.
    store: Option<Store>,
    /// Highest number of a blob file that has been synced. Blobs are named by a rising number.
    blobs_synced_to: Mutex<Option<i64>>,
}

struct Store {
    db: sled::Db,
    trees: [sled::Tree; Table::ALL.len()],
}

impl fmt::Debug for SledRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without sled's own, which prints every byte stored.
        f.debug_struct("SledRows").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SledRows {
    /// Opens or creates the views in the directory `path`.
    ///
    /// # Errors
    ///
    /// [`RowsError::Damaged`] if sled cannot read its own files; otherwise what the disk says.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, RowsError> {
        let rows_error = |error| rows_error(path, error);
        let db = sled_door::open(path, cache_bytes).map_err(rows_error)?;
        let trees = sled_door::call(|| {
            let mut trees = Vec::with_capacity(Table::ALL.len());
            for table in Table::ALL {
                trees.push(db.open_tree(table.name())?);
            }
            Ok(trees)
        })
        .map_err(rows_error)?;
        let trees = trees.try_into().expect("one tree per table");
        sync::sync_dir(path)
            .and_then(|()| path.parent().map_or(Ok(()), sync::sync_dir))
            .map_err(|source| RowsError::from_io(path.to_path_buf(), source))?;
        Ok(Self { path: path.to_path_buf(), store: Some(Store { db, trees }), blobs_synced_to: Mutex::new(None) })
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("taken only by drop")
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        &self.store().trees[table as usize]
    }

    fn call<T>(&self, f: impl FnOnce() -> sled::Result<T>) -> Result<T, RowsError> {
        sled_door::call(f).map_err(|error| rows_error(&self.path, error))
    }

    fn sync_blobs(&self) -> io::Result<()> {
        let dir = self.path.join("blobs");
        let mut synced_to = self.blobs_synced_to.lock().unwrap_or_else(PoisonError::into_inner);
        let mut highest = *synced_to;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
            if number > *synced_to {
                match fs::File::open(entry.path()) {
                    // Collected by sled in the meantime.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    file => file?.sync_all()?,
                }
                highest = highest.max(number);
            }
        }
        if highest > *synced_to {
            sync::sync_dir(&dir)?;
            *synced_to = highest;
        }
        Ok(())
    }
}

impl Rows for SledRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.call(|| Ok(self.tree(table).get(key)?.map(|value| value.to_vec())))
    }

    fn write(&self, table: Table, rows: &[RowChange]) -> Result<(), RowsError> {
        let tree = self.tree(table);
        self.call(|| {
            for (key, value) in rows {
                match value {
                    Some(value) => tree.insert(key, value.as_slice())?,
                    None => tree.remove(key)?,
                };
            }
            Ok(())
        })
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        self.call(|| {
            let rows = self.tree(table).range(from..).take(limit);
            rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    fn sync(&self) -> Result<(), RowsError> {
        // The log that names the blobs first: no blob is written after the flush that is its own.
        self.call(|| self.store().db.flush())?;
        self.sync_blobs().map_err(|source| RowsError::from_io(self.path.clone(), source))
    }

    fn size_bytes(&self) -> u64 {
        self.call(|| self.store().db.size_on_disk()).unwrap_or(0)
    }
}

impl Drop for SledRows {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            sled_door::close(&self.path, || drop(store));
        }
    }
}

fn rows_error(path: &Path, error: DoorError) -> RowsError {
    let path = path.to_path_buf();
    match error {
        DoorError::Io(source) => RowsError::from_io(path, source),
        DoorError::Damaged(what) => RowsError::Damaged { path, what },
    }
}
