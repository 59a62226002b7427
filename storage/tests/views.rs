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
use punchline_storage::views::{Views, compare, write_behind};
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
