use super::*;
use punchline_engine::event::{AdvertiserCreated, MemberErased, MemberUnblocked};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot};
use punchline_engine::time::UnixMillis;
use punchline_storage::block::{Block, BlockBuilder, BlockHash, EncodedBlock};
use punchline_storage::memory::{MemoryDisk, MemoryJournal};
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };

/// Publishes `records` of so many events and bytes each; gives how many records are kept.
fn kept(records: u64, events: u64, bytes: usize) -> usize {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(1).expect("an empty journal");
    let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()), Blocking::Here);
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
    let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()), Blocking::Here);
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

#[tokio::test]
async fn who_sleeps_is_woken_by_what_it_wants_by_then() {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(0).expect("opens");
    let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()), Blocking::Here);
    let wanted = |types| Wanted { tenant: TENANT, types, member: None };
    let types = bit(EventType::AdvertiserCreated);
    let followers = [0, types, 0].map(|types| feed.follow(wanted(types), Sequence(1)));
    for follower in &followers {
        assert!(follower.next(10).await.expect("readable").is_none());
    }
    feed.publish([record(&feed)]);
    // The first wants something else in its sleep, the second was woken, the third sleeps on.
    followers[0].set_wanted(wanted(types));
    let woken =
        async |n: usize| tokio::time::timeout(std::time::Duration::from_millis(1), followers[n].woken()).await.is_ok();
    assert_eq!([woken(0).await, woken(1).await, woken(2).await], [false, true, false]);
    assert_eq!(followers.each_ref().map(Follower::position), [2, 1, 2].map(Sequence));
    feed.publish([record(&feed)]);
    assert_eq!([woken(0).await, woken(2).await], [true, false]);
    let seen = async |n: usize| {
        let page = followers[n].next(10).await.expect("readable")?;
        Some(page.events.iter().map(|event| event.get().sequence.0).collect::<Vec<_>>())
    };
    assert_eq!([seen(0).await, seen(1).await, seen(2).await], [Some(vec![2]), Some(vec![1, 2]), None]);
    drop(followers);
    assert!(feed.lock().sleepers.is_empty());
}

#[tokio::test]
async fn what_is_told_to_nobody_is_not_kept_and_passed_over() {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(0).expect("opens");
    let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()), Blocking::Here);
    let types = bit(EventType::AdvertiserCreated);
    let follower = feed.follow(Wanted { tenant: TENANT, types, member: None }, Sequence(1));
    let quiet = |feed: &Feed| {
        let told = record(feed);
        Arc::new(Stored::new(told.first, Record { quiet: true, ..told.record.clone() }, 100))
    };
    feed.publish([quiet(&feed)]);
    feed.publish([record(&feed)]);
    feed.publish([quiet(&feed)]);
    assert_eq!((feed.lock().recent.len(), feed.told(), feed.head()), (1, 1, Sequence(3)));
    let page = follower.next(10).await.expect("readable").expect("there is one");
    assert_eq!((page.events.len(), page.next, page.from_journal), (1, Sequence(4), false));
    assert!(follower.next(10).await.expect("readable").is_none());
}

/// Counts what is read.
struct Counted(MemoryJournal, Arc<AtomicU64>);

impl Journal for Counted {
    fn append(&self, expected_next: u64, blocks: &[EncodedBlock]) -> Result<(), JournalError> {
        self.0.append(expected_next, blocks)
    }
    fn read(&self, sequence: u64) -> Result<Option<Block>, JournalError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(sequence)
    }
    fn head(&self) -> u64 {
        self.0.head()
    }
    fn head_hash(&self) -> BlockHash {
        self.0.head_hash()
    }
    fn first(&self) -> u64 {
        self.0.first()
    }
    fn reopen(&self) -> Result<u64, JournalError> {
        self.0.reopen()
    }
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn trim(&self, before: u64) -> Result<(), JournalError> {
        self.0.trim(before)
    }
}

#[tokio::test]
async fn what_is_told_to_nobody_is_read_once_however_many_are_behind() {
    const BLOCKS: u64 = 500;
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(0).expect("opens");
    let (keys, reads) = (Arc::new(disk.member_keys()), Arc::new(AtomicU64::new(0)));
    let nothing = Feed::new(Arc::new(MemoryDisk::new().journal(0).expect("opens").0), keys.clone(), Blocking::Here);
    // The first and the last are told.
    for sequence in 1..=BLOCKS {
        let told = record(&nothing).record.clone();
        let mut encoded = Vec::new();
        let quiet = ![1, BLOCKS].contains(&sequence);
        codec::encode_record_into(&Record { quiet, ..told }, &keys, &mut encoded).expect("no key is asked for");
        let mut builder = BlockBuilder::new();
        builder.push(&encoded, 1).expect("it fits");
        let block = builder.finish(sequence, sequence - 1, journal.head_hash());
        journal.append(sequence, &[block]).expect("appended");
    }
    drop(journal);
    let (journal, _) = disk.journal(0).expect("opens");
    let feed = Feed::new(Arc::new(Counted(journal, reads.clone())), keys, Blocking::Here);
    let wanted = Wanted { tenant: TENANT, types: bit(EventType::AdvertiserCreated), member: None };
    for expected in [BLOCKS, 0, 0] {
        reads.store(0, Ordering::Relaxed);
        let (follower, mut found) = (feed.follow(wanted, Sequence(1)), Vec::new());
        while let Some(page) = follower.next(10).await.expect("readable") {
            found.extend(page.events.iter().map(|event| event.get().sequence.0));
        }
        assert_eq!((found, reads.load(Ordering::Relaxed)), (vec![1, BLOCKS], expected));
    }
}

#[test]
fn what_filters_see_is_made_once_and_forgotten_with_an_erasure() {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(0).expect("opens");
    let feed = Feed::new(Arc::new(journal), Arc::new(disk.member_keys()), Blocking::Here);
    let told = record(&feed);
    let recorded = told.record.recorded(told.first, 0);
    let seen = feed.seen(&recorded);
    assert!(Arc::ptr_eq(&seen, &feed.seen(&recorded)));
    let erased = MemberErased { member_id: MemberId(Uuid::nil()) }.into();
    let erasure = Record { events: vec![erased], ..told.record.clone() };
    feed.publish([Arc::new(Stored::new(told.last().next(), erasure, 100))]);
    assert!(!Arc::ptr_eq(&seen, &feed.seen(&recorded)));
}
