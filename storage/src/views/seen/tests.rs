use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::memory::{MemoryDisk, MemoryRows};
use crate::rows::{Row, RowChange};
use crate::views::verify::Difference;

type Ids = HashMap<Hash, Sequence>;

fn hash(n: u64) -> Hash {
    Sha256::digest(n.to_be_bytes())[..16].try_into().unwrap()
}

/// Ids numbered like their positions.
fn ids(numbers: impl IntoIterator<Item = u64>) -> Ids {
    numbers.into_iter().map(|n| (hash(n), Sequence(n))).collect()
}

fn write(index: &SeenIndex, rows: &dyn Rows, ids: &Ids) -> Result<(), RowsError> {
    index.write(&mut Writer::new(rows, &mut || {}), ids)
}

/// Rows of nothing but these ids, written at once.
fn fresh(ids: &Ids) -> MemoryRows {
    let rows = MemoryDisk::new().rows();
    write(&SeenIndex::default(), &rows, ids).unwrap();
    rows
}

fn find(runs: &Runs, rows: &dyn Rows, n: u64) -> Option<u64> {
    runs.find(rows, &hash(n)).unwrap().map(|sequence| sequence.0)
}

/// Runs that have rows.
fn stored_runs(rows: &dyn Rows) -> BTreeSet<u64> {
    let keys = rows.scan(Table::Seen, &[0, 0, 0, 0, 0, 0, 0, 1], usize::MAX).unwrap();
    keys.iter().map(|(key, _)| u64::from_be_bytes(*key.first_chunk().unwrap())).collect()
}

fn listed_runs(rows: &dyn Rows) -> BTreeSet<u64> {
    let manifest = Manifest::load(rows).unwrap();
    let targets = manifest.merges.iter().map(|merge| merge.target.id);
    manifest.runs.iter().map(|run| run.id).chain(targets).collect()
}

/// Writes nothing new until no merge is under way and only what is listed has rows.
fn settle(index: &SeenIndex, rows: &dyn Rows) {
    let is_settled = || Manifest::load(rows).unwrap().merges.is_empty() && stored_runs(rows) == listed_runs(rows);
    let settled = (0..1_000).any(|_| {
        write(index, rows, &Ids::new()).unwrap();
        is_settled()
    });
    assert!(settled, "{:?} have rows, {:?} are listed", stored_runs(rows), listed_runs(rows));
}

/// Rows that count what is done to them.
struct Counting {
    rows: MemoryRows,
    read: AtomicU64,
    entries_written: AtomicU64,
    deleted: AtomicU64,
}

impl Counting {
    fn new() -> Counting {
        let zero = AtomicU64::default;
        Counting { rows: MemoryDisk::new().rows(), read: zero(), entries_written: zero(), deleted: zero() }
    }
}

