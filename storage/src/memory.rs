//! Journal and views in memory, over a disk that keeps live and durable bytes apart.
//!
//! A [`MemoryDisk`] stands for the machine: its live image is what a process sees, its durable
//! image what a power cut leaves. Journal and views are two files of it, synced apart. [`Faults`]
//! and [`MemoryDisk::set_full`] say what breaks and when; what a power cut tears is chosen by a seed.
//!
//! # Invariants
//!
//! - The durable image only changes in a sync that succeeds.
//! - Writes of one file reach the disk in order: what a power cut leaves of the unsynced ones is a
//!   prefix, the last of which may be torn (journal) – as sled recovers a prefix of its log. Blocks of the journal
//!   may also be made to survive in any subset, as on a log that recovers less: the journal allows for it.
//! - The same calls, faults and seed give the same bytes.
//!
//! # What is absent on purpose
//!
//! - No clock, no randomness besides the seed, no latency.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read},
    ops::Bound,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    block::{Block, BlockHash, EncodedBlock},
    journal::{Damage, Journal, JournalError, OpenReport, check_append},
    layout::Table,
    member_keys::{KeysError, MemberKeys, SLOT_BYTES, Slot, Slots},
    recovery::{Stored, examine},
    rows::{Row, RowChange, Rows, RowsError},
};

/// What breaks, and when. Counts begin at 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The power goes at this sync: it and everything after it fails.
    pub power_cut_at_sync: Option<u64>,
    /// The power goes at this write of a block or of rows: as above, and it is not written.
    pub power_cut_at_write: Option<u64>,
    /// These appends fail, each half way through its blocks.
    pub appends: BTreeMap<u64, AppendFault>,
    /// These syncs fail with EIO. What was to be synced stays as it is, unsynced.
    pub syncs: BTreeSet<u64>,
    /// From now on every read fails, other than of the members' keys.
    pub reads: Option<ReadFault>,
    /// A power cut may leave any of the journal's unsynced blocks, not only the first of them.
    pub reorders: bool,
}

/// How a read fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// EIO.
    Io,
    /// Fewer bytes than there are come back: of a block. Of a row that is as good as EIO, which is what comes.
    Short,
}

/// How an append fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFault {
    /// ENOSPC.
    Full,
    /// EIO.
    Io,
}

/// The machine's disk; clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    journal: Half<JournalImage, JournalOp>,
    rows: Half<RowsImage, RowsOp>,
    slots_zeroed: BTreeSet<u64>,
    faults: Faults,
    syncs: u64,
    writes: u64,
    appends: u64,
    reopens: u64,
    full: bool,
    power_lost: bool,
}

/// One file: what a process sees, what a power cut leaves, and the writes between the two.
#[derive(Clone)]
struct Half<I, O> {
    live: I,
    durable: I,
    unsynced: Vec<O>,
}

impl<I: Default, O> Default for Half<I, O> {
    fn default() -> Self {
        Self { live: I::default(), durable: I::default(), unsynced: Vec::new() }
    }
}

trait Image<O> {
    fn apply(&mut self, op: &O);
}

impl<I: Image<O>, O> Half<I, O> {
    fn write(&mut self, op: O) {
        self.live.apply(&op);
        self.unsynced.push(op);
    }

    fn sync(&mut self) {
        for op in self.unsynced.drain(..) {
            self.durable.apply(&op);
        }
    }
}

#[derive(Debug, Clone, Default)]
struct JournalImage {
    blocks: BTreeMap<u64, Bytes>,
    /// First sequence not trimmed, 0 when nothing was.
    trimmed: u64,
}

#[derive(Debug, Clone)]
enum JournalOp {
    Put(u64, Bytes),
    CutAfter(u64),
    Trim(u64),
}

impl Image<JournalOp> for JournalImage {
    fn apply(&mut self, op: &JournalOp) {
        match op {
            JournalOp::Put(sequence, bytes) => drop(self.blocks.insert(*sequence, bytes.clone())),
            JournalOp::CutAfter(head) => drop(self.blocks.split_off(&(head + 1))),
            JournalOp::Trim(first) => {
                self.blocks = self.blocks.split_off(first);
                self.trimmed = *first;
            }
        }
    }
}

type RowsImage = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Clone)]
struct RowsOp(Table, Vec<u8>, Option<Vec<u8>>);

impl Image<RowsOp> for RowsImage {
    fn apply(&mut self, RowsOp(table, key, value): &RowsOp) {
        let key = (*table, key.clone());
        match value {
            Some(value) => drop(self.insert(key, value.clone())),
            None => drop(self.remove(&key)),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("faults", &self.faults)
            .field("syncs", &self.syncs)
            .field("writes", &self.writes)
            .field("appends", &self.appends)
            .field("reopens", &self.reopens)
            .field("full", &self.full)
            .field("power_lost", &self.power_lost)
            .finish_non_exhaustive()
    }
}

impl State {
    fn powered(&self) -> io::Result<()> {
        if self.power_lost { Err(io::Error::other("power lost")) } else { Ok(()) }
    }

