//! Segment, and what speaks its HTTP API, as a destination: events become `track` calls, gathered into
//! `POST <host>/v1/batch`.
//!
//! ```text
//! event ──track──▶ item, the body of one attempt ─┐
//! event ──track──▶ item ──────────────────────────┴─ SegmentBatcher ──▶ {"batch":[…],"sentAt":…}
//! ```
//!
//! # Invariants
//!
//! - Limits are checked before anything is sent, because Segment answers 200 also to what it drops: a
//!   batch never exceeds [`SegmentLimits`], and an item that exceeds them is refused alone.
//! - An item's bytes are a function of the event alone, `messageId` included, by which Segment knows
//!   a repeat.
//!
//! # Sources
//!
//! Segment, "HTTP API Source": 32 KB an event, 500 KB a batch, 2 500 events a batch; 200 for all but
//! malformed and oversized requests (400); 429 with `Retry-After`; Basic auth with the write key as user
//! and no password. `messageId` has at most 100 characters.

mod batcher;

use bytes::{BufMut, Bytes, BytesMut};
use punchline_engine::time::UnixMillis;
use serde::Serialize;

pub use self::batcher::SegmentBatcher;
use crate::auth::{Auth, BasicAuth, BasicAuthError};
use crate::endpoint::{Endpoint, EndpointError, EndpointPolicy};

/// The most characters of a `messageId`.
pub const MESSAGE_ID_CHARS_MAX: usize = 100;

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// The most bytes of an item. Segment says "32 KB", of which its own libraries have two readings;
    /// this is the smaller one: what the other would still let through might be dropped in silence.
    pub item_bytes_max: usize,
    /// The most bytes of a body, by the same reading.
    pub batch_bytes_max: usize,
    /// The most items of a batch.
    pub batch_items_max: usize,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        Self { item_bytes_max: 32_000, batch_bytes_max: 500_000, batch_items_max: 2_500 }
    }
}

impl SegmentLimits {
    /// The most bytes of an item that also fits into a batch.
    fn item_bytes(&self) -> usize {
        self.item_bytes_max.min(self.batch_bytes_max.saturating_sub(ENVELOPE_BYTES))
    }

    /// Whether a batch of `items` with `bytes` together, commas not counted, is within the limits.
    fn hold(&self, items: usize, bytes: usize) -> bool {
        let commas = items.saturating_sub(1);
        items <= self.batch_items_max && ENVELOPE_BYTES + bytes + commas <= self.batch_bytes_max
    }
}

/// The batch endpoint of a host, or of a URL up to its version, such as `https://api.segment.io`,
/// `https://events.eu1.segmentapis.com/v1` or a whole `…/v1/batch`.
///
/// # Errors
///
/// [`EndpointError`], as for every URL of a subscription.
pub fn batch_endpoint(url: &str, policy: &EndpointPolicy) -> Result<Endpoint, EndpointError> {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    let path = path.trim_end_matches('/');
    let more = if path.ends_with("/v1/batch") {
        ""
    } else if path.ends_with("/v1") {
        "/batch"
    } else {
        "/v1/batch"
    };
    Endpoint::parse(&format!("{path}{more}{query}"), policy)
}

/// The credentials that are a write key.
///
/// # Errors
///
/// [`BasicAuthError`] for characters that no write key has.
pub fn write_key(write_key: &str) -> Result<Auth, BasicAuthError> {
    Ok(BasicAuth::new(write_key, "")?.into())
}

/// Whom an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Somebody whom the workspace knows by this id.
    User(&'a str),
    /// Somebody, or something, without such an id: events about a whole tenant.
    Anonymous(&'a str),
}

/// One event as Segment sees it.
#[derive(Clone, Debug)]
pub struct Track<'a, P> {
    /// The event's stable id, the same for every attempt, redrive and replay.
    pub message_id: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// Whom it is about.
    pub subject: Subject<'a>,
    /// When it happened.
    pub time: UnixMillis,
    /// All else; serializes to a JSON object.
    pub properties: P,
}

/// The item of one event: the body of the attempt that is given to [`SegmentBatcher`].
///
/// # Errors
///
/// [`TrackError`]: a `messageId` that would be cut could stand for two events.
pub fn track<P: Serialize>(track: &Track<'_, P>) -> Result<Bytes, TrackError> {
    let length_chars = track.message_id.chars().count();
    if !(1..=MESSAGE_ID_CHARS_MAX).contains(&length_chars) {
        return Err(TrackError::MessageId { length_chars });
    }
    let (user_id, anonymous_id) = match track.subject {
        Subject::User(id) => (Some(id), None),
        Subject::Anonymous(id) => (None, Some(id)),
    };
    let call = Call {
        r#type: "track",
        message_id: track.message_id,
        event: track.event,
        user_id,
        anonymous_id,
        timestamp: track.time,
        properties: &track.properties,
        context: Context { library: Library { name: "punchline", version: env!("CARGO_PKG_VERSION") } },
    };
    let bytes = serde_json::to_vec(&call).map_err(|source| TrackError::Properties { source })?;
    Ok(bytes.into())
}

