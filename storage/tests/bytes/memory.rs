//! Opening, and what power cuts and failing disks leave, in memory.

use std::collections::{BTreeMap, BTreeSet};

use punchline_storage::{
    block::{BlockBuilder, BlockHash},
    journal::{Damage, Journal, JournalError, verify_chain},
    layout::Table,
    memory::{AppendFault, Faults, MemoryDisk},
    rows::Rows,
};

use crate::write::{append, blocks_after, check_all};

/// Five blocks in five appends; block `n` (from 1) begins at 6n - 5.
fn five() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(1).unwrap();
    (0..5).for_each(|_| append(&journal, 1));
    disk
}

#[test]
fn damage_that_was_once_on_disk_refuses() {
    let check = |what: &str, block: u64, from: u64, damage: fn(&MemoryDisk, u64)| {
        let disk = five();
        let first = block * 6 - 5;
        damage(&disk, first);
        match disk.journal(from) {
            Err(JournalError::Corrupt { sequence, .. }) => assert_eq!(sequence, first, "{what}"),
            other => panic!("{what} in block {block} from {from}: {:?}", other.map(|(_, report)| report)),
        }
    };
    for block in 1..=4 {
        check("flipped body", block, 1, |disk, first| disk.corrupt_block(first, 100));
        check("flipped header", block, 1, |disk, first| disk.corrupt_block(first, 30));
        check("lost", block, 1, |disk, first| disk.lose_block(first));
    }
    // Nothing in the journal proves that the last was on disk, but the checkpoint may.
    check("flipped last, checkpoint after", 5, 31, |disk, first| disk.corrupt_block(first, 100));
    check("flipped last, checkpoint in it", 5, 27, |disk, first| disk.corrupt_block(first, 100));
    check("lost last, checkpoint after", 5, 31, |disk, first| disk.lose_block(first));
}

#[test]
fn verification_begins_at_the_checkpoint() {
    let disk = five();
    disk.corrupt_block(7, 100);
    let (journal, report) = disk.journal(20).unwrap();
    assert_eq!((report.head, report.cut_off), (30, None));
    let error = verify_chain(&journal, 1, |_| {}).unwrap_err();
    assert!(matches!(error, JournalError::Corrupt { sequence: 7, .. }), "{error}");
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let disk = five();
    disk.corrupt_block(25, 100);
    let (journal, report) = disk.journal(1).unwrap();
    let cut = report.cut_off.unwrap();
    assert_eq!((report.head, cut.from_sequence, cut.blocks), (24, 25, 1));
    assert!(matches!(cut.why, Damage::Block(_)), "{}", cut.why);
    append(&journal, 2);
    check_all(&journal);
    assert_eq!(disk.journal(1).unwrap().1.cut_off, None, "cut off once and for all");
}

#[test]
fn a_chain_that_does_not_hold_refuses() {
    // Two journals of the same shape: the third block of one does not follow the second of the other.
    let disk = MemoryDisk::new();
    let (journal, _) = disk.journal(1).unwrap();
    let mut builder = BlockBuilder::new();
    builder.push(b"another beginning", 6).unwrap();
    let other = builder.finish(1, 0, BlockHash::NONE);
    let mut blocks = blocks_after(0, BlockHash::NONE, 1);
    blocks.extend(blocks_after(6, other.hash, 1));
    // Claim the right predecessor so that the append lets it through, as a buggy writer would.
    blocks[1].previous_hash = blocks[0].hash;
    blocks[1].synced_to = 0;
    journal.append(1, &blocks).unwrap();
    append(&journal, 1);
    let error = disk.journal(1).unwrap_err();
    let JournalError::Corrupt { sequence: 7, what: Damage::Chain { named, .. }, .. } = error else { panic!("{error}") };
    assert_eq!(named, other.hash);
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_acknowledged() {
    let mut tails = BTreeSet::new();
    let mut cuts = 0;
    for sync in 1..=12 {
        let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(sync), ..Faults::default() });
        let mut acknowledged = 0;
        if let Ok((journal, _)) = disk.journal(1) {
            for _ in 0..10 {
                let blocks = blocks_after(journal.head(), journal.head_hash(), 3);
                match journal.append(journal.head() + 1, &blocks) {
                    Ok(()) => acknowledged = blocks[2].last_sequence,
                    Err(error) => {
                        assert!(matches!(error, JournalError::Io { .. }), "{error}");
                        let error = journal.append(journal.head() + 1, &blocks).unwrap_err();
                        assert!(matches!(error, JournalError::Stopped { .. }), "{error}");
                        assert!(journal.reopen().is_err(), "there is no power");
                        break;
                    }
                }
            }
            assert_eq!(journal.head(), acknowledged);
        }
        assert_eq!(disk.power_lost(), sync <= 11, "1 sync to open, 10 to append");
        for seed in 0..40 {
            let disk = disk.after_power_cut(seed);
            let (journal, report) = disk.journal(acknowledged + 1).unwrap();
            assert!(journal.head() >= acknowledged, "sync {sync} seed {seed}");
            check_all(&journal);
            verify_chain(&journal, 1, |_| {}).unwrap();
            tails.insert(((report.head - acknowledged) / 6, report.cut_off.is_some()));
            cuts += u32::from(report.cut_off.is_some());
            append(&journal, 2);
            check_all(&journal);
        }
    }
    assert!(cuts > 50 && tails.len() >= 5, "the seeds tear in many ways: {tails:?}");
}

