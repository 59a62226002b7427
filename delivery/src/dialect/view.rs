//! What a template sees of a message: its variables, made when they are asked for.

use std::sync::Arc;

use minijinja::value::{Object, Serde, Value, ValueKind};
use punchline_engine::id::{AdvertiserId, Environment, MemberId};
use punchline_engine::time::UnixMillis;

use super::message::{Message, event_uuid};

/// A message as the engine keeps it: once for all templates of one rendering.
#[derive(Debug)]
pub(super) struct Facts {
    event_type: Value,
    time: UnixMillis,
    sequence: u64,
    cause_sequence: u64,
    advertiser_id: AdvertiserId,
    environment: Environment,
    member_id: Option<MemberId>,
    webhook_id: Value,
    data: Value,
    settings: Value,
}

/// The variables of one template.
#[derive(Debug)]
pub(super) struct View {
    pub(super) facts: Arc<Facts>,
    pub(super) name: Value,
    pub(super) properties: Value,
}

impl Facts {
    pub(super) fn of(message: &Message<'_>, settings: Value) -> Facts {
        Facts {
            event_type: Value::from(message.event_type),
            time: message.time,
            sequence: message.sequence,
            cause_sequence: message.cause_sequence,
            advertiser_id: message.advertiser_id,
            environment: message.environment,
            member_id: message.member_id,
            webhook_id: Value::from(message.webhook_id),
            data: Value::from(Serde(message.data)),
            settings,
        }
    }

    /// What the data says itself.
    fn said(&self, key: &str) -> Option<Value> {
        self.data.get_attr(key).ok().filter(|value| !value.is_undefined() && !value.is_none())
    }

    fn identifier(&self, kind: &str) -> Option<Value> {
        let identifiers = self.said("identifiers").filter(|v| v.kind() == ValueKind::Seq)?;
        let is_kind = |i: &Value| i.get_attr("kind").is_ok_and(|k| k.as_str() == Some(kind));
        identifiers.try_iter().ok()?.find(is_kind)?.get_attr("value").ok()
    }

    fn uuid_at(&self, sequence: u64) -> Value {
        event_uuid(self.advertiser_id, self.environment, self.time, sequence).into()
    }
}

impl Object for View {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let facts = &*self.facts;
        Some(match key {
            "advertiser_id" => facts.advertiser_id.to_string().into(),
            "cause_id" => facts.uuid_at(facts.cause_sequence),
            "cause_sequence" => facts.cause_sequence.into(),
            "data" => facts.data.clone(),
            "email" => facts.said("email").or_else(|| facts.identifier("email"))?,
            "environment" => facts.environment.as_str().into(),
            "event_id" => facts.said("event_id").unwrap_or_else(|| facts.uuid_at(facts.sequence)),
            "member_id" => facts.said("member_id").or_else(|| facts.member_id.map(|id| id.to_string().into()))?,
            "name" => self.name.clone(),
            "phone" => facts.said("phone").or_else(|| facts.identifier("phoneNumber"))?,
            "properties" => self.properties.clone(),
            "sequence" => facts.sequence.into(),
            "settings" => facts.settings.clone(),
            "time" => facts.time.to_string().into(),
            "type" => facts.event_type.clone(),
            "webhook_id" => facts.webhook_id.clone(),
            _ => return None,
        })
    }
}
