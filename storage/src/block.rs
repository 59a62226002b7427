//! Blocks: how records lie in the journal.
//!
//! A *record* is one command's outcome, opaque here, holding one or more events; every event has
//! a sequence. A *block* is what one key of the journal holds: some whole records in a row, under
//! a header that chains it to the block before.
//!
//! ```text
//! offset size
//!      0    4  magic "PNB" and the format version (1)
//!      4    4  CRC32C of everything else in the block
//!      8    4  body length in bytes
//!     12    4  record count
//!     16    4  event count
//!     20    8  first sequence
//!     28    8  synced to: highest sequence known to be on disk when this block was written
//!     36   16  previous block's hash (SHA-256 of all its bytes, first 16), zeros for the first
//!     52    -  body: per record { length u32, events u32, bytes }
//! ```
//!
//! All integers are big-endian.
//!
//! # Invariants
//!
//! - A [`Block`] in hand is sound: checksum, counts and lengths agree, and every record holds at
//!   least one event. Decoding never panics, whatever the bytes.
//! - A block is at most [`BLOCK_BYTES_MAX`] long and holds at least one record; records never
//!   straddle blocks.
//! - `synced_to < first_sequence`: a block cannot vouch for itself.
//!
//! # What is absent on purpose
//!
//! - No compression and no encryption: both are the business of whoever makes the records.
//! - No partition number: it is part of the key, since a block may move to another home.

use std::fmt;

use bytes::Bytes;
use punchline_engine::planted::{Bug, is_planted};
use sha2::{Digest, Sha256};

/// Size at which a builder calls itself full. About 8 KiB was the fastest on sled (DESIGN,
/// section 4); larger blocks cost reads of single records, smaller ones cost rows.
pub const BLOCK_BYTES_TARGET: usize = 8 * 1024;

/// Size no block exceeds. Bounds what one read may bring into memory.
pub const BLOCK_BYTES_MAX: usize = 1024 * 1024;

/// Size of the header before the records.
pub const HEADER_BYTES: usize = 52;

/// Size of what stands before each record.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Size of the largest record that fits into a block of its own.
pub const RECORD_BYTES_MAX: usize = BLOCK_BYTES_MAX - HEADER_BYTES - RECORD_HEADER_BYTES;

const MAGIC: [u8; 4] = *b"PNB\x01";

/// The first 16 bytes of the SHA-256 of a block's bytes; all zeros stands for "no block".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct BlockHash(pub [u8; 16]);

impl BlockHash {
    /// What the first block of a journal names as its predecessor.
    pub const NONE: Self = Self([0; 16]);

    fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Fewer or more bytes than the header says.
    #[error("block is {found} bytes long instead of {expected}")]
    Length {
        /// What the header says, or the least a header needs.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// Not ours, or of a later version of the format.
    #[error("block begins with {0:02x?} instead of the magic of format 1")]
    Magic([u8; 4]),
    /// The bytes are not those that were written.
    #[error("block checksum is {found:08x} instead of {expected:08x}")]
    Checksum {
        /// As written in the header.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// The checksum holds but the content makes no sense: a bug of the writer.
    #[error("block is malformed: {0}")]
    Malformed(&'static str),
}

/// Why a record was not taken into a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No block can hold it.
    #[error("record of {bytes} bytes exceeds {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This block cannot hold it any more; finish it and begin another.
    #[error("block has no room left for this record")]
    NoRoom,
    /// A record without events would have no sequence.
    #[error("record holds no event")]
    NoEvents,
}

/// A finished block on its way to a journal.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    /// Sequence of its first event.
    pub first_sequence: u64,
    /// Sequence of its last event.
    pub last_sequence: u64,
    /// Highest sequence it vouches for.
    pub synced_to: u64,
    /// Hash of the block before.
    pub previous_hash: BlockHash,
    /// Hash of this block, for the next one to name.
    pub hash: BlockHash,
    /// All its bytes.
    pub bytes: Bytes,
}

impl fmt::Debug for EncodedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedBlock")
            .field("first_sequence", &self.first_sequence)
            .field("last_sequence", &self.last_sequence)
            .field("hash", &self.hash)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Gathers records into a block; reusable after [`finish`](Self::finish).
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    records: u32,
    events: u32,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockBuilder {
    /// Returns an empty builder.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES_TARGET + BLOCK_BYTES_TARGET / 4);
        bytes.resize(HEADER_BYTES, 0);
        Self { bytes, records: 0, events: 0 }
    }

