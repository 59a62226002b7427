//! Messages of the API as JSON, by their descriptors: field names as in the `.proto` files, numbers as
//! numbers, times as RFC 3339, enums by name.
//!
//! Two things differ from proto3's JSON, for people's sake: a field `<name>_json` becomes `<name>` with
//! the JSON inside, and a `…_body` of bytes is shown as text.

use std::sync::LazyLock;

use base64::Engine as _;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use punchline_proto::v1;
use serde_json::Value;

/// All messages of the API.
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(v1::FILE_DESCRIPTOR_SET).expect("the build made the descriptors"));

/// A message with its full name; prost knows it at build time only.
pub(super) trait ApiMessage: Message {
    /// As `punchline.v1.Member`.
    const NAME: &'static str;
}

macro_rules! api_messages {
    ($($name:ident)*) => {
        $(impl ApiMessage for v1::$name {
            const NAME: &'static str = concat!("punchline.v1.", stringify!($name));
        })*

        #[cfg(test)]
        const NAMES: &[&str] = &[$(concat!("punchline.v1.", stringify!($name))),*];
    };
}

api_messages! {
    Account Advertiser Attempt Balance Campaign Consumer Coupon CouponBook Credential Delivery DeliveryJob Dialect
    DropDeadLettersResponse Entry Event EventType FactType Hold Job Member Obligation PunchcardState Receipt Redemption Reward
    Segment Settings SimulateConsumptionResponse SimulatedRule SimulationResult Standing Subscription
    AddCouponsResponse AuditEntry CreateBackupResponse CreateCouponBookResponse CreateSubscriptionResponse ExplainEntryResponse
    GetStatusResponse IssueCredentialResponse RotateSecretResponse SendGiftCardResponse TestSubscriptionResponse
    TrimJournalResponse
}

/// A message as JSON.
pub(super) fn json<M: ApiMessage>(message: &M) -> Value {
    let descriptor = POOL.get_message_by_name(M::NAME).expect("a test holds that every name exists");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("what was encoded by the same definition can be decoded");
    let options =
        SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    let mut value = dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("an API message holds nothing that JSON cannot say");
    tidy(&mut value);
    value
}

/// A message that an answer holds; the server owes it, and its absence shows as `null`.
pub(super) fn json_of<M: ApiMessage>(message: &Option<M>) -> Value {
    message.as_ref().map_or(Value::Null, json)
}

/// Messages of a list.
pub(super) fn json_all<M: ApiMessage>(messages: &[M]) -> Vec<Value> {
    messages.iter().map(json).collect()
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    tidy(&mut value);
                    tidy_field(name, value)
                })
                .collect();
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_field(name: String, value: Value) -> (String, Value) {
    if let (Some(inner), Some(text)) = (name.strip_suffix("_json"), value.as_str()) {
        let parsed = if text.is_empty() { Some(Value::Null) } else { serde_json::from_str(text).ok() };
        return (inner.to_owned(), parsed.unwrap_or(value));
    }
    if let (true, Some(text)) = (name.ends_with("_body"), value.as_str())
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text)
    {
        return (name, String::from_utf8_lossy(&bytes).into());
    }
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_exists() {
        for name in NAMES {
            assert!(POOL.get_message_by_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn messages_become_plain_json() {
        let event = v1::Event {
            sequence: 9_007_199_254_740_993,
            r#type: "points.credited".into(),
            time: Some(prost_types::Timestamp { seconds: 1_735_689_600, nanos: 0 }),
            data_json: r#"{"points":5}"#.into(),
            ..v1::Event::default()
        };
        let expected = json!({
            "sequence": 9_007_199_254_740_993_u64, "cause_sequence": 0, "type": "points.credited",
            "time": "2025-01-01T00:00:00Z", "member_id": "", "data": {"points": 5},
        });
        assert_eq!(super::json(&event), expected);

        let attempt = v1::Attempt { number: 1, response_body: b"oops".to_vec(), ..v1::Attempt::default() };
        assert_eq!(super::json(&attempt)["response_body"], "oops");
        let credential = v1::Credential { scopes: vec![v1::Scope::Read.into()], ..v1::Credential::default() };
        assert_eq!(super::json(&credential)["scopes"], json!(["SCOPE_READ"]));
    }
}
