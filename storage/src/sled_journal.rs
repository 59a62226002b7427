//! The journal on sled: `<data>/journal/`, where nothing is ever rewritten.
//!
//! ```text
//! j <partition u16> <first sequence u64>             → the block, or its first 24 KiB
//! j <partition u16> <first sequence u64> <n u16>     → its n-th continuation, n from 1
//! t <partition u16>                                  → first sequence that was not trimmed, u64
//! ```
//!
//! # Invariants
//!
//! - An append is plain inserts and one flush. No atomic batch: blocks are chained, and sled
//!   recovers a prefix of what was written, so an unacknowledged tail is at worst cut short.
//! - No value comes near the size at which sled puts pages into files of their own (it never
//!   syncs those): see `CHUNK_BYTES_MAX` in `layout.rs`.
//! - Whatever opening accepts is on disk before anyone is told of it: the file is synced first, as
//!   a killed process may have left a tail that was written but not synced.
//!
//! # What is absent on purpose
//!
//! - No background flushing: the sequencer decides when to sync.
//! - No cache of blocks beyond sled's: readers of the tail are served from that.

mod import;

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    block::{Block, BlockError, BlockHash, EncodedBlock},
    journal::{Damage, Journal, JournalError, OpenReport, check_append},
    layout::{CHUNK_BYTES_MAX, block_key, chunk_key, parse_block_key, trimmed_key},
    recovery::{Examined, Stored, examine},
    sled_door::{self, DoorError},
    sync,
};

pub(crate) use import::Import;

/// Memory sled may use for pages of the journal: the tail that dispatchers read; what is older is read
/// once, in order.
pub const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A journal in a directory of its own.
pub struct SledJournal {
    path: PathBuf,
    /// `None` only while a reopening fails. Writers hold `tail` first.
    db: RwLock<Option<sled::Db>>,
    tail: Mutex<Tail>,
    head: AtomicU64,
    first: AtomicU64,
}

#[derive(Debug)]
struct Tail {
    head_hash: BlockHash,
    stopped: bool,
}

impl fmt::Debug for SledJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without sled's own, which prints every byte stored.
        f.debug_struct("SledJournal").field("path", &self.path).field("head", &self.head).finish_non_exhaustive()
    }
}

impl SledJournal {
    /// Opens or creates the journal in the directory `path` and verifies it from the block that
    /// holds `from_sequence` on. The caller vouches that everything before `from_sequence` was once
    /// on disk (it is folded into a checkpoint).
    ///
    /// # Errors
    ///
    /// [`JournalError::Corrupt`] if a block is bad that was once on disk, or if sled cannot read
    /// its own file; otherwise what the disk says.
    pub fn open(path: &Path, from_sequence: u64) -> Result<(Self, OpenReport), JournalError> {
        let (db, first, examined) = open_db(path, from_sequence, None)?;
        let report = OpenReport { head: examined.head, cut_off: examined.cut_off };
        let journal = Self {
            path: path.to_path_buf(),
            db: RwLock::new(Some(db)),
            tail: Mutex::new(Tail { head_hash: examined.head_hash, stopped: false }),
            head: AtomicU64::new(examined.head),
            first: AtomicU64::new(first),
        };
        Ok((journal, report))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // A panic while it was held left `stopped` set, see `append`.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn db(&self) -> RwLockReadGuard<'_, Option<sled::Db>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> JournalError {
        JournalError::Stopped { path: self.path.clone() }
    }

    /// Runs a write; the journal is stopped unless it succeeds.
    fn write(
        &self,
        tail: &mut Tail,
        sequence: u64,
        f: impl FnOnce(&sled::Db) -> sled::Result<()>,
    ) -> Result<(), JournalError> {
        tail.stopped = true;
        let db = self.db();
        let db = db.as_ref().ok_or_else(|| self.stopped())?;
        sled_door::call(|| {
            f(db)?;
            db.flush().map(drop)
        })
        .map_err(|error| journal_error(&self.path, sequence, error))?;
        tail.stopped = false;
        Ok(())
    }
}

impl Journal for SledJournal {
    fn append(&self, expected_next: u64, blocks: &[EncodedBlock]) -> Result<(), JournalError> {
        let mut tail = self.tail();
        if tail.stopped {
            return Err(self.stopped());
        }
        let (head, hash) = check_append(self.head(), tail.head_hash, expected_next, blocks)?;
        if blocks.is_empty() {
            return Ok(());
        }
        self.write(&mut tail, expected_next, |db| {
            blocks.iter().try_for_each(|b| insert(db, b.first_sequence, &b.bytes))
        })?;
        tail.head_hash = hash;
        self.head.store(head, Ordering::Release);
        Ok(())
    }