    fn room(&self) -> io::Result<()> {
        self.powered()?;
        if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Counts a write; an error if there is no room, or the power goes at it.
    fn count_write(&mut self) -> io::Result<()> {
        self.room()?;
        self.writes += 1;
        if self.faults.power_cut_at_write == Some(self.writes) {
            self.power_lost = true;
        }
        self.powered()
    }

    fn readable(&self) -> io::Result<()> {
        self.powered()?;
        if self.faults.reads.is_some() { Err(input_output()) } else { Ok(()) }
    }

    /// Counts a sync; an error if the power goes at it.
    fn count_sync(&mut self) -> io::Result<()> {
        self.powered()?;
        self.syncs += 1;
        if self.faults.power_cut_at_sync == Some(self.syncs) {
            self.power_lost = true;
        }
        self.powered()?;
        if self.faults.syncs.contains(&self.syncs) { Err(input_output()) } else { Ok(()) }
    }
}

fn input_output() -> io::Error {
    io::Error::other("input/output error")
}

impl MemoryDisk {
    /// Returns an empty disk on which nothing breaks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty disk that breaks as `faults` says.
    pub fn with_faults(faults: Faults) -> Self {
        let disk = Self::new();
        disk.set_faults(faults);
        disk
    }

    /// Replaces the plan; counts go on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// While `full`, every write fails with ENOSPC; reads and syncs go on.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// How many syncs have been begun.
    pub fn sync_count(&self) -> u64 {
        self.state().syncs
    }

    /// How many writes of a block or of rows have been begun.
    pub fn write_count(&self) -> u64 {
        self.state().writes
    }

    /// Where the blocks of the journal begin that are on disk for certain.
    pub fn blocks(&self) -> Vec<u64> {
        self.state().journal.durable.blocks.keys().copied().collect()
    }

    /// How many appends have been begun.
    pub fn append_count(&self) -> u64 {
        self.state().appends
    }

    /// How many times the journal was to be opened again after a failure.
    pub fn reopen_count(&self) -> u64 {
        self.state().reopens
    }

    /// Whether the power has gone.
    pub fn power_lost(&self) -> bool {
        self.state().power_lost
    }

    /// The disk that the machine comes up with after a power cut now: what was synced and, as
    /// `seed` has it, a prefix of what was not, its last block possibly torn. Nothing breaks on it.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut random = SplitMix(seed);
        let mut journal = state.journal.durable.clone();
        let unsynced = &state.journal.unsynced;
        let whole = random.below(unsynced.len() as u64 + 1) as usize;
        unsynced[..whole].iter().for_each(|op| journal.apply(op));
        let behind = unsynced.iter().skip(whole + 1).filter(|_| state.faults.reorders);
        behind.filter(|_| random.below(2) == 0).for_each(|op| journal.apply(op));
        if let Some(JournalOp::Put(sequence, bytes)) = unsynced.get(whole) {
            match random.below(3) {
                0 => {}
                1 => {
                    let torn = bytes.slice(..random.below(bytes.len() as u64) as usize);
                    journal.blocks.insert(*sequence, torn);
                }
                _ => {
                    let mut torn = bytes.to_vec();
                    torn[random.below(bytes.len() as u64) as usize] ^= 1 << random.below(8);
                    journal.blocks.insert(*sequence, torn.into());
                }
            }
        }
        let mut rows = state.rows.durable.clone();
        let survived = random.below(state.rows.unsynced.len() as u64 + 1) as usize;
        state.rows.unsynced[..survived].iter().for_each(|op| rows.apply(op));
        let fresh = Self::new();
        {
            let mut fresh = fresh.state();
            fresh.journal = Half { live: journal.clone(), durable: journal, unsynced: vec![] };
            fresh.rows = Half { live: rows.clone(), durable: rows, unsynced: vec![] };
            fresh.slots_zeroed.clone_from(&state.slots_zeroed);
        }
        fresh
    }

    /// The disk as a new process finds it after the old one was killed: all that was written, and
    /// what was not synced still not synced. Nothing breaks on it.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let fresh = Self::new();
        {
            let mut fresh = fresh.state();
            fresh.journal = state.journal.clone();
            fresh.rows = state.rows.clone();
            fresh.slots_zeroed.clone_from(&state.slots_zeroed);
        }
        fresh
    }

