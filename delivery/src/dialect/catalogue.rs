//! What there is to say: every canonical type with its fields, an example in each dialect, and a schema.
//!
//! The engine's events have their examples in [`super::examples`]. What upstream systems publish is in
//! `delivery/dialects/facts.toml`, with the fields that the dialects know how to say.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use punchline_engine::event::EventType;
use punchline_engine::loyalty::fact_type;
use punchline_engine::time::UnixMillis;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::message::{Message, Rendered};
use super::{Dialect, check, examples};

const FACTS: &str = include_str!("../../dialects/facts.toml");
const WEBHOOK_ID: &str = "msg_1042_01966cf23c4070008000000000000002";

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    description: String,
    example: String,
    #[serde(default)]
    personal: Vec<String>,
}

/// A canonical type that others publish, or fields that they may add to one of the engine's.
#[derive(Clone, Debug)]
struct Fact {
    description: String,
    example: Json,
}

struct Catalogue {
    common: Json,
    personal: Vec<String>,
    facts: BTreeMap<String, Fact>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let mut tables: BTreeMap<String, Table> =
        toml::from_str(FACTS).expect("facts.toml: tables of three words, as the tests know");
    let example = |table: &Table| -> Json {
        serde_json::from_str(&table.example).expect("facts.toml: examples are JSON, as the tests know")
    };
    let common = tables.remove("common").expect("facts.toml: has [common], as the tests know");
    let fact = |(name, table): (String, Table)| {
        let example = example(&table);
        (name, Fact { description: table.description, example })
    };
    Catalogue { common: example(&common), personal: common.personal, facts: tables.into_iter().map(fact).collect() }
});

/// The types that others publish, in order, each with what it says. Not those that only the engine tells of,
/// whatever upstream may add to them.
pub fn publishable() -> impl Iterator<Item = (&'static str, &'static str)> {
    let others = CATALOGUE.facts.iter().filter(|(name, _)| !fact_type::is_own(name));
    others.map(|(name, fact)| (name.as_str(), fact.description.as_str()))
}

/// Whether others publish this type.
#[must_use]
pub fn is_publishable(event_type: &str) -> bool {
    CATALOGUE.facts.contains_key(event_type) && !fact_type::is_own(event_type)
}

/// A JSON Schema of what others may publish under this type: what it says about a field holds, or the field
/// is null or absent. What is not known may be anything.
#[must_use]
pub fn publishable_schema(event_type: &str) -> Option<Json> {
    let fact = CATALOGUE.facts.get(event_type).filter(|_| is_publishable(event_type))?;
    let mut fields = CATALOGUE.common.clone();
    merge(&mut fields, fact.example.clone());
    let mut schema = json_schema_of(&fields);
    let properties = schema["properties"].as_object_mut().expect("an example is an object, as the tests know");
    properties.values_mut().for_each(or_null);
    for name in &CATALOGUE.personal {
        properties[name]["x-personal"] = true.into();
    }
    Some(schema)
}

/// Names of the fields that are personal in any fact.
pub fn personal_fields() -> impl Iterator<Item = &'static str> {
    CATALOGUE.personal.iter().map(String::as_str)
}

/// Lets a schema that was made of an example pass null as well, at every depth.
fn or_null(schema: &mut Json) {
    let Json::Object(schema) = schema else { return };
    if let Some(Json::String(kind)) = schema.get("type") {
        let either = json!([kind, "null"]);
        schema.insert("type".into(), either);
    }
    schema.get_mut("items").into_iter().for_each(or_null);
    if let Some(Json::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(or_null);
    }
}

/// Every canonical type that is told to subscribers, in order.
#[must_use]
pub fn event_types() -> Vec<&'static str> {
    // A fact is told under the type that its publisher gave it, never under our own name for it.
    let told = |t: &&EventType| t.is_public() && **t != EventType::FactPublished;
    let engine = EventType::ALL.iter().filter(told).map(|t| t.as_str());
    let mut types: Vec<&str> = engine.chain(CATALOGUE.facts.keys().map(String::as_str)).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// What an event of this type says, in one line.
