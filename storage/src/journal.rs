//! The journal: the append-only truth, as everything above sees it.
//!
//! Exactly as wide as a replicated log can be (DESIGN, section 7): append blocks at an expected
//! position, read from a position, tell the head, trim. Nothing above may assume that it is local.
//!
//! # Invariants
//!
//! - Sequences run from 1 without a gap, and each block names the hash of the one before.
//! - What `append` said `Ok` to is on disk; what it said `Err` to is gone after `reopen`.
//! - After an error of `append` nothing is appended until `reopen` has succeeded, because what a
//!   failed sync left behind cannot be known without looking.
//!
//! # What is absent on purpose
//!
//! - No waiting for a new head: the one writer publishes it after the append.
//! - No single-record append: group commit belongs to the sequencer.

use std::{io, path::PathBuf};

use crate::block::{Block, BlockError, BlockHash, EncodedBlock};

/// The append-only truth. One writer, any number of readers.
pub trait Journal: Send + Sync + 'static {
    /// Appends `blocks` in order from `expected_next` on, then syncs once. On `Ok` all is on disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Fenced`] if `expected_next` is not `head() + 1`; [`JournalError::Misplaced`]
    /// if the blocks do not continue the chain: nothing has been touched then. After any other
    /// error the journal is stopped until [`reopen`](Self::reopen) succeeds.
    fn append(&self, expected_next: u64, blocks: &[EncodedBlock]) -> Result<(), JournalError>;

    /// The block that holds `sequence`; `None` if that is after the head.
    ///
    /// # Errors
    ///
    /// [`JournalError::Trimmed`], [`JournalError::Corrupt`], or what the disk says.
    fn read(&self, sequence: u64) -> Result<Option<Block>, JournalError>;

    /// Last sequence on disk, 0 when there is none.
    fn head(&self) -> u64;

    /// Hash of the last block, [`BlockHash::NONE`] when there is none.
    fn head_hash(&self) -> BlockHash;

    /// First sequence that can still be read; `head() + 1` when the journal is empty.
    fn first(&self) -> u64;

    /// After a failed append: closes, opens anew, cuts off whatever was not acknowledged. Returns
    /// the head.
    ///
    /// # Errors
    ///
    /// The journal stays stopped and the call can be repeated.
    fn reopen(&self) -> Result<u64, JournalError>;

    /// Space taken on disk.
    fn size_bytes(&self) -> u64;

    /// Removes whole blocks that end before the sequence `before`; the last block always stays.
    ///
    /// # Errors
    ///
    /// As for `append`, and it stops the journal likewise.
    fn trim(&self, before: u64) -> Result<(), JournalError>;
}

/// How a journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system.
    #[error("journal {path}: {source}", path = path.display())]
    Io {
        /// Which journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space, no quota, or a file size limit.
    #[error("journal {path} has no space left: {source}", path = path.display())]
    Full {
        /// Which journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is stored is not what was written.
    #[error("journal {path} is corrupt at sequence {sequence}: {what}", path = path.display())]
    Corrupt {
        /// Which journal.
        path: PathBuf,
        /// First sequence that cannot be had.
        sequence: u64,
        /// In which way.
        what: Damage,
    },
    /// Someone else has appended, or we are behind: the caller no longer owns the journal.
    #[error("append expected to continue at sequence {expected_next} but the journal is at {next}")]
    Fenced {
        /// Where the caller thought the journal stood.
        expected_next: u64,
        /// Where it stands.
        next: u64,
    },
    /// The blocks to append do not continue one another: a bug of the caller.
    #[error("block at sequence {sequence} does not continue the journal: {what}")]
    Misplaced {
        /// First sequence of the block.
        sequence: u64,
        /// In which way.
        what: Damage,
    },
    /// An append failed earlier and `reopen` has not succeeded since.
    #[error("journal {path} is stopped after a failed write", path = path.display())]
    Stopped {
        /// Which journal.
        path: PathBuf,
    },
    /// The sequence has been trimmed away.
    #[error("sequence {sequence} has been trimmed, the journal begins at {first}")]
    Trimmed {
        /// What was asked for.
        sequence: u64,
        /// What there is.
        first: u64,
    },
}

impl JournalError {
    /// Whether space, quota or a size limit ran out: worth trying again after making room.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Sorts an error of the system into [`Full`](Self::Full) and [`Io`](Self::Io).
    pub(crate) fn from_io(path: PathBuf, source: io::Error) -> Self {
        if is_full(&source) { Self::Full { path, source } } else { Self::Io { path, source } }
    }
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The bytes are no block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The block before is not the one that this was written after.
    #[error("chain is broken: block names {named} as its predecessor, which is {found}")]
    Chain {
        /// In the block.
        named: BlockHash,
        /// Of the block before.
        found: BlockHash,
    },
    /// Sequences are missing.
    #[error("gap: the next block begins at sequence {found}")]
    Gap {
        /// Where the next block begins.
        found: u64,
    },
    /// The journal ends before what is known to have been on disk.
    #[error("journal ends at sequence {head}, but {durable} is known to have been on disk")]
    Short {
        /// Where it ends.
        head: u64,
        /// Where it should end at least.
        durable: u64,
    },
    /// The block claims to be on disk up to a point at which it is not.
    #[error("block vouches for sequence {synced_to}, but only {head} is on disk")]
    Vouching {
        /// What the block says.
        synced_to: u64,
        /// What is true.
        head: u64,
    },
    /// A key that is none of ours.
    #[error("key {0:02x?} is none of a journal")]
    Key(Vec<u8>),
    /// The store below says so.
    #[error("{0}")]
    Store(String),
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Last sequence of the journal now.
    pub head: u64,
    /// What was cut off, if anything.
    pub cut_off: Option<CutOff>,
}

/// An unacknowledged torn tail that opening removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// First sequence that was removed.
    pub from_sequence: u64,
    /// How many blocks, or pieces of them.
    pub blocks: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What was wrong with the first of them.
    pub why: Damage,
}

