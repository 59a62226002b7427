//! The feed: committed events, to whoever follows them.
//!
//! A follower has a position and pulls. The newest records are in memory; one that has fallen behind
//! them reads the journal instead, and changes over without a gap or a repeat, since both go by position.
//!
//! # Invariants
//!
//! - Only what is on disk is ever published.
//! - Nothing personal of a member is kept once its erasure is published.
//! - A follower that waits is woken by the first record that matches, and only by such: its position
//!   moves over the others while it sleeps, and they cost it nothing.
//!
//! # What is absent on purpose
//!
//! - Queues: a slow follower costs nothing but its position.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use punchline_engine::command::Actor;
use punchline_engine::dispatch::subscription::{TypeMask, bit};
use punchline_engine::event::{EventType, Record, Recorded};
use punchline_engine::filter::EventSeen;
use punchline_engine::id::{MemberId, Sequence, Tenant};
use punchline_storage::codec::{self, CodecError, TraceBytes};
use punchline_storage::journal::{Journal, JournalError};
use punchline_storage::member_keys::MemberKeys;
use tokio::sync::{Notify, watch};

use crate::readers::Readers;
use crate::threads::Blocking;
use outline::Outline;
mod outline;

/// Events kept in memory for followers: the last second or so under full load.
const EVENTS_KEPT_MAX: u64 = 16_384;
/// Bytes, as in the journal, of the records kept for followers. As many as that of the usual ones take a megabyte
/// or two; a single update of a campaign may take one.
const BYTES_KEPT_MAX: usize = 64 * 1024 * 1024;
/// Blocks without anything that is wanted which one read passes over.
const BLOCKS_AT_ONCE_MAX: usize = 16;
/// Bytes, as in the journal, of what is told in the decoded blocks that are kept for those who have fallen behind
/// together: hundreds of blocks, which take some times as much in memory.
const BLOCK_BYTES_KEPT_MAX: usize = 4 * 1024 * 1024;
/// What a block counts for besides, so that those in which little is told are bounded too.
const BLOCK_BYTES_MIN: usize = 256;
/// Events of which is kept what filters see of them.
const SEEN_KEPT_MAX: usize = 64;

/// How reading the journal failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The journal itself.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its bytes are as they were written, but they are no record.
    #[error("the record at sequence {sequence} does not decode: {source}")]
    Undecodable {
        /// Position of its first event.
        sequence: u64,
        /// What is wrong with it.
        source: CodecError,
    },
}

/// A committed record with its place.
#[derive(Debug)]
pub struct Stored {
    /// Position of its first event.
    pub first: Sequence,
    /// The record.
    pub record: Record,
    /// Of the events in it that are told.
    types: TypeMask,
    /// Events in it that are told.
    told: u64,
    /// In the journal.
    bytes: usize,
    /// The span that it was committed in.
    trace: Option<TraceBytes>,
}

impl Stored {
    /// A record whose first event has the position `first`, and which takes `bytes` in the journal.
    pub fn new(first: Sequence, record: Record, bytes: usize) -> Stored {
        let (mut types, mut told) = (0, 0);
        for recorded in record.all_recorded(first).filter(Recorded::is_told) {
            types |= bit(recorded.event.event_type());
            told += 1;
        }
        Stored { first, record, types, told, bytes, trace: None }
    }

    /// The same, committed in this span.
    #[must_use]
    pub(crate) fn traced(self, trace: Option<TraceBytes>) -> Stored {
        Stored { trace, ..self }
    }

    fn decode(first: u64, bytes: &[u8], keys: &MemberKeys) -> Result<Stored, ReadError> {
        let decoded = codec::decode_traced(bytes, keys);
        let (record, trace) = decoded.map_err(|source| ReadError::Undecodable { sequence: first, source })?;
        Ok(Stored::new(Sequence(first), record, bytes.len()).traced(trace))
    }

    /// Position of its last event.
    pub fn last(&self) -> Sequence {
        Sequence(self.first.0 + self.record.events.len() as u64 - 1)
    }
}

/// One event of a committed record.
#[derive(Debug, Clone)]
pub struct EventRef {
    stored: Arc<Stored>,
    index: u32,
}

impl EventRef {
    fn at(stored: Arc<Stored>, sequence: Sequence) -> EventRef {
        EventRef { index: (sequence.0 - stored.first.0) as u32, stored }
    }

    /// The record that it stands in.
    pub fn record(&self) -> &Record {
        &self.stored.record
    }

    /// The span that it was committed in.
    pub(crate) fn trace(&self) -> Option<&TraceBytes> {
        self.stored.trace.as_ref()
    }

