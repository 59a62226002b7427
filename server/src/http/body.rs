//! Bodies: JSON text as its known fields; and of the Wecheer routes, a [`RawConsumption`] out of them.
//!
//! # Invariants
//!
//! - Nothing here recurses: fields that we do not know are skipped, however deep they nest.
//! - What is kept of a body is bounded by a small multiple of its own size.
//! - Of two equal keys the last one counts, as in most parsers, so that nobody in front of us reads
//!   another value.
//!
//! # What is absent on purpose
//!
//! - The shape check itself: [`RawConsumption::check`] is the same for every way in. Only what its types
//!   cannot hold (a text for a number) is refused here.

use std::collections::BTreeMap;
use std::fmt;

use punchline_engine::loyalty::consumption::{IDENTIFIERS_MAX, LINES_MAX, RawConsumption, RawLine};
use punchline_engine::rejection::InvalidField;
use serde::Deserializer;
use serde::de::{Deserialize, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refuse::Refused;

/// A value as it stands in the text.
pub(super) type Json<'a> = &'a RawValue;

/// The known fields of an object, as they stand in the text.
pub(super) struct Fields<'a> {
    known: BTreeMap<&'static str, Json<'a>>,
    /// The name of the first field that is not known.
    unknown: Option<String>,
}

impl<'a> Fields<'a> {
    /// `None` where `text` is no object.
    pub(super) fn of(text: &'a str, known: &'static [&'static str]) -> Option<Fields<'a>> {
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.deserialize_map(FieldsVisitor(known)).ok()
    }

    /// A field that is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<Json<'a>> {
        self.known.get(name).copied().filter(|json| json.get() != "null")
    }

    /// The name of a field that is not known, if there is one.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// A text; empty where it is absent.
    pub(super) fn text(
        &self,
        name: &str,
        invalid: impl FnOnce(&str, &str) -> InvalidField,
    ) -> Result<String, InvalidField> {
        let Some(json) = self.get(name) else { return Ok(String::new()) };
        serde_json::from_str(json.get()).map_err(|_| invalid(json.get(), "must be a string"))
    }
}

struct FieldsVisitor(&'static [&'static str]);

impl<'a> Visitor<'a> for FieldsVisitor {
    type Value = Fields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut known, mut unknown) = (BTreeMap::new(), None);
        while let Some(Name(name)) = map.next_key()? {
            match self.0.iter().find(|known| **known == name) {
                Some(name) => drop(known.insert(*name, map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    unknown.get_or_insert_with(|| name.into_owned());
                }
            }
        }
        Ok(Fields { known, unknown })
    }
}

/// A key; escapes in it are resolved.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// The text of a body that is a JSON value other than `null`.
///
/// # Errors
///
/// `REQUEST_BODY_REQUIRED`, `INVALID_JSON`.
pub(super) fn document(body: &[u8]) -> Result<&str, Refused> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        invalid_json(format!("Request body is not UTF-8: byte {at} begins no character"))
    })?;
    if matches!(text.trim_ascii(), "" | "null") {
        return Err(Refused::body_required("body"));
    }
    // Skips instead of building, without recursion; finds what is no JSON wherever it stands.
    let mut reader = serde_json::Deserializer::from_str(text);
    let whole = IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end());
    whole.map_err(|error| invalid_json(format!("Request body is not JSON: {error}")))?;
    Ok(text)
}

fn invalid_json(message: String) -> Refused {
    Refused::new(tonic::Code::InvalidArgument, 400, "INVALID_JSON", message)
}

fn object<'a>(text: &'a str, known: &'static [&'static str]) -> Result<Fields<'a>, InvalidField> {
    Fields::of(text, known).ok_or_else(|| InvalidField::new("body", text, "must be a JSON object"))
}

/// Reads `advertiserId`; empty where it is absent.
///
/// # Errors
///
/// `INVALID_JSON`, or the field of the wrong type.
pub(super) fn advertiser_id(body: &[u8]) -> Result<String, Refused> {
    let text = match document(body) {
        Ok(text) => text,
        // What is missing altogether is missing its one field.
        Err(refused) if refused.reason == "REQUEST_BODY_REQUIRED" => return Ok(String::new()),
        Err(refused) => return Err(refused),
    };
    let fields = object(text, &["advertiserId"])?;
    Ok(fields.text("advertiserId", |value, rule| InvalidField::new("advertiserId", value, rule))?)
}

