//! What holds for every journal: each story is told to the one in memory and to the one on sled.

use punchline_storage::{
    block::BlockHash,
    journal::{Damage, Journal, JournalError, verify_chain},
    memory::MemoryDisk,
    sled_journal::SledJournal,
};

use crate::write::{append, blocks_after, check_all, check_block};

fn on_each(story: impl Fn(&dyn Journal)) {
    story(&MemoryDisk::new().journal(1).unwrap().0);
    let dir = tempfile::tempdir().unwrap();
    story(&SledJournal::open(&dir.path().join("journal"), 1).unwrap().0);
}

#[test]
fn empty() {
    on_each(|journal| {
        assert_eq!((journal.head(), journal.first(), journal.head_hash()), (0, 1, BlockHash::NONE));
        assert_eq!(journal.read(1).unwrap(), None);
        assert_eq!(verify_chain(journal, 1, |_| {}).unwrap(), 0);
        journal.append(1, &[]).unwrap();
        assert_eq!(journal.head(), 0);
    });
}

#[test]
fn what_was_appended_is_read() {
    on_each(|journal| {
        for count in [1, 7, 2, 30] {
            append(journal, count);
        }
        assert_eq!(journal.head(), 40 * 6);
        check_all(journal);
        let mut seen = 0;
        assert_eq!(
            verify_chain(journal, 1, |block| {
                check_block(block);
                seen += 1
            })
            .unwrap(),
            40
        );
        assert_eq!(seen, 40);
        assert_eq!(verify_chain(journal, 100, check_block).unwrap(), 24, "from the block that holds 100");
    });
}

#[test]
fn whoever_is_behind_is_fenced() {
    on_each(|journal| {
        append(journal, 2);
        let stale = blocks_after(0, BlockHash::NONE, 1);
        for expected_next in [0, 1, 12, 14] {
            let error = journal.append(expected_next, &stale).unwrap_err();
            assert!(matches!(error, JournalError::Fenced { next: 13, .. }), "{error}");
        }
        append(journal, 1);
        check_all(journal);
    });
}

#[test]
fn blocks_must_continue_the_chain() {
    on_each(|journal| {
        append(journal, 1);
        let (head, hash) = (journal.head(), journal.head_hash());
        let refused = |what: &str, blocks: &[_]| {
            let error = journal.append(head + 1, blocks).unwrap_err();
            let JournalError::Misplaced { what: damage, .. } = &error else { panic!("{error}") };
            let found = match damage {
                Damage::Gap { .. } => "gap",
                Damage::Chain { .. } => "chain",
                Damage::Vouching { .. } => "vouching",
                other => panic!("{other}"),
            };
            assert_eq!(found, what);
        };
        let good = blocks_after(head, hash, 3);
        refused("gap", &good[1..]);
        refused("gap", &[good[0].clone(), good[2].clone()]);
        refused("chain", &blocks_after(head, BlockHash([1; 16]), 1));
        let mut vouching = good.clone();
        vouching[1].synced_to = head + 1;
        refused("vouching", &vouching);
        journal.append(head + 1, &good).unwrap();
        check_all(journal);
    });
}

#[test]
fn trimming_removes_whole_blocks_only() {
    on_each(|journal| {
        append(journal, 10);
        for (before, first) in [(0, 1), (6, 1), (7, 7), (12, 7), (31, 31), (7, 31)] {
            journal.trim(before).unwrap();
            assert_eq!(journal.first(), first, "before {before}");
        }
        let error = journal.read(30).unwrap_err();
        assert!(matches!(error, JournalError::Trimmed { sequence: 30, first: 31 }), "{error}");
        check_all(journal);
        journal.trim(u64::MAX).unwrap();
        assert_eq!((journal.first(), journal.head()), (55, 60), "the last block stays");
        append(journal, 2);
        check_all(journal);
        assert_eq!(verify_chain(journal, 1, |_| {}).unwrap(), 3);
    });
}
