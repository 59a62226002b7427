//! Campaign files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline::campaign_file::parse;
use punchline::convert;

fuzz_target!(|text: &str| {
    if let Ok(campaign) = parse(text) {
        let _ = convert::campaign::campaign(campaign);
    }
});
