//! What opening a journal decides about the blocks it finds, apart from how they are stored.
//!
//! A bad block is a torn tail if nothing proves that it was once on disk: neither the checkpoint
//! from which the caller opens, nor the `synced_to` of any sound block after it. Then it and all
//! that follows is cut off. Otherwise something that was acknowledged is lost: refuse.

use std::path::Path;

use crate::{
    block::{Block, BlockError, BlockHash},
    journal::{CutOff, Damage, JournalError},
};

/// A stored block: the sequence its key names, its bytes or why there are none.
pub(crate) struct Stored {
    pub sequence: u64,
    pub bytes: usize,
    pub block: Result<Block, BlockError>,
}

impl Stored {
    pub fn new(sequence: u64, bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { sequence, bytes: len, block: Block::from_bytes(bytes.into()) }
    }
}

#[derive(Debug)]
pub(crate) struct Examined {
    pub head: u64,
    pub head_hash: BlockHash,
    pub cut_off: Option<CutOff>,
}

/// Judges `blocks`, which run from the one that holds `from` (or the first there is) to the end of
/// the journal. `first` is where the journal begins; all before `from` is known to be on disk.
pub(crate) fn examine(
    path: &Path,
    first: u64,
    from: u64,
    blocks: impl Iterator<Item = Result<Stored, JournalError>>,
) -> Result<Examined, JournalError> {
    let mut durable = from.saturating_sub(1);
    if first > 1 {
        // Trimming keeps the block at `first`, which was on disk.
        durable = durable.max(first);
    }
    let mut head = None;
    let mut head_hash = BlockHash::NONE;
    let mut cut_off: Option<CutOff> = None;
    for stored in blocks {
        let stored = stored?;
        if let Ok(block) = &stored.block {
            durable = durable.max(block.synced_to());
        }
        if let Some(cut) = &mut cut_off {
            cut.blocks += 1;
            cut.bytes += stored.bytes as u64;
            continue;
        }
        match judge(head, head_hash, first, from, &stored) {
            Ok((last, hash)) => (head, head_hash) = (Some(last), hash),
            Err(why) => {
                let from_sequence = match (head, &why) {
                    (Some(head), _) => head + 1,
                    (None, Damage::Gap { .. }) => first,
                    // The bad block itself may begin well before `from`.
                    (None, _) => stored.sequence.max(first),
                };
                let bytes = stored.bytes as u64;
                cut_off = Some(CutOff { from_sequence, blocks: 1, bytes, why });
            }
        }
    }
    let corrupt = |sequence, what| Err(JournalError::Corrupt { path: path.to_path_buf(), sequence, what });
    match cut_off {
        Some(cut) if cut.from_sequence <= durable => corrupt(cut.from_sequence, cut.why),
        cut_off => {
            let cut_before = cut_off.as_ref().map(|cut| cut.from_sequence - 1);
            let head = head.or(cut_before).unwrap_or(first.saturating_sub(1));
            if head < durable {
                return corrupt(head + 1, Damage::Short { head, durable });
            }
            Ok(Examined { head, head_hash, cut_off })
        }
    }
}

fn judge(
    head: Option<u64>,
    head_hash: BlockHash,
    first: u64,
    from: u64,
    stored: &Stored,
) -> Result<(u64, BlockHash), Damage> {
    let block = stored.block.as_ref().map_err(|error| Damage::Block(error.clone()))?;
    if block.first_sequence() != stored.sequence {
        return Err(Damage::Gap { found: block.first_sequence() });
    }
    let named = block.previous_hash();
    match head {
        Some(head) if block.first_sequence() != head + 1 => {
            return Err(Damage::Gap { found: block.first_sequence() });
        }
        Some(_) if named != head_hash => return Err(Damage::Chain { named, found: head_hash }),
        Some(_) => {}
        // The blocks begin with the one that holds the sequence before `from`, or the first.
        None if stored.sequence < first || stored.sequence > first.max(from.saturating_sub(1)) => {
            return Err(Damage::Gap { found: stored.sequence });
        }
        None if stored.sequence == 1 && named != BlockHash::NONE => {
            return Err(Damage::Chain { named, found: BlockHash::NONE });
        }
        None => {}
    }
    Ok((block.last_sequence(), block.hash()))
}
