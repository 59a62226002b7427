//! Views that were being written when the power went: folding what follows the checkpoint again makes
//! them what they would have been.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use punchline_engine::event::{Event, MemberCreated, MemberUpdated, Record};
use punchline_engine::id::{AdvertiserId, Environment, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::time::UnixMillis;
use punchline_storage::layout::Table;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::{Views, compare, write_behind};
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };

/// Each line: `member identifier,identifier …`; the first of a member creates it, others update it.
fn records(story: &str) -> Vec<Record> {
    let mut created = BTreeSet::new();
    let lines = story.lines().map(str::trim).filter(|line| !line.is_empty());
    let record = |line: &str| {
        let (member, identifiers) = line.split_once(' ').expect("a space");
        let member_id = MemberId(Uuid::from_u128(member.parse().expect("a number")));
        let identifiers: Vec<Identifier> = identifiers.split(',').map(email).collect();
        let profile = Profile::default();
        let event: Event = if created.insert(member_id) {
            MemberCreated { member_id, identifiers, profile, registration_source: String::new() }.into()
        } else {
            MemberUpdated { member_id, identifiers, profile, changed: vec!["identifiers".into()] }.into()
        };
        Record {
            tenant: TENANT,
            time: UnixMillis(0),
            member: Some(member_id),
            key: None,
            quiet: false,
            events: vec![event],
        }
    };
    lines.map(record).collect()
}

fn email(name: &str) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &format!("{name}@example.com")).expect("an address")
}

/// Applies what follows the checkpoint of `disk`, up to `upto`, and writes it.
fn fold(disk: &MemoryDisk, records: &[Record], upto: usize) {
    let rows: Arc<dyn Rows> = Arc::new(disk.rows());
    let mut views = Views::open(rows.clone(), 100).unwrap();
    let checkpoint = views.checkpoint().0 as usize;
    for (i, record) in records[..upto].iter().enumerate().skip(checkpoint) {
        views.apply(Sequence(i as u64 + 1), record).unwrap();
    }
    write_behind(&*rows, &views.freeze().expect("something to write"), || {}).unwrap();
}

/// Writes `story` with one checkpoint after `first` lines and the power cut before the second, wherever the
/// power can be cut; what is folded again must be what was folded without a checkpoint.
fn check(first: usize, story: &str) {
    let records = records(story);
    let expected = MemoryDisk::new();
    fold(&expected, &records, records.len());
    let mut members_seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        fold(&disk, &records, first);
        let mut views = Views::open(Arc::new(disk.rows()), 100).unwrap();
        for (i, record) in records.iter().enumerate().skip(first) {
            views.apply(Sequence(i as u64 + 1), record).unwrap();
        }
        disk.set_faults(Faults { power_cut_at_sync: Some(disk.sync_count() + 1), ..Faults::default() });
        assert!(write_behind(&disk.rows(), &views.freeze().expect("something to write"), || {}).is_err());
        let disk = disk.after_power_cut(seed);
        members_seen.insert(disk.rows().scan(Table::Members, &[], 100).unwrap());
        fold(&disk, &records, records.len());
        let differs = compare(&disk.rows(), &expected.rows()).unwrap().err();
        assert_eq!(differs.map(|d| d.to_string()), None, "seed {seed}");
    }
    assert!(members_seen.len() > 2, "some rows were written and others not: {}", members_seen.len());
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