    /// The event with its place.
    pub fn get(&self) -> Recorded<'_> {
        self.stored.record.recorded(self.stored.first, self.index as usize)
    }
}

/// Which events a follower wants, of those that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Whose.
    pub tenant: Tenant,
    /// One bit for each type.
    pub types: TypeMask,
    /// Only this member's, if given.
    pub member: Option<MemberId>,
}

impl Wanted {
    fn wants_any(&self, stored: &Stored) -> bool {
        stored.record.tenant == self.tenant
            && stored.types & self.types != 0
            && self.member.is_none_or(|m| stored.record.all_recorded(stored.first).any(|r| r.member == Some(m)))
    }

    fn select(&self, stored: &Arc<Stored>, from: Sequence, found: &mut Vec<EventRef>) {
        if !self.wants_any(stored) {
            return;
        }
        for (i, recorded) in stored.record.all_recorded(stored.first).enumerate() {
            let is_members = self.member.is_none_or(|m| recorded.member == Some(m));
            if recorded.sequence >= from && is_members && bit(recorded.event.event_type()) & self.types != 0 {
                found.push(EventRef { stored: stored.clone(), index: i as u32 });
            }
        }
    }
}

/// What a follower got.
#[derive(Debug, Default)]
pub struct Page {
    /// Events that it wants, in order.
    pub events: Vec<EventRef>,
    /// All positions before this one were looked at.
    pub next: Sequence,
    /// Whether it came from the journal: the follower had fallen behind.
    pub from_journal: bool,
}

/// Committed events.
pub struct Feed {
    journal: Arc<dyn Journal>,
    keys: Arc<MemberKeys>,
    head: watch::Sender<Sequence>,
    /// Events published since the start that are told to others, bookkeeping left out.
    told: AtomicU64,
    readers: Readers,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Those in which something is told.
    recent: VecDeque<Arc<Stored>>,
    /// In `recent`.
    events: u64,
    /// In `recent`.
    bytes: usize,
    /// All that is told from here on is in `recent`.
    kept_from: Sequence,
    head: Sequence,
    followers: HashMap<u64, FollowerState>,
    /// Who sleeps, by what wakes them: one look, however many want the same.
    sleepers: BTreeMap<Wanted, BTreeSet<u64>>,
    next_follower: u64,
    /// Where those who have fallen behind need not look.
    outline: Outline,
    /// The last blocks that were decoded, by their first positions.
    blocks: BTreeMap<Sequence, Arc<DecodedBlock>>,
    /// Of these.
    block_bytes: usize,
    /// What filters see of the events that were asked for last: all who are woken ask for the same.
    seen: VecDeque<(Sequence, Arc<EventSeen>)>,
    /// Counts erasures: what was decoded before one is not kept after it.
    erasures: u64,
}

/// A block of the journal.
struct DecodedBlock {
    /// Those in which something is told.
    records: Vec<Arc<Stored>>,
    last: Sequence,
}

impl Inner {
    /// Takes the personal fields out of what is kept about a member.
    fn forget(&mut self, tenant: Tenant, member: Option<MemberId>) {
        for stored in self.recent.iter_mut().filter(|s| s.record.tenant == tenant && s.record.member == member) {
            if let Some(record) = stored.record.impersonal() {
                *stored = Arc::new(Stored::new(stored.first, record, stored.bytes).traced(stored.trace));
            }
        }
        self.blocks.clear();
        self.block_bytes = 0;
        self.seen.clear();
        self.erasures += 1;
    }

    /// Wakes those who want something of this record.
    fn wake(&mut self, stored: &Stored) {
        let first = Wanted { tenant: stored.record.tenant, types: 0, member: None };
        let of_tenant = self.sleepers.range(first..).take_while(|(wanted, _)| wanted.tenant == first.tenant);
        let woken: Vec<Wanted> =
            of_tenant.map(|(wanted, _)| *wanted).filter(|wanted| wanted.wants_any(stored)).collect();
        for id in woken.iter().filter_map(|wanted| self.sleepers.remove(wanted)).flatten() {
            let follower = self.followers.get_mut(&id).expect("who sleeps is there");
            follower.asleep = false;
            // It may have asked for what is yet to come.
            follower.position = follower.position.max(stored.first);
            follower.wake.notify_one();
        }
    }

    /// Takes a follower off those who sleep, if it does; it has seen everything up to here.
    fn rouse(&mut self, id: u64) -> bool {
        let Some(follower) = self.followers.get_mut(&id).filter(|follower| follower.asleep) else { return false };
        follower.asleep = false;
        follower.position = follower.position.max(self.head.next());
        if let Some(sleepers) = self.sleepers.get_mut(&follower.wanted) {
            sleepers.remove(&id);
            if sleepers.is_empty() {
                self.sleepers.remove(&follower.wanted);
            }
        }
        true
    }

