//! Writing for tests: records that tell their own sequence, so that reading can check them.

use std::{fs::File, path::Path, thread::sleep, time::Duration};

use punchline_storage::{
    block::{Block, BlockBuilder, BlockHash, EncodedBlock},
    journal::Journal,
};

/// Content of the record that begins at `sequence`: different lengths and contents all along.
pub fn record(sequence: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (sequence.wrapping_mul(31) + n * n) as u8).collect()
}

pub fn len_of(sequence: u64) -> usize {
    100 + (sequence * 37 % 400) as usize
}

/// `count` blocks of three records with 1, 2 and 3 events that continue after `head`.
pub fn blocks_after(head: u64, hash: BlockHash, count: usize) -> Vec<EncodedBlock> {
    let (mut next, mut previous) = (head + 1, hash);
    (0..count)
        .map(|_| {
            let mut builder = BlockBuilder::new();
            let mut sequence = next;
            for events in 1..=3 {
                builder.push(&record(sequence, len_of(sequence)), events).unwrap();
                sequence += u64::from(events);
            }
            let block = builder.finish(next, head, previous);
            (next, previous) = (block.last_sequence + 1, block.hash);
            block
        })
        .collect()
}

/// One block with one record of `len` bytes and one event.
pub fn large_block_after(head: u64, hash: BlockHash, len: usize) -> EncodedBlock {
    let mut builder = BlockBuilder::new();
    builder.push(&record(head + 1, len), 1).unwrap();
    builder.finish(head + 1, head, hash)
}

pub fn append(journal: &dyn Journal, count: usize) {
    let blocks = blocks_after(journal.head(), journal.head_hash(), count);
    journal.append(journal.head() + 1, &blocks).unwrap();
}

/// Reads everything up to the head, sequence by sequence, and compares it with what was written.
pub fn check_all(journal: &dyn Journal) {
    let head = journal.head();
    let mut sequence = journal.first();
    while sequence <= head {
        let block = journal.read(sequence).unwrap().unwrap();
        check_block(&block);
        let (first, events, _) = block.record_at(sequence).unwrap();
        assert!((first..first + u64::from(events)).contains(&sequence));
        sequence += 1;
    }
    assert_eq!(journal.read(head + 1).unwrap(), None);
}

pub fn check_block(block: &Block) {
    for (first, _, bytes) in block.records() {
        assert_eq!(bytes, record(first, bytes.len()), "record at {first}");
    }
}

/// Waits until sled's threads have let go of a database that was dropped, before it is meddled with.
pub fn wait_closed(database: &Path) {
    let file = File::open(database.join("db")).unwrap();
    for _ in 0..1000 {
        if file.try_lock().is_ok() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{} is still in use", database.display());
}