    /// Flips a bit of the stored block that begins at `first_sequence`, as a rotting disk does.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    pub fn corrupt_block(&self, first_sequence: u64, byte: usize) {
        let state = &mut *self.state();
        for image in [&mut state.journal.live, &mut state.journal.durable] {
            let stored = image.blocks.get_mut(&first_sequence).expect("a stored block");
            let mut bytes = stored.to_vec();
            let at = byte % bytes.len();
            bytes[at] ^= 1;
            *stored = bytes.into();
        }
    }

    /// Loses the stored block that begins at `first_sequence`.
    pub fn lose_block(&self, first_sequence: u64) {
        let mut state = self.state();
        state.journal.live.blocks.remove(&first_sequence);
        state.journal.durable.blocks.remove(&first_sequence);
    }

    /// Opens the journal; see `SledJournal::open`.
    ///
    /// # Errors
    ///
    /// As `SledJournal::open`.
    pub fn journal(&self, from_sequence: u64) -> Result<(MemoryJournal, OpenReport), JournalError> {
        let mut state = self.state();
        let from = |source| JournalError::from_io(path(), source);
        state.powered().map_err(from)?;
        // As on sled: whatever opening accepts is on disk before anyone is told of it.
        state.count_sync().map_err(from)?;
        state.journal.sync();
        let image = &state.journal.live;
        let first = image.trimmed.max(1);
        let from_sequence = from_sequence.max(first);
        let start = image.blocks.range(..from_sequence).next_back().map_or(first, |(at, _)| *at);
        let stored = image.blocks.range(start..).map(|(sequence, bytes)| Ok(Stored::new(*sequence, bytes.to_vec())));
        let examined = examine(&path(), first, from_sequence, stored)?;
        if examined.cut_off.is_some() {
            state.journal.write(JournalOp::CutAfter(examined.head));
            state.count_sync().map_err(from)?;
            state.journal.sync();
        }
        drop(state);
        let report = OpenReport { head: examined.head, cut_off: examined.cut_off };
        let tail = Tail { head: examined.head, hash: examined.head_hash, stopped: false };
        Ok((MemoryJournal { disk: self.clone(), tail: Mutex::new(tail) }, report))
    }

    /// Opens the views.
    pub fn rows(&self) -> MemoryRows {
        MemoryRows { disk: self.clone() }
    }

    /// The members' keys: every slot is there, and stays as it is until it is zeroed.
    pub fn member_keys(&self) -> MemberKeys {
        MemberKeys::new(MemorySlots { disk: self.clone() }, &[7; 32])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryJournal {
    disk: MemoryDisk,
    tail: Mutex<Tail>,
}

#[derive(Debug, Clone, Copy)]
struct Tail {
    head: u64,
    hash: BlockHash,
    stopped: bool,
}

impl MemoryJournal {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, blocks: &[EncodedBlock]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.powered()?;
        state.appends += 1;
        let fault = state.faults.appends.get(&state.appends).copied();
        let reached = if fault.is_some() { blocks.len() / 2 } else { blocks.len() };
        for block in &blocks[..reached] {
            state.count_write()?;
            state.journal.write(JournalOp::Put(block.first_sequence, block.bytes.clone()));
        }
        match fault {
            Some(AppendFault::Full) => return Err(io::ErrorKind::StorageFull.into()),
            Some(AppendFault::Io) => return Err(input_output()),
            None => {}
        }
        state.count_sync()?;
        state.journal.sync();
        Ok(())
    }
}

impl Journal for MemoryJournal {
    fn append(&self, expected_next: u64, blocks: &[EncodedBlock]) -> Result<(), JournalError> {
        let mut tail = self.tail();
        if tail.stopped {
            return Err(JournalError::Stopped { path: path() });
        }
        let (head, hash) = check_append(tail.head, tail.hash, expected_next, blocks)?;
        if blocks.is_empty() {
            return Ok(());
        }
        tail.stopped = true;
        self.put(blocks).map_err(|source| JournalError::from_io(path(), source))?;
        *tail = Tail { head, hash, stopped: false };
        Ok(())
    }

    fn read(&self, sequence: u64) -> Result<Option<Block>, JournalError> {
        if sequence > self.head() {
            return Ok(None);
        }
        let state = self.disk.state();
        let is_short = state.faults.reads == Some(ReadFault::Short);
        let readable = if is_short { state.powered() } else { state.readable() };
        readable.map_err(|source| JournalError::from_io(path(), source))?;
        let first = state.journal.live.trimmed.max(1);
        if sequence < first {
            return Err(JournalError::Trimmed { sequence, first });
        }
        let corrupt = |what| JournalError::Corrupt { path: path(), sequence, what };
        let (at, bytes) = state
            .journal
            .live
            .blocks
            .range(..=sequence)
            .next_back()
            .ok_or_else(|| corrupt(Damage::Store("block is missing".into())))?;
        let bytes = if is_short { bytes.slice(..bytes.len() / 2) } else { bytes.clone() };
        let block = Block::from_bytes(bytes).map_err(|error| corrupt(error.into()))?;
        if block.first_sequence() != *at || block.last_sequence() < sequence {
            return Err(corrupt(Damage::Gap { found: block.last_sequence() + 1 }));
        }
        Ok(Some(block))
    }