    /// Adds a record that holds `events` events.
    ///
    /// # Errors
    ///
    /// See [`PushError`]; nothing has been added then.
    pub fn push(&mut self, record: &[u8], events: u32) -> Result<(), PushError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(PushError::RecordTooLarge { bytes: record.len() });
        }
        if events == 0 {
            return Err(PushError::NoEvents);
        }
        let total = self.events.checked_add(events).ok_or(PushError::NoRoom)?;
        if self.bytes.len() + RECORD_HEADER_BYTES + record.len() > BLOCK_BYTES_MAX {
            return Err(PushError::NoRoom);
        }
        self.bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(&events.to_be_bytes());
        self.bytes.extend_from_slice(record);
        self.records += 1;
        self.events = total;
        Ok(())
    }

    /// Size of the block if it were finished now.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many sequences the block would take.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// How many records it holds.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether nothing has been pushed.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether it has reached [`BLOCK_BYTES_TARGET`] and should be finished.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_BYTES_TARGET
    }

    /// Makes the block and leaves the builder empty.
    ///
    /// `synced_to` is the highest sequence known to be on disk by now: what was acknowledged, never
    /// what is still on its way.
    ///
    /// # Panics
    ///
    /// If the builder is empty, `first_sequence` is 0 or `synced_to` is not before it: bugs.
    pub fn finish(&mut self, first_sequence: u64, synced_to: u64, previous_hash: BlockHash) -> EncodedBlock {
        assert!(self.records > 0, "a block holds at least one record");
        assert!(synced_to < first_sequence, "a block cannot vouch for itself");
        let last_sequence =
            first_sequence.checked_add(u64::from(self.events) - 1).expect("2^64 events are never reached");
        let Self { mut bytes, records, events } = std::mem::take(self);
        let body_bytes = (bytes.len() - HEADER_BYTES) as u32;
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&body_bytes.to_be_bytes());
        bytes[12..16].copy_from_slice(&records.to_be_bytes());
        bytes[16..20].copy_from_slice(&events.to_be_bytes());
        bytes[20..28].copy_from_slice(&first_sequence.to_be_bytes());
        bytes[28..36].copy_from_slice(&synced_to.to_be_bytes());
        bytes[36..52].copy_from_slice(&previous_hash.0);
        let crc = checksum(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        EncodedBlock {
            first_sequence,
            last_sequence,
            synced_to,
            previous_hash,
            hash: BlockHash::of(&bytes),
            bytes: Bytes::from(bytes),
        }
    }
}

/// A sound block read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    bytes: Bytes,
    records: u32,
    events: u32,
    first_sequence: u64,
    synced_to: u64,
    previous_hash: BlockHash,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("first_sequence", &self.first_sequence)
            .field("last_sequence", &self.last_sequence())
            .field("records", &self.records)
            .field("synced_to", &self.synced_to)
            .finish_non_exhaustive()
    }
}

