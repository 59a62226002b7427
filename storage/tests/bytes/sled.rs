//! What holds for sled alone.

use std::{fs, path::Path};

use punchline_storage::{
    block::RECORD_BYTES_MAX,
    journal::{Damage, Journal, JournalError, verify_chain},
    layout::Table,
    rows::Rows,
    sled_journal::SledJournal,
    sled_rows::SledRows,
    sync::sync_calls,
};

use crate::write::{append, check_all, check_block, large_block_after, wait_closed};

fn open(path: &Path, from: u64) -> SledJournal {
    let (journal, report) = SledJournal::open(path, from).unwrap();
    assert_eq!(report.cut_off, None);
    assert_eq!(report.head, journal.head());
    journal
}

/// Opens the database as anyone could, past the journal.
fn meddle(path: &Path, f: impl FnOnce(&sled::Db)) {
    wait_closed(path);
    let db = sled::Config::new().path(path).segment_size(2 * 1024 * 1024).flush_every_ms(None).open().unwrap();
    f(&db);
    db.flush().unwrap();
}

fn key(sequence: u64) -> Vec<u8> {
    [&b"j\0\0"[..], &sequence.to_be_bytes()].concat()
}

#[test]
fn survives_being_dropped_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    for round in 0..5_u64 {
        let journal = open(&path, round * 60 + 1);
        assert_eq!(journal.head(), round * 60);
        append(&journal, 10);
    }
    let journal = open(&path, 1);
    check_all(&journal);
    let hash = journal.head_hash();
    assert_eq!(journal.reopen().unwrap(), 300);
    assert_eq!(journal.head_hash(), hash);
    append(&journal, 1);
    check_all(&journal);
}

#[test]
fn an_append_syncs_through_our_function() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("journal"), 1);
    for _ in 0..3 {
        let before = sync_calls();
        append(&journal, 1);
        assert!(sync_calls() > before, "sled's flush must end in our sync_file_range");
    }
}

#[test]
fn large_blocks_stay_in_the_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path, 1);
    let lens = [1, 24 * 1024 - 60, 24 * 1024 - 59, 100_000, RECORD_BYTES_MAX, 8_000, RECORD_BYTES_MAX, 300_000];
    for len in lens.into_iter().cycle().take(40) {
        let block = large_block_after(journal.head(), journal.head_hash(), len);
        journal.append(journal.head() + 1, &[block]).unwrap();
    }
    check_all(&journal);
    drop(journal);
    let journal = open(&path, 1);
    assert_eq!(verify_chain(&journal, 1, check_block).unwrap(), 40);
    check_all(&journal);
    let blobs = fs::read_dir(path.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled never syncs what it puts there");
}

#[test]
fn trimming_survives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path, 1);
    append(&journal, 10);
    journal.trim(31).unwrap();
    drop(journal);
    let journal = open(&path, 1);
    assert_eq!((journal.first(), journal.head()), (31, 60));
    check_all(&journal);
    drop(journal);
    // The block that trimming left was on disk: without it there is no journal.
    meddle(&path, |db| drop(db.remove(key(31)).unwrap()));
    let error = SledJournal::open(&path, 1).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { sequence: 31, .. }), "{error}");
}

