//! Items, deadlines and walks over members; and views that were being written when the power went: folding what
//! follows the checkpoint again makes them what they would have been.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use punchline_engine::event::*;
use punchline_engine::id::{AdvertiserId, CouponBookId, Environment, KeySlot, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::item::{Body, Item, ItemKey};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_engine::quantity::Coins;
use punchline_engine::time::UnixMillis;
use punchline_storage::layout::Table;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::{ItemList, Views, compare, write_behind};
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };

fn email(name: &str) -> Identifier {
    Identifier::parse("identifiers[0]", "email", &format!("{name}@example.com")).expect("an address")
}

/// Records with the positions of their first events.
fn placed(records: &[Record]) -> impl Iterator<Item = (Sequence, &Record)> {
    let place = |next: &mut u64, record: &Record| {
        *next += record.events.len() as u64;
        Some(*next - record.events.len() as u64)
    };
    records.iter().scan(1, move |next, record| place(next, record).map(|first| (Sequence(first), record)))
}

/// Applies what follows the checkpoint of `disk`, up to `upto`, and writes it.
fn fold(disk: &MemoryDisk, records: &[Record], upto: usize) {
    let rows: Arc<dyn Rows> = Arc::new(disk.rows());
    let mut views = Views::open(rows.clone(), Arc::new(disk.member_keys()), 100).unwrap();
    let checkpoint = views.checkpoint();
    for (first, record) in placed(&records[..upto]).filter(|(first, _)| *first > checkpoint) {
        views.apply(first, record).unwrap();
    }
    write_behind(&*rows, &disk.member_keys(), &views.freeze().expect("something to write"), || {}).unwrap();
}

/// Writes `records` with one checkpoint after `first` of them and the power cut before the second, wherever the
/// power can be cut; what is folded again must be what was folded without a checkpoint.
fn check(first: usize, records: &[Record]) {
    let expected = MemoryDisk::new();
    fold(&expected, records, records.len());
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        fold(&disk, records, first);
        let mut views = Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 100).unwrap();
        for (at, record) in placed(records).skip(first) {
            views.apply(at, record).unwrap();
        }
        disk.set_faults(Faults { power_cut_at_sync: Some(disk.sync_count() + 1), ..Faults::default() });
        assert!(
            write_behind(&disk.rows(), &disk.member_keys(), &views.freeze().expect("something to write"), || {})
                .is_err()
        );
        let disk = disk.after_power_cut(seed);
        seen.insert(Table::ALL.map(|table| disk.rows().scan(table, &[], 100).unwrap()));
        fold(&disk, records, records.len());
        let differs = compare(&disk.rows(), &expected.rows()).unwrap().err();
        assert_eq!(differs.map(|d| d.to_string()), None, "seed {seed}");
    }
    assert!(seen.len() > 2, "some rows were written and others not: {}", seen.len());
}

fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(n))
}

fn record(about: u128, events: Vec<Event>) -> Record {
    let (time, member, key_slot) = (UnixMillis(7), Some(member(about)), KeySlot(about as u64));
    Record { tenant: TENANT, time, member, key_slot, key: None, quiet: false, events }
}

fn created(n: u128, identifiers: &[&str]) -> Record {
    let identifiers = identifiers.iter().map(|name| email(name)).collect();
    let (profile, registration_source) = (Profile::default(), String::new());
    record(n, vec![MemberCreated { member_id: member(n), identifiers, profile, registration_source }.into()])
}

fn updated(n: u128, identifiers: &[&str]) -> Event {
    let identifiers = identifiers.iter().map(|name| email(name)).collect();
    let (profile, changed) = (Profile::default(), Vec::new());
    MemberUpdated { member_id: member(n), identifiers, profile, changed }.into()
}

/// One member becomes another, which is known by `identifiers` from then on.
fn merged(from: u128, into: u128, identifiers: &[&str]) -> Record {
    let (member_id, from_member_id) = (member(into), member(from));
    let gone = MemberMergedInto { member_id: from_member_id, into_member_id: member_id };
    record(into, vec![MemberMerged { member_id, from_member_id }.into(), gone.into(), updated(into, identifiers)])
}