impl Block {
    /// Checks and takes over a copy of `bytes`.
    ///
    /// # Errors
    ///
    /// [`BlockError`] if they are not exactly one sound block.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// As [`decode`](Self::decode), without the copy.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn from_bytes(bytes: Bytes) -> Result<Self, BlockError> {
        let expected = encoded_len(&bytes)?;
        if bytes.len() != expected {
            return Err(BlockError::Length { expected, found: bytes.len() });
        }
        let stored = u32_at(&bytes, 4);
        let found = checksum(&bytes);
        if stored != found && !is_planted(Bug::UncheckedBlock) {
            return Err(BlockError::Checksum { expected: stored, found });
        }
        let mut previous = [0; 16];
        previous.copy_from_slice(&bytes[36..52]);
        let block = Self {
            records: u32_at(&bytes, 12),
            events: u32_at(&bytes, 16),
            first_sequence: u64_at(&bytes, 20),
            synced_to: u64_at(&bytes, 28),
            previous_hash: BlockHash(previous),
            bytes,
        };
        block.check()?;
        Ok(block)
    }

    fn check(&self) -> Result<(), BlockError> {
        if self.first_sequence == 0 || self.synced_to >= self.first_sequence {
            return Err(BlockError::Malformed("sequences out of order"));
        }
        if self.first_sequence.checked_add(u64::from(self.events)).is_none() {
            return Err(BlockError::Malformed("sequence overflow"));
        }
        let (mut at, mut records, mut events) = (HEADER_BYTES, 0_u32, 0_u64);
        while at < self.bytes.len() {
            if self.bytes.len() - at < RECORD_HEADER_BYTES {
                return Err(BlockError::Malformed("half a record header"));
            }
            let len = u32_at(&self.bytes, at) as usize;
            let of_record = u32_at(&self.bytes, at + 4);
            at += RECORD_HEADER_BYTES;
            if of_record == 0 {
                return Err(BlockError::Malformed("record without events"));
            }
            if len > self.bytes.len() - at {
                return Err(BlockError::Malformed("record longer than the block"));
            }
            at += len;
            records += 1;
            events += u64::from(of_record);
        }
        if records == 0 {
            return Err(BlockError::Malformed("no record"));
        }
        if records != self.records || events != u64::from(self.events) {
            return Err(BlockError::Malformed("counts differ from the records"));
        }
        Ok(())
    }

    /// Sequence of the first event.
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// Sequence of the last event.
    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.events) - 1
    }

    /// Highest sequence this block proves to have been on disk before it was written.
    pub fn synced_to(&self) -> u64 {
        self.synced_to
    }

    /// Hash of the block before.
    pub fn previous_hash(&self) -> BlockHash {
        self.previous_hash
    }

    /// Hash of this block; computed anew at each call (about 5 µs for 8 KiB).
    pub fn hash(&self) -> BlockHash {
        BlockHash::of(&self.bytes)
    }

    /// How many records it holds.
    pub fn record_count(&self) -> u32 {
        self.records
    }

    /// How many events its records hold.
    pub fn event_count(&self) -> u32 {
        self.events
    }

    /// All its bytes, as they were written.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records in order: sequence of the first event, number of events, bytes.
    pub fn records(&self) -> Records<'_> {
        Records { rest: &self.bytes[HEADER_BYTES..], next: self.first_sequence }
    }

    /// The record that holds the event `sequence`, if this block does.
    pub fn record_at(&self, sequence: u64) -> Option<(u64, u32, &[u8])> {
        self.records().find(|(first, events, _)| (*first..first.saturating_add(u64::from(*events))).contains(&sequence))
    }
}

/// Iterator of [`Block::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    next: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        // A `Block` exists only after `check`, so neither slice can be out of bounds.
        let len = u32_at(self.rest, 0) as usize;
        let events = u32_at(self.rest, 4);
        let (record, rest) = self.rest[RECORD_HEADER_BYTES..].split_at(len);
        let first = self.next;
        self.rest = rest;
        self.next += u64::from(events);
        Some((first, events, record))
    }
}

/// How long the block that begins `bytes` says it is.
pub(crate) fn encoded_len(bytes: &[u8]) -> Result<usize, BlockError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BlockError::Length { expected: HEADER_BYTES, found: bytes.len() });
    }
    if bytes[0..4] != MAGIC {
        return Err(BlockError::Magic([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    let len = HEADER_BYTES + u32_at(bytes, 8) as usize;
    if len > BLOCK_BYTES_MAX {
        return Err(BlockError::Malformed("longer than any block"));
    }
    Ok(len)
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[0..4]), &bytes[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("a slice of four is four long"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a slice of eight is eight long"))
}