/// Reads a consumption.
///
/// # Errors
///
/// `REQUEST_BODY_REQUIRED`, `INVALID_JSON`, or the first field of the wrong type.
pub(super) fn consumption(body: &[u8]) -> Result<RawConsumption, Refused> {
    let text = document(body)?;
    let fields = object(text, &["consumptionId", "consumptionDate", "identifiers", "consumptionLines"])?;
    Ok(raw_consumption(&fields)?)
}

fn raw_consumption(fields: &Fields<'_>) -> Result<RawConsumption, InvalidField> {
    let consumption_id = fields.text("consumptionId", |value, rule| InvalidField::new("consumptionId", value, rule))?;
    let identifiers = list(fields, "identifiers", "INVALID_IDENTIFIER")?;
    let lines = list(fields, "consumptionLines", "INVALID_FIELD")?;
    if consumption_id.trim().is_empty() || identifiers.is_empty() || lines.is_empty() {
        // The shape check refuses it, in its own order; what else is wrong comes after.
        let identifiers = identifiers.iter().map(|_| Default::default()).take(1).collect();
        let lines = lines.iter().map(|_| RawLine::default()).take(1).collect();
        return Ok(RawConsumption { consumption_id, identifiers, lines, ..Default::default() });
    }
    let consumed_at = fields.text("consumptionDate", |value, rule| {
        InvalidField::with_reason("INVALID_CONSUMPTION_DATE", "consumptionDate", value, rule)
    })?;
    let too_many = identifiers.len() > IDENTIFIERS_MAX || lines.len() > LINES_MAX;
    if too_many {
        // As above: the shape check counts before it looks into any.
        let identifiers = identifiers.iter().map(|_| Default::default()).collect();
        let lines = lines.iter().map(|_| RawLine::default()).collect();
        return Ok(RawConsumption { consumption_id, consumed_at, identifiers, lines });
    }
    let identifiers =
        identifiers.iter().enumerate().map(|(i, json)| raw_identifier(i, json)).collect::<Result<_, _>>()?;
    let lines = lines.iter().enumerate().map(|(i, json)| raw_line(i, json)).collect::<Result<_, _>>()?;
    Ok(RawConsumption { consumption_id, consumed_at, identifiers, lines })
}

/// The items of a list; none where it is absent.
pub(super) fn list<'a>(fields: &Fields<'a>, name: &str, reason: &'static str) -> Result<Vec<Json<'a>>, InvalidField> {
    let Some(json) = fields.get(name) else { return Ok(Vec::new()) };
    let refuse = |_| InvalidField::with_reason(reason, name, json.get(), "must be an array");
    serde_json::from_str(json.get()).map_err(refuse)
}

/// An identifier at index `i`, as key and value.
pub(super) fn raw_identifier(i: usize, json: Json<'_>) -> Result<(String, String), InvalidField> {
    let invalid =
        |field: String, value: &str, rule: &str| InvalidField::with_reason("INVALID_IDENTIFIER", field, value, rule);
    let at = format!("identifiers[{i}]");
    let fields = Fields::of(json.get(), &["key", "value"])
        .ok_or_else(|| invalid(at.clone(), json.get(), "must be an object with key and value"))?;
    let text = |name: &str| fields.text(name, |value, rule| invalid(format!("{at}.{name}"), value, rule));
    Ok((text("key")?, text("value")?))
}