#[test]
fn identifiers_of_merged_members_keep_their_owner() {
    for (from, into) in [(1, 2), (2, 1)] {
        let other = 3;
        let records = [
            created(from, &["x", "y"]),
            created(into, &["z"]),
            created(other, &["w"]),
            merged(from, into, &["z", "x", "y"]),
            record(into, vec![updated(into, &["z", "x"])]),
            record(other, vec![updated(other, &["w", "y"])]),
        ];
        for first in [1, 2, 3, 4] {
            check(first, &records);
        }
        let disk = MemoryDisk::new();
        fold(&disk, &records, records.len());
        let mut views = Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 100).unwrap();
        let mut owner = |name: &str| views.owner(TENANT, &email(name)).unwrap();
        let owners = ["w", "x", "y", "z"].map(&mut owner);
        assert_eq!(owners, [other, into, other, into].map(|n| Some(member(n))));
    }
}

fn coins(n: u128, amount: i64, balance: i64, hold: Option<&str>) -> Event {
    CoinsChanged {
        member_id: member(n),
        amount: Coins(amount),
        previous_balance: Coins(balance - amount),
        new_balance: Coins(balance),
        expires_at: None,
        hold_id: hold.map(String::from),
        origin: Origin::Birthday,
    }
    .into()
}

fn held(n: u128, id: &str, amount: i64, until: i64) -> Record {
    let (hold_id, until, reason) = (id.into(), UnixMillis(until), String::new());
    record(
        n,
        vec![HoldPlaced { member_id: member(n), hold_id, currency: Currency::Coins, amount, until, reason }.into()],
    )
}

fn voided(n: u128, id: &str, amount: i64) -> Record {
    let (hold_id, reason) = (id.into(), String::new());
    record(n, vec![HoldVoided { member_id: member(n), hold_id, currency: Currency::Coins, amount, reason }.into()])
}

#[test]
fn deadlines_are_those_of_the_holds_there_are() {
    let records = [
        created(1, &["x"]),
        created(2, &["y"]),
        // What comes to the other one stands in this one's record.
        record(1, vec![coins(1, 100, 100, None), coins(2, 50, 50, None)]),
        held(1, "a", 10, 5_000),
        held(2, "b", 20, 3_000),
        held(1, "c", 30, 4_000),
        voided(2, "b", 20),
        record(1, vec![coins(1, -5, 95, Some("a"))]),
        held(2, "d", 1, 4_000),
        held(2, "e", 1, 4_001),
        voided(2, "e", 1),
    ];
    for first in 3..8 {
        check(first, &records);
    }
    let disk = MemoryDisk::new();
    fold(&disk, &records, 6);
    let mut views = Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 100).unwrap();
    let due = |views: &Views, now, limit| {
        let due = views.due_holds(UnixMillis(now), limit).unwrap();
        due.into_iter().map(|due| (due.until.0, due.member_id, due.hold_id)).collect::<Vec<_>>()
    };
    let [a, b, c, d] = [(5_000, 1, "a"), (3_000, 2, "b"), (4_000, 1, "c"), (4_000, 2, "d")]
        .map(|(until, n, id)| (until, member(n), id.to_owned()));
    assert_eq!(due(&views, 2_999, 10), []);
    assert_eq!(due(&views, 9_000, 10), [b.clone(), c.clone(), a]);
    assert_eq!(due(&views, 3_000, 10), due(&views, 9_000, 1));
    assert_eq!(due(&views, 3_000, 10), [b]);
    // What is not written yet lies over what is.
    for (at, record) in placed(&records).skip(6) {
        views.apply(at, record).unwrap();
    }
    assert_eq!(due(&views, 9_000, 10), [c.clone(), d.clone()]);
    drop(views.freeze().expect("something to write"));
    assert_eq!(due(&views, 9_000, 1), [c], "frozen ones too");
}

fn obliged(n: u128, id: &str) -> Event {
    ObligationCreated {
        member_id: member(n),
        obligation_id: id.into(),
        campaign_id: "club".parse().unwrap(),
        campaign_type: "loyalty".into(),
        reward_id: "mug".parse().unwrap(),
        reward_name: "Mug".into(),
        amount: 1,
        origin: Origin::Birthday,
    }
    .into()
}

fn confirmed(n: u128, id: &str) -> Record {
    let (obligation_id, reference) = (id.into(), String::from("paid"));
    record(n, vec![ObligationConfirmed { member_id: member(n), obligation_id, reference }.into()])
}