/// Why an event is no `track` call.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// Empty, or longer than [`MESSAGE_ID_CHARS_MAX`].
    #[error("messageId has {length_chars} characters, not 1 to 100")]
    MessageId {
        /// How many it has.
        length_chars: usize,
    },
    /// The properties are no JSON.
    #[error("properties cannot be written as JSON: {source}")]
    Properties {
        /// What the serializer said.
        source: serde_json::Error,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a, P> {
    r#type: &'static str,
    message_id: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous_id: Option<&'a str>,
    timestamp: UnixMillis,
    properties: &'a P,
    context: Context,
}

#[derive(Serialize)]
struct Context {
    library: Library,
}

#[derive(Serialize)]
struct Library {
    name: &'static str,
    version: &'static str,
}

const BEGIN: &[u8] = br#"{"batch":["#;
const MIDDLE: &[u8] = br#"],"sentAt":""#;
const END: &[u8] = br#""}"#;
/// `2026-11-21T08:00:00.000Z`
const INSTANT_BYTES: usize = 24;
const ENVELOPE_BYTES: usize = BEGIN.len() + MIDDLE.len() + INSTANT_BYTES + END.len();

/// The body of one request.
fn batch_body<'a>(items: impl IntoIterator<Item = &'a Bytes>, sent_at_unix_s: i64) -> Bytes {
    let mut body = BytesMut::new();
    body.put_slice(BEGIN);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(item);
    }
    body.put_slice(MIDDLE);
    let sent_at = UnixMillis(sent_at_unix_s.saturating_mul(1_000)).to_string();
    debug_assert_eq!(sent_at.len(), INSTANT_BYTES, "years have four digits");
    body.put_slice(sent_at.as_bytes());
    body.put_slice(END);
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_track_calls() {
        let mut event = Track {
            message_id: "msg_7_1",
            event: "points.received",
            subject: Subject::User("member \"1\""),
            time: UnixMillis(1_614_265_330_123),
            properties: serde_json::json!({"points": 5}),
        };
        let version = env!("CARGO_PKG_VERSION");
        let rest = format!(
            r#""timestamp":"2021-02-25T15:02:10.123Z","properties":{{"points":5}},"context":{{"library":{{"name":"punchline","version":"{version}"}}}}}}"#
        );
        let got = track(&event).expect("valid");
        let who = r#"{"type":"track","messageId":"msg_7_1","event":"points.received","userId":"member \"1\"","#;
        assert_eq!(got, format!("{who}{rest}"));
        event.subject = Subject::Anonymous("tenant");
        let got = track(&event).expect("valid");
        let who = r#"{"type":"track","messageId":"msg_7_1","event":"points.received","anonymousId":"tenant","#;
        assert_eq!(got, format!("{who}{rest}"));

        let longest = "ü".repeat(100);
        event.message_id = &longest;
        assert!(track(&event).is_ok());
        for (id, length_chars) in [("", 0), (&*"x".repeat(101), 101)] {
            event.message_id = id;
            assert!(matches!(track(&event), Err(TrackError::MessageId { length_chars: n }) if n == length_chars));
        }
    }

    #[test]
    fn bodies_are_as_long_as_the_limits_reckon() {
        let items = [r#"{"a":1}"#, "{}"].map(|text| Bytes::from_static(text.as_bytes()));
        let body = batch_body(&items, 1_614_265_330);
        assert_eq!(body, r#"{"batch":[{"a":1},{}],"sentAt":"2021-02-25T15:02:10.000Z"}"#);
        let limits = SegmentLimits { batch_bytes_max: body.len(), ..SegmentLimits::default() };
        assert!(limits.hold(2, 9) && !limits.hold(2, 10) && !limits.hold(3, 9));
        assert_eq!(limits.item_bytes(), 10);
        assert_eq!(batch_body([], 0).len(), ENVELOPE_BYTES);
    }

    #[test]
    fn hosts_become_batch_endpoints() {
        let cases = [
            ("https://api.segment.io", "https://api.segment.io/v1/batch"),
            ("https://api.segment.io/", "https://api.segment.io/v1/batch"),
            ("https://events.eu1.segmentapis.com/v1/", "https://events.eu1.segmentapis.com/v1/batch"),
            ("https://rudder.example/v1/batch", "https://rudder.example/v1/batch"),
            ("https://proxy.example/segment?a=b", "https://proxy.example/segment/v1/batch?a=b"),
        ];
        for (url, expected) in cases {
            let endpoint = batch_endpoint(url, &EndpointPolicy::default()).expect(url);
            assert_eq!(endpoint.to_string(), expected);
        }
        assert!(batch_endpoint("https://10.0.0.1", &EndpointPolicy::default()).is_err());
    }

    #[test]
    fn a_write_key_is_a_user_without_password() {
        let auth = write_key("abc").expect("valid");
        assert_eq!(auth.fixed().expect("the same each time"), "Basic YWJjOg==");
        assert!(write_key("a:b").is_err());
    }
}
