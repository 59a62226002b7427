//! Journal blocks: refused, or all records lie within, and so do their events.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use punchline_storage::block::Block;
use punchline_storage::codec::decode_record;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;

fuzz_target!(|data: &[u8]| {
    static KEYS: OnceLock<MemberKeys> = OnceLock::new();
    let keys = KEYS.get_or_init(|| MemoryDisk::new().member_keys());
    let Ok(block) = Block::decode(data) else { return };
    assert_eq!(block.as_bytes(), data);
    let mut next = block.first_sequence();
    for (first, events, bytes) in block.records() {
        assert_eq!(first, next);
        next += u64::from(events);
        let _ = decode_record(bytes, keys);
    }
    assert_eq!(next, block.last_sequence() + 1);
});
