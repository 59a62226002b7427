//! Records and rows below their checksums: refused, or written so that they are read as the same.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use punchline_storage::codec;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;

fuzz_target!(|data: &[u8]| {
    static KEYS: OnceLock<MemberKeys> = OnceLock::new();
    let keys = KEYS.get_or_init(|| MemoryDisk::new().member_keys());
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 6 {
        0 => {
            if let Ok(record) = codec::decode_record(bytes, keys)
                && let Ok(encoded) = codec::encode_record(&record, keys)
            {
                assert_eq!(codec::decode_record(&encoded, keys).expect("as it was written"), record);
            }
        }
        1 => drop(codec::decode_member(bytes, keys)),
        2 => drop(codec::decode_house(bytes)),
        3 => drop(codec::decode_item(bytes)),
        4 => drop(codec::decode_delivery_state(bytes)),
        _ => drop(codec::decode_delivery_row(bytes)),
    }
});