    fn read(&self, sequence: u64) -> Result<Option<Block>, JournalError> {
        let first = self.first();
        if sequence > self.head() {
            return Ok(None);
        }
        if sequence < first {
            return Err(JournalError::Trimmed { sequence, first });
        }
        let db = self.db();
        let db = db.as_ref().ok_or_else(|| self.stopped())?;
        let corrupt = |what| JournalError::Corrupt { path: self.path.clone(), sequence, what };
        let stored = last_at_or_before(&self.path, db, sequence)?
            .ok_or_else(|| corrupt(Damage::Store("block is missing".into())))?;
        let block = stored.block.map_err(|error| corrupt(error.into()))?;
        if block.first_sequence() != stored.sequence || block.last_sequence() < sequence {
            return Err(corrupt(Damage::Gap { found: block.last_sequence() + 1 }));
        }
        Ok(Some(block))
    }

    fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    fn head_hash(&self) -> BlockHash {
        self.tail().head_hash
    }

    fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    fn reopen(&self) -> Result<u64, JournalError> {
        let mut tail = self.tail();
        tail.stopped = true;
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = slot.take() {
            sled_door::close(&self.path, || drop(db));
        }
        let acknowledged = self.head();
        let (db, first, examined) = open_db(&self.path, acknowledged + 1, Some((acknowledged, tail.head_hash)))?;
        *slot = Some(db);
        self.first.store(first, Ordering::Release);
        tail.head_hash = examined.head_hash;
        tail.stopped = false;
        Ok(acknowledged)
    }

    fn size_bytes(&self) -> u64 {
        let db = self.db();
        let size = db.as_ref().and_then(|db| sled_door::call(|| db.size_on_disk()).ok());
        size.unwrap_or(0)
    }

    fn trim(&self, before: u64) -> Result<(), JournalError> {
        let mut tail = self.tail();
        if tail.stopped {
            return Err(self.stopped());
        }
        // The block that holds `before`, or the last one, is the first to stay.
        let Some(kept) = self.read(before.max(self.first()).min(self.head()))? else {
            return Ok(());
        };
        let first = kept.first_sequence();
        if first <= self.first() {
            return Ok(());
        }
        // Told before done, so that a crash in between leaves too much and not a gap.
        self.write(&mut tail, first, |db| db.insert(trimmed_key(), &first.to_be_bytes()).map(drop))?;
        self.first.store(first, Ordering::Release);
        self.write(&mut tail, first, |db| remove_before(db, first).map(drop))
    }
}

impl Drop for SledJournal {
    fn drop(&mut self) {
        let slot = self.db.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = slot.take() {
            sled_door::close(&self.path, || drop(db));
        }
    }
}

/// Opens, verifies, cuts off. `acknowledged` is given when reopening in the same process: then the
/// journal must reach exactly up to it, and what lies after it is cut off even if it is sound.
fn open_db(
    path: &Path,
    from: u64,
    acknowledged: Option<(u64, BlockHash)>,
) -> Result<(sled::Db, u64, Examined), JournalError> {
    let io = |source| JournalError::from_io(path.to_path_buf(), source);
    if acknowledged.is_some() {
        sync::sync_and_forget(&path.join("db")).map_err(io)?;
    }
    let db = sled_door::open(path, CACHE_BYTES).map_err(|e| journal_error(path, from, e))?;
    sync_files(path).map_err(io)?;

    let first = first_sequence(path, &db)?;
    if let Some((head, _)) = acknowledged {
        cut_after(path, &db, head)?;
    }
    let from = from.max(first);
    // Begin with the block that holds the last sequence known to be on disk, for its hash.
    let start = match last_at_or_before(path, &db, from - 1)? {
        Some(stored) => stored.sequence.max(first),
        None => first,
    };
    let examined = examine(path, first, from, Blocks::from(path, &db, start))?;
    if let Some((head, hash)) = acknowledged {
        if examined.head != head || examined.head_hash != hash {
            let what = Damage::Chain { named: hash, found: examined.head_hash };
            return Err(JournalError::Corrupt { path: path.to_path_buf(), sequence: head, what });
        }
    } else if examined.cut_off.is_some() {
        cut_after(path, &db, examined.head)?;
    }
    // A crash between the two steps of `trim` leaves blocks to remove.
    sled_door::call(|| if remove_before(&db, first)? > 0 { db.flush() } else { Ok(0) })
        .map_err(|error| journal_error(path, first, error))?;
    Ok((db, first, examined))
}

/// Syncs what sled creates and never syncs: its `conf`, its directory, and the directory above.
fn sync_files(path: &Path) -> io::Result<()> {
    for name in ["db", "conf"] {
        File::open(path.join(name))?.sync_all()?;
    }
    sync::sync_dir(path)?;
    path.parent().map_or(Ok(()), sync::sync_dir)
}

