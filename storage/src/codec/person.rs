//! The personal fields of a member: sealed, where it has a key.
//!
//! What an earlier version wrote stands in plain fields, and is read from there.

use prost::Message;
use punchline_engine::event::Json;
use punchline_engine::id::KeySlot;
use punchline_engine::loyalty::member::{Identifier, Profile};
use punchline_proto::journal as wire;

use super::config::{identifiers_from_wire, identifiers_to_wire, profile_from_wire, profile_to_wire};
use super::{CodecError, parse};
use crate::member_keys::{KeysError, MemberKeys, Sealed};

/// Either the first two, or `person`, which is both of them sealed.
pub(super) struct Personal {
    pub(super) identifiers: Vec<wire::Identifier>,
    pub(super) profile: Option<wire::Profile>,
    pub(super) person: Option<Vec<u8>>,
}

pub(super) fn person_to_wire(
    identifiers: &[Identifier],
    profile: &Profile,
    slot: KeySlot,
    keys: &MemberKeys,
) -> Result<Personal, KeysError> {
    let nothing = identifiers.is_empty() && *profile == Profile::default();
    let (identifiers, profile) = (identifiers_to_wire(identifiers), Some(profile_to_wire(profile)));
    // An erased member has no key to seal nothing under.
    if slot == KeySlot::NONE || nothing {
        return Ok(Personal { identifiers, profile, person: None });
    }
    let person = keys.seal(slot, Sealed::Person, &wire::Person { identifiers, profile }.encode_to_vec())?;
    Ok(Personal { identifiers: Vec::new(), profile: None, person: Some(person) })
}

pub(super) fn person_from_wire(
    personal: Personal,
    slot: KeySlot,
    keys: &MemberKeys,
) -> Result<(Vec<Identifier>, Profile), CodecError> {
    let Personal { identifiers, profile, person } = personal;
    let Some(person) = person else {
        return Ok((identifiers_from_wire(identifiers)?, profile_from_wire(profile)?));
    };
    let unreadable = |error: KeysError| CodecError::Sealed { field: "person".into(), why: error.to_string() };
    let Some(person) = keys.open(slot, Sealed::Person, &person).map_err(unreadable)? else {
        return Ok((Vec::new(), Profile::default()));
    };
    let within = |e: CodecError| e.within("person");
    let person: wire::Person = parse("Person", &person)?;
    Ok((identifiers_from_wire(person.identifiers).map_err(within)?, profile_from_wire(person.profile).map_err(within)?))
}

/// What is personal of a fact: sealed where it is about a member with a key, nothing where there is nothing.
pub(super) fn fact_to_wire(personal: &Json, slot: KeySlot, keys: &MemberKeys) -> Result<Vec<u8>, KeysError> {
    match personal.0.as_bytes() {
        _ if personal.is_empty() => Ok(Vec::new()),
        text if slot == KeySlot::NONE => Ok(text.to_vec()),
        text => keys.seal(slot, Sealed::Fact, text),
    }
}

pub(super) fn fact_from_wire(bytes: &[u8], slot: KeySlot, keys: &MemberKeys) -> Result<Json, CodecError> {
    let unreadable = |error: KeysError| CodecError::Sealed { field: "personal".into(), why: error.to_string() };
    let text = match slot {
        _ if bytes.is_empty() => None,
        KeySlot::NONE => Some(bytes.to_vec()),
        _ => keys.open(slot, Sealed::Fact, bytes).map_err(unreadable)?,
    };
    let Some(text) = text else { return Ok(Json::empty()) };
    let text = String::from_utf8(text).map_err(|_| CodecError::invalid("personal", "must be UTF-8"))?;
    Ok(Json(text.into()))
}
