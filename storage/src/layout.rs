//! The one table of names: sled trees of the views, key prefixes of the journal.
//!
//! # Invariants
//!
//! - Integers in keys are big-endian, so that byte order is their order.
//! - A name or letter is never used again for something else; `docs/format.md` lists them all.

/// A keyed view. One sled tree each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Checkpoint and format version.
    Meta,
    /// Member aggregates.
    Members,
    /// Identifier → member.
    Identifiers,
    /// Exactly-once index.
    Seen,
    /// Positions of members' ledger entries, in chunks.
    Ledger,
    /// Advertisers, campaigns, subscriptions.
    Config,
    /// The house's accounts, a tenant.
    Houses,
    /// What departs from "delivered in order".
    Deliveries,
    /// How far deliveries have come, a subscription.
    Cursors,
    /// Redemptions, coupons, obligations.
    Items,
    /// When holds end.
    Deadlines,
}

impl Table {
    /// All tables, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Members,
        Self::Identifiers,
        Self::Seen,
        Self::Ledger,
        Self::Config,
        Self::Houses,
        Self::Deliveries,
        Self::Cursors,
        Self::Items,
        Self::Deadlines,
    ];

    /// Name of the sled tree.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Members => "members",
            Self::Identifiers => "identifiers",
            Self::Seen => "seen",
            Self::Ledger => "ledger",
            Self::Config => "config",
            Self::Houses => "houses",
            Self::Deliveries => "deliveries",
            Self::Cursors => "cursors",
            Self::Items => "items",
            Self::Deadlines => "deadlines",
        }
    }
}

/// The only partition while one process owns all (DESIGN, section 7).
pub const PARTITION: u16 = 0;

/// Most bytes of a block under one journal key; the rest follows under continuation keys.
///
/// sled stores a page larger than a quarter of a segment in a file of its own, which it never
/// syncs. A leaf page holds at most 17 values: 17 × 24 KiB and their keys stay below a quarter of
/// [`SEGMENT_BYTES`], so that every byte of the journal is in the one file that is synced.
pub(crate) const CHUNK_BYTES_MAX: usize = 24 * 1024;

/// Segment size of both sled databases. Written into their `conf`: can never be changed.
pub(crate) const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

const BLOCK: u8 = b'j';
const TRIMMED: u8 = b't';

/// Key of the block that begins at `sequence`.
pub(crate) fn block_key(sequence: u64) -> [u8; 11] {
    let mut key = [BLOCK; 11];
    key[1..3].copy_from_slice(&PARTITION.to_be_bytes());
    key[3..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Key of the `n`-th continuation (from 1) of the block that begins at `sequence`.
pub(crate) fn chunk_key(sequence: u64, n: u16) -> [u8; 13] {
    let mut key = [0; 13];
    key[..11].copy_from_slice(&block_key(sequence));
    key[11..].copy_from_slice(&n.to_be_bytes());
    key
}

/// What a block key or a continuation key says: first sequence, and which continuation (0 = none).
pub(crate) fn parse_block_key(key: &[u8]) -> Option<(u64, u16)> {
    let rest = key.strip_prefix(&block_key(0)[..3])?;
    let sequence = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    match rest.get(8..)? {
        [] => Some((sequence, 0)),
        n => Some((sequence, u16::from_be_bytes(n.try_into().ok()?))),
    }
}

/// Key under which the first sequence after trimming is kept.
pub(crate) fn trimmed_key() -> [u8; 3] {
    let mut key = [TRIMMED; 3];
    key[1..].copy_from_slice(&PARTITION.to_be_bytes());
    key
}
