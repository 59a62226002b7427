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
//!   moves over the others while it sleeps.
//!
//! # What is absent on purpose
//!
//! - Queues: a slow follower costs nothing but its position.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use punchline_engine::dispatch::subscription::{TypeMask, bit};
use punchline_engine::event::{EventType, Record, Recorded};
use punchline_engine::id::{MemberId, Sequence, Tenant};
use punchline_storage::codec::{self, CodecError};
use punchline_storage::journal::{Journal, JournalError};
use punchline_storage::member_keys::MemberKeys;
use tokio::sync::{Notify, watch};

/// Events kept in memory for followers: the last second or so under full load.
const EVENTS_KEPT_MAX: u64 = 16_384;
/// Bytes, as in the journal, of the records kept for followers. As many as that of the usual ones take a megabyte
/// or two; a single report of deliveries may take one.
const BYTES_KEPT_MAX: usize = 64 * 1024 * 1024;

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
    types: TypeMask,
    /// In the journal.
    bytes: usize,
}

impl Stored {
    /// A record whose first event has the position `first`, and which takes `bytes` in the journal.
    pub fn new(first: Sequence, record: Record, bytes: usize) -> Stored {
        let types = record.events.iter().fold(0, |types, event| types | bit(event.event_type()));
        Stored { first, record, types, bytes }
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
    /// The record that it stands in.
    pub fn record(&self) -> &Record {
        &self.stored.record
    }

    /// The event with its place.
    pub fn get(&self) -> Recorded<'_> {
        self.stored.record.recorded(self.stored.first, self.index as usize)
    }
}

/// Which events a follower wants.
#[derive(Debug, Clone, Copy, PartialEq)]
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
            && !stored.record.quiet
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
    inner: Mutex<Inner>,
}

struct Inner {
    recent: VecDeque<Arc<Stored>>,
    /// In `recent`.
    events: u64,
    /// In `recent`.
    bytes: usize,
    head: Sequence,
    followers: BTreeMap<u64, FollowerState>,
    next_follower: u64,
}

impl Inner {
    /// Takes the personal fields out of what is kept about a member.
    fn forget(&mut self, tenant: Tenant, member: Option<MemberId>) {
        for stored in self.recent.iter_mut().filter(|s| s.record.tenant == tenant && s.record.member == member) {
            if let Some(record) = stored.record.impersonal() {
                *stored = Arc::new(Stored::new(stored.first, record, stored.bytes));
            }
        }
    }
}

