//! What a dialect is given, and what it makes of it.
//!
//! # Invariants
//!
//! - Everything a body is made of is in the [`Message`]: every attempt, redrive and replay of one event
//!   to one subscription sends the same bytes.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use punchline_engine::event::{Event, Recorded};
use punchline_engine::id::{AdvertiserId, Environment, MemberId};
use punchline_engine::time::UnixMillis;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// An event on its way to one subscription.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The canonical name, as `points.credited`.
    pub event_type: &'a str,
    /// When it was decided.
    pub time: UnixMillis,
    /// Its position in the journal.
    pub sequence: u64,
    /// The position of the event that caused it; its own where it is the cause.
    pub cause_sequence: u64,
    /// Whose.
    pub advertiser_id: AdvertiserId,
    /// In which of the two worlds.
    pub environment: Environment,
    /// The member it is about.
    pub member_id: Option<MemberId>,
    /// The same for every attempt, redrive and replay.
    pub webhook_id: &'a str,
    /// What happened.
    pub data: Data<'a>,
}

/// What happened: one of the engine's events, or a fact that somebody else published.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// The engine's own.
    Event(&'a Event),
    /// A published fact.
    Json(&'a serde_json::Value),
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Event(event) => event.serialize(serializer),
            Data::Json(value) => value.serialize(serializer),
        }
    }
}

impl<'a> From<&'a Event> for Data<'a> {
    fn from(event: &'a Event) -> Self {
        Data::Event(event)
    }
}

impl<'a> From<&'a serde_json::Value> for Data<'a> {
    fn from(value: &'a serde_json::Value) -> Self {
        Data::Json(value)
    }
}

impl<'a> Message<'a> {
    /// The message of an event with its place in the journal.
    #[must_use]
    pub fn of(recorded: &Recorded<'a>, webhook_id: &'a str) -> Message<'a> {
        Message {
            event_type: recorded.event.type_name(),
            time: recorded.time,
            sequence: recorded.sequence.0,
            cause_sequence: recorded.cause.0,
            advertiser_id: recorded.tenant.advertiser,
            environment: recorded.tenant.environment,
            member_id: recorded.member,
            webhook_id,
            data: Data::Event(recorded.event),
        }
    }
}

/// A UUID for the event at `sequence`: version 8 (RFC 9562), the milliseconds first, so that ids sort as
/// events do, then a hash. The same for every subscription.
pub(super) fn event_uuid(
    advertiser_id: AdvertiserId,
    environment: Environment,
    time: UnixMillis,
    sequence: u64,
) -> String {
    let mut hash = Sha256::new();
    hash.update(b"punchline event\0");
    hash.update(advertiser_id.0.to_be_bytes());
    hash.update([environment as u8]);
    hash.update(sequence.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    bytes[..6].copy_from_slice(&time.0.to_be_bytes()[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let n = u128::from_be_bytes(bytes);
    let part = |shift: u32, bits: u32| (n >> shift) & ((1 << bits) - 1);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", n >> 96, part(80, 16), part(64, 16), part(48, 16), part(0, 48))
}

/// A request's content, without what the subscription and the transport add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The dialect's own headers; never `content-type`, never one that [`crate::headers`] refuses.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `content-type`.
    pub content_type: HeaderValue,
    /// JSON.
    pub body: Bytes,
}

/// Why a message cannot be put into a dialect. The event stays owed; the file is to be mended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A template failed on this event.
    #[error("dialect {dialect:?} cannot say {event_type}: {file}:{line}:{column}: {problem}")]
    Template {
        /// The dialect.
        dialect: String,
        /// The event's type.
        event_type: String,
        /// The dialect's file.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong, as the template engine says it.
        problem: String,
    },
    /// A header's value came out with control characters, or too long.
    #[error("dialect {dialect:?} cannot say {event_type}: the value of header {header:?} is invalid")]
    Header {
        /// The dialect.
        dialect: String,
        /// The event's type.
        event_type: String,
        /// The header's name. The value is not told: it may be personal.
        header: String,
    },
    /// The body came out as something else than JSON.
    #[error("dialect {dialect:?} cannot say {event_type}: the body is not JSON: {problem}")]
    NotJson {
        /// The dialect.
        dialect: String,
        /// The event's type.
        event_type: String,
        /// What is wrong with it.
        problem: String,
    },
}