/// Reads the journal from the block that holds `from` (or from its beginning, if that is later) to
/// the head, checks checksums, positions and the chain, and shows each block to `visit`. Returns
/// the number of blocks.
///
/// # Errors
///
/// The first bad block as [`JournalError::Corrupt`], or what the disk says.
pub fn verify_chain(journal: &dyn Journal, from: u64, mut visit: impl FnMut(&Block)) -> Result<u64, JournalError> {
    let corrupt = |sequence, what| Err(JournalError::Corrupt { path: PathBuf::from("(as opened)"), sequence, what });
    let (head, head_hash) = (journal.head(), journal.head_hash());
    let mut next = from.max(journal.first());
    let mut previous: Option<BlockHash> = (next == 1).then_some(BlockHash::NONE);
    let mut blocks = 0;
    while next <= head {
        let Some(block) = journal.read(next)? else {
            return corrupt(next, Damage::Short { head: next - 1, durable: head });
        };
        if let Some(found) = previous {
            if block.first_sequence() != next {
                return corrupt(next, Damage::Gap { found: block.first_sequence() });
            }
            let named = block.previous_hash();
            if named != found {
                return corrupt(next, Damage::Chain { named, found });
            }
        }
        visit(&block);
        blocks += 1;
        next = block.last_sequence() + 1;
        let hash = block.hash();
        if block.last_sequence() == head && hash != head_hash && journal.head() == head {
            return corrupt(next - 1, Damage::Chain { named: head_hash, found: hash });
        }
        previous = Some(hash);
    }
    Ok(blocks)
}

/// Checks that `blocks` continue a journal that ends at `head` with `hash`; returns where it ends
/// afterwards.
pub(crate) fn check_append(
    head: u64,
    hash: BlockHash,
    expected_next: u64,
    blocks: &[EncodedBlock],
) -> Result<(u64, BlockHash), JournalError> {
    if expected_next != head + 1 {
        return Err(JournalError::Fenced { expected_next, next: head + 1 });
    }
    let (mut last, mut previous) = (head, hash);
    for block in blocks {
        let sequence = block.first_sequence;
        let what = if sequence != last + 1 {
            Some(Damage::Gap { found: sequence })
        } else if block.previous_hash != previous {
            Some(Damage::Chain { named: block.previous_hash, found: previous })
        } else if block.synced_to > head {
            Some(Damage::Vouching { synced_to: block.synced_to, head })
        } else {
            None
        };
        if let Some(what) = what {
            return Err(JournalError::Misplaced { sequence: last + 1, what });
        }
        (last, previous) = (block.last_sequence, block.hash);
    }
    Ok((last, previous))
}

/// Whether an error means that there is no room: ENOSPC, EDQUOT or EFBIG. By kind and not by number,
/// since sled hands on copies of errors that have lost their number.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
