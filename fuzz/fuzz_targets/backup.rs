//! Backup streams: refused with a reason, or sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline_storage::backup::{Source, check};

fuzz_target!(|data: &[u8]| {
    let mut read = 0;
    let mut rest = data;
    match check(Source::Stream(&mut rest), &mut |bytes| read = bytes) {
        Ok(_) => assert!(read <= data.len() as u64),
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
});
