//! Ids that were used up are found for ever, wherever the power goes while they are written behind.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use punchline_engine::event::{CommandKey, FactPublished, Json, Record};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, Sequence, Tenant};
use punchline_engine::time::UnixMillis;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::RowsError;
use punchline_storage::views::{Views, compare, write_behind};

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };
/// More than a run of the lowest tier may have, so that merges have merges above them.
const OVERLAY: u64 = 1_100;

fn key(n: u64) -> CommandKey {
    CommandKey::Consumption(format!("c{n}"))
}

fn record(n: u64) -> Record {
    let nothing = FactPublished {
        source: String::new(),
        fact_id: String::new(),
        fact_type: String::new(),
        member_id: None,
        occurred_at: UnixMillis(0),
        properties: Json::empty(),
        personal: Json::empty(),
    };
    let (time, key, events) = (UnixMillis(0), Some(key(n)), vec![nothing.into()]);
    Record { tenant: TENANT, time, member: None, key_slot: KeySlot::NONE, key, quiet: false, events }
}

fn open(disk: &MemoryDisk) -> Views {
    Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 10).unwrap()
}

/// Uses up ids until there are `total`, and writes them behind `overlay` at a time.
fn fold(disk: &MemoryDisk, views: &mut Views, total: u64, overlay: u64) -> Result<(), RowsError> {
    while views.applied().0 < total {
        let next = views.applied().0 + 1;
        for n in next..=total.min(next + overlay - 1) {
            views.apply(Sequence(n), &record(n)).unwrap();
        }
        let frozen = views.freeze().expect("something to write");
        write_behind(&disk.rows(), &disk.member_keys(), &frozen, || {})?;
        drop(frozen);
        views.written();
    }
    Ok(())
}

fn check_found(views: &Views, upto: u64, step: usize) {
    for n in (1..=upto).rev().step_by(step) {
        assert_eq!(views.seen(TENANT, &key(n)).unwrap(), Some(Sequence(n)));
    }
}

#[test]
fn no_id_is_lost_whenever_the_power_goes() {
    const TOTAL: u64 = 18 * OVERLAY;
    let expected = MemoryDisk::new();
    fold(&expected, &mut open(&expected), TOTAL, TOTAL).unwrap();
    let mut before = 0;
    for (cut, seed) in (1..).flat_map(|cut| (0..4).map(move |seed| (cut, seed))) {
        let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(cut), ..Faults::default() });
        if fold(&disk, &mut open(&disk), TOTAL, OVERLAY).is_ok() {
            assert_eq!(cut, 2 * 18 + 1, "a sync for the rows and one for the checkpoint");
            break;
        }
        let disk = disk.after_power_cut(seed);
        let mut views = open(&disk);
        let checkpoint = views.checkpoint().0;
        assert!(checkpoint >= (cut - 1) / 2 * OVERLAY, "cut at {cut}: the checkpoint is {checkpoint}");
        check_found(&views, checkpoint, 1);
        assert_eq!(views.seen(TENANT, &key(TOTAL + 1)).unwrap(), None);
        before += u64::from(views.seen(TENANT, &key(checkpoint + 1)).unwrap().is_some());
        // Cut to other pieces than they were.
        fold(&disk, &mut views, TOTAL, OVERLAY / 2 + 100 * seed).unwrap();
        check_found(&views, TOTAL, 1);
        check_found(&open(&disk), TOTAL, 17);
        let differs = compare(&disk.rows(), &expected.rows()).unwrap();
        assert_eq!(differs, Ok(TOTAL + 3), "cut at {cut}, seed {seed}: ids and the rows of meta");
    }
    assert!(before > 10, "ids beyond the checkpoint were on disk: {before}");
}

#[test]
fn an_id_is_found_between_any_two_steps_of_writing() {
    let disk = MemoryDisk::new();
    let mut views = open(&disk);
    for overlay in 1..=30 {
        fold(&disk, &mut views, overlay * OVERLAY, OVERLAY).unwrap();
        let upto = views.applied().0;
        for n in upto + 1..=upto + 10 {
            views.apply(Sequence(n), &record(n)).unwrap();
        }
        check_found(&views, upto + 10, 13);
        let frozen = views.freeze().expect("something to write");
        check_found(&views, upto + 10, 13);
        views.apply(Sequence(upto + 11), &record(upto + 11)).unwrap();
        write_behind(&disk.rows(), &disk.member_keys(), &frozen, || {}).unwrap();
        // With the runs as they were before.
        check_found(&views, upto + 11, 1);
        views.written();
        check_found(&views, upto + 11, 13);
    }
}
