//! Dates as source systems write them: what is read is written so that it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline::campaign_file::timestamp;
use punchline_engine::time::UnixMillis;

fuzz_target!(|text: &str| {
    if let Some(time) = UnixMillis::parse(text) {
        assert_eq!(UnixMillis::parse(&time.to_string()), Some(time), "{text:?} as {time}");
    }
    let _ = timestamp(text);
});
