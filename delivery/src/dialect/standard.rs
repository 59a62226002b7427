//! The default dialect: Standard Webhooks 1.0.0, `{"type","timestamp","data"}`.
//!
//! # Invariants
//!
//! - The bytes are a function of the event alone: every attempt, redrive and replay sends the same.

use bytes::Bytes;
use punchline_engine::event::{Event, Recorded};
use punchline_engine::id::{AdvertiserId, Environment, MemberId, Sequence, SubscriptionId};
use punchline_engine::time::UnixMillis;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::message::{Data as Said, Message};

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

/// The body of a webhook, for any message.
pub fn body_of(message: &Message<'_>) -> Bytes {
    #[derive(Serialize)]
    struct FactBody<'a> {
        r#type: &'a str,
        timestamp: UnixMillis,
        data: FactData<'a>,
    }
    let written = match message.data {
        Said::Event(event) => serde_json::to_vec(&Body {
            r#type: event.type_name(),
            timestamp: message.time,
            data: Data {
                sequence: Sequence(message.sequence),
                cause_sequence: Sequence(message.cause_sequence),
                advertiser_id: message.advertiser_id,
                environment: message.environment,
                event,
            },
        }),
        Said::Json(fact) => serde_json::to_vec(&FactBody {
            r#type: message.event_type,
            timestamp: message.time,
            data: FactData { message, fact },
        }),
    };
    written.expect("events and facts have string keys and finite numbers").into()
}

/// A published fact's fields after ours. Where it has one of the same name, ours is told and not the
/// fact's; the member is ours where the fact does not say.
struct FactData<'a> {
    message: &'a Message<'a>,
    fact: &'a Json,
}

const OURS: &[&str] = &["advertiser_id", "cause_sequence", "environment", "sequence"];

impl Serialize for FactData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Message { sequence, cause_sequence, advertiser_id, environment, member_id, .. } = self.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("sequence", sequence)?;
        map.serialize_entry("cause_sequence", cause_sequence)?;
        map.serialize_entry("advertiser_id", advertiser_id)?;
        map.serialize_entry("environment", environment)?;
        let said: Option<&MemberId> = member_id.as_ref().filter(|_| self.fact.get("member_id").is_none());
        if let Some(member_id) = said {
            map.serialize_entry("member_id", member_id)?;
        }
        match self.fact {
            Json::Object(fields) => {
                for (key, value) in fields.iter().filter(|(key, _)| !OURS.contains(&key.as_str())) {
                    map.serialize_entry(key, value)?;
                }
            }
            other => map.serialize_entry("value", other)?,
        }
        map.end()
    }
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
