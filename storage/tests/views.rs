//! Views that were being written when the power went: folding what follows the checkpoint again makes
//! them what they would have been.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use punchline_engine::event::{Event, MemberCreated, MemberErased, MemberUpdated, Record};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::time::UnixMillis;
use punchline_storage::codec;
use punchline_storage::layout::Table;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::{Views, compare, load_base, write_base, write_behind};
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };

/// Each line: `member identifier,identifier …`; the first of a member creates it, others update it; `member !`
/// erases it. As the journal has them.
fn records(story: &str) -> Vec<Vec<u8>> {
    let mut created = BTreeSet::new();
    let lines = story.lines().map(str::trim).filter(|line| !line.is_empty());
    let record = |line: &str| {
        let (member, identifiers) = line.split_once(' ').expect("a space");
        let member_id = MemberId(Uuid::from_u128(member.parse().expect("a number")));
        let erased = identifiers == "!";
        let identifiers: Vec<Identifier> = identifiers.split(',').filter(|_| !erased).map(email).collect();
        let profile = Profile { first_name: format!("Ana {line}"), ..Profile::default() };
        let event: Event = if erased {
            MemberErased { member_id }.into()
        } else if created.insert(member_id) {
            MemberCreated { member_id, identifiers, profile, registration_source: String::new() }.into()
        } else {
            MemberUpdated { member_id, identifiers, profile, changed: vec!["identifiers".into()] }.into()
        };
        let (time, member, key_slot) = (UnixMillis(0), Some(member_id), KeySlot(member_id.0.as_u128() as u64));
        let record = Record { tenant: TENANT, time, member, key_slot, key: None, quiet: false, events: vec![event] };
        codec::encode_record(&record, &MemoryDisk::new().member_keys()).unwrap()
    };
    lines.map(record).collect()
}

fn email(name: &str) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &format!("{name}@example.com")).expect("an address")
}

/// The views of `disk` with what follows their checkpoint, up to `upto`.
fn applied(disk: &MemoryDisk, records: &[Vec<u8>], upto: usize) -> Views {
    let keys = Arc::new(disk.member_keys());
    let mut views = Views::open(Arc::new(disk.rows()), keys.clone(), 100).unwrap();
    let checkpoint = views.checkpoint().0 as usize;
    for (i, record) in records[..upto].iter().enumerate().skip(checkpoint) {
        views.apply(Sequence(i as u64 + 1), &codec::decode_record(record, &keys).unwrap()).unwrap();
    }
    views
}

/// Applies what follows the checkpoint of `disk`, up to `upto`, and writes it.
fn fold(disk: &MemoryDisk, records: &[Vec<u8>], upto: usize) {
    let mut views = applied(disk, records, upto);
    // Nothing where the checkpoint was written before the power went.
    if let Some(overlay) = views.freeze() {
        write_behind(&disk.rows(), &disk.member_keys(), &overlay, || {}).unwrap();
    }
}

/// Writes `story` with one checkpoint after `first` lines and the power cut at a sync of the second, wherever
/// the power can be cut; what is folded again must be what was folded without a checkpoint, and what is folded
/// afresh under the keys that are left.
fn check(first: usize, story: &str) {
    let records = records(story);
    let expected = MemoryDisk::new();
    fold(&expected, &records, records.len());
    let mut members_seen = BTreeSet::new();
    for (cut, seed) in (1..).flat_map(|cut| (0..200).map(move |seed| (cut, seed))) {
        let disk = MemoryDisk::new();
        fold(&disk, &records, first);
        let mut views = applied(&disk, &records, records.len());
        disk.set_faults(Faults { power_cut_at_sync: Some(disk.sync_count() + cut), ..Faults::default() });
        let overlay = views.freeze().expect("something to write");
        if write_behind(&disk.rows(), &disk.member_keys(), &overlay, || {}).is_ok() {
            break;
        }
        let disk = disk.after_power_cut(seed);
        members_seen.insert(disk.rows().scan(Table::Members, &[], 100).unwrap());
        fold(&disk, &records, records.len());
        let differs = compare(&disk.rows(), &expected.rows()).unwrap().err();
        assert_eq!(differs.map(|d| d.to_string()), None, "cut at {cut}, seed {seed}");
        let erased = |disk: &MemoryDisk| [1, 2, 3].map(|n| disk.member_keys().is_destroyed(KeySlot(n)).unwrap());
        assert_eq!(erased(&disk), erased(&expected), "cut at {cut}, seed {seed}");
    }
    assert!(members_seen.len() > 2, "some rows were written and others not: {}", members_seen.len());
    let rows: Arc<dyn Rows> = Arc::new(MemoryDisk::new().rows());
    let keys = Arc::new(expected.member_keys());
    let mut views = Views::open(rows.clone(), keys.clone(), 100).unwrap();
    for (i, record) in records.iter().enumerate() {
        views.apply(Sequence(i as u64 + 1), &codec::decode_record(record, &keys).unwrap()).unwrap();
    }
    write_behind(&*rows, &keys, &views.freeze().expect("something to write"), || {}).unwrap();
    let differs = compare(&*rows, &expected.rows()).unwrap().err();
    assert_eq!(differs.map(|d| d.to_string()), None, "folded afresh");
    check_bases(&records);
}