    fn keep(&mut self, stored: Arc<Stored>) {
        self.events += stored.record.events.len() as u64;
        self.bytes += stored.bytes;
        self.recent.push_back(stored);
        while self.events > EVENTS_KEPT_MAX || self.bytes > BYTES_KEPT_MAX {
            let oldest = self.recent.pop_front().expect("there are events");
            self.events -= oldest.record.events.len() as u64;
            self.bytes -= oldest.bytes;
            self.kept_from = oldest.last().next();
        }
    }

    fn keep_block(&mut self, first: Sequence, block: Arc<DecodedBlock>) {
        self.block_bytes += block.bytes();
        if let Some(same) = self.blocks.insert(first, block) {
            self.block_bytes -= same.bytes();
        }
        while self.block_bytes > BLOCK_BYTES_KEPT_MAX {
            // Who catches up reads on: what is furthest behind is wanted least.
            let (_, furthest) = self.blocks.pop_first().expect("there are bytes");
            self.block_bytes -= furthest.bytes();
        }
    }

    fn in_memory(&self, sequence: Sequence) -> Option<&Arc<Stored>> {
        let after = self.recent.partition_point(|s| s.first <= sequence);
        let recent = after.checked_sub(1).and_then(|i| self.recent.get(i));
        let decoded = || {
            let records = &block_with(&self.blocks, sequence)?.records;
            records.get(records.partition_point(|s| s.first <= sequence).checked_sub(1)?)
        };
        let has_it = |stored: &&Arc<Stored>| stored.last() >= sequence;
        recent.filter(has_it).or_else(|| decoded().filter(has_it))
    }
}

/// The block that holds a position, where it is among these.
fn block_with(blocks: &BTreeMap<Sequence, Arc<DecodedBlock>>, position: Sequence) -> Option<&Arc<DecodedBlock>> {
    blocks.range(..=position).next_back().map(|(_, block)| block).filter(|block| block.last >= position)
}

impl DecodedBlock {
    fn bytes(&self) -> usize {
        self.records.iter().map(|stored| stored.bytes).sum::<usize>() + BLOCK_BYTES_MIN
    }

    fn select(&self, wanted: &Wanted, position: Sequence) -> Page {
        let mut events = Vec::new();
        self.records.iter().for_each(|stored| wanted.select(stored, position, &mut events));
        Page { events, next: self.last.next(), from_journal: true }
    }
}

struct FollowerState {
    wanted: Wanted,
    position: Sequence,
    /// Saw everything there was, and all since that does not match.
    asleep: bool,
    wake: Arc<Notify>,
}

/// Someone's place in the feed. Dropping it ends it.
pub struct Follower {
    feed: Arc<Feed>,
    id: u64,
    wake: Arc<Notify>,
}

impl Feed {
    /// A feed over what the journal has, which is read where work may block.
    pub fn new(journal: Arc<dyn Journal>, keys: Arc<MemberKeys>, blocking: Blocking) -> Arc<Feed> {
        let head = Sequence(journal.head());
        let inner = Inner {
            recent: VecDeque::new(),
            events: 0,
            bytes: 0,
            kept_from: head.next(),
            head,
            followers: HashMap::new(),
            sleepers: BTreeMap::new(),
            next_follower: 0,
            outline: Outline::default(),
            blocks: BTreeMap::new(),
            block_bytes: 0,
            seen: VecDeque::new(),
            erasures: 0,
        };
        let (head, told) = (watch::channel(head).0, AtomicU64::new(0));
        Arc::new(Feed { journal, keys, head, told, readers: Readers::new(blocking), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the feed")
    }

    /// What personal fields are sealed under.
    pub fn keys(&self) -> &MemberKeys {
        &self.keys
    }

    /// The last durable position.
    pub fn head(&self) -> Sequence {
        *self.head.borrow()
    }

    /// Events published since the start that are told to others.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Reads the journal on a thread that may block.
    pub async fn reading<T: Send + 'static>(self: Arc<Self>, read: impl FnOnce(&Feed) -> T + Send + 'static) -> T {
        let feed = self.clone();
        self.readers.read(move || read(&feed)).await
    }

    /// Publishes records that are on disk.
    pub fn publish(&self, records: impl IntoIterator<Item = Arc<Stored>>) {
        let mut inner = self.lock();
        for stored in records {
            inner.head = stored.last();
            if stored.record.events.iter().any(|event| event.event_type() == EventType::MemberErased) {
                inner.forget(stored.record.tenant, stored.record.member);
            }
            inner.outline.add(stored.first, stored.last(), stored.types);
            if stored.told > 0 {
                self.told.fetch_add(stored.told, Ordering::Relaxed);
                inner.wake(&stored);
                inner.keep(stored);
            }
        }
        let head = inner.head;
        drop(inner);
        self.head.send_replace(head);
    }

    /// Follows from `position` on.
    pub fn follow(self: &Arc<Self>, wanted: Wanted, position: Sequence) -> Follower {
        let wake = Arc::new(Notify::new());
        let mut inner = self.lock();
        let id = inner.next_follower;
        inner.next_follower += 1;
        inner.followers.insert(id, FollowerState { wanted, position, asleep: false, wake: wake.clone() });
        drop(inner);
        Follower { feed: self.clone(), id, wake }
    }

    /// The first position that there is still something at.
    pub fn first(&self) -> Sequence {
        Sequence(self.journal.first())
    }

    /// A record of the journal, from memory where it is recent. Reads the disk: not for async tasks.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn record_at(&self, sequence: Sequence) -> Result<Option<Arc<Stored>>, ReadError> {
        match self.lock().in_memory(sequence) {
            Some(stored) => Ok(Some(stored.clone())),
            None => record_at(&*self.journal, &self.keys, sequence),
        }
    }

