//! An entry: what is kept of an id that was used up.

use punchline_engine::id::Sequence;

use crate::views::keys::Hash;

pub(super) const ENTRY_BYTES: usize = 16;
const SEQUENCE_BITS: u32 = 48;

/// The first 80 bits of an id's hash: two of 50 million ids have the same with a probability of 10^-9. Then
/// only the newer one is found, and since a hit is confirmed against the record, a repeat of the older is
/// taken for new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix(pub(super) u128);

pub(super) const PREFIX_BYTES: usize = 10;

impl Prefix {
    pub(super) fn of(hash: &Hash) -> Prefix {
        Prefix(u128::from_be_bytes(*hash) >> SEQUENCE_BITS)
    }

    /// Where it stands among all prefixes, of `whole`.
    pub(super) fn share_of(self, whole: usize) -> usize {
        (((self.0 >> 16) * whole as u128) >> 64) as usize
    }

    pub(super) fn to_bytes(self) -> [u8; PREFIX_BYTES] {
        *self.0.to_be_bytes().last_chunk().expect("16 bytes have 10")
    }

    pub(super) fn from_bytes(bytes: &[u8; PREFIX_BYTES]) -> Prefix {
        let mut wide = [0; 16];
        wide[16 - PREFIX_BYTES..].copy_from_slice(bytes);
        Prefix(u128::from_be_bytes(wide))
    }
}

/// Prefix and position in one number, whose order is that of its bytes: by prefix, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry(pub(super) u128);

impl Entry {
    pub(super) fn new(hash: &Hash, sequence: Sequence) -> Entry {
        // A million events a second for nine years.
        assert!(sequence.0 >> SEQUENCE_BITS == 0, "sequence {sequence} has more than 48 bits");
        Entry((Prefix::of(hash).0 << SEQUENCE_BITS) | u128::from(sequence.0))
    }

    pub(super) fn prefix(self) -> Prefix {
        Prefix(self.0 >> SEQUENCE_BITS)
    }

    pub(super) fn sequence(self) -> Sequence {
        Sequence(self.0 as u64 & ((1 << SEQUENCE_BITS) - 1))
    }
}
