//! The words of the format: ids, instants, kinds, lists of positions.

use std::str::FromStr;

use punchline_engine::dispatch::subscription::SignatureScheme;
use punchline_engine::dispatch::{JobKind, JobState, OnDeadLetter, Ordering, SubscriptionState};
use punchline_engine::event::Unrewarded;
use punchline_engine::id::{AdvertiserId, Environment, InvalidId, JobId, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::campaign::{Overflow, Validity};
use punchline_engine::loyalty::member::IdentifierKind;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::time::{Period, UnixMillis};
use punchline_proto::journal as wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::CodecError;

/// A kind that stands as a number on the wire; 0 is never written.
pub(super) trait Kind: Sized {
    /// Its number.
    fn wire_number(self) -> i32;
    /// The kind of that number.
    fn of(field: &str, number: i32) -> Result<Self, CodecError>;
}

macro_rules! kinds {
    ($( $kind:ident { $( $name:ident, )* } )*) => {$(
        impl Kind for $kind {
            fn wire_number(self) -> i32 {
                match self { $( $kind::$name => wire::$kind::$name as i32, )* }
            }

            fn of(field: &str, number: i32) -> Result<Self, CodecError> {
                match wire::$kind::try_from(number) {
                    Ok(wire::$kind::Unspecified) => Err(CodecError::missing(field)),
                    $( Ok(wire::$kind::$name) => Ok($kind::$name), )*
                    Err(_) => Err(CodecError::invalid(field, format_args!("{number} is not known"))),
                }
            }
        }
    )*};
}

kinds! {
    Environment { Production, Staging, }
    Period { Day, Week, Month, Campaign, }
    Unrewarded { NoRuleMatched, CapReached, ConditionNotMet, NoCouponsLeft, }
    IdentifierKind { PhoneNumber, Email, ExternalId, }
    Scope { Ingest, Read, Manage, }
    Overflow { CarryOver, Discard, }
    SubscriptionState { Active, Paused, Disabled, }
    SignatureScheme { V1, V1a, }
    Ordering { PerMember, Strict, None, }
    OnDeadLetter { GoOn, Hold, }
    JobKind { Replay, Redrive, }
    JobState { Running, Completed, Cancelled, }
}

pub(super) fn tenant(advertiser: u64, environment: i32) -> Result<Tenant, CodecError> {
    let environment = Environment::of("environment", environment)?;
    Ok(Tenant { advertiser: AdvertiserId(advertiser), environment })
}

pub(super) fn uuid_bytes(uuid: &Uuid) -> Vec<u8> {
    uuid.as_bytes().to_vec()
}

fn uuid(field: &str, bytes: &[u8]) -> Result<Uuid, CodecError> {
    if bytes.is_empty() {
        return Err(CodecError::missing(field));
    }
    let why = || CodecError::invalid(field, format_args!("{} bytes are no UUID", bytes.len()));
    Uuid::from_slice(bytes).map_err(|_| why())
}

pub(super) fn member_id(field: &str, bytes: &[u8]) -> Result<MemberId, CodecError> {
    uuid(field, bytes).map(MemberId)
}

pub(super) fn subscription_id(field: &str, bytes: &[u8]) -> Result<SubscriptionId, CodecError> {
    uuid(field, bytes).map(SubscriptionId)
}

pub(super) fn job_id(field: &str, bytes: &[u8]) -> Result<JobId, CodecError> {
    uuid(field, bytes).map(JobId)
}

/// A kind whose default is not written.
pub(super) fn unless_default<T: Kind + Default + PartialEq>(kind: T) -> i32 {
    if kind == T::default() { 0 } else { kind.wire_number() }
}

/// A kind of which 0 is the default.
pub(super) fn or_default<T: Kind + Default>(field: &str, number: i32) -> Result<T, CodecError> {
    if number == 0 { Ok(T::default()) } else { T::of(field, number) }
}

/// An id that somebody chose.
pub(super) fn id<T: FromStr<Err = InvalidId>>(field: &str, text: &str) -> Result<T, CodecError> {
    if text.is_empty() {
        return Err(CodecError::missing(field));
    }
    text.parse().map_err(|why: InvalidId| CodecError::invalid(field, why))
}

/// The JSON of what there is rarely any of; empty where it is the default.
pub(super) fn json_unless_default<T: Serialize + Default + PartialEq>(value: &T) -> String {
    if *value == T::default() { String::new() } else { json(value) }
}

/// What [`json_unless_default`] wrote.
pub(super) fn json_or_default<T: DeserializeOwned + Default>(field: &str, text: &str) -> Result<T, CodecError> {
    if text.is_empty() { Ok(T::default()) } else { from_json(field, text) }
}

/// Equal values have equal texts: nothing in them is a hash map.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("its fields are numbers, texts and lists of them")
}

pub(super) fn from_json<T: DeserializeOwned>(field: &str, text: &str) -> Result<T, CodecError> {
    serde_json::from_str(text).map_err(|why| CodecError::invalid(field, why))
}

/// A message that is always written.
pub(super) fn required<T>(field: &str, message: Option<T>) -> Result<T, CodecError> {
    message.ok_or_else(|| CodecError::missing(field))
}

/// An HTTP status.
pub(super) fn status(field: &str, number: u32) -> Result<u16, CodecError> {
    u16::try_from(number).map_err(|_| CodecError::invalid(field, format_args!("{number} is no status")))
}

pub(super) fn validity(starts_at_ms: Option<i64>, ends_at_ms: Option<i64>) -> Validity {
    Validity { starts_at: starts_at_ms.map(UnixMillis), ends_at: ends_at_ms.map(UnixMillis) }
}

/// Every element, decoded; an error says which one it was.
pub(super) fn each<W, T>(
    field: &str,
    elements: Vec<W>,
    decode: impl Fn(W) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let mut decoded = Vec::with_capacity(elements.len());
    for (i, element) in elements.into_iter().enumerate() {
        decoded.push(decode(element).map_err(|e| e.within(format_args!("{field}[{i}]")))?);
    }
    Ok(decoded)
}

/// Each position's difference to the one before, the first's to 0. Differences wrap, so that any list
/// comes back as it was; ascending ones are short.
pub(super) fn deltas<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> impl Iterator<Item = u64> {
    sequences.scan(0, |before, sequence| {
        let delta = sequence.0.wrapping_sub(*before);
        *before = sequence.0;
        Some(delta)
    })
}

/// The positions of which these are the [`deltas`].
pub(super) fn undeltas(deltas: impl Iterator<Item = u64>) -> impl Iterator<Item = Sequence> {
    deltas.scan(0u64, |at, delta| {
        *at = at.wrapping_add(delta);
        Some(Sequence(*at))
    })
}