impl Rows for Counting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.rows.get(table, key)
    }

    fn write(&self, table: Table, changes: &[RowChange]) -> Result<(), RowsError> {
        for (key, value) in changes {
            match value {
                Some(chunk) if key.get(8) == Some(&b'c') => {
                    self.entries_written.fetch_add(chunk.len() as u64 / 16, Ordering::Relaxed);
                }
                Some(_) => {}
                None => drop(self.deleted.fetch_add(1, Ordering::Relaxed)),
            }
        }
        self.rows.write(table, changes)
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<Row>, RowsError> {
        self.rows.scan(table, from, limit)
    }

    fn sync(&self) -> Result<(), RowsError> {
        self.rows.sync()
    }

    fn size_bytes(&self) -> u64 {
        self.rows.size_bytes()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// New ids.
    Write(u64),
    /// A new process.
    Reopen,
    /// New ids, and the power goes before they are synced; then they are applied again.
    Cut(u64, u64),
    /// New ids on a disk that is full, then again on one that has room.
    Full(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let many = || prop_oneof![3 => 0..40u64, 3 => 900..3_000u64, 1 => 8_000..30_000u64];
    prop_oneof![
        8 => many().prop_map(Step::Write),
        1 => Just(Step::Reopen),
        2 => (many(), any::<u64>()).prop_map(|(ids, seed)| Step::Cut(ids, seed)),
        1 => many().prop_map(Step::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_found_whatever_happens(steps in proptest::collection::vec(step(), 1..60)) {
        let mut disk = MemoryDisk::new();
        let mut index = SeenIndex::open(&disk.rows()).unwrap();
        let mut model: BTreeMap<Hash, Sequence> = BTreeMap::new();
        let mut used = 0;
        for step in steps {
            let mut new = |count: u64| {
                used += count;
                ids(used - count + 1..=used)
            };
            match step {
                Step::Write(count) => {
                    let ids = new(count);
                    write(&index, &disk.rows(), &ids).unwrap();
                    model.extend(ids);
                }
                Step::Reopen => index = SeenIndex::open(&disk.rows()).unwrap(),
                Step::Cut(count, seed) => {
                    let ids = new(count);
                    write(&index, &disk.rows(), &ids).unwrap();
                    disk = disk.after_power_cut(seed);
                    index = SeenIndex::open(&disk.rows()).unwrap();
                    for (hash, sequence) in model.iter().step_by(97) {
                        prop_assert_eq!(index.runs().find(&disk.rows(), hash).unwrap(), Some(*sequence));
                    }
                    for (hash, sequence) in &ids {
                        let found = index.runs().find(&disk.rows(), hash).unwrap();
                        prop_assert!(found.is_none_or(|found| found == *sequence));
                    }
                    write(&index, &disk.rows(), &ids).unwrap();
                    model.extend(ids);
                }
                Step::Full(count) => {
                    let ids = new(count);
                    disk.set_full(true);
                    prop_assert!(write(&index, &disk.rows(), &ids).is_err() || count == 0);
                    disk.set_full(false);
                    write(&index, &disk.rows(), &ids).unwrap();
                    model.extend(ids);
                }
            }
            disk.rows().sync().unwrap();
            for n in (1..=used).rev().step_by(1 + used as usize / 50) {
                prop_assert_eq!(find(&index.runs(), &disk.rows(), n), Some(n));
                prop_assert_eq!(find(&index.runs(), &disk.rows(), n + (1 << 40)), None);
            }
        }
        let (rows, count) = (disk.rows(), model.len() as u64);
        let runs = index.runs();
        for (hash, sequence) in &model {
            prop_assert_eq!(runs.find(&rows, hash).unwrap(), Some(*sequence));
        }
        prop_assert_eq!(compare(&rows, &fresh(&model.into_iter().collect())).unwrap(), Ok(count));
        settle(&index, &rows);
        prop_assert_eq!(compare(&rows, &rows).unwrap(), Ok(count));
    }
}

/// Numbers that look random, the same each time.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

/// Writes overlays of the sizes until there are `total` ids; what each costs, and how many runs there are, must
/// stay within bounds that grow with the logarithm of the ids there are.
fn check_costs(total: u64, mut size: impl FnMut() -> u64) {
    let (rows, index) = (Counting::new(), SeenIndex::default());
    let (mut there, mut most_runs, mut longest_merge) = (0, 0, 0);
    while there < total {
        let new = size();
        let (written, deleted) = (rows.entries_written.load(Ordering::Relaxed), rows.deleted.load(Ordering::Relaxed));
        write(&index, &rows, &ids(there + 1..=there + new)).unwrap();
        there += new;
        let tiers = (there as f64 / 1024.0).max(1.0).log(4.0) as u64 + 1;
        let written = rows.entries_written.load(Ordering::Relaxed) - written;
        // Itself, the merges, and what is in memory of the last part of each of them.
        let bound = new + (tiers + 3) * new + 8_192 + (tiers + 1) * 8_192;
        assert!(written <= bound, "{new} of {there} ids wrote {written} entries, more than {bound}");
        let deleted = rows.deleted.load(Ordering::Relaxed) - deleted;
        assert!(deleted <= bound / 64 + 100, "{new} of {there} ids deleted {deleted} rows");
        let runs = index.runs().0.len() as u64;
        assert!(runs <= 3 * (tiers + 1), "{there} ids are in {runs} runs");
        most_runs = most_runs.max(runs);
        longest_merge = longest_merge
            .max(Manifest::load(&rows).unwrap().merges.iter().map(|m| m.target.entries).max().unwrap_or(0));
    }
    let amplification = rows.entries_written.load(Ordering::Relaxed) / total;
    println!("{total} ids: at most {most_runs} runs, {amplification} entries written for each, {longest_merge}");
    assert!(longest_merge > total / 8, "large merges were under way for more than one write: {longest_merge}");
    settle(&index, &rows);
    assert!(stored_runs(&rows).len() as u64 <= 4 * ((total as f64).log(4.0) as u64));
}

#[test]
fn a_write_costs_its_own_ids_and_runs_stay_few() {
    let mut random = numbers(1);
    check_costs(300_000, || 1_000);
    check_costs(1_000_000, || 40_000);
    check_costs(600_000, || 1 + random(9_000));
    let mut random = numbers(2);
    // Long calm, and bursts.
    check_costs(500_000, || if random(40) == 0 { 40_000 } else { 1 + random(20) });
}

#[test]
fn looking_up_an_absent_id_reads_nothing_but_where_a_filter_errs() {
    const ABSENT: u64 = 100_000;
    let (rows, index) = (Counting::new(), SeenIndex::default());
    let mut random = numbers(3);
    let mut there = 0;
    while there < 400_000 {
        let new = 1 + random(20_000);
        write(&index, &rows, &ids(there + 1..=there + new)).unwrap();
        there += new;
    }
    let runs = index.runs();
    assert!(runs.0.len() >= 4, "{}", runs.0.len());
    let read = || rows.read.swap(0, Ordering::Relaxed);
    read();
    for n in there + 1..=there + ABSENT {
        assert_eq!(find(&runs, &rows, n), None);
    }
    let asked = ABSENT * runs.0.len() as u64;
    let erred = read();
    assert!(erred > 0 && erred * 300 < asked, "{erred} of {asked} were let through");
    for n in 1..=ABSENT {
        assert_eq!(find(&runs, &rows, n), Some(n));
    }
    let (read, most) = (read(), ABSENT + asked / 300);
    assert!(read >= ABSENT && read <= most, "{read} rows read for {ABSENT} ids");
}

#[test]
fn a_merge_goes_on_where_the_last_process_left_it() {
    let rows = Counting::new();
    let mut there = 0;
    let mut index = SeenIndex::default();
    let mut merging = BTreeMap::new();
    let mut gone_on = 0;
    for _ in 0..120 {
        write(&index, &rows, &ids(there + 1..=there + 10_000)).unwrap();
        there += 10_000;
        index = SeenIndex::open(&rows).unwrap();
        for merge in Manifest::load(&rows).unwrap().merges {
            let before = merging.insert(merge.target.id, merge.target.entries).unwrap_or(0);
            assert!(merge.target.entries >= before, "run {} had {before} entries", merge.target.id);
            gone_on += u64::from(before > 0 && merge.target.entries > before);
        }
    }
    assert!(gone_on > 10, "{gone_on}");
    // What is in memory of a part that is not full is merged again.
    let written = rows.entries_written.load(Ordering::Relaxed);
    assert!(written < 12 * there, "{written} entries written for {there} ids");
    settle(&index, &rows);
    let expected = fresh(&ids(1..=there));
    assert_eq!(compare(&rows, &expected).unwrap(), Ok(there));
    assert_eq!(index.runs().0.iter().map(|run| run.extent.entries).sum::<u64>(), there);
}

#[test]
fn what_a_crash_leaves_is_deleted() {
    let mut left = 0;
    for seed in 0..40 {
        let disk = MemoryDisk::new();
        let index = SeenIndex::default();
        for n in 0..20 {
            write(&index, &disk.rows(), &ids(n * 2_000 + 1..=(n + 1) * 2_000)).unwrap();
        }
        disk.rows().sync().unwrap();
        write(&index, &disk.rows(), &ids(40_001..=60_000)).unwrap();
        let disk = disk.after_power_cut(seed);
        let rows = disk.rows();
        let unlisted: BTreeSet<u64> = stored_runs(&rows).difference(&listed_runs(&rows)).copied().collect();
        left += unlisted.len();
        let index = SeenIndex::open(&rows).unwrap();
        assert!(unlisted.is_subset(&stored_runs(&rows)), "opening deletes nothing");
        write(&index, &rows, &ids(40_001..=60_000)).unwrap();
        assert!(listed_runs(&rows).is_disjoint(&unlisted), "ids of runs are not given again");
        settle(&index, &rows);
        assert_eq!(compare(&rows, &fresh(&ids(1..=60_000))).unwrap(), Ok(60_000), "seed {seed}");
    }
    assert!(left > 20, "{left}");
}

#[test]
fn runs_that_were_replaced_are_there_until_the_next_write() {
    let rows = MemoryDisk::new().rows();
    let index = SeenIndex::default();
    for n in 0..40 {
        // One that was opened before the last write, as who folds anew may find it.
        let other = SeenIndex::open(&rows).unwrap();
        let before = other.runs();
        write(&index, &rows, &ids(n * 1_000 + 1..=(n + 1) * 1_000)).unwrap();
        if n % 3 == 0 {
            write(&other, &rows, &ids([100_000 + n])).unwrap();
            assert_eq!(find(&other.runs(), &rows, 100_000 + n), Some(100_000 + n));
            assert_eq!(find(&other.runs(), &rows, (n + 1) * 1_000), Some((n + 1) * 1_000));
        }
        for id in (1..=n * 1_000).step_by(7) {
            assert_eq!(find(&before, &rows, id), Some(id), "{id} after {n}");
        }
    }
    write(&index, &rows, &Ids::new()).unwrap();
    let extra = (0..40).filter(|n| n % 3 == 0).map(|n| 100_000 + n);
    assert_eq!(compare(&rows, &fresh(&ids((1..=40_000).chain(extra)))).unwrap(), Ok(40_014));
}

#[test]
fn of_two_ids_with_one_prefix_the_lower_position_stays() {
    let (mut first, mut second) = (hash(1), hash(1));
    (first[15], second[15]) = (1, 2);
    let rows = MemoryDisk::new().rows();
    let index = SeenIndex::default();
    for (hash, sequence) in [(first, 8), (second, 5), (first, 8), (first, 8)] {
        write(&index, &rows, &Ids::from([(hash, Sequence(sequence))])).unwrap();
    }
    settle(&index, &rows);
    assert_eq!(index.runs().0.len(), 1);
    assert_eq!(index.runs().find(&rows, &first).unwrap(), Some(Sequence(5)));
    let at_once = fresh(&Ids::from([(first, Sequence(8)), (second, Sequence(5))]));
    assert_eq!(compare(&rows, &at_once).unwrap(), Ok(1));
}

/// Compares 3 000 ids in three runs, after `change`, with those that the journal has.
fn check_difference(change: impl FnOnce(&MemoryRows, &mut Ids)) -> Option<Difference> {
    let rows = MemoryDisk::new().rows();
    let index = SeenIndex::default();
    for n in 0..3 {
        write(&index, &rows, &ids(n * 1_000 + 1..=(n + 1) * 1_000)).unwrap();
    }
    let mut expected = ids(1..=3_000);
    change(&rows, &mut expected);
    compare(&rows, &fresh(&expected)).unwrap().err()
}

#[test]
fn comparing_finds_what_differs() {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let difference = |key: &[u8], what| Some(Difference { table: Table::Seen, key: hex(key), what });
    assert_eq!(check_difference(|_, _| {}), None);
    let found = check_difference(|_, expected| _ = expected.remove(&hash(1_500)));
    assert_eq!(found, difference(&hash(1_500)[..10], "is stored, but the journal does not have it"));
    let found = check_difference(|_, expected| expected.extend(ids([3_001])));
    assert_eq!(found, difference(&hash(3_001)[..10], "is missing, the journal has it"));
    let found = check_difference(|_, expected| _ = expected.insert(hash(7), Sequence(8)));
    assert_eq!(found, difference(&hash(7)[..10], "differs from what the journal comes to"));
    // A bit of a filter.
    let part = Extent { id: 2, entries: 1_000 }.part_key(0);
    let found = check_difference(|rows, _| {
        let mut row = rows.get(Table::Seen, &part).unwrap().unwrap();
        let at = row.iter().rposition(|byte| *byte != 0).unwrap();
        row[at] &= row[at] - 1;
        rows.write(Table::Seen, &[(part.clone(), Some(row))]).unwrap();
    });
    assert_eq!(found, difference(&part, "does not lead to its ids"));
    // Two entries that changed places.
    let chunk = [&2_u64.to_be_bytes()[..], b"c", &1_u32.to_be_bytes()].concat();
    let found = check_difference(|rows, _| {
        let mut row = rows.get(Table::Seen, &chunk).unwrap().unwrap();
        row[..32].rotate_left(16);
        rows.write(Table::Seen, &[(chunk, Some(row))]).unwrap();
    });
    assert_eq!(found.unwrap().what, "is not in its order");
}

#[test]
fn what_is_damaged_is_said() {
    let check = |key: &[u8], value: Option<&[u8]>| {
        let rows = fresh(&ids(1..=10));
        rows.write(Table::Seen, &[(key.to_vec(), value.map(<[u8]>::to_vec))]).unwrap();
        let found = SeenIndex::open(&rows).and_then(|index| index.runs().find(&rows, &hash(1)));
        let error = found.unwrap_err();
        assert!(error.is_damage(), "{error}");
        error.to_string()
    };
    let said = |what: &str| format!("views views are damaged: view seen: {what}");
    let run = 1_u64.to_be_bytes();
    let (part, chunk) = ([&run[..], b"p\0\0\0\0"].concat(), [&run[..], b"c\0\0\0\0"].concat());
    assert_eq!(check(&[0; 8], Some(&[1])), said("the manifest is none"));
    assert_eq!(check(&part, None), said("part 0 of run 1 is not one of 10 entries"));
    assert_eq!(check(&part, Some(&[0; 10 + 128])), said("part 0 of run 1 is not one of 10 entries"));
    assert_eq!(check(&chunk, Some(&[0; 16])), said("chunk 0 of run 1 has 16 bytes, not 160"));
    // A row of version 2 of the format.
    assert_eq!(check(&[7, 8], Some(&[0; 22])), said("a key of 2 bytes is no run's"));
}

#[test]
fn bytes_are_as_they_are_drawn() {
    let ids = Ids::from([([0x22; 16], Sequence(7)), ([0x11; 16], Sequence(0x0102_0304_0506))]);
    let rows = fresh(&ids).scan(Table::Seen, &[], 10).unwrap();
    let [(manifest, listed), (chunk, entries), (part, filter)] = &rows[..] else { panic!("{} rows", rows.len()) };
    let numbers = |numbers: &[u64]| -> Vec<u8> { numbers.iter().copied().flat_map(u64::to_be_bytes).collect() };
    assert_eq!((manifest, listed), (&vec![0; 8], &numbers(&[1, 1, 2, 0])));
    assert_eq!(chunk, b"\0\0\0\0\0\0\0\x01c\0\0\0\0");
    let sorted = [&[0x11; 10][..], &[1, 2, 3, 4, 5, 6], &[0x22; 10], &[0, 0, 0, 0, 0, 7]].concat();
    assert_eq!(entries, &sorted);
    assert_eq!(part, b"\0\0\0\0\0\0\0\x01p\0\0\0\0");
    assert_eq!((&filter[..10], filter.len()), (&[0x11; 10][..], 10 + 64));
    // Of the last 8 bytes h of the 10, bit (h × 0x9e3779b97f4a7c15) >> (16 + 6 w) & 63 of word w.
    let word = |w: u64| {
        let bit = |h: u64| 1_u64 << (h.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (16 + 6 * w) & 63);
        bit(0x1111_1111_1111_1111) | bit(0x2222_2222_2222_2222)
    };
    assert_eq!(filter[10..], (0..8).map(word).flat_map(u64::to_be_bytes).collect::<Vec<_>>());
    let manifest = Manifest {
        runs: vec![Extent { id: 9, entries: 5 }],
        merges: vec![Planned { target: Extent { id: 10, entries: 8_192 }, sources: vec![3, 4] }],
    };
    assert_eq!(manifest.encode(), numbers(&[1, 9, 5, 1, 10, 8_192, 2, 3, 4]));
}
