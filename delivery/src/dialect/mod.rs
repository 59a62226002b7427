//! Dialects: from an event to the bytes that one kind of subscriber reads.

pub mod examples;
pub mod standard;
