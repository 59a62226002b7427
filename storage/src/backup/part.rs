//! Parts: the files of a backup, by their names, and what is in them.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::hex;
use super::manifest::Part;
use crate::block::{self, Block, BlockError};

/// A part is finished at this size: what is written and read at once.
pub(super) const PART_BYTES: usize = 16 * 1024 * 1024;
/// Size that no part and no manifest has: 100 000 parts are listed in less.
pub(super) const PART_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a part is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Of the base that is folded up to there: the n-th part.
    Base { upto: u64, n: u32 },
    /// Of the journal, from this sequence on.
    Blocks { first: u64 },
    /// Of the members' keys as this run found them: the n-th part.
    Keys { run: u64, n: u32 },
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Base { upto, n } => write!(f, "base-{upto:020}-{n:05}"),
            Name::Blocks { first } => write!(f, "blocks-{first:020}"),
            Name::Keys { run, n } => write!(f, "keys-{run:08}-{n:05}"),
        }
    }
}

impl Name {
    /// Reads a name exactly as it is written.
    pub(super) fn parse(text: &str) -> Option<Name> {
        let (kind, rest) = text.split_once('-')?;
        let name = match (kind, rest.split_once('-')) {
            ("blocks", None) => Name::Blocks { first: rest.parse().ok()? },
            ("base", Some((upto, n))) => Name::Base { upto: upto.parse().ok()?, n: n.parse().ok()? },
            ("keys", Some((run, n))) => Name::Keys { run: run.parse().ok()?, n: n.parse().ok()? },
            _ => return None,
        };
        (name.to_string() == text).then_some(name)
    }
}

/// What a manifest says of a part with this content.
pub(super) fn listed(name: Name, bytes: &[u8]) -> Part {
    Part { name: name.to_string(), bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
}

/// The blocks of a part, each with where it begins; ends with the first that is none.
pub(super) fn blocks(bytes: Bytes) -> impl Iterator<Item = (u64, Result<Block, BlockError>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.slice(at.min(bytes.len())..);
        if rest.is_empty() {
            return None;
        }
        let offset = at as u64;
        let block = block::encoded_len(&rest).and_then(|len| match rest.len() >= len {
            true => Block::from_bytes(rest.slice(..len)),
            false => Err(BlockError::Length { expected: len, found: rest.len() }),
        });
        at = block.as_ref().map_or(bytes.len(), |block| at + block.as_bytes().len());
        Some((offset, block))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let names = [Name::Base { upto: 7, n: 1 }, Name::Blocks { first: u64::MAX }, Name::Keys { run: 1, n: 99_999 }];
        for name in names {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for text in ["", "LOCK", "manifest", "blocks-1", "keys-00000001", "blocks-00000000000000000001-00001", "a/b"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
