//! The delivery log: every attempt for a while, on disk and beside the journal.
//!
//! ```text
//! attempts ──append──▶ block ──▶ newest segment file … oldest segment file ──trim──▶ gone
//!                                       └────────scan, newest first────────┘
//! ```
//!
//! # Invariants
//!
//! - Nothing depends on it: what matters of a delivery is in the journal. So nothing here is synced, and
//!   what is damaged is skipped and said, never an error of the server.
//! - A file that an earlier process wrote is never written again: its torn tail stays as it is.
//! - Together the files are never larger than the limit, and memory is bounded by it too: segments and
//!   pages grow with the limit, so their number does not.
//!
//! # What is absent on purpose
//!
//! - Threads, channels and the clock: `runtime` batches, and says what time it is.
//! - An index by delivery. A page says which sequences, times and subscriptions may be in it; the rest is
//!   reading.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use punchline_engine::id::{KeySlot, Sequence, SubscriptionId};
use punchline_engine::time::UnixMillis;

mod block;
mod scan;

pub use scan::{Place, Scan, Scanned};

use block::{HEADER_BYTES, Header};

/// Most attempts in one block.
pub const BLOCK_ATTEMPTS_MAX: usize = 512;
/// Longest piece of a response's body that is kept, in bytes.
pub const RESPONSE_KEPT_BYTES_MAX: usize = 4_096;
/// Segments that the limit is shared out among: what is dropped at once, to keep below it.
const SEGMENTS_OF_LIMIT: u64 = 16;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
/// Most segments, whatever their size: each start that logs something begins one.
const SEGMENTS_MAX: usize = 4_096;
/// Pages of a segment.
const PAGES_OF_SEGMENT: u64 = 64;
const PAGE_BYTES_MIN: u64 = 16 << 10;

/// How an attempt ended, as `delivery` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedOutcome {
    /// The subscriber has it.
    Delivered,
    /// It may go better another time.
    Retry,
    /// The subscriber has left.
    Gone,
    /// It will not go better another time.
    Refused,
    /// The receiver asked not to be sent this event again.
    AbortedByReceiver,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedAttempt {
    /// To whom.
    pub subscription_id: SubscriptionId,
    /// The event.
    pub sequence: Sequence,
    /// Its type, as it is told.
    pub event_type: String,
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: UnixMillis,
    /// How long it took.
    pub latency_ms: u32,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong, as `timeout`; empty if nothing but the status did.
    pub error: std::borrow::Cow<'static, str>,
    /// How it ended.
    pub outcome: LoggedOutcome,
    /// The beginning of the answer's body, [`RESPONSE_KEPT_BYTES_MAX`] at most; sealed by whoever appends it and
    /// opened by whoever reads it, if there is a key.
    pub response: Bytes,
    /// Under which key `response` is sealed: that of the member that the event is about.
    pub key_slot: KeySlot,
}

/// How much is kept; by default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttemptLimits {
    /// Bytes of all files; 0: nothing is kept.
    pub bytes_max: u64,
    /// How long at least, as far as `bytes_max` lets it; at most a sixteenth longer once there is a newer one.
    pub keep_ms: i64,
}

impl AttemptLimits {
    fn segment_bytes(&self) -> u64 {
        (self.bytes_max / SEGMENTS_OF_LIMIT).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end())
    }

    fn page_bytes(&self) -> u64 {
        (self.segment_bytes() / PAGES_OF_SEGMENT).max(PAGE_BYTES_MIN)
    }
}

/// Part of a segment: its blocks from `start` to `end`, and what may be in them.
#[derive(Debug, Clone)]
struct Page {
    start: u64,
    end: u64,
    holds: Holds,
}

/// What may be in a block, or in a page of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    times: (i64, i64),
    sequences: (u64, u64),
    /// A bit for each subscription, by the end of its id.
    subscriptions: u64,
}

impl Holds {
    fn subscription_bit(id: SubscriptionId) -> u64 {
        1 << (id.0.as_bytes()[15] & 63)
    }