/// A base that was made at any time, under the keys that are left at the end: what is folded onto it must be what
/// was folded from the beginning.
fn check_bases(records: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    for made_at in 1..=records.len() {
        let disk = MemoryDisk::new();
        fold(&disk, records, made_at);
        let upto = write_base(&disk.rows(), dir.path()).unwrap();
        fold(&disk, records, records.len());
        let (rows, keys): (Arc<dyn Rows>, _) = (Arc::new(MemoryDisk::new().rows()), Arc::new(disk.member_keys()));
        let path = dir.path().join(format!("{upto:020}"));
        assert_eq!(load_base(&path, &*rows, &keys).unwrap(), upto);
        let mut views = Views::open(rows.clone(), keys.clone(), 100).unwrap();
        assert_eq!(views.applied(), Sequence(made_at as u64));
        for (i, record) in records.iter().enumerate().skip(made_at) {
            views.apply(Sequence(i as u64 + 1), &codec::decode_record(record, &keys).unwrap()).unwrap();
        }
        if let Some(overlay) = views.freeze() {
            write_behind(&*rows, &keys, &overlay, || {}).unwrap();
        }
        let differs = compare(&*rows, &disk.rows()).unwrap().err();
        assert_eq!(differs.map(|d| d.to_string()), None, "base made at {made_at}");
    }
}

#[test]
fn a_base_with_a_byte_that_is_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    fold(&disk, &records("1 x,y\n2 z\n1 !\n2 z,x"), 4);
    let path = dir.path().join(format!("{:020}", write_base(&disk.rows(), dir.path()).unwrap().0));
    let sound = std::fs::read(&path).unwrap();
    let load = || {
        let rows = MemoryDisk::new().rows();
        let loaded = load_base(&path, &rows, &disk.member_keys()).map_err(|error| error.to_string());
        (loaded, Table::ALL.iter().map(|table| rows.scan(*table, &[], 100).unwrap().len()).sum::<usize>())
    };
    assert_eq!(load().0, Ok(Sequence(4)));
    let spoilt = (0..sound.len()).map(|at| {
        let mut spoilt = sound.clone();
        spoilt[at] ^= 4;
        spoilt
    });
    for spoilt in spoilt.chain([sound[..sound.len() - 1].to_vec(), [&sound[..], b"x"].concat()]) {
        std::fs::write(&path, spoilt).unwrap();
        let (loaded, rows) = load();
        assert!(loaded.as_ref().is_err_and(|told| told.contains("damaged at byte")), "{loaded:?}");
        assert_eq!(rows, 0, "nothing was written");
    }
}

#[test]
fn identifiers_that_changed_hands_keep_their_owner() {
    // Rows are written in the order of the ids: member 1 has its row when member 2 has not.
    check(
        2,
        "
        2 x
        1 y
        2 z
        1 y,x
        ",
    );
    check(
        1,
        "
        2 x
        2 z
        1 x
        ",
    );
    check(
        3,
        "
        3 w
        2 x
        1 y
        2 z
        1 x
        3 w,y
        1 q
        2 z,x
        ",
    );
}

#[test]
fn erased_members_leave_nothing_and_their_identifiers_are_free() {
    check(
        2,
        "
        2 x
        1 y
        2 z
        2 !
        1 y,x
        ",
    );
    // The row of the erased member, and those of its identifiers, are as of before the checkpoint.
    check(
        3,
        "
        1 x,y
        2 w
        3 v
        1 y,u
        1 !
        2 w,y
        3 u
        ",
    );
    check(
        1,
        "
        2 x
        1 y
        1 z
        1 !
        3 y
        3 !
        2 x,y,z
        ",
    );
}
