//! The data directory: who owns it, and what lies in it.
//!
//! ```text
//! <data>/LOCK              held by the one process that owns the directory
//! <data>/FORMAT            of which version all this is
//! <data>/RESTORING         there while a backup is being restored into it
//! <data>/journal/          the truth
//! <data>/keys/             the members' keys: without them their personal fields cannot be read
//! <data>/base/             what a journal that was trimmed goes on from: as much the truth as the journal
//! <data>/views/            a disposable fold of it
//! <data>/attempts/         the delivery log, disposable
//! <data>/views.damaged-<n> views that did not open or fold, set aside for whoever wants to know why
//! ```
//!
//! # Invariants
//!
//! - One process at a time, by an exclusive lock that the system drops with the process.
//! - The directory and its parent are synced before anything in it is relied upon.
//! - What a later version wrote is not touched, nor is what was half restored.
//! - The journal is never set aside, replaced or repaired here: if it does not open, nothing starts.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::{
    journal::{JournalError, OpenReport},
    member_keys::{KeysError, MemberKeys, Randomness},
    rows::RowsError,
    sled_journal::SledJournal,
    sled_rows::{CACHE_BYTES_DEFAULT, SledRows},
    sync,
};

/// Version of the data directory. Another one wherever a version before would misread it.
const FORMAT: u32 = 1;
/// What stands before it in the file.
const FORMAT_TEXT: &str = "punchline data directory, format ";

/// How to open a data directory.
#[derive(Debug, Clone)]
pub struct DataDirOptions {
    /// Whether to make the directory if there is none.
    pub create: bool,
    /// Memory sled may use for pages of the views.
    pub views_cache_bytes: u64,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        Self { create: true, views_cache_bytes: CACHE_BYTES_DEFAULT }
    }
}

/// A data directory that this process owns until it drops this.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    options: DataDirOptions,
    /// Held for the lock on it.
    _lock: File,
}

/// Why a data directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {path} is in use by process {owner}", path = path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// What the owner wrote into the lock file: its process id.
        owner: String,
    },
    /// A later version's.
    #[error(
        "data directory {path} has format {found:?}, this program knows {FORMAT}: run the version that wrote it, \
         or a later one; or restore a backup that was made before into another directory",
        path = path.display()
    )]
    Format {
        /// Which directory.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A restore did not come to its end.
    #[error(
        "a restore into data directory {path} was cut off, and what it holds is incomplete: delete the directory, \
         then restore again",
        path = path.display()
    )]
    Unfinished {
        /// Which directory.
        path: PathBuf,
    },
    /// A backup is restored into an empty directory only.
    #[error("data directory {path} is not empty: it holds {found}; restore into a new one", path = path.display())]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The file system.
    #[error("data directory {path}: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// There while a backup is restored.
const RESTORING: &str = "RESTORING";

/// The base that is folded up to `upto`, in the directory of bases.
pub(crate) fn base_file(bases: &Path, upto: u64) -> PathBuf {
    bases.join(format!("{upto:020}"))
}

/// Views, and whether the journal must be folded into them from its beginning.
#[derive(Debug)]
pub struct ViewsOpened {
    /// The views.
    pub rows: SledRows,
    /// Whether damaged ones were set aside, so that these are empty.
    pub rebuilt: bool,
}

impl DataDir {
    /// Opens the directory `path` and takes the lock on it.
    ///
    /// # Errors
    ///
    /// [`DataDirError::InUse`] if another process (or another `DataDir` of this one) has it.
    pub fn open(path: &Path, options: DataDirOptions) -> Result<Self, DataDirError> {
        let opened = Self::lock(path, options)?;
        if opened.path.join(RESTORING).exists() {
            return Err(DataDirError::Unfinished { path: opened.path });
        }
        opened.check_format()?;
        Ok(opened)
    }

    /// Opens the directory at `path`, which must be empty but for a master key, in order to fill it. Nobody opens
    /// it as another before [`finish_restore`](Self::finish_restore).
    ///
    /// # Errors
    ///
    /// [`DataDirError`], with what it holds where it is not empty.
    pub fn begin_restore(path: &Path) -> Result<Self, DataDirError> {
        let opened = Self::lock(path, DataDirOptions::default())?;
        let path = &opened.path;
        if path.join(RESTORING).exists() {
            return Err(DataDirError::Unfinished { path: path.clone() });
        }
        let at = |source| DataDirError::Io { path: path.clone(), source };
        for entry in fs::read_dir(path).map_err(at)? {
            let found = entry.map_err(at)?.file_name().to_string_lossy().into_owned();
            match found.as_str() {
                "LOCK" | "master.key" => {}
                _ => return Err(DataDirError::NotEmpty { path: path.clone(), found }),
            }
        }
        let marked = File::create(path.join(RESTORING)).and_then(|file| file.sync_all());
        marked.and_then(|()| sync::sync_dir(path)).map_err(at)?;
        opened.check_format()?;
        Ok(opened)
    }