    /// What filters see of an event.
    pub fn seen(&self, recorded: &Recorded<'_>) -> Arc<EventSeen> {
        let inner = self.lock();
        let erasures = inner.erasures;
        if let Some((_, seen)) = inner.seen.iter().find(|(sequence, _)| *sequence == recorded.sequence) {
            return seen.clone();
        }
        drop(inner);
        let seen = Arc::new(EventSeen::of(recorded));
        let mut inner = self.lock();
        if inner.erasures == erasures {
            inner.seen.truncate(SEEN_KEPT_MAX - 1);
            inner.seen.push_front((recorded.sequence, seen.clone()));
        }
        seen
    }

    /// One event, where it is in memory.
    pub fn event_in_memory(&self, sequence: Sequence) -> Option<EventRef> {
        self.lock().in_memory(sequence).map(|stored| EventRef::at(stored.clone(), sequence))
    }

    /// One event. Reads the disk: not for async tasks.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn event_at(&self, sequence: Sequence) -> Result<Option<EventRef>, ReadError> {
        Ok(self.record_at(sequence)?.map(|stored| EventRef::at(stored, sequence)))
    }

    /// What somebody asked for by name from `position` on, and where to go on; looks at one block. Reads the disk.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn read_asked(&self, position: Sequence) -> Result<(Vec<(Actor, Stored)>, Sequence), ReadError> {
        let position = position.max(Sequence(self.journal.first()));
        let Some(block) = self.journal.read(position.0)? else { return Ok((Vec::new(), position)) };
        let mut asked = Vec::new();
        for (first, _, bytes) in block.records().filter(|(first, ..)| *first >= position.0) {
            let actor = codec::decode_actor(bytes);
            if let Some(actor) = actor.map_err(|source| ReadError::Undecodable { sequence: first, source })? {
                asked.push((actor, Stored::decode(first, bytes, &self.keys)?));
            }
        }
        Ok((asked, Sequence(block.last_sequence() + 1)))
    }

    /// As [`read_block`](Self::read_block), of the first block of a few in which there is something.
    fn read_blocks(&self, wanted: &Wanted, position: Sequence) -> Result<Page, ReadError> {
        let mut page = self.read_block(wanted, position)?;
        for _ in 1..BLOCKS_AT_ONCE_MAX {
            if !page.events.is_empty() || page.next > self.head() {
                break;
            }
            page = self.read_block(wanted, page.next)?;
        }
        Ok(page)
    }

    /// Events from `position` on, straight from the journal; looks at one block. Reads the disk.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn read_block(&self, wanted: &Wanted, position: Sequence) -> Result<Page, ReadError> {
        // Trimmed positions are gone for everyone; what follows them is not.
        let mut position = position.max(Sequence(self.journal.first()));
        let erasures = {
            let inner = self.lock();
            position = inner.outline.past(position, wanted.types);
            // What is on disk may not be published yet: whoever wants something else by then is to see it.
            if position > inner.head {
                return Ok(Page { events: Vec::new(), next: position, from_journal: true });
            }
            if let Some(block) = block_with(&inner.blocks, position).cloned() {
                drop(inner);
                return Ok(block.select(wanted, position));
            }
            inner.erasures
        };
        let Some(block) = self.journal.read(position.0)? else {
            return Ok(Page { events: Vec::new(), next: position, from_journal: true });
        };
        let mut records = Vec::new();
        for (first, _, bytes) in block.records() {
            let undecodable = |source| ReadError::Undecodable { sequence: first, source };
            if !codec::is_mere_report(bytes).map_err(undecodable)? {
                records.push(Arc::new(Stored::decode(first, bytes, &self.keys)?));
            }
        }
        records.retain(|stored| stored.told > 0);
        let (first, last) = (Sequence(block.first_sequence()), Sequence(block.last_sequence()));
        let decoded = Arc::new(DecodedBlock { records, last });
        let mut inner = self.lock();
        inner.outline.add(first, last, decoded.records.iter().fold(0, |types, stored| types | stored.types));
        if inner.erasures == erasures {
            inner.keep_block(first, decoded.clone());
        }
        drop(inner);
        Ok(decoded.select(wanted, position))
    }
}

