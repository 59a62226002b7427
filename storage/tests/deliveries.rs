//! Deliveries whose rows were being written when the power went: folding what follows the checkpoint again makes
//! them what they would have been.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use punchline_engine::dispatch::{
    DeliveryJob, DeliveryProgress, DeliveryRow, EventSelection, JobKind, JobState, PutBack, RowState,
};
use punchline_engine::event::{
    DeadLettersDropped, DeadLettersRedriven, DeliveryJobAdvanced, DeliveryJobEnded, DeliveryJobStarted,
    DeliveryProgressed, Event, Record,
};
use punchline_engine::id::{AdvertiserId, Environment, JobId, KeySlot, Sequence, SubscriptionId, Tenant};
use punchline_engine::time::UnixMillis;
use punchline_storage::layout::Table;
use punchline_storage::memory::{Faults, MemoryDisk};
use punchline_storage::rows::Rows;
use punchline_storage::views::{Views, compare, write_behind};
use uuid::Uuid;

const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1_000_000_001), environment: Environment::Production };

const SUBSCRIPTION: SubscriptionId = SubscriptionId(Uuid::from_u128(9));
const JOB: JobId = JobId(Uuid::from_u128(7));

fn lines(story: &str) -> impl Iterator<Item = &str> {
    story.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Each line: what happened, and to which deliveries. A job puts back what it looks at.
fn of_deliveries(story: &str) -> Vec<Record> {
    let record = |(at, line): (usize, &str)| {
        let (what, named) = line.split_once(' ').unwrap_or((line, ""));
        let sequences = named.split(' ').filter(|n| !n.is_empty()).map(|n| Sequence(n.parse().expect("a number")));
        let sequences: Vec<Sequence> = sequences.collect();
        let time = UnixMillis(at as i64);
        let subscription_id = SUBSCRIPTION;
        let told = |state| -> Event {
            let row = |sequence: &Sequence| {
                let (sequence, member) = (*sequence, None);
                DeliveryRow { sequence, member, state, attempts: 1, log: Vec::new() }
            };
            let progress = DeliveryProgress { cursor: Sequence(0), rows: sequences.iter().map(row).collect() };
            DeliveryProgressed { subscription_id, progress }.into()
        };
        let event: Event = match what {
            "waits" => told(RowState::Waiting { step: 1, due: time }),
            "dies" => told(RowState::Dead),
            "arrives" => told(RowState::Delivered),
            "redrive" => DeadLettersRedriven { subscription_id, sequences }.into(),
            "drop" => DeadLettersDropped { subscription_id, sequences, reason: String::new() }.into(),
            "job" => DeliveryJobStarted { subscription_id, job: job() }.into(),
            "job-looks-at" => {
                let next_sequence = sequences.iter().max().expect("one at least").next();
                let put_back = sequences.into_iter().map(|sequence| PutBack { sequence, member: None }).collect();
                DeliveryJobAdvanced { subscription_id, job_id: JOB, next_sequence, put_back }.into()
            }
            "job-ends" => {
                DeliveryJobEnded { subscription_id, job_id: JOB, kind: JobKind::Replay, cancelled: false }.into()
            }
            other => panic!("nothing is called {other}"),
        };
        let (member, key_slot, key, quiet, events) = (None, KeySlot::NONE, None, false, vec![event]);
        Record { tenant: TENANT, time, member, key_slot, key, quiet, events }
    };
    lines(story).enumerate().map(record).collect()
}

fn job() -> DeliveryJob {
    DeliveryJob {
        id: JOB,
        kind: JobKind::Replay,
        from_sequence: Sequence(1),
        to_sequence: Sequence(100),
        event_types: EventSelection::all(),
        members: Vec::new(),
        sequences: Vec::new(),
        limit: 0,
        per_second: 0,
        started_at: UnixMillis(0),
        state: JobState::Running,
        next_sequence: Sequence(1),
        put_back: 0,
    }
}

/// Applies what follows the checkpoint of `disk`, up to `upto`, and writes it.
fn fold(disk: &MemoryDisk, records: &[Record], upto: usize) {
    let rows: Arc<dyn Rows> = Arc::new(disk.rows());
    let mut views = Views::open(rows.clone(), Arc::new(disk.member_keys()), 100).unwrap();
    let checkpoint = views.checkpoint().0 as usize;
    for (i, record) in records[..upto].iter().enumerate().skip(checkpoint) {
        views.apply(Sequence(i as u64 + 1), record).unwrap();
    }
    write_behind(&*rows, &disk.member_keys(), &views.freeze().expect("something to write"), || {}).unwrap();
}

/// All rows but those that say how far they go.
fn image(disk: &MemoryDisk) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    let rows = |table| disk.rows().scan(table, &[], 1_000).unwrap().into_iter().map(move |(k, v)| ((table, k), v));
    tables.flat_map(rows).collect()
}

/// Writes `records` with one checkpoint after any of them and the power cut before the second, wherever the
/// power can be cut; what is folded again must be what was folded without a checkpoint.
fn check(records: &[Record]) {
    let expected = MemoryDisk::new();
    fold(&expected, records, records.len());
    for first in 1..records.len() {
        let mut left = BTreeSet::new();
        for seed in 0..200 {
            let disk = MemoryDisk::new();
            fold(&disk, records, first);
            let mut views = Views::open(Arc::new(disk.rows()), Arc::new(disk.member_keys()), 100).unwrap();
            for (i, record) in records.iter().enumerate().skip(first) {
                views.apply(Sequence(i as u64 + 1), record).unwrap();
            }
            disk.set_faults(Faults { power_cut_at_sync: Some(disk.sync_count() + 1), ..Faults::default() });
            assert!(
                write_behind(&disk.rows(), &disk.member_keys(), &views.freeze().expect("something to write"), || {})
                    .is_err()
            );
            let disk = disk.after_power_cut(seed);
            left.insert(image(&disk));
            fold(&disk, records, records.len());
            let differs = compare(&disk.rows(), &expected.rows()).unwrap().err();
            assert_eq!(differs.map(|d| d.to_string()), None, "checkpoint after {first}, seed {seed}");
        }
        let (before, after) = (MemoryDisk::new(), image(&expected));
        fold(&before, records, first);
        let before = image(&before);
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let changes = keys.into_iter().filter(|key| before.get(key) != after.get(key)).count();
        assert_eq!(left.len(), changes + 1, "checkpoint after {first}: the power was cut before and after each row");
    }
}

#[test]
fn what_a_job_puts_back_is_finished_no_more() {
    check(&of_deliveries(
        "
        waits 5 6
        arrives 5
        job
        job-looks-at 5 6 7
        job-ends
        ",
    ));
    check(&of_deliveries(
        "
        dies 5 8
        arrives 6 7
        job
        job-looks-at 5 6
        arrives 5
        waits 6
        job-looks-at 7 8
        dies 8
        arrives 7 6
        job-ends
        ",
    ));
}

#[test]
fn dead_letters_that_are_redriven_or_dropped() {
    check(&of_deliveries(
        "
        dies 5 6 7
        drop 5
        redrive 6
        arrives 6
        drop 7
        ",
    ));
    check(&of_deliveries(
        "
        dies 5 6
        redrive 5 6
        dies 5
        drop 5
        job
        job-looks-at 5 6
        dies 5 6
        drop 6 5
        ",
    )); // Neither was dead when it was to be dropped, and then it died: the row says so before the drop is folded.
    check(&of_deliveries(
        "
        waits 5 6
        drop 5 6
        arrives 7
        dies 5
        drop 5
        dies 6
        ",
    ));
}