#[test]
fn items_are_listed_as_they_are_wherever_they_are() {
    let book: CouponBookId = "book".parse().unwrap();
    let codes = |first_place, codes: &[&str]| {
        let codes = codes.iter().map(|code| (*code).to_owned()).collect();
        let filled = CouponsAdded { coupon_book_id: book.clone(), first_place, codes };
        Record { member: None, ..record(0, vec![filled.into()]) }
    };
    let records = [
        created(1, &["x"]),
        record(1, vec![obliged(1, "ob-1"), obliged(1, "ob-3")]),
        codes(0, &["C", "A"]),
        confirmed(1, "ob-1"),
        record(1, vec![obliged(1, "ob-2")]),
        codes(2, &["B"]),
    ];
    for first in 1..5 {
        check(first, &records);
    }
    let disk = MemoryDisk::new();
    fold(&disk, &records, 3);
    let mut views = Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 100).unwrap();
    placed(&records).skip(3).for_each(|(at, record)| views.apply(at, record).unwrap());
    let key = |id: &str| ItemKey::Obligation(id.into());
    let listed = |after: Option<&str>, limit| {
        let found = views.items(TENANT, &ItemList::Obligations, after.map(key).as_ref(), limit).unwrap();
        let one = |item: &Item| item.obligation().map(|o| (o.obligation_id.clone(), o.confirmed_at.is_some()));
        found.iter().filter_map(one).collect::<Vec<_>>()
    };
    let [one, two, three] = [("ob-1", true), ("ob-2", false), ("ob-3", false)].map(|(id, paid)| (id.to_owned(), paid));
    assert_eq!(listed(None, 10), [one.clone(), two.clone(), three.clone()]);
    assert_eq!(listed(None, 1), [one]);
    assert_eq!(listed(Some("ob-1"), 2), [two, three]);
    let coupons = views.items(TENANT, &ItemList::Coupons(book.clone()), None, 10).unwrap();
    let places: Vec<_> = coupons.iter().filter_map(|i| i.coupon()).map(|c| (c.code.as_str(), c.place)).collect();
    assert_eq!(places, [("A", 1), ("B", 2), ("C", 0)]);
    let at_place = views.item(TENANT, &ItemKey::Place(book.clone(), 2)).unwrap().unwrap();
    assert_eq!(at_place.body, Body::Place("B".into()));
    assert_eq!(views.item(TENANT, &ItemKey::Place(book, 3)).unwrap(), None);
}

#[test]
fn a_walk_over_members_sees_each_once_wherever_it_is() {
    const MEMBERS: u128 = 60;
    let (disk, other) = (MemoryDisk::new(), Tenant { environment: Environment::Staging, ..TENANT });
    let rows: Arc<dyn Rows> = Arc::new(disk.rows());
    let mut views = Views::open(rows.clone(), Arc::new(disk.member_keys()), 5).unwrap();
    let mut at = Sequence(1);
    // A third is on disk, a third frozen, a third new; some are in two of them.
    for part in 0..3 {
        for n in 1..=MEMBERS {
            let place = (n % 5) as u32 % 3;
            let again = n.is_multiple_of(7) && part > place;
            if place != part && !again {
                continue;
            }
            let name = n.to_string();
            let mut one = if again { record(n, vec![updated(n, &[&name, "again"])]) } else { created(n, &[&name]) };
            views.apply(at, &one).unwrap();
            one.tenant = other;
            views.apply(at.next(), &one).unwrap();
            at = at.next().next();
        }
        if part == 0 {
            let overlay = views.freeze().unwrap();
            write_behind(&*rows, &disk.member_keys(), &overlay, || {}).unwrap();
            drop(overlay);
            views.written();
        } else if part == 1 {
            drop(views.freeze().unwrap());
        }
    }
    for limit in [1, 7, 60, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let slice = views.members(TENANT, after, limit).unwrap();
            assert!(slice.iter().all(|m| m.tenant == TENANT) && slice.len() <= limit);
            seen.extend(slice.iter().map(|m| (m.id, m.identifiers.len())));
            after = slice.last().map(|m| m.id);
            if slice.len() < limit {
                break;
            }
        }
        let count = |n: u128| if n.is_multiple_of(7) && (n % 5) % 3 < 2 { 2 } else { 1 };
        let expected: Vec<_> = (1..=MEMBERS).map(|n| (member(n), count(n))).collect();
        assert_eq!(seen, expected, "slices of {limit}");
    }
}