struct FollowerState {
    wanted: Wanted,
    position: Sequence,
    /// Saw everything there was; moved along until something matches.
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
    /// A feed over what the journal has.
    pub fn new(journal: Arc<dyn Journal>, keys: Arc<MemberKeys>) -> Arc<Feed> {
        let head = Sequence(journal.head());
        let (recent, followers) = (VecDeque::new(), BTreeMap::new());
        let inner = Inner { recent, events: 0, bytes: 0, head, followers, next_follower: 0 };
        let (head, told) = (watch::channel(head).0, AtomicU64::new(0));
        Arc::new(Feed { journal, keys, head, told, inner: Mutex::new(inner) })
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

    /// Publishes records that are on disk.
    pub fn publish(&self, records: impl IntoIterator<Item = Arc<Stored>>) {
        let mut inner = self.lock();
        for stored in records {
            inner.head = stored.last();
            let told = stored.record.all_recorded(stored.first).filter(Recorded::is_told).count();
            self.told.fetch_add(told as u64, Ordering::Relaxed);
            inner.events += stored.record.events.len() as u64;
            inner.bytes += stored.bytes;
            for follower in inner.followers.values_mut().filter(|f| f.asleep) {
                if follower.wanted.wants_any(&stored) {
                    follower.asleep = false;
                    follower.wake.notify_one();
                } else {
                    // It may have asked for what is yet to come.
                    follower.position = follower.position.max(stored.last().next());
                }
            }
            if stored.types & bit(EventType::MemberErased) != 0 {
                inner.forget(stored.record.tenant, stored.record.member);
            }
            inner.recent.push_back(stored);
            while inner.events > EVENTS_KEPT_MAX || inner.bytes > BYTES_KEPT_MAX {
                let oldest = inner.recent.pop_front().expect("there are events");
                inner.events -= oldest.record.events.len() as u64;
                inner.bytes -= oldest.bytes;
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

    /// A record of the journal, from memory where it is recent. Reads the disk: not for async tasks.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn record_at(&self, sequence: Sequence) -> Result<Option<Arc<Stored>>, ReadError> {
        {
            let inner = self.lock();
            let after = inner.recent.partition_point(|s| s.first <= sequence);
            if let Some(stored) = after.checked_sub(1).and_then(|i| inner.recent.get(i))
                && stored.last() >= sequence
            {
                return Ok(Some(stored.clone()));
            }
        }
        record_at(&*self.journal, &self.keys, sequence)
    }

    /// One event. Reads the disk: not for async tasks.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn event_at(&self, sequence: Sequence) -> Result<Option<EventRef>, ReadError> {
        Ok(self.record_at(sequence)?.map(|stored| EventRef { index: (sequence.0 - stored.first.0) as u32, stored }))
    }

    /// Events from `position` on, straight from the journal; looks at one block. Reads the disk.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub fn read_block(&self, wanted: &Wanted, position: Sequence) -> Result<Page, ReadError> {
        // Trimmed positions are gone for everyone; what follows them is not.
        let position = position.max(Sequence(self.journal.first()));
        let Some(block) = self.journal.read(position.0)? else {
            return Ok(Page { events: Vec::new(), next: position, from_journal: true });
        };
        let mut events = Vec::new();
        for (first, _, bytes) in block.records() {
            let record = decode(first, bytes, &self.keys)?;
            let stored = Stored::new(Sequence(first), record, bytes.len());
            wanted.select(&Arc::new(stored), position, &mut events);
        }
        Ok(Page { events, next: Sequence(block.last_sequence() + 1), from_journal: true })
    }
}

/// Reads the record that holds `sequence` from the journal.
///
/// # Errors
///
/// What the journal says; a record that does not decode is corruption.
pub fn record_at(
    journal: &dyn Journal,
    keys: &MemberKeys,
    sequence: Sequence,
) -> Result<Option<Arc<Stored>>, ReadError> {
    let Some(block) = journal.read(sequence.0)? else { return Ok(None) };
    let Some((first, _, bytes)) = block.record_at(sequence.0) else { return Ok(None) };
    Ok(Some(Arc::new(Stored::new(Sequence(first), decode(first, bytes, keys)?, bytes.len()))))
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
            if state.position > inner.head {
                state.asleep = true;
                return Ok(None);
            }
            let first_kept = inner.recent.front().map_or(inner.head.next(), |s| s.first);
            if state.position >= first_kept {
                let mut page = Page { next: state.position, ..Page::default() };
                let at = inner.recent.partition_point(|s| s.last() < state.position);
                for stored in inner.recent.range(at..) {
                    state.wanted.select(stored, state.position, &mut page.events);
                    page.next = stored.last().next();
                    if page.events.len() >= limit {
                        break;
                    }
                }
                state.position = page.next;
                return Ok(Some(page));
            }
            (state.wanted, state.position)
        };
        let feed = self.feed.clone();
        let read = tokio::task::spawn_blocking(move || feed.read_block(&wanted, position));
        let page = read.await.expect("reading the journal does not panic")?;
        self.set_position(page.next);
        Ok(Some(page))
    }

    /// Returns when something that is wanted was published since [`next`](Self::next) gave `None`.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// All positions before this one were looked at, or hold nothing that is wanted.
    pub fn position(&self) -> Sequence {
        self.feed.lock().followers.get(&self.id).expect("a follower is there until dropped").position
    }

    /// Wants something else from now on.
    pub fn set_wanted(&self, wanted: Wanted) {
        let mut inner = self.feed.lock();
        inner.followers.get_mut(&self.id).expect("a follower is there until dropped").wanted = wanted;
    }

    fn set_position(&self, position: Sequence) {
        let mut inner = self.feed.lock();
        inner.followers.get_mut(&self.id).expect("a follower is there until dropped").position = position;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.lock().followers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::event::{AdvertiserCreated, MemberUnblocked};
    use punchline_engine::id::{AdvertiserId, Environment, KeySlot};
    use punchline_engine::time::UnixMillis;
    use punchline_storage::memory::MemoryDisk;
    use uuid::Uuid;

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };

    /// Publishes `records` of so many events and bytes each; gives how many records are kept.
    fn kept(records: u64, events: u64, bytes: usize) -> usize {
        let disk = MemoryDisk::new();
        let (journal, _) = disk.journal(1).expect("an empty journal");
        let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()));
        let record = Record {
            tenant: TENANT,
            time: UnixMillis(0),
            member: None,
            key_slot: KeySlot::NONE,
            key: None,
            quiet: false,
            events: (0..events).map(|_| MemberUnblocked { member_id: MemberId(Uuid::nil()) }.into()).collect(),
        };
        let stored = |n| Arc::new(Stored::new(Sequence(n * events + 1), record.clone(), bytes));
        feed.publish((0..records).map(stored));
        assert_eq!(feed.head(), Sequence(records * events));
        let inner = feed.lock();
        assert_eq!((inner.events, inner.bytes), (inner.recent.len() as u64 * events, inner.recent.len() * bytes));
        inner.recent.len()
    }

    #[test]
    fn what_is_kept_is_bounded_by_events_and_by_bytes() {
        let mib = 1024 * 1024;
        for (records, events, bytes, expected) in [
            (100, 4, 300, 100),
            (5_000, 4, 300, 4_096),
            (100, 1, mib, 64),
            (100, 4, 0, 100),
            (2, 20_000, 300, 0),
            (2, 1, 65 * mib, 0),
        ] {
            assert_eq!(kept(records, events, bytes), expected, "{records} of {events} events and {bytes} bytes");
        }
    }

    fn record(feed: &Feed) -> Arc<Stored> {
        let event = AdvertiserCreated { advertiser_id: TENANT.advertiser, name: "Velo".into() }.into();
        let (time, member, key_slot, key) = (UnixMillis(0), None, KeySlot::NONE, None);
        let record = Record { tenant: TENANT, time, member, key_slot, key, quiet: false, events: vec![event] };
        Arc::new(Stored::new(feed.head().next(), record, 100))
    }

    #[tokio::test]
    async fn nothing_before_the_position_asked_for_is_delivered() {
        let disk = MemoryDisk::new();
        let (journal, _) = disk.journal(0).expect("opens");
        let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()));
        let types = bit(EventType::AdvertiserCreated);
        let follow = |types| feed.follow(Wanted { tenant: TENANT, types, member: None }, Sequence(3));
        let (of_these, of_others) = (follow(types), follow(0));
        for published in 1..=3 {
            let page = of_these.next(10).await.expect("readable");
            assert!(page.is_none_or(|page| page.events.is_empty()), "{published}");
            assert!(of_others.next(10).await.expect("readable").is_none());
            feed.publish([record(&feed)]);
            assert_eq!(of_others.position(), Sequence(published + 1).max(Sequence(3)));
        }
        let page = of_these.next(10).await.expect("readable").expect("there is one");
        assert_eq!(page.events.iter().map(|event| event.get().sequence.0).collect::<Vec<_>>(), [3]);
    }
}
