//! Records and rows as bytes: `proto/punchline/journal/v1` on one side, the engine's types on the other.
//!
//! ```text
//! engine::event::Record ──encode──▶ bytes ──decode──▶ the same Record
//! ```
//!
//! # Invariants
//!
//! - What was encoded decodes to what it was, also where a sum does not hold: a value is left out only
//!   where the rest of the record gives it back exactly.
//! - Equal values have equal bytes.
//! - Decoding takes any bytes and never panics; what it accepts is valid by the engine's types.
//! - Bytes of released versions decode for ever (`storage/tests/golden`).
//! - Personal fields are written sealed under their member's key, and read as empty once it is destroyed.
//!
//! # What is absent on purpose
//!
//! - Checksums, lengths, versions: a [`block`](crate::block) has them.

use std::fmt::Display;

use prost::Message;
use punchline_engine::command::Actor;
use punchline_engine::dispatch::{DeliveryRow, DeliveryState};
use punchline_engine::event::Record;
use punchline_engine::loyalty::item::Item;
use punchline_engine::loyalty::ledger::House;
use punchline_engine::loyalty::member::Member;
use punchline_proto::journal as wire;

use crate::member_keys::{KeysError, MemberKeys};

mod config;
mod person;
mod record;
mod rows;
mod word;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a protobuf message of this kind at all.
    #[error("bytes are no {message}")]
    Malformed {
        /// Which message it should have been.
        message: &'static str,
        /// What protobuf says.
        source: prost::DecodeError,
    },
    /// A field that is always written is not there.
    #[error("{field} is missing")]
    Missing {
        /// Its path, as `events[2].campaign_id`.
        field: String,
    },
    /// Personal fields cannot be read, though their key was not destroyed.
    #[error("{field} cannot be read: {why}")]
    Sealed {
        /// Its path, as `events[0].person`.
        field: String,
        /// What is wrong with the key, or with what it sealed.
        why: String,
    },
    /// A field has a value that it cannot have.
    #[error("{field} is not valid: {why}")]
    Invalid {
        /// Its path, as `events[2].campaign_id`.
        field: String,
        /// The rule it breaks.
        why: String,
    },
}

impl CodecError {
    fn missing(field: &str) -> CodecError {
        CodecError::Missing { field: field.into() }
    }

    fn invalid(field: &str, why: impl Display) -> CodecError {
        CodecError::Invalid { field: field.into(), why: why.to_string() }
    }

    /// The same error, seen from one message further out.
    fn within(mut self, outer: impl Display) -> CodecError {
        match &mut self {
            CodecError::Malformed { .. } => {}
            CodecError::Missing { field } | CodecError::Sealed { field, .. } | CodecError::Invalid { field, .. } => {
                *field = format!("{outer}.{field}");
            }
        }
        self
    }
}

fn parse<M: Message + Default>(message: &'static str, bytes: &[u8]) -> Result<M, CodecError> {
    M::decode(bytes).map_err(|source| CodecError::Malformed { message, source })
}

/// The bytes of a record.
///
/// # Errors
///
/// [`KeysError`] where there is no key to seal its personal fields under.
///
/// # Panics
///
/// If it has no events: such a record is never decided, and would not be read again.
pub fn encode_record(record: &Record, keys: &MemberKeys) -> Result<Vec<u8>, KeysError> {
    let mut bytes = Vec::new();
    encode_record_into(record, keys, &mut bytes)?;
    Ok(bytes)
}

/// Appends the bytes of a record to `out`, which keeps what it has.
///
/// # Errors
///
/// As [`encode_record`].
///
/// # Panics
///
/// As [`encode_record`].
pub fn encode_record_into(record: &Record, keys: &MemberKeys, out: &mut Vec<u8>) -> Result<(), KeysError> {
    record::encode(record, keys, out)
}

/// The record that these bytes are.
///
/// # Errors
///
/// The first field that is missing or not valid.
pub fn decode_record(bytes: &[u8], keys: &MemberKeys) -> Result<Record, CodecError> {
    record::from_wire(parse("Record", bytes)?, keys)
}

/// Whether nothing is in the record but how far deliveries have come, which is told to nobody. Costs a small part
/// of decoding it.
///
/// # Errors
///
/// Bytes that are no record.
pub fn is_mere_report(bytes: &[u8]) -> Result<bool, CodecError> {
    let report = parse::<wire::RecordReport>("RecordReport", bytes)?;
    Ok(report.events.iter().all(|event| event.delivery_progressed.is_some()))
}

