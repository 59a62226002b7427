//! Verification: the journal read from end to end, folded afresh, and compared with every view.

use std::sync::Arc;

use punchline_engine::id::Sequence;
use punchline_storage::journal::{Journal, JournalError, verify_chain};
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::rows::{Rows, RowsError};
use punchline_storage::views::{self, BaseError, Views, ViewsError, compare};

use crate::committer::Unavailable;
use crate::feed::{ReadError, decode};
use crate::sequencer::{FOLDED_ROWS_MAX, settle};

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Events read.
    pub events: u64,
    /// Blocks whose checksum and place in the chain were checked.
    pub blocks: u64,
    /// Rows compared.
    pub rows: u64,
    /// The first thing that is not as it should be; `None` where all is well.
    pub difference: Option<String>,
}

/// Why it could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The journal's records.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Fresh or stored views.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// What a journal that was trimmed goes on from.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// Fresh or stored rows.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The views cannot be written behind, so what is stored is not as of any position.
    #[error("the views cannot be verified while {why}")]
    Stopped {
        /// Why not.
        why: Unavailable,
    },
}

/// Checks every block of the journal, folds it afresh into the rows `fresh` up to the checkpoint of `rows`, and
/// compares. `fresh` is empty, or the base of a journal that was trimmed. `progress` is told the position reached and the head.
///
/// The keys of members that were erased up to the checkpoint are destroyed, and those of others are not: so
/// both come of the same content. Nobody may write the rows behind meanwhile, which would destroy others.
///
/// The stored rows must be exactly as of their checkpoint: what was written behind when a crash came is
/// newer, until recovery has made the next checkpoint.
///
/// # Errors
///
/// [`VerifyError`] where something cannot be read; what can be read but is wrong is a difference.
pub fn verify(
    journal: &dyn Journal,
    rows: &Arc<dyn Rows>,
    keys: &Arc<MemberKeys>,
    fresh: &Arc<dyn Rows>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, VerifyError> {
    let mut verified = Verified::default();
    let checkpoint = views::checkpoint(&**rows)?;
    let mut views = Views::open(fresh.clone(), keys.clone(), FOLDED_ROWS_MAX)?;
    let (base, head) = (views.applied().0, journal.head());
    let mut failed: Option<VerifyError> = None;
    let chain = verify_chain(journal, 1, |block| {
        if failed.is_some() {
            return;
        }
        verified.blocks += 1;
        for (first, events, bytes) in block.records() {
            verified.events += u64::from(events);
            let applied = decode(first, bytes, keys).map_err(VerifyError::from).and_then(|record| {
                if record.events.len() != events as usize {
                    verified.difference.get_or_insert(format!("the record at {first} does not have {events} events"));
                }
                let is_folded = base < first && first <= checkpoint.0;
                if is_folded { Ok(views.apply(Sequence(first), &record)?) } else { Ok(()) }
            });
            let written = applied.and_then(|()| {
                if views.waiting_rows() < FOLDED_ROWS_MAX {
                    return Ok(());
                }
                Ok(settle(&mut views, keys, &**fresh)?)
            });
            failed = failed.take().or(written.err());
        }
        progress(block.last_sequence(), head);
    });
    match chain {
        Err(error @ (JournalError::Corrupt { .. } | JournalError::Trimmed { .. })) => {
            verified.difference = Some(error.to_string());
            return Ok(verified);
        }
        Err(error) => return Err(ReadError::from(error).into()),
        Ok(_) => {}
    }
    if let Some(error) = failed {
        return Err(error);
    }
    settle(&mut views, keys, &**fresh)?;
    let imbalance = views.houses().iter().find(|(_, house)| house.imbalance() != 0);
    if let Some((tenant, house)) = imbalance {
        let text = format!("the ledger of {tenant} is out of balance by {}", house.imbalance());
        verified.difference.get_or_insert(text);
    }
    match compare(&**rows, &**fresh)? {
        Ok(compared) => verified.rows = compared,
        Err(difference) => {
            verified.difference.get_or_insert(difference.to_string());
        }
    }
    Ok(verified)
}