    fn head(&self) -> u64 {
        self.tail().head
    }

    fn head_hash(&self) -> BlockHash {
        self.tail().hash
    }

    fn first(&self) -> u64 {
        self.disk.state().journal.live.trimmed.max(1)
    }

    fn reopen(&self) -> Result<u64, JournalError> {
        let mut tail = self.tail();
        let mut state = self.disk.state();
        let from = |source| JournalError::from_io(path(), source);
        tail.stopped = true;
        state.reopens += 1;
        state.room().map_err(from)?;
        state.journal.write(JournalOp::CutAfter(tail.head));
        state.count_sync().map_err(from)?;
        state.journal.sync();
        tail.stopped = false;
        Ok(tail.head)
    }

    fn size_bytes(&self) -> u64 {
        self.disk.state().journal.live.blocks.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn trim(&self, before: u64) -> Result<(), JournalError> {
        let before = before.max(self.first()).min(self.head());
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.stopped {
            return Err(JournalError::Stopped { path: path() });
        }
        let mut state = self.disk.state();
        let kept = state.journal.live.blocks.range(..=before).next_back().map(|(at, _)| *at);
        let Some(first) = kept.filter(|first| *first > state.journal.live.trimmed.max(1)) else {
            return Ok(());
        };
        tail.stopped = true;
        let from = |source| JournalError::from_io(path(), source);
        state.room().map_err(from)?;
        state.journal.write(JournalOp::Trim(first));
        state.count_sync().map_err(from)?;
        state.journal.sync();
        tail.stopped = false;
        Ok(())
    }
}

/// Views on a [`MemoryDisk`].
#[derive(Debug, Clone)]
pub struct MemoryRows {
    disk: MemoryDisk,
}

impl Rows for MemoryRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        let state = self.disk.state();
        state.readable().map_err(rows_error)?;
        Ok(state.rows.live.get(&(table, key.to_vec())).cloned())
    }

    fn write(&self, table: Table, rows: &[RowChange]) -> Result<(), RowsError> {
        let mut state = self.disk.state();
        for (key, value) in rows {
            state.count_write().map_err(rows_error)?;
            state.rows.write(RowsOp(table, key.clone(), value.clone()));
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        let state = self.disk.state();
        state.readable().map_err(rows_error)?;
        let bounds = (Bound::Included((table, from.to_vec())), Bound::Unbounded);
        let rows = state.rows.live.range(bounds).take_while(|((of, _), _)| *of == table);
        Ok(rows.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn sync(&self) -> Result<(), RowsError> {
        let mut state = self.disk.state();
        state.count_sync().map_err(rows_error)?;
        state.rows.sync();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let state = self.disk.state();
        state.rows.live.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }
}

/// Member keys on a [`MemoryDisk`].
#[derive(Debug)]
struct MemorySlots {
    disk: MemoryDisk,
}

impl MemorySlots {
    fn powered(&self) -> Result<MutexGuard<'_, State>, KeysError> {
        let state = self.disk.state();
        state.powered().map_err(keys_error)?;
        Ok(state)
    }
}

impl Slots for MemorySlots {
    fn read(&self, slot: u64) -> Result<Slot, KeysError> {
        if self.powered()?.slots_zeroed.contains(&slot) {
            return Ok([0; SLOT_BYTES]);
        }
        let mut bytes = [1; SLOT_BYTES];
        bytes[..8].copy_from_slice(&slot.to_be_bytes());
        Ok(bytes)
    }

    fn prepare(&self, _: u64) -> Result<(), KeysError> {
        self.powered().map(drop)
    }

    fn zero(&self, slot: u64) -> Result<(), KeysError> {
        let mut state = self.disk.state();
        state.count_sync().map_err(keys_error)?;
        state.slots_zeroed.insert(slot);
        Ok(())
    }

    /// The first ones, since there is no end to them.
    fn copy(&self) -> Result<Box<dyn Read + Send>, KeysError> {
        let slots = (0..4_096).map(|slot| self.read(slot)).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(io::Cursor::new(slots.concat())))
    }
}

fn keys_error(source: io::Error) -> KeysError {
    KeysError::Io { path: path(), source }
}

fn rows_error(source: io::Error) -> RowsError {
    RowsError::from_io(path(), source)
}

fn path() -> PathBuf {
    PathBuf::from("(memory)")
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough to choose what a power cut tears.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}