/// A span, as a record keeps it: trace id, span id, flags.
pub type TraceBytes = [u8; 25];

/// Appends to the bytes of a record the span that it was committed in; behind who asked, if that is there.
pub fn encode_trace_into(trace: &TraceBytes, out: &mut Vec<u8>) {
    let trace = wire::RecordTrace { trace: Some(trace.to_vec()) };
    trace.encode(out).expect("a Vec has room for as much as memory holds");
}

/// The record that these bytes are, and the span that it was committed in.
///
/// # Errors
///
/// As [`decode_record`].
pub fn decode_traced(bytes: &[u8], keys: &MemberKeys) -> Result<(Record, Option<TraceBytes>), CodecError> {
    let mut record: wire::Record = parse("Record", bytes)?;
    let trace = record.trace.take().map(TraceBytes::try_from).transpose();
    let trace = trace.map_err(|bytes| CodecError::invalid("trace", format_args!("has {} bytes", bytes.len())))?;
    Ok((record::from_wire(record, keys)?, trace))
}

/// Appends to the bytes of a record who asked for it.
pub fn encode_actor_into(actor: &Actor, out: &mut Vec<u8>) {
    let Actor { credential, method } = actor.clone();
    let credential_id = credential.map(|id| id.to_string()).unwrap_or_default();
    let actor = wire::RecordActor { actor: Some(wire::Actor { credential_id, method }) };
    actor.encode(out).expect("a Vec has room for as much as memory holds");
}

/// Who asked for the record that these bytes are, where it says so.
///
/// # Errors
///
/// The first field that is not valid.
pub fn decode_actor(bytes: &[u8]) -> Result<Option<Actor>, CodecError> {
    let Some(wire::Actor { credential_id, method }) = parse::<wire::RecordActor>("RecordActor", bytes)?.actor else {
        return Ok(None);
    };
    let credential = match credential_id.as_str() {
        "" => None,
        given => Some(word::id("actor.credential_id", given)?),
    };
    Ok(Some(Actor { credential, method }))
}

/// The row of a member.
///
/// # Errors
///
/// [`KeysError`] where there is no key to seal its personal fields under.
pub fn encode_member(member: &Member, keys: &MemberKeys) -> Result<Vec<u8>, KeysError> {
    Ok(rows::member_to_wire(member, keys)?.encode_to_vec())
}

/// The member that this row is.
///
/// # Errors
///
/// The first field that is missing or not valid.
pub fn decode_member(bytes: &[u8], keys: &MemberKeys) -> Result<Member, CodecError> {
    rows::member_from_wire(parse("MemberRow", bytes)?, keys)
}

/// The row of a tenant's house.
pub fn encode_house(house: &House) -> Vec<u8> {
    rows::house_to_wire(house).encode_to_vec()
}

/// The house that this row is.
///
/// # Errors
///
/// The first field that is missing or not valid.
pub fn decode_house(bytes: &[u8]) -> Result<House, CodecError> {
    rows::house_from_wire(parse("HouseRow", bytes)?)
}

/// The row of a redemption, a coupon or an obligation.
pub fn encode_item(item: &Item) -> Vec<u8> {
    word::json(item).into_bytes()
}

/// The item that this row is.
///
/// # Errors
///
/// [`CodecError::Invalid`] with what is wrong with its JSON.
pub fn decode_item(bytes: &[u8]) -> Result<Item, CodecError> {
    serde_json::from_slice(bytes).map_err(|why| CodecError::invalid("item", why))
}

/// The row of a subscription's delivery state.
pub fn encode_delivery_state(state: &DeliveryState) -> Vec<u8> {
    rows::delivery_state_to_wire(state).encode_to_vec()
}

/// The delivery state that this row is.
///
/// # Errors
///
/// [`CodecError::Malformed`]: every value of its fields is valid.
pub fn decode_delivery_state(bytes: &[u8]) -> Result<DeliveryState, CodecError> {
    let row: wire::DeliveryStateRow = parse("DeliveryStateRow", bytes)?;
    rows::delivery_state_from_wire(row)
}

/// The row of a delivery that departed.
pub fn encode_delivery_row(row: &DeliveryRow) -> Vec<u8> {
    rows::delivery_row_to_wire(row).encode_to_vec()
}

/// The delivery that this row is.
///
/// # Errors
///
/// The first field that is missing or not valid.
pub fn decode_delivery_row(bytes: &[u8]) -> Result<DeliveryRow, CodecError> {
    rows::delivery_row_from_wire(parse("DeliveryRow", bytes)?)
}
