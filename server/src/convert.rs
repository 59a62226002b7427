//! Between the API's messages and the engine's values.
//!
//! # Invariants
//!
//! - What comes in is checked here for what only a message can get wrong (a missing part, an unknown enum
//!   value, an id that is none); bounds are the engine's.
//! - What goes out never holds a secret.

use std::str::FromStr;

use prost_types::Timestamp;
use punchline_delivery::dialect::standard;
use punchline_engine::event::Recorded;
use punchline_engine::id::InvalidId;
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine, Receipt};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::member::Identifier;
use punchline_engine::rejection::InvalidField;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;

use crate::refuse::{Refused, invalid_id};

pub mod admin;
pub mod campaign;
pub mod delivery;
pub mod fact;
pub mod ledger;
pub mod member;
pub mod page;
pub mod programme;
pub mod reward;
pub mod subscription;

#[cfg(test)]
mod tests;

/// An id of a message's field.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn id<T: FromStr<Err = InvalidId>>(field: &str, value: &str) -> Result<T, Refused> {
    value.parse().map_err(invalid_id(field))
}

/// An id that may be absent.
///
/// # Errors
///
/// As [`id`].
pub fn optional_id<T: FromStr<Err = InvalidId>>(field: &str, value: &str) -> Result<Option<T>, Refused> {
    if value.is_empty() { Ok(None) } else { id(field, value).map(Some) }
}

/// A number that a message has for an enum's word.
///
/// # Errors
///
/// `INVALID_FIELD`, with the rule, where the number is none.
pub fn word<T: TryFrom<i32>>(field: &str, number: i32, rule: &str) -> Result<T, Refused> {
    T::try_from(number).map_err(|_| Refused::field(field, number.to_string(), rule))
}

/// The etag that a caller gave, if it gave one.
pub fn etag(given: &str) -> Option<String> {
    Some(given.to_owned()).filter(|etag| !etag.is_empty())
}

/// A part of a message that must be there.
///
/// # Errors
///
/// `REQUEST_BODY_REQUIRED`, with the field.
pub fn required<T>(field: &str, value: Option<T>) -> Result<T, Refused> {
    value.ok_or_else(|| Refused::body_required(field))
}

/// An instant, for the wire.
pub fn timestamp(at: UnixMillis) -> Timestamp {
    let nanos = at.0.rem_euclid(1_000) as i32 * 1_000_000;
    Timestamp { seconds: at.0.div_euclid(1_000), nanos }
}

/// An instant from the wire; digits below the millisecond are cut.
///
/// # Errors
///
/// `INVALID_FIELD` outside the years 1 to 9999.
pub fn instant(field: &str, at: Timestamp) -> Result<UnixMillis, Refused> {
    let millis = at.seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(i64::from(at.nanos) / 1_000_000));
    let valid = (0..1_000_000_000).contains(&at.nanos);
    let in_range = |at: &UnixMillis| valid && (UnixMillis::MIN..=UnixMillis::MAX).contains(at);
    let rule = "must be an instant of the years 1 to 9999";
    millis.map(UnixMillis).filter(in_range).ok_or_else(|| Refused::field(field, at.seconds.to_string(), rule))
}

/// Identifiers in their normal form.
///
/// # Errors
///
/// `INVALID_IDENTIFIER`, with the field.
pub fn identifiers(field: &str, given: Vec<v1::Identifier>) -> Result<Vec<Identifier>, InvalidField> {
    let parse = |(i, v1::Identifier { key, value }): (usize, v1::Identifier)| {
        Identifier::parse(&format!("{field}[{i}]"), &key, &value)
    };
    given.into_iter().enumerate().map(parse).collect()
}

/// A consumption as it came in.
pub fn consumption(given: v1::Consumption) -> RawConsumption {
    let line =
        |line: v1::ConsumptionLine| RawLine { sku: line.sku, product_name: line.product_name, quantity: line.quantity };
    RawConsumption {
        consumption_id: given.consumption_id,
        consumed_at: given.consumption_date,
        identifiers: given.identifiers.into_iter().map(|i| (i.key, i.value)).collect(),
        lines: given.lines.into_iter().map(line).collect(),
    }
}

/// A field of the consumption at `at` under its name in the proto files: the engine knows those of HTTP.
pub fn consumption_field(at: &str, mut invalid: InvalidField) -> InvalidField {
    let path = invalid
        .field
        .replace("consumptionLines", "lines")
        .replace("consumptionId", "consumption_id")
        .replace("consumptionDate", "consumption_date")
        .replace("productName", "product_name");
    invalid.field = format!("{at}.{path}");
    invalid
}

/// A receipt, for the wire.
pub fn receipt(receipt: Receipt) -> v1::Receipt {
    let points =
        receipt.points_balances.into_iter().map(|(id, points)| ledger::balance(&Currency::Points(id), points.0));
    let coins = receipt.coins_balance.map(|coins| ledger::balance(&Currency::Coins, coins.0));
    let new_balances = points.chain(coins).collect();
    let matched = |line: punchline_engine::loyalty::consumption::MatchedLine| v1::MatchedLine {
        line: line.line,
        campaign_id: line.campaign_id.to_string(),
        rule_id: line.rule_id.to_string(),
        units: line.units,
    };
    let punchcards = receipt.punchcards.into_iter().map(|(campaign, punchcard, stamps)| v1::PunchcardStamps {
        campaign_id: campaign.to_string(),
        punchcard_id: punchcard.to_string(),
        stamps: stamps.0,
    });
    v1::Receipt {
        sequence: receipt.sequence.0,
        recorded_at: Some(timestamp(receipt.recorded_at)),
        member_id: receipt.member_id.to_string(),
        matched_lines: receipt.matched.into_iter().map(matched).collect(),
        points: receipt.points.0,
        coins: receipt.coins.0,
        stamps: receipt.stamps.0,
        rows_completed: receipt.rows_completed,
        new_balances,
        new_punchcards: punchcards.collect(),
    }
}

/// What an error says of the first of two receipts, by name.
pub fn receipt_facts(receipt: &Receipt) -> Vec<(&'static str, String)> {
    vec![
        ("sequence", receipt.sequence.to_string()),
        ("recorded_at", receipt.recorded_at.to_string()),
        ("member_id", receipt.member_id.to_string()),
        ("points", receipt.points.to_string()),
        ("coins", receipt.coins.to_string()),
        ("stamps", receipt.stamps.0.to_string()),
        ("rows_completed", receipt.rows_completed.to_string()),
    ]
}

/// An event, for the wire.
pub fn event(recorded: &Recorded<'_>) -> v1::Event {
    v1::Event {
        sequence: recorded.sequence.0,
        cause_sequence: recorded.cause.0,
        r#type: recorded.event.type_name().into(),
        time: Some(timestamp(recorded.time)),
        member_id: recorded.member.map(|id| id.to_string()).unwrap_or_default(),
        data_json: standard::data(recorded),
    }
}