    /// All that belongs in it is there, and on disk.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish_restore(&self) -> Result<(), DataDirError> {
        let finished = sync::sync_dir(&self.path)
            .and_then(|()| fs::remove_file(self.path.join(RESTORING)))
            .and_then(|()| sync::sync_dir(&self.path));
        finished.map_err(|source| DataDirError::Io { path: self.path.clone(), source })
    }

    /// Refuses what a later version wrote. A directory that says nothing is of the first version, or new.
    fn check_format(&self) -> Result<(), DataDirError> {
        let path = self.path.join("FORMAT");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let found = text.trim().trim_start_matches(FORMAT_TEXT);
                match found.parse::<u32>() {
                    Ok(FORMAT) => Ok(()),
                    _ => Err(DataDirError::Format { path: self.path.clone(), found: found.to_owned() }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let unfinished = self.path.join("FORMAT.new");
                // A full disk must not keep us from starting: then the next start writes it.
                drop(
                    fs::write(&unfinished, format!("{FORMAT_TEXT}{FORMAT}\n"))
                        .and_then(|()| File::open(&unfinished)?.sync_all())
                        .and_then(|()| fs::rename(&unfinished, &path))
                        .and_then(|()| sync::sync_dir(&self.path)),
                );
                Ok(())
            }
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }

    /// Takes the lock, whatever the directory holds.
    fn lock(path: &Path, options: DataDirOptions) -> Result<Self, DataDirError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DataDirError::Io { path, source }
        };
        if options.create {
            fs::create_dir_all(path).map_err(at(path))?;
        }
        let path = &fs::canonicalize(path).map_err(at(path))?;
        let lock_path = path.join("LOCK");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                if lock.read_to_string(&mut owner).is_err() || owner.trim().is_empty() {
                    owner = "unknown".into();
                }
                let owner = owner.trim().to_owned();
                return Err(DataDirError::InUse { path: path.clone(), owner });
            }
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::Io { path: lock_path, source });
            }
        }
        // Only for the error message of the next one; a full disk must not keep us from starting.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        sync::sync_dir(path).map_err(at(path))?;
        if let Some(parent) = path.parent() {
            sync::sync_dir(parent).map_err(at(parent))?;
        }
        Ok(Self { path: path.clone(), options, _lock: lock })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal is.
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where the views are.
    pub fn views_path(&self) -> PathBuf {
        self.path.join("views")
    }

    /// The members' keys; `random` fills new ones.
    ///
    /// # Errors
    ///
    /// As [`MemberKeys::in_file`].
    pub fn member_keys(&self, master_key: &[u8; 32], random: Randomness) -> Result<MemberKeys, KeysError> {
        MemberKeys::in_file(self.keys_path(), master_key, random)
    }

    /// Where the members' keys are.
    pub(crate) fn keys_path(&self) -> PathBuf {
        self.path.join("keys").join("members.keys")
    }

    /// Where bases are.
    pub fn bases_path(&self) -> PathBuf {
        self.path.join("base")
    }

    /// What a journal that was trimmed goes on from: up to where it is folded, and its file.
    pub fn newest_base(&self) -> Option<(u64, PathBuf)> {
        let names = fs::read_dir(self.bases_path()).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let upto = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        names.filter_map(|path| Some((upto(&path)?, path))).max()
    }

    /// Removes bases that were folded up to before `upto`: a newer one is there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn remove_bases_before(&self, upto: u64) -> Result<(), DataDirError> {
        let bases = self.bases_path();
        let removed = || -> io::Result<()> {
            for entry in fs::read_dir(&bases)? {
                let path = entry?.path();
                if path < base_file(&bases, upto) {
                    fs::remove_file(path)?;
                }
            }
            sync::sync_dir(&bases)
        };
        removed().map_err(|source| DataDirError::Io { path: bases.clone(), source })
    }

    /// Where the delivery log is.
    pub fn attempts_path(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Opens the journal and verifies it from `from_sequence` on; see [`SledJournal::open`].
    ///
    /// # Errors
    ///
    /// As [`SledJournal::open`].
    pub fn open_journal(&self, from_sequence: u64) -> Result<(SledJournal, OpenReport), JournalError> {
        SledJournal::open(&self.journal_path(), from_sequence)
    }

    /// Opens the views. Damaged ones are set aside and fresh ones made.
    ///
    /// # Errors
    ///
    /// What the disk says: a failing or full disk is no reason to throw views away.
    pub fn open_views(&self) -> Result<ViewsOpened, RowsError> {
        let path = self.views_path();
        match SledRows::open(&path, self.options.views_cache_bytes) {
            Ok(rows) => Ok(ViewsOpened { rows, rebuilt: false }),
            Err(error) if !error.is_damage() => Err(error),
            Err(error) => {
                let aside = self.set_views_aside()?;
                tracing::warn!(
                    %error,
                    path = %path.display(),
                    set_aside = %aside.display(),
                    "views did not open and are rebuilt from the journal"
                );
                let rows = SledRows::open(&path, self.options.views_cache_bytes)?;
                Ok(ViewsOpened { rows, rebuilt: true })
            }
        }
    }

    /// Renames the views, which nobody may have open, to `views.damaged-<n>` and returns that path.
    /// Also for views that open but turn out not to go with the journal.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_views_aside(&self) -> Result<PathBuf, RowsError> {
        let from = self.views_path();
        let to = (1_u32..)
            .map(|n| self.path.join(format!("views.damaged-{n}")))
            .find(|to| !to.exists())
            .expect("fewer than 2^32 damaged views fit on a disk");
        fs::rename(&from, &to)
            .and_then(|()| sync::sync_dir(&self.path))
            .map_err(|source| RowsError::from_io(from, source))?;
        Ok(to)
    }

    /// Undoes [`set_views_aside`](Self::set_views_aside), which gave `aside`: those made since are no better,
    /// so it was not the views. Nobody may have either open.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn put_views_back(&self, aside: &Path) -> Result<(), RowsError> {
        let to = self.views_path();
        fs::remove_dir_all(&to)
            .and_then(|()| fs::rename(aside, &to))
            .and_then(|()| sync::sync_dir(&self.path))
            .map_err(|source| RowsError::from_io(to, source))
    }

    /// Bytes that may still be written to the file system of the directory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        sync::free_bytes(&self.path)
    }
}
