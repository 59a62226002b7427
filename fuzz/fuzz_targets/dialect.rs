//! Dialect files of operators: refused with a place in the file, or every event can be tried in them.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use punchline_delivery::dialect::Dialects;
use punchline_delivery::dialect::examples::{example, recorded};
use punchline_delivery::dialect::message::Message;
use punchline_engine::event::EventType;

fuzz_target!(|text: &str| {
    let mut dialects = Dialects::default();
    if let Err(refused) = dialects.load("fuzzed.toml", text) {
        assert!(!refused.to_string().is_empty());
        return;
    }
    for name in dialects.names() {
        let dialect = dialects.get(name).expect("it was named");
        let settings = dialect.settings(&BTreeMap::new()).expect("defaults are allowed");
        for event_type in EventType::ALL {
            let event = example(*event_type);
            let _ = dialect.render(&settings, &Message::of(&recorded(&event), "msg_1"));
        }
    }
});