fn first_sequence(path: &Path, db: &sled::Db) -> Result<u64, JournalError> {
    let stored = sled_door::call(|| db.get(trimmed_key())).map_err(|error| journal_error(path, 1, error))?;
    let Some(stored) = stored else { return Ok(1) };
    let bytes = stored.as_ref().try_into().map_err(|_| JournalError::Corrupt {
        path: path.to_path_buf(),
        sequence: 1,
        what: Damage::Key(trimmed_key().to_vec()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Removes every block that begins after `head`, and returns when that is on disk.
fn cut_after(path: &Path, db: &sled::Db, head: u64) -> Result<(), JournalError> {
    let removed = sled_door::call(|| {
        // Last first: a crash in between leaves a shorter tail, never a gap.
        let from = block_key(head + 1).to_vec();
        let keys: Vec<_> = db.range(from..trimmed_key().to_vec()).keys().collect::<Result<_, _>>()?;
        for key in keys.iter().rev() {
            db.remove(key)?;
        }
        db.flush()?;
        Ok(keys.len())
    });
    removed.map(drop).map_err(|error| journal_error(path, head + 1, error))
}

fn insert(db: &sled::Db, first_sequence: u64, block: &[u8]) -> sled::Result<()> {
    let mut chunks = block.chunks(CHUNK_BYTES_MAX);
    let head = chunks.next().expect("a block has a header");
    db.insert(block_key(first_sequence), head)?;
    for (n, chunk) in (1..).zip(chunks) {
        db.insert(chunk_key(first_sequence, n), chunk)?;
    }
    Ok(())
}

/// Removes every block that begins before `first`, first first; returns how many keys.
fn remove_before(db: &sled::Db, first: u64) -> sled::Result<usize> {
    let mut removed = 0;
    for key in db.range(block_key(0)..block_key(first)).keys() {
        db.remove(key?)?;
        removed += 1;
    }
    Ok(removed)
}

fn last_at_or_before(path: &Path, db: &sled::Db, sequence: u64) -> Result<Option<Stored>, JournalError> {
    let bounds = block_key(0).to_vec()..=chunk_key(sequence, u16::MAX).to_vec();
    let found = sled_door::call(|| db.range(bounds).next_back().transpose())
        .map_err(|error| journal_error(path, sequence, error))?;
    match found {
        None => Ok(None),
        Some((key, value)) => match parse_block_key(&key) {
            None => Err(journal_key_error(path, sequence, &key)),
            Some((first, 0)) => Ok(Some(Stored::new(first, value.to_vec()))),
            Some((first, _)) => Blocks::from(path, db, first).next().transpose(),
        },
    }
}

/// The stored blocks in order, each put together from its chunks.
struct Blocks<'a> {
    path: &'a Path,
    entries: sled::Iter,
    /// Read ahead: the entry after the block before.
    pending: Option<(u64, u16, sled::IVec)>,
    at: u64,
}

impl<'a> Blocks<'a> {
    fn from(path: &'a Path, db: &sled::Db, start: u64) -> Self {
        let entries = db.range(block_key(start).to_vec()..trimmed_key().to_vec());
        Self { path, entries, pending: None, at: start }
    }

    fn entry(&mut self) -> Result<Option<(u64, u16, sled::IVec)>, JournalError> {
        if let Some(entry) = self.pending.take() {
            return Ok(Some(entry));
        }
        let entries = &mut self.entries;
        match sled_door::call(|| entries.next().transpose())
            .map_err(|error| journal_error(self.path, self.at, error))?
        {
            None => Ok(None),
            Some((key, value)) => match parse_block_key(&key) {
                Some((sequence, n)) => Ok(Some((sequence, n, value))),
                None => Err(journal_key_error(self.path, self.at, &key)),
            },
        }
    }

    fn block(&mut self) -> Result<Option<Stored>, JournalError> {
        let Some((sequence, first_n, value)) = self.entry()? else { return Ok(None) };
        self.at = sequence;
        let mut bytes = value.to_vec();
        let mut whole = first_n == 0;
        let mut expected = 1;
        while let Some((of, n, chunk)) = self.entry()? {
            if of != sequence {
                self.pending = Some((of, n, chunk));
                break;
            }
            whole &= n == expected;
            expected = n.saturating_add(1);
            bytes.extend_from_slice(&chunk);
        }
        let mut stored = Stored::new(sequence, bytes);
        if !whole {
            stored.block = Err(BlockError::Malformed("a chunk is missing"));
        }
        Ok(Some(stored))
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Stored, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.block().transpose()
    }
}

fn journal_error(path: &Path, sequence: u64, error: DoorError) -> JournalError {
    let path = path.to_path_buf();
    match error {
        DoorError::Io(source) => JournalError::from_io(path, source),
        DoorError::Damaged(what) => JournalError::Corrupt { path, sequence, what: Damage::Store(what) },
    }
}

fn journal_key_error(path: &Path, sequence: u64, key: &[u8]) -> JournalError {
    JournalError::Corrupt { path: path.to_path_buf(), sequence, what: Damage::Key(key.to_vec()) }
}
