//! AIP-160 filters of lists: refused with a place in the text, or asked of an element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline::filter::{Field, Filter, Kind, Value};
use punchline_engine::time::UnixMillis;

static FIELDS: [Field; 4] = [
    Field("last_status_code", Kind::Number),
    Field("event_type", Kind::Text),
    Field("create_time", Kind::Time),
    Field("status", Kind::Word(&["DEAD_LETTERED", "DELIVERED"])),
];

fuzz_target!(|text: &str| match Filter::parse(text, &FIELDS) {
    Ok(filter) => {
        let _ = filter.matches(|field| match field {
            "last_status_code" => Value::Number(500),
            "create_time" => Value::Time(UnixMillis(1_700_000_000_000)),
            "status" => Value::Text("DELIVERED"),
            _ => Value::Text("points.credited"),
        });
    }
    Err(refused) => assert!((1..=text.chars().count() + 1).contains(&refused.position), "{refused}"),
});