#[test]
fn failed_appends_stop_until_reopened() {
    for (fault, full) in [(AppendFault::Full, true), (AppendFault::Io, false)] {
        let disk = MemoryDisk::with_faults(Faults { appends: BTreeMap::from([(2, fault)]), ..Faults::default() });
        let (journal, _) = disk.journal(1).unwrap();
        append(&journal, 4);
        let (head, hash) = (journal.head(), journal.head_hash());
        let blocks = blocks_after(head, hash, 4);
        let error = journal.append(head + 1, &blocks).unwrap_err();
        assert_eq!(error.is_storage_full(), full, "{error}");
        assert!(matches!(journal.append(head + 1, &blocks), Err(JournalError::Stopped { .. })));
        assert_eq!((journal.head(), journal.head_hash()), (head, hash));
        check_all(&journal);
        assert_eq!(journal.reopen().unwrap(), head);
        journal.append(head + 1, &blocks).unwrap();
        check_all(&journal);
        assert_eq!(disk.journal(1).unwrap().1.cut_off, None);
    }
}

#[test]
fn a_full_disk_reads_but_does_not_write() {
    let disk = five();
    let (journal, _) = disk.journal(1).unwrap();
    let rows = disk.rows();
    disk.set_full(true);
    let blocks = blocks_after(journal.head(), journal.head_hash(), 1);
    assert!(journal.append(31, &blocks).unwrap_err().is_storage_full());
    assert!(journal.reopen().unwrap_err().is_storage_full());
    assert!(rows.write(Table::Meta, &[(b"k".to_vec(), Some(vec![]))]).unwrap_err().is_storage_full());
    check_all(&journal);
    disk.set_full(false);
    assert_eq!(journal.reopen().unwrap(), 30);
    journal.append(31, &blocks).unwrap();
    check_all(&journal);
}

#[test]
fn a_killed_process_leaves_what_it_wrote() {
    let disk = MemoryDisk::with_faults(Faults { power_cut_at_sync: Some(2), ..Faults::default() });
    let (journal, _) = disk.journal(1).unwrap();
    assert!(journal.append(1, &blocks_after(0, BlockHash::NONE, 2)).is_err());
    let disk = disk.after_kill();
    // Opening syncs what it finds, so it is there after a power cut that follows.
    assert_eq!(disk.journal(1).unwrap().1.head, 12);
    assert_eq!(disk.after_power_cut(0).journal(1).unwrap().1.head, 12);
}

#[test]
fn rows_survive_from_their_sync_on_and_in_order() {
    let put = |n: u8| (vec![n], Some(vec![n]));
    let disk = MemoryDisk::new();
    let rows = disk.rows();
    rows.write(Table::Members, &[put(1), put(2), put(3)]).unwrap();
    rows.sync().unwrap();
    rows.write(Table::Members, &[(vec![2], None), put(4)]).unwrap();
    rows.write(Table::Meta, &[put(9)]).unwrap();
    let keys = |disk: &MemoryDisk| {
        let of = |table| disk.rows().scan(table, &[], 9).unwrap().into_iter().map(|(key, _)| key[0]);
        of(Table::Members).chain(of(Table::Meta)).collect::<Vec<_>>()
    };
    assert_eq!(keys(&disk), [1, 3, 4, 9]);
    let left: BTreeSet<_> = (0..60).map(|seed| keys(&disk.after_power_cut(seed))).collect();
    let prefixes: [&[u8]; 4] = [&[1, 2, 3], &[1, 3], &[1, 3, 4], &[1, 3, 4, 9]];
    assert_eq!(left.iter().map(Vec::as_slice).collect::<BTreeSet<_>>(), BTreeSet::from(prefixes));
}
