//! The default dialect: Standard Webhooks 1.0.0, `{"type","timestamp","data"}`.
//!
//! # Invariants
//!
//! - The bytes are a function of the event alone: every attempt, redrive and replay sends the same.

use bytes::Bytes;
use punchline_engine::event::{Event, Recorded};
use punchline_engine::id::{AdvertiserId, Environment, Sequence, SubscriptionId};
use punchline_engine::time::UnixMillis;
use serde::Serialize;

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: UnixMillis,
    data: Data<'a>,
}

/// An event's fields and its place in the journal: what every dialect can tell.
#[derive(Serialize)]
pub struct Data<'a> {
    sequence: Sequence,
    cause_sequence: Sequence,
    advertiser_id: AdvertiserId,
    environment: Environment,
    #[serde(flatten)]
    event: &'a Event,
}

impl<'a> Data<'a> {
    /// Those of an event.
    pub fn of(recorded: &Recorded<'a>) -> Data<'a> {
        Data {
            sequence: recorded.sequence,
            cause_sequence: recorded.cause,
            advertiser_id: recorded.tenant.advertiser,
            environment: recorded.tenant.environment,
            event: recorded.event,
        }
    }
}

/// The body of a webhook.
pub fn body(recorded: &Recorded<'_>) -> Bytes {
    let body = Body { r#type: recorded.event.type_name(), timestamp: recorded.time, data: Data::of(recorded) };
    serde_json::to_vec(&body).expect("events have string keys and finite numbers").into()
}

/// The `data` of a webhook, as JSON.
pub fn data(recorded: &Recorded<'_>) -> String {
    serde_json::to_string(&Data::of(recorded)).expect("events have string keys and finite numbers")
}

/// The `webhook-id` of one event to one subscription: the same for every attempt, redrive and replay,
/// and readable, so that who is asked about one can find it.
pub fn webhook_id(subscription: SubscriptionId, sequence: Sequence) -> String {
    format!("msg_{sequence}_{}", subscription.0.simple())
}

/// The delivery that a `webhook-id` names.
pub fn parse_webhook_id(id: &str) -> Option<(SubscriptionId, Sequence)> {
    let (sequence, subscription) = id.strip_prefix("msg_")?.split_once('_')?;
    Some((subscription.parse().ok()?, Sequence(sequence.parse().ok()?)))
}