    fn of(attempts: &[LoggedAttempt]) -> Option<Holds> {
        let one = |attempt: &LoggedAttempt| Holds {
            times: (attempt.at.0, attempt.at.0),
            sequences: (attempt.sequence.0, attempt.sequence.0),
            subscriptions: Holds::subscription_bit(attempt.subscription_id),
        };
        attempts.iter().map(one).reduce(Holds::and)
    }

    fn and(self, other: Holds) -> Holds {
        let span = |a: (i64, i64), b: (i64, i64)| (a.0.min(b.0), a.1.max(b.1));
        Holds {
            times: span(self.times, other.times),
            sequences: (self.sequences.0.min(other.sequences.0), self.sequences.1.max(other.sequences.1)),
            subscriptions: self.subscriptions | other.subscriptions,
        }
    }
}

#[derive(Debug, Clone)]
struct Segment {
    number: u64,
    /// Bytes that are taken into account: all of the file.
    bytes: u64,
    pages: Vec<Page>,
}

impl Segment {
    fn holds(&self) -> Option<Holds> {
        self.pages.iter().map(|page| page.holds).reduce(Holds::and)
    }

    fn extend(&mut self, page_bytes: u64, (start, end): (u64, u64), holds: Holds) {
        match self.pages.last_mut() {
            Some(page) if page.end - page.start < page_bytes => {
                page.end = end;
                page.holds = page.holds.and(holds);
            }
            _ => self.pages.push(Page { start, end, holds }),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    segments: Vec<Arc<Segment>>,
    /// The newest segment's file, as long as it is this process's.
    writing: Option<File>,
    next_number: u64,
}

/// The delivery log of one data directory.
#[derive(Debug)]
pub struct Attempts {
    dir: PathBuf,
    limits: AttemptLimits,
    state: Mutex<State>,
}

impl Attempts {
    /// A log in `dir`, of which nothing is read yet; see [`load`](Self::load).
    pub fn new(dir: PathBuf, limits: AttemptLimits) -> Attempts {
        Attempts { dir, limits, state: Mutex::new(State { next_number: 1, ..State::default() }) }
    }

    /// Looks through what earlier processes left, before anything is appended. Takes as long as reading it.
    /// With a limit of 0 it is removed.
    pub fn load(&self) {
        let mut numbers = self.numbers();
        numbers.sort_unstable();
        if self.limits.bytes_max == 0 {
            numbers.iter().for_each(|number| self.remove(*number));
            return;
        }
        let mut segments = Vec::new();
        for number in &numbers {
            match self.load_segment(*number) {
                Ok(segment) => segments.push(Arc::new(segment)),
                Err(error) => {
                    tracing::warn!(path = %self.path(*number).display(), %error, "part of the delivery log is skipped");
                }
            }
        }
        let mut state = self.state();
        state.next_number = numbers.last().map_or(1, |last| last + 1);
        state.segments = segments;
    }

    fn numbers(&self) -> Vec<u64> {
        // None yet is no fault, and of any other the first append will tell.
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let number = |name: &str| name.strip_suffix(".log").filter(|n| n.len() == 16)?.parse().ok();
        entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect()
    }

    fn load_segment(&self, number: u64) -> io::Result<Segment> {
        let mut file = io::BufReader::with_capacity(256 << 10, File::open(self.path(number))?);
        let bytes = file.get_ref().metadata()?.len();
        let mut segment = Segment { number, bytes, pages: Vec::new() };
        let (mut at, mut skipped) = (0, 0_u64);
        let mut header = [0; HEADER_BYTES];
        let mut body = Vec::new();
        while bytes - at >= HEADER_BYTES as u64 {
            file.read_exact(&mut header)?;
            // Without a header nothing says where the next block begins.
            let Some(header) = Header::decode(&header) else { break };
            let end = at + HEADER_BYTES as u64 + u64::from(header.body_bytes);
            if end > bytes {
                break;
            }
            body.resize(header.body_bytes as usize, 0);
            file.read_exact(&mut body)?;
            if header.is_of(&body) {
                segment.extend(self.limits.page_bytes(), (at, end), header.holds);
            } else {
                skipped += end - at;
            }
            at = end;
        }
        skipped += bytes - at;
        if skipped > 0 {
            let path = self.path(number);
            tracing::warn!(path = %path.display(), bytes = skipped, "part of the delivery log is damaged and skipped");
        }
        Ok(segment)
    }

    /// Writes attempts down as one block, of [`BLOCK_ATTEMPTS_MAX`] at most.
    ///
    /// # Errors
    ///
    /// What the system says. The attempts are not logged then; the next ones go to another file.
    pub fn append(&self, attempts: &[LoggedAttempt]) -> io::Result<()> {
        let Some(holds) = Holds::of(attempts).filter(|_| self.limits.bytes_max > 0) else { return Ok(()) };
        let block = block::encode(attempts, holds);
        let mut state = self.state();
        let full = self.limits.segment_bytes();
        let span = self.limits.keep_ms / SEGMENTS_OF_LIMIT as i64;
        let is_full = |segment: &Segment| {
            let since = segment.holds().map_or(i64::MAX, |holds| holds.times.0);
            segment.bytes + block.len() as u64 > full || since.saturating_add(span) < holds.times.1
        };
        if state.writing.is_some() && state.segments.last().is_some_and(|segment| is_full(segment)) {
            state.writing = None;
        }
        self.make_room(&mut state, block.len() as u64);
        if state.writing.is_none() {
            let number = state.next_number;
            fs::create_dir_all(&self.dir)?;
            let file = OpenOptions::new().append(true).create_new(true).open(self.path(number));
            // Also a number that is taken is not tried again.
            state.next_number += 1;
            state.writing = Some(file?);
            state.segments.push(Arc::new(Segment { number, bytes: 0, pages: Vec::new() }));
        }
        let written = state.writing.as_mut().expect("opened above").write_all(&block);
        if written.is_err() {
            state.writing = None;
        }
        let last = state.segments.last_mut().expect("one is being written");
        let segment = Arc::make_mut(last);
        let start = segment.bytes;
        segment.bytes += block.len() as u64;
        if written.is_ok() {
            segment.extend(self.limits.page_bytes(), (start, segment.bytes), holds);
        }
        written
    }

    /// Drops the oldest segments until `bytes` more are below the limit.
    fn make_room(&self, state: &mut State, bytes: u64) {
        let mut total: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
        let mut dropped = 0;
        while dropped < state.segments.len()
            && (total + bytes > self.limits.bytes_max || state.segments.len() - dropped >= SEGMENTS_MAX)
        {
            total -= state.segments[dropped].bytes;
            dropped += 1;
        }
        self.drop_oldest(state, dropped);
    }

    /// Drops whole segments whose attempts all began longer ago than they are kept.
    pub fn trim(&self, now: UnixMillis) {
        let mut state = self.state();
        let oldest = now.0.saturating_sub(self.limits.keep_ms);
        let is_over = |segment: &&Arc<Segment>| segment.holds().is_none_or(|holds| holds.times.1 < oldest);
        let over = state.segments.iter().take_while(is_over).count();
        self.drop_oldest(&mut state, over);
    }

    fn drop_oldest(&self, state: &mut State, count: usize) {
        if count > 0 && count == state.segments.len() {
            state.writing = None;
        }
        state.segments.drain(..count).for_each(|segment| self.remove(segment.number));
    }

    fn remove(&self, number: u64) {
        let path = self.path(number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "part of the delivery log cannot be removed");
            }
            _ => {}
        }
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.state().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016}.log"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done that could not be read past.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a page, as far as they are still there.
    fn read(&self, number: u64, page: &Page) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(number))?;
        file.seek(SeekFrom::Start(page.start))?;
        let mut bytes = Vec::with_capacity((page.end - page.start) as usize);
        file.take(page.end - page.start).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