fn raw_line(i: usize, json: Json<'_>) -> Result<RawLine, InvalidField> {
    let at = format!("consumptionLines[{i}]");
    let fields = Fields::of(json.get(), &["sku", "productName", "quantity"])
        .ok_or_else(|| InvalidField::new(at.clone(), json.get(), "must be an object with sku and quantity"))?;
    let text = |name: &str| fields.text(name, |value, rule| InvalidField::new(format!("{at}.{name}"), value, rule));
    let (sku, product_name) = (text("sku")?, text("productName")?);
    let invalid =
        |value: &str, rule: &str| InvalidField::with_reason("INVALID_QUANTITY", format!("{at}.quantity"), value, rule);
    let given = fields.get("quantity").ok_or_else(|| invalid("", "is required"))?.get();
    // A number too large for the type is shown as it was given, too.
    let quantity = serde_json::from_str(given);
    let quantity = quantity.map_err(|_| invalid(given, "must be a whole number from 1 to 10000"))?;
    Ok(RawLine { sku, product_name, quantity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::time::UnixMillis;

    const GOOD: &str = r#"{"consumptionId":"I1","consumptionDate":"20250425T12:34:00Z","identifiers":[{"key":"phoneNumber","value":"40720005123"}],"consumptionLines":[{"sku":"coffee","quantity":1}]}"#;

    /// What a body comes to: its reason and message, or `ok`.
    fn outcome(body: &[u8]) -> String {
        let checked = consumption(body).and_then(|raw| {
            raw.check(UnixMillis::parse("2026-01-01T00:00:00Z").expect("a date")).map_err(Refused::from)
        });
        match checked {
            Ok(_) => "ok".into(),
            Err(refused) => {
                assert_eq!(refused.http_status, 400);
                format!("{}: {}", refused.reason, refused.message)
            }
        }
    }

    #[test]
    fn bodies() {
        let with = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replace(from, to)
        };
        let quantity = |text: &str| with(r#""quantity":1"#, &format!(r#""quantity":{text}"#));
        let bad_quantity = |value: &str| {
            format!(
                r#"INVALID_QUANTITY: consumptionLines[0].quantity "{value}" must be a whole number from 1 to 10000"#
            )
        };
        let date = |text: &str| with(r#""20250425T12:34:00Z""#, text);
        let identifiers = |text: &str| with(r#"[{"key":"phoneNumber","value":"40720005123"}]"#, text);
        let lines = |text: &str| with(r#"[{"sku":"coffee","quantity":1}]"#, text);
        let required = |reason: &str, what: &str| format!("{reason}: {what}");
        let no_body = "REQUEST_BODY_REQUIRED: Request body cannot be null".to_owned();
        let no_id = required("CONSUMPTION_ID_REQUIRED", "ConsumptionId is required");
        let no_identifiers = required("IDENTIFIERS_REQUIRED", "Identifiers are required");
        let no_lines = required("CONSUMPTION_LINES_REQUIRED", "ConsumptionLines are required");
        let bad_date = |value: &str| {
            format!(
                "INVALID_CONSUMPTION_DATE: consumptionDate {value:?} must be RFC 3339, YYYYMMDDTHH:MM:SSZ or YYYYMMDDTHHMMSSZ"
            )
        };
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (body, expected) in [
            (GOOD.into(), "ok".into()),
            (String::new(), no_body.clone()),
            ("  ".into(), no_body.clone()),
            (" null\n".into(), no_body),
            ("{}".into(), no_id.clone()),
            (with(r#""I1""#, "null"), no_id.clone()),
            (with(r#""I1""#, r#"" ""#), no_id.clone()),
            (with(r#""I1""#, "17"), r#"INVALID_FIELD: consumptionId "17" must be a string"#.into()),
            (identifiers("null"), no_identifiers.clone()),
            (identifiers("[]"), no_identifiers),
            (identifiers("{}"), r#"INVALID_IDENTIFIER: identifiers "{}" must be an array"#.into()),
            (identifiers("[7]"), r#"INVALID_IDENTIFIER: identifiers[0] "7" must be an object with key and value"#.into()),
            (identifiers(r#"[{"key":"phoneNumber","value":40720005123}]"#), r#"INVALID_IDENTIFIER: identifiers[0].value "40720005123" must be a string"#.into()),
            (identifiers(r#"[{"key":"loyaltyId","value":"1"}]"#), r#"INVALID_IDENTIFIER: identifiers[0].key "loyaltyId" must be phoneNumber, email or externalId"#.into()),
            (lines("[]"), no_lines.clone()),
            (lines("null"), no_lines),
            (lines("3"), r#"INVALID_FIELD: consumptionLines "3" must be an array"#.into()),
            (lines("[null]"), r#"INVALID_FIELD: consumptionLines[0] "null" must be an object with sku and quantity"#.into()),
            (lines(r#"[{"quantity":1}]"#), r#"INVALID_FIELD: consumptionLines[0].sku "" must be 1 to 128 bytes without control characters, not only spaces"#.into()),
            (lines(r#"[{"sku":5,"quantity":1}]"#), r#"INVALID_FIELD: consumptionLines[0].sku "5" must be a string"#.into()),
            (lines(r#"[{"sku":"a"}]"#), r#"INVALID_QUANTITY: consumptionLines[0].quantity "" is required"#.into()),
            (quantity("1.0"), "ok".into()),
            (quantity("1e3"), "ok".into()),
            (quantity("10000"), "ok".into()),
            (quantity("0"), bad_quantity("0")),
            (quantity("-1"), bad_quantity("-1")),
            (quantity("1.5"), bad_quantity("1.5")),
            (quantity("10001"), bad_quantity("10001")),
            (quantity("1e400"), bad_quantity("1e400")),
            (quantity("18446744073709551617"), bad_quantity("18446744073709552000")),
            (quantity(r#""1""#), bad_quantity(r#"\"1\""#)),
            (quantity("true"), bad_quantity("true")),
            (quantity("null"), r#"INVALID_QUANTITY: consumptionLines[0].quantity "" is required"#.into()),
            (date(r#""yesterday""#), bad_date("yesterday")),
            (date("null"), bad_date("")),
            (date("1745584440"), r#"INVALID_CONSUMPTION_DATE: consumptionDate "1745584440" must be a string"#.into()),
            // The first check that fails answers, whatever else is wrong.
            (with(r#""I1""#, r#""""#).replace(r#""quantity":1"#, r#""quantity":"x""#), no_id),
            // Unknown fields are ignored, however deep; the last of two equal keys counts.
            (with("{\"consumptionId\"", &format!("{{\"x\":{},\"consumptionId\"", deep(100_000))), "ok".into()),
            (with("\"sku\"", "\"extra\":{\"a\":[1]},\"sku\""), "ok".into()),
            (with("\"quantity\":1", "\"quantity\":0,\"quantity\":1"), "ok".into()),
            (with("\"consumptionId\"", "\"consumption\\u0049d\""), "ok".into()),
            (identifiers(&deep(100_000)), r#"INVALID_IDENTIFIER: identifiers[0] "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[" must be an object with key and value"#.into()),
            ("[]".into(), r#"INVALID_FIELD: body "[]" must be a JSON object"#.into()),
            ("17".into(), r#"INVALID_FIELD: body "17" must be a JSON object"#.into()),
            ("{".into(), "INVALID_JSON: Request body is not JSON: EOF while parsing an object at line 1 column 1".into()),
            (format!("{GOOD}x"), format!("INVALID_JSON: Request body is not JSON: trailing characters at line 1 column {}", GOOD.len() + 1)),
        ] {
            assert_eq!(outcome(body.as_bytes()), expected, "{}", body.chars().take(300).collect::<String>());
        }
        let many = lines(&format!("[{}1]", "1,".repeat(200)));
        assert!(outcome(many.as_bytes()).starts_with("INVALID_FIELD: consumptionLines \"201\" has too many entries"));
        let bad_utf8 = "INVALID_JSON: Request body is not UTF-8: byte 1 begins no character";
        assert_eq!(outcome(b"\"\xff\""), bad_utf8);
        let lone_surrogate = with("I1", "\\ud800");
        assert_eq!(
            outcome(lone_surrogate.as_bytes()),
            r#"INVALID_FIELD: consumptionId "\"\\ud800\"" must be a string"#
        );
    }

    #[test]
    fn advertiser_ids() {
        for (body, expected) in [
            ("", Ok("")),
            ("null", Ok("")),
            ("{}", Ok("")),
            (r#"{"advertiserId":"1000000001","x":1}"#, Ok("1000000001")),
            (r#"{"advertiserId":1000000001}"#, Err("INVALID_FIELD")),
            ("nonsense", Err("INVALID_JSON")),
        ] {
            let got = advertiser_id(body.as_bytes()).map_err(|refused| refused.reason);
            assert_eq!(got.as_deref().map_err(|reason| *reason), expected, "{body}");
        }
    }
}