/// Reads the record that holds `sequence` from the journal; `None` where there is none yet, or none any more.
///
/// # Errors
///
/// What the journal says; a record that does not decode is corruption.
pub fn record_at(
    journal: &dyn Journal,
    keys: &MemberKeys,
    sequence: Sequence,
) -> Result<Option<Arc<Stored>>, ReadError> {
    let block = match journal.read(sequence.0) {
        Err(JournalError::Trimmed { .. }) => None,
        read => read?,
    };
    let Some(block) = block else { return Ok(None) };
    let Some((first, _, bytes)) = block.record_at(sequence.0) else { return Ok(None) };
    Ok(Some(Arc::new(Stored::decode(first, bytes, keys)?)))
}

/// Decodes a record of the journal.
///
/// # Errors
///
/// [`ReadError::Undecodable`], which names the position.
pub fn decode(first: u64, bytes: &[u8], keys: &MemberKeys) -> Result<Record, ReadError> {
    codec::decode_record(bytes, keys).map_err(|source| ReadError::Undecodable { sequence: first, source })
}

impl Follower {
    /// Whom it follows.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// What is there now, at most about `limit` events; `None` where there is nothing, and the follower
    /// is asleep until [`woken`](Self::woken).
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub async fn next(&self, limit: usize) -> Result<Option<Page>, ReadError> {
        let (wanted, position) = {
            let mut inner = self.feed.lock();
            let inner = &mut *inner;
            let state = inner.followers.get_mut(&self.id).expect("a follower is there until dropped");
            state.position = inner.outline.past(state.position, state.wanted.types);
            if state.asleep || state.position > inner.head {
                state.asleep = true;
                inner.sleepers.entry(state.wanted).or_default().insert(self.id);
                return Ok(None);
            }
            if state.position >= inner.kept_from {
                let mut page = Page { next: inner.head.next(), ..Page::default() };
                let at = inner.recent.partition_point(|s| s.last() < state.position);
                for stored in inner.recent.range(at..) {
                    state.wanted.select(stored, state.position, &mut page.events);
                    if page.events.len() >= limit {
                        page.next = stored.last().next();
                        break;
                    }
                }
                state.position = page.next;
                return Ok(Some(page));
            }
            let (wanted, position) = (state.wanted, state.position);
            if let Some(block) = block_with(&inner.blocks, position).cloned() {
                let page = block.select(&wanted, position);
                state.position = page.next;
                return Ok(Some(page));
            }
            (wanted, position)
        };
        let page = self.feed.clone().reading(move |feed| feed.read_blocks(&wanted, position)).await?;
        self.set_position(page.next);
        Ok(Some(page))
    }

    /// Returns when something that is wanted was published since [`next`](Self::next) gave `None`.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// All positions before this one were looked at, or hold nothing that is wanted.
    pub fn position(&self) -> Sequence {
        let inner = self.feed.lock();
        let state = inner.followers.get(&self.id).expect("a follower is there until dropped");
        if state.asleep { state.position.max(inner.head.next()) } else { state.position }
    }

    /// Wants something else from now on.
    pub fn set_wanted(&self, wanted: Wanted) {
        let mut inner = self.feed.lock();
        let was_asleep = inner.rouse(self.id);
        let state = inner.followers.get_mut(&self.id).expect("a follower is there until dropped");
        state.wanted = wanted;
        if was_asleep {
            state.asleep = true;
            inner.sleepers.entry(wanted).or_default().insert(self.id);
        }
    }

    fn set_position(&self, position: Sequence) {
        let mut inner = self.feed.lock();
        inner.followers.get_mut(&self.id).expect("a follower is there until dropped").position = position;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut inner = self.feed.lock();
        inner.rouse(self.id);
        inner.followers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