#[test]
fn damage_in_the_middle_refuses_and_in_the_tail_is_cut_off() {
    let spoil = |sequence| {
        move |db: &sled::Db| {
            let mut bytes = db.get(key(sequence)).unwrap().unwrap().to_vec();
            bytes[200] ^= 1;
            db.insert(key(sequence), bytes).unwrap();
        }
    };
    let lose = |sequence| move |db: &sled::Db| drop(db.remove(key(sequence)).unwrap().unwrap());
    let journal_of_ten = || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = open(&path, 1);
        (0..10).for_each(|_| append(&journal, 1));
        (dir, path)
    };
    for sequence in [1, 25, 49] {
        for lost in [false, true] {
            let (_dir, path) = journal_of_ten();
            meddle(&path, |db| if lost { lose(sequence)(db) } else { spoil(sequence)(db) });
            let error = SledJournal::open(&path, 1).unwrap_err();
            let JournalError::Corrupt { sequence: found, .. } = error else { panic!("{error}") };
            assert_eq!(found, sequence, "lost: {lost}");
        }
    }
    let (_dir, path) = journal_of_ten();
    meddle(&path, spoil(55));
    let error = SledJournal::open(&path, 61).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { sequence: 55, what: Damage::Block(_), .. }), "{error}");
    let (journal, report) = SledJournal::open(&path, 1).unwrap();
    let cut = report.cut_off.unwrap();
    assert_eq!((report.head, cut.from_sequence, cut.blocks), (54, 55, 1));
    append(&journal, 3);
    check_all(&journal);
    drop(journal);
    check_all(&open(&path, 1));
}

#[test]
fn a_block_with_a_chunk_missing_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path, 1);
    append(&journal, 1);
    let block = large_block_after(6, journal.head_hash(), 60_000);
    journal.append(7, &[block]).unwrap();
    drop(journal);
    meddle(&path, |db| drop(db.remove([&key(7)[..], &[0, 1]].concat()).unwrap().unwrap()));
    let (journal, report) = SledJournal::open(&path, 1).unwrap();
    assert_eq!((report.head, report.cut_off.unwrap().from_sequence), (6, 7));
    append(&journal, 1);
    check_all(&journal);
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    {
        let journal = open(&path, 1);
        (0..50).for_each(|_| append(&journal, 2));
    }
    wait_closed(&path);
    let sound: Vec<_> = ["db", "conf"].map(|name| (path.join(name), fs::read(path.join(name)).unwrap())).into();
    let used = sound[0].1.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut refused, mut served) = (0, 0);
    for n in 0..30 {
        let mut bytes = sound[0].1.clone();
        bytes[used * n / 30] ^= 4;
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("db"), bytes).unwrap();
        fs::write(path.join("conf"), &sound[1].1).unwrap();
        // The caller knows that 600 was on disk.
        match SledJournal::open(&path, 601) {
            Err(_) => refused += 1,
            Ok((journal, report)) => {
                assert_eq!((report.head, report.cut_off), (600, None), "byte {n}");
                if verify_chain(&journal, 1, check_block).is_err() {
                    refused += 1;
                } else {
                    served += 1;
                }
            }
        }
    }
    assert!(refused >= 5, "{refused} refused, {served} not affected");
}

#[test]
fn rows_survive_their_sync() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("views");
    let key = |n: u32| n.to_be_bytes().to_vec();
    {
        let rows = SledRows::open(&path, 1 << 20).unwrap();
        let put: Vec<_> = (0..3000).map(|n| (key(n), Some(vec![n as u8; n as usize % 900]))).collect();
        rows.write(Table::Members, &put).unwrap();
        rows.write(Table::Members, &[(key(7), None)]).unwrap();
        // A page that sled puts into a file of its own.
        rows.write(Table::Seen, &[(key(1), Some(vec![5; 900_000]))]).unwrap();
        rows.sync().unwrap();
        assert!(rows.size_bytes() > 900_000);
    }
    assert!(fs::read_dir(path.join("blobs")).unwrap().count() > 0);
    let rows = SledRows::open(&path, 1 << 20).unwrap();
    assert_eq!(rows.get(Table::Members, &key(7)).unwrap(), None);
    assert_eq!(rows.get(Table::Seen, &key(1)).unwrap().unwrap().len(), 900_000);
    assert_eq!(rows.get(Table::Ledger, &key(1)).unwrap(), None, "tables are apart");
    let page = rows.scan(Table::Members, &key(6), 3).unwrap();
    assert_eq!(page.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(6), key(8), key(9)]);
    assert_eq!(rows.scan(Table::Members, &[], usize::MAX).unwrap().len(), 2999);
}
