//! Backups: of a node that runs, of a data directory that no server has, and back into an empty one.
//!
//! # Invariants
//!
//! - The keys of a backup are taken while nobody may destroy one, with the head that was read just before: so none
//!   of them is destroyed by an erasure that the backup does not hold, and none of a member's is missing.
//! - What is restored was verified, views and all, before anybody can open it.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use punchline_engine::time::UnixMillis;
use punchline_storage::backup::{self, BackupError, Contents, Manifest, Source, Summary};
use punchline_storage::data_dir::{DataDir, DataDirError};
use punchline_storage::journal::Journal;
use punchline_storage::member_keys::MemberKeys;

use crate::node::{Node, OfflineError, OpenError, Stores, open_stores, verify_offline};
use crate::verify::Verified;

/// Where a backup goes.
pub enum Target<'a> {
    /// A directory, which is brought up to date.
    Directory(&'a Path),
    /// A stream, which becomes a whole backup.
    Stream(&'a mut dyn Write),
}

/// Why a backup was not restored. What is in the directory is refused by everybody.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What was restored does not open, or cannot be read.
    #[error("what was restored cannot be verified: {0}")]
    Verify(#[from] OfflineError),
    /// It opens, and is not what it should be.
    #[error("what was restored is not as it should be: {0}")]
    Difference(String),
}

impl Node {
    /// Backs up all that was acknowledged so far, while it serves. Takes long: not for async tasks.
    ///
    /// # Errors
    ///
    /// [`BackupError`], with the file.
    pub fn back_up(&self, target: Target<'_>) -> Result<Summary, BackupError> {
        let contents = {
            let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            contents(&self.journal, &self.keys, self.data_dir.as_ref(), self.clock.now())?
        };
        let summary = write(target, contents, &mut |_, _| {})?;
        backed_up(summary.manifest.made_at());
        Ok(summary)
    }
}

/// Sets the metric: a backup as of `made_at` was completed.
pub fn backed_up(made_at: UnixMillis) {
    let seconds = made_at.0 as f64 / 1_000.0;
    metrics::gauge!("punchline_job_last_success_timestamp_seconds", "job" => "backup").set(seconds);
}

/// Backs up a data directory that no server has open: recovers it as a start would. `progress` is told the
/// sequence reached and the last one.
///
/// # Errors
///
/// [`OfflineBackupError`], with the file or position.
pub fn back_up_offline(
    data_dir: &DataDir,
    master_key: &[u8; 32],
    now: UnixMillis,
    target: Target<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, OfflineBackupError> {
    let (Stores { journal, keys, .. }, _) = open_stores(data_dir, master_key)?;
    Ok(write(target, contents(&journal, &keys, Some(data_dir), now)?, progress)?)
}

/// Why a data directory could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum OfflineBackupError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

fn contents<'a>(
    journal: &'a Arc<dyn Journal>,
    keys: &MemberKeys,
    data_dir: Option<&DataDir>,
    made_at: UnixMillis,
) -> Result<Contents<'a>, BackupError> {
    let upto = journal.head();
    let keys = keys.copy()?;
    let base = data_dir.and_then(DataDir::newest_base);
    Ok(Contents { journal: &**journal, upto, keys, base, made_at })
}

fn write(
    target: Target<'_>,
    contents: Contents<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, BackupError> {
    match target {
        Target::Directory(path) => backup::to_directory(path, contents, progress),
        Target::Stream(out) => backup::to_stream(out, contents, progress),
    }
}

/// Restores a backup into `data_dir`, which [`DataDir::begin_restore`] gave, and verifies what it comes to.
/// `read` is told how many bytes were read, `verified` the position reached and the head.
///
/// # Errors
///
/// [`RestoreError`], with the file and where in it; nobody opens the directory then.
pub fn restore(
    source: Source<'_>,
    data_dir: &DataDir,
    master_key: &[u8; 32],
    read: &mut dyn FnMut(u64),
    verified: &mut dyn FnMut(u64, u64),
) -> Result<(Manifest, Verified), RestoreError> {
    let manifest = backup::unpack(source, data_dir, read)?.manifest;
    let (verified, recovery) = verify_offline(data_dir, master_key, verified)?;
    let lost = (recovery.head.0 != manifest.last)
        .then(|| format!("it ends at sequence {}, and the backup at {}", recovery.head, manifest.last));
    if let Some(difference) = verified.difference.clone().or(recovery.cut_off).or(lost) {
        return Err(RestoreError::Difference(difference));
    }
    data_dir.finish_restore()?;
    Ok((manifest, verified))
}
