//! A directory that holds a backup, or is to hold one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::part::{Name, PART_BYTES_MAX};
use super::{BackupError, Place};
use crate::sync;

const LOCK: &str = "LOCK";
const UNFINISHED: &str = "manifest.new";

/// A directory of backups, locked: shared for whoever reads, by one for whoever writes.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// What is in it, if anything is.
    manifest: Option<Manifest>,
    /// Held for the lock on it; `None` where it is only read, and cannot be locked.
    _lock: Option<File>,
}

impl Directory {
    /// Opens the directory at `path` in order to read the backup in it.
    ///
    /// # Errors
    ///
    /// [`BackupError`] where there is none, its manifest is damaged, or one is being written.
    pub fn read(path: &Path) -> Result<Directory, BackupError> {
        // A medium that is only read has no lock to take, and nobody who writes.
        let lock = OpenOptions::new().read(true).write(true).open(path.join(LOCK)).ok();
        if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock_shared) {
            return Err(BackupError::InUse { path: path.to_owned() });
        }
        let manifest = manifest_in(path)?.ok_or_else(|| BackupError::None { path: path.to_owned() })?;
        Ok(Directory { path: path.to_owned(), manifest: Some(manifest), _lock: lock })
    }

    /// Opens the directory at `path` in order to write to it, and makes it where there is none. What an earlier
    /// run left unfinished is removed.
    ///
    /// # Errors
    ///
    /// [`BackupError::Foreign`] where it holds something else, [`BackupError::InUse`], and what the system says.
    pub(super) fn write(path: &Path) -> Result<Directory, BackupError> {
        fs::create_dir_all(path).map_err(BackupError::io(path))?;
        let manifest = manifest_in(path)?;
        if manifest.is_none() {
            let is_ours = |name: &&String| [LOCK, UNFINISHED].contains(&name.as_str()) || Name::parse(name).is_some();
            if let Some(found) = names(path)?.iter().find(|name| !is_ours(name)) {
                return Err(BackupError::Foreign { path: path.to_owned(), found: found.clone() });
            }
        }
        let at = path.join(LOCK);
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&at);
        let lock = lock.map_err(BackupError::io(&at))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(BackupError::io(at)(source)),
        }
        // Another run may have ended before the lock was ours.
        let manifest = manifest_in(path)?;
        let directory = Directory { path: path.to_owned(), manifest, _lock: Some(lock) };
        directory.remove_unlisted()?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, if anything is.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// A whole part.
    pub(super) fn part(&self, name: &str) -> Result<Vec<u8>, BackupError> {
        read_file(&self.path.join(name))
    }

    /// Writes a part, and reads back what the disk holds of it.
    pub(super) fn put(&self, name: Name, bytes: &[u8]) -> Result<(), BackupError> {
        let path = self.path.join(name.to_string());
        let written = || -> io::Result<Vec<u8>> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            drop(file);
            sync::sync_and_forget(&path)?;
            fs::read(&path)
        };
        match written().map_err(BackupError::io(&path))? {
            read if read == bytes => Ok(()),
            _ => Err(BackupError::damaged(Place::Path(path), 0, "what was just written reads differently")),
        }
    }

    /// Makes this what the backup is, then removes what it was and is not any more.
    pub(super) fn publish(&mut self, manifest: Manifest) -> Result<(), BackupError> {
        let unfinished = self.path.join(UNFINISHED);
        let published = || -> io::Result<()> {
            // The parts' names first.
            sync::sync_dir(&self.path)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(manifest.encode().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, self.path.join(manifest::NAME))?;
            sync::sync_dir(&self.path)?;
            self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync::sync_dir)
        };
        published().map_err(BackupError::io(&unfinished))?;
        self.manifest = Some(manifest);
        self.remove_unlisted()
    }

    /// Removes parts that the manifest does not list. Keys are overwritten first: those of members who were
    /// erased since may be among them.
    pub(super) fn remove_unlisted(&self) -> Result<(), BackupError> {
        let listed: BTreeSet<&str> =
            self.manifest.iter().flat_map(|manifest| &manifest.parts).map(|part| part.name.as_str()).collect();
        for name in names(&self.path)? {
            let parsed = Name::parse(&name);
            if listed.contains(name.as_str()) || parsed.is_none() && name != UNFINISHED {
                continue;
            }
            let path = self.path.join(&name);
            let removed = || -> io::Result<()> {
                if let Some(Name::Keys { .. }) = parsed {
                    let mut file = OpenOptions::new().write(true).open(&path)?;
                    let mut left = file.metadata()?.len();
                    while left > 0 {
                        let zeros = [0; 64 * 1024];
                        left -= file.write(&zeros[..left.min(zeros.len() as u64) as usize])? as u64;
                    }
                    file.sync_data()?;
                }
                fs::remove_file(&path)
            };
            removed().map_err(BackupError::io(&path))?;
        }
        sync::sync_dir(&self.path).map_err(BackupError::io(&self.path))
    }
}

fn names(path: &Path) -> Result<Vec<String>, BackupError> {
    let read = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    read().map_err(BackupError::io(path))
}

/// What the backup in a directory consists of, if there is one.
///
/// # Errors
///
/// [`BackupError`] where its manifest is damaged, and what the system says.
pub fn manifest_in(path: &Path) -> Result<Option<Manifest>, BackupError> {
    let path = path.join(manifest::NAME);
    match read_file(&path) {
        Err(BackupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => Manifest::decode(&Place::Path(path), &bytes).map(Some),
    }
}

/// A file that is no larger than any of a backup's.
fn read_file(path: &Path) -> Result<Vec<u8>, BackupError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PART_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read.map_err(BackupError::io(path))? as u64 {
        0..=PART_BYTES_MAX => Ok(bytes),
        _ => Err(BackupError::damaged(Place::Path(path.to_owned()), PART_BYTES_MAX, "it is larger than any part")),
    }
}