#[must_use]
pub fn description(event_type: &str) -> Option<&'static str> {
    match EventType::parse(event_type) {
        Some(event_type) => Some(examples::description(event_type)),
        None => CATALOGUE.facts.get(event_type).map(|fact| fact.description.as_str()),
    }
}

/// The `data` of an example, as whoever publishes the type would write it.
#[must_use]
pub fn example_data(event_type: &str) -> Option<Json> {
    match EventType::parse(event_type) {
        Some(event_type) => Some(engine_example(event_type)),
        None => CATALOGUE.facts.get(event_type).map(|fact| fact.example.clone()),
    }
}

/// An example of this type in a dialect with its default settings. `None` if there is no such type, or
/// the dialect has no word for it.
#[must_use]
pub fn example(dialect: &Dialect, event_type: &str) -> Option<Rendered> {
    let data = example_data(event_type)?;
    let settings = dialect.settings(&BTreeMap::new()).ok()?;
    dialect.render(&settings, &Message { event_type, ..message(&data) }).ok()?
}

/// When examples happened.
#[must_use]
pub fn example_time() -> UnixMillis {
    UnixMillis::parse("2025-04-25T12:34:01.250Z").expect("a date")
}

/// A JSON Schema (draft 2020-12) of what looks like the example.
///
/// Nothing is required and nothing more is forbidden: an example knows neither. A null may be anything.
#[must_use]
pub fn json_schema_of(example: &Json) -> Json {
    let mut schema = schema_of(example);
    if let Json::Object(schema) = &mut schema {
        schema.shift_insert(0, "$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    }
    schema
}

fn schema_of(example: &Json) -> Json {
    match example {
        Json::Null => json!({}),
        Json::Bool(_) => json!({"type": "boolean"}),
        Json::Number(n) if n.is_f64() => json!({"type": "number"}),
        Json::Number(_) => json!({"type": "integer"}),
        Json::String(text) if text.len() >= 20 && UnixMillis::parse(text).is_some() => {
            json!({"type": "string", "format": "date-time"})
        }
        Json::String(_) => json!({"type": "string"}),
        Json::Array(items) => match items.first() {
            None => json!({"type": "array"}),
            Some(first) => json!({"type": "array", "items": schema_of(first)}),
        },
        Json::Object(fields) => {
            let properties: Map<String, Json> = fields.iter().map(|(k, v)| (k.clone(), schema_of(v))).collect();
            json!({"type": "object", "properties": properties})
        }
    }
}

fn engine_example(event_type: EventType) -> Json {
    serde_json::to_value(examples::example(event_type)).expect("events have string keys and finite numbers")
}

/// Fields that any fact may have.
pub(super) fn common_fields() -> Json {
    CATALOGUE.common.clone()
}

/// Every field that an event of this type may have, with an example of each; `None` for unknown types.
pub(super) fn known_fields(event_type: &str) -> Option<Json> {
    let engine = EventType::parse(event_type).map(engine_example);
    let fact = CATALOGUE.facts.get(event_type).map(|fact| fact.example.clone());
    if engine.is_none() && fact.is_none() {
        return None;
    }
    let mut fields = CATALOGUE.common.clone();
    engine.into_iter().chain(fact).for_each(|more| merge(&mut fields, more));
    Some(fields)
}

/// Adds the fields of `more`, at every depth.
pub(super) fn merge(fields: &mut Json, more: Json) {
    match (fields, more) {
        (Json::Object(fields), Json::Object(more)) => {
            for (key, value) in more {
                merge(fields.entry(key).or_insert(Json::Null), value);
            }
        }
        (here, more) => *here = more,
    }
}

/// A message that stands nowhere in any journal.
pub(super) fn message(data: &Json) -> Message<'_> {
    let (advertiser_id, environment) = check::TENANT;
    Message {
        event_type: "",
        time: example_time(),
        sequence: 1_042,
        cause_sequence: 1_040,
        advertiser_id,
        environment,
        member_id: Some("01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID")),
        webhook_id: WEBHOOK_ID,
        data: data.into(),
    }
}
