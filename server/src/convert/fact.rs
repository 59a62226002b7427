//! Facts and their types.

use punchline_engine::loyalty::fact::{FactReceipt, RawFact};
use punchline_engine::loyalty::fact_type::FactType;
use punchline_proto::v1;

use super::timestamp;

/// A fact as it came in; checked by the engine.
pub fn fact(fact: v1::Fact) -> RawFact {
    RawFact {
        source: fact.source,
        fact_id: fact.fact_id,
        fact_type: fact.r#type,
        identifiers: fact.identifiers.into_iter().map(|i| (i.key, i.value)).collect(),
        occurred_at: fact.occurred_at,
        properties: fact.properties_json,
    }
}

/// A receipt, for the wire.
pub fn receipt(receipt: &FactReceipt) -> v1::FactReceipt {
    v1::FactReceipt {
        sequence: receipt.sequence.0,
        recorded_at: Some(timestamp(receipt.time)),
        member_id: receipt.member_id.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// What an error says of the first of two receipts, by name.
pub fn receipt_facts(receipt: &FactReceipt) -> Vec<(&'static str, String)> {
    let mut facts = vec![("sequence", receipt.sequence.to_string()), ("recorded_at", receipt.time.to_string())];
    facts.extend(receipt.member_id.map(|id| ("member_id", id.to_string())));
    facts
}

/// A type as it came in, without its version; checked where it is registered.
pub fn fact_type(given: v1::FactType) -> FactType {
    let v1::FactType { name, description, schema_json, .. } = given;
    FactType { name, description, schema: schema_json, version: 0 }
}

/// A type, for the wire; version 0 is built in.
pub fn type_to_wire(fact_type: &FactType) -> v1::FactType {
    let FactType { name, description, schema, version } = fact_type.clone();
    v1::FactType { name, description, schema_json: schema, etag: version.to_string(), built_in: version == 0 }
}
