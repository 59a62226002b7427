//! CEL of subscriptions and segments: refused, or asked of an event of each type, and always answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use punchline_delivery::dialect::examples::{example, recorded};
use punchline_engine::event::EventType;
use punchline_engine::expression::Expression;
use punchline_engine::filter::Filter;

fuzz_target!(|text: &str| {
    let _ = Expression::parse_segment("condition", text);
    let Ok(Some(filter)) = Filter::parse(text) else { return };
    for event_type in EventType::ALL {
        let event = example(*event_type);
        let _ = filter.passes(&recorded(&event));
    }
});
