//! Trimming: removes the beginning of the journal, once nothing needs it any more and a backup has it.
//!
//! ```text
//! backup, age, cursors, rows, jobs ──least──▶ verify ▶ base written ▶ blocks removed, a few at a time
//! ```
//!
//! # Invariants
//!
//! - Every block that goes was compared with the backup's, byte for byte, just before.
//! - The views were verified against the journal just before, and their rows are on disk as a base: what the
//!   journal came to can be had without its beginning.
//! - Nothing goes that a subscription, a consumer, a job or a dead letter has yet to tell.
//! - Ids stay used up: they are in the views, and so in the base.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use punchline_engine::dispatch::{DeliveryRow, DeliveryState, JobState, RowState};
use punchline_engine::id::{Sequence, SubscriptionId};
use punchline_storage::backup::{BackupError, Directory, holds};
use punchline_storage::data_dir::DataDirError;
use punchline_storage::journal::JournalError;
use punchline_storage::views::{BaseError, ViewsError, write_base};

use crate::committer::{Unavailable, why_stopped};
use crate::node::Node;
use crate::verify::VerifyError;

/// Events removed between two pauses: some megabytes, and a few milliseconds in which nothing is appended.
const TRIMMED_AT_ONCE: u64 = 10_000;
/// Leaves the disk to the commits.
const PAUSE: Duration = Duration::from_millis(5);
/// Rows looked at between two commands.
const ROWS_PAGE: usize = 512;

/// Something that needs the journal from a position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it is.
    pub what: &'static str,
    /// Which one.
    pub name: String,
    /// The first position that it needs.
    pub from: Sequence,
}

/// What trimming came to, or would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// First position of the journal before.
    pub first: Sequence,
    /// First position that is kept.
    pub kept_from: Sequence,
    /// What needs the journal, the one that needs most of it first.
    pub held: Vec<Held>,
}

/// Why the journal was not trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The backup, which has to have what goes.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nothing is read at present.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What has yet to be told cannot be looked up.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// It could not be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The views are not what the journal comes to.
    #[error("nothing was trimmed, since verifying found a difference: {0}")]
    Difference(String),
    /// The base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The journal. It stops like after any write that failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The directory of bases.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A bug of ours.
    #[error("trimming failed: {0}")]
    Failed(String),
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TrimError> + Send + 'static,
) -> Result<T, TrimError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(TrimError::Failed(error.to_string())))
}

impl Node {
    /// Removes what the backup in the directory `backup` holds and nothing needs any more, from `keep_from` on
    /// nothing; with `dry_run` only says what that is.
    ///
    /// # Errors
    ///
    /// [`TrimError`]; what was not removed yet stays.
    pub async fn trim(
        self: &Arc<Self>,
        backup: &Path,
        keep_from: Sequence,
        dry_run: bool,
    ) -> Result<Trimmed, TrimError> {
        let path = backup.to_owned();
        let directory = blocking(move || Ok(Directory::read(&path)?)).await?;
        let last = directory.manifest().map_or(0, |manifest| manifest.last);
        let mut held = self.held().await?;
        held.push(Held { what: "backup", name: backup.display().to_string(), from: Sequence(last + 1) });
        held.push(Held { what: "retention", name: "journal_keep_days".into(), from: keep_from });
        held.sort_by_key(|held| held.from);
        let first = Sequence(self.journal.first());
        // Whole blocks go, and the last one never.
        let (journal, wanted) = (self.journal.clone(), held[0].from.0.clamp(first.0, self.journal.head().max(first.0)));
        let block = blocking(move || Ok(journal.read(wanted)?)).await?;
        let kept_from = block.map_or(first.0, |block| block.first_sequence());
        let trimmed = Trimmed { first, kept_from: Sequence(kept_from), held };
        if dry_run || kept_from <= first.0 {
            return Ok(trimmed);
        }
        let node = self.clone();
        blocking(move || node.remove_before(&directory, kept_from)).await?;
        Ok(trimmed)
    }

    fn remove_before(&self, backup: &Directory, kept_from: u64) -> Result<(), TrimError> {
        let data_dir = self.data_dir.as_ref().ok_or_else(|| TrimError::Failed("there is no data directory".into()))?;
        holds(backup, &*self.journal, kept_from - 1)?;
        let settled = self.settled()?;
        if let Some(difference) = self.verify_settled()?.difference {
            return Err(TrimError::Difference(difference));
        }
        let upto = write_base(&*self.rows, &data_dir.bases_path())?;
        drop(settled);
        let mut at = self.journal.first();
        while at < kept_from {
            at = (at + TRIMMED_AT_ONCE).min(kept_from);
            self.journal.trim(at).inspect_err(|error| {
                tracing::error!(%error, "the journal stopped while it was trimmed");
                self.health.stop(why_stopped(error));
            })?;
            std::thread::sleep(PAUSE);
        }
        tracing::info!(first = self.journal.first(), base = upto.0, "the journal was trimmed");
        Ok(data_dir.remove_bases_before(upto.0)?)
    }

    /// What has yet to be told to somebody.
    async fn held(&self) -> Result<Vec<Held>, TrimError> {
        let directory = self.directory();
        let mut held = Vec::new();
        for (id, entry) in directory.tenants.values().flat_map(|config| &config.subscriptions) {
            let (state, open) = self.first_open(*id).await?;
            let cursor = state.cursor.max(entry.owed_after).next();
            let name = id.to_string();
            held.push(Held { what: "subscription", name: name.clone(), from: cursor });
            held.extend(open.map(|row| Held {
                what: if row.state == RowState::Dead { "dead letter" } else { "delivery" },
                name: format!("{name} {}", row.sequence),
                from: row.sequence,
            }));
            let running = state.jobs.iter().filter(|job| job.state == JobState::Running);
            held.extend(running.map(|job| Held {
                what: "job",
                name: format!("{name} {}", job.id),
                from: job.next_sequence,
            }));
        }
        Ok(held)
    }

    /// How a subscription's deliveries stand, and the first that is not settled for good.
    async fn first_open(&self, id: SubscriptionId) -> Result<(DeliveryState, Option<DeliveryRow>), TrimError> {
        let mut from = Sequence(0);
        loop {
            let read = self.submitter.read(move |views| {
                let state = views.delivery_state(id).cloned().unwrap_or_default();
                views.delivery_rows(id, from, ROWS_PAGE).map(|rows| (state, rows))
            });
            let (state, rows) = read.await??;
            let Some(last) = rows.last() else { return Ok((state, None)) };
            from = last.sequence.next();
            let is_open = |row: &DeliveryRow| !matches!(row.state, RowState::Delivered | RowState::Dropped);
            if let Some(row) = rows.into_iter().find(is_open) {
                return Ok((state, Some(row)));
            }
        }
    }
}
