//! A fact: what an upstream system tells of that is no consumption, as `wallet_pass.installed`.
//!
//! # Invariants
//!
//! - A [`Fact`] has passed its shape check; its properties are a JSON object of bounded size and depth.

use crate::event::{EventType, FactPublished, Json, is_type_name};
use crate::id::{MemberId, Sequence};
use crate::loyalty::consumption::{FUTURE_MAX_MS, IDENTIFIERS_MAX};
use crate::loyalty::member::Identifier;
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Longest `fact_id`, in bytes: it is part of a key.
pub const FACT_ID_LEN_MAX: usize = 128;
/// Longest name of a source, in bytes.
pub const SOURCE_LEN_MAX: usize = 64;
/// Most bytes of a fact's properties.
pub const PROPERTIES_BYTES_MAX: usize = 64 * 1024;

/// Something reported, shape-checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The upstream system.
    pub source: String,
    /// Its id there: exactly once per tenant and source, for ever.
    pub fact_id: String,
    /// As `wallet_pass.installed`.
    pub fact_type: String,
    /// About whom; empty: about nobody.
    pub identifiers: Vec<Identifier>,
    /// When it happened, if that was reported.
    pub occurred_at: Option<UnixMillis>,
    /// What it says.
    pub properties: Json,
}

/// A fact as it came in.
#[derive(Debug, Clone, Default)]
pub struct RawFact {
    /// Required.
    pub source: String,
    /// Required.
    pub fact_id: String,
    /// Required.
    pub fact_type: String,
    /// As (key, value).
    pub identifiers: Vec<(String, String)>,
    /// Empty: now.
    pub occurred_at: String,
    /// A JSON object; empty: `{}`.
    pub properties: String,
}

/// What a fact was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactReceipt {
    /// Its position.
    pub sequence: Sequence,
    /// When it was taken in.
    pub time: UnixMillis,
    /// About whom.
    pub member_id: Option<MemberId>,
}

impl RawFact {
    /// The shape check.
    ///
    /// # Errors
    ///
    /// The first field that is missing or out of bounds.
    pub fn check(self, now: UnixMillis) -> Result<Fact, InvalidField> {
        let plain = |field: &str, value: &str, max: usize| {
            if !value.trim().is_empty() && value.len() <= max && !value.chars().any(char::is_control) {
                return Ok(());
            }
            let rule = format!("must be 1 to {max} bytes without control characters");
            Err(InvalidField::new(field, value, rule))
        };
        plain("source", &self.source, SOURCE_LEN_MAX)?;
        plain("fact_id", &self.fact_id, FACT_ID_LEN_MAX)?;
        if !is_type_name(&self.fact_type) {
            let rule = "must be dotted lower-case words, as wallet_pass.installed";
            return Err(InvalidField::new("type", self.fact_type, rule));
        }
        if EventType::parse(&self.fact_type).is_some() {
            let rule = "is told by Punchline itself: publish it under another name";
            return Err(InvalidField::new("type", self.fact_type, rule));
        }
        if self.identifiers.len() > IDENTIFIERS_MAX {
            let count = self.identifiers.len().to_string();
            return Err(InvalidField::new("identifiers", count, "has too many entries, at most 10 are allowed"));
        }
        let identifiers = (self.identifiers.iter().enumerate())
            .map(|(i, (key, value))| Identifier::parse(&format!("identifiers[{i}]"), key, value))
            .collect::<Result<_, _>>()?;
        let date = |rule: &str| InvalidField::new("occurred_at", &self.occurred_at, rule);
        let occurred_at = match self.occurred_at.as_str() {
            "" => None,
            given => Some(UnixMillis::parse(given).ok_or_else(|| date("must be RFC 3339"))?),
        };
        if occurred_at.is_some_and(|at| at > now.plus_ms(FUTURE_MAX_MS)) {
            return Err(date("must not be more than 24 hours in the future"));
        }
        let properties = properties(&self.properties)?;
        let RawFact { source, fact_id, fact_type, .. } = self;
        Ok(Fact { source, fact_id, fact_type, identifiers, occurred_at, properties })
    }
}

fn properties(text: &str) -> Result<Json, InvalidField> {
    if text.is_empty() {
        return Ok(Json("{}".into()));
    }
    if text.len() > PROPERTIES_BYTES_MAX {
        let bytes = text.len().to_string();
        return Err(InvalidField::new("properties", bytes, "must be at most 65536 bytes"));
    }
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| InvalidField::new("properties", "", format!("must be a JSON object: {error}")))?;
    match value {
        serde_json::Value::Object(_) => Ok(Json(value.to_string().into())),
        _ => Err(InvalidField::new("properties", text, "must be a JSON object")),
    }
}

/// The first field in which a repeat differs from what was recorded, of those that it gives.
pub fn difference(recorded: &FactPublished, member: Option<MemberId>, fact: &Fact) -> Option<&'static str> {
    let checks = [
        ("type", recorded.fact_type == fact.fact_type),
        ("identifiers", member.is_none() || recorded.member_id == member),
        ("occurred_at", fact.occurred_at.is_none_or(|at| recorded.occurred_at == at)),
        ("properties", recorded.properties == fact.properties),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawFact {
        RawFact {
            source: "wallet".into(),
            fact_id: "f-1".into(),
            fact_type: "wallet_pass.installed".into(),
            identifiers: vec![("email".into(), "ana@example.com".into())],
            occurred_at: "2026-03-08T12:00:00Z".into(),
            properties: r#"{ "url": "https://example.com", "n": 1.50 }"#.into(),
        }
    }

    #[test]
    fn shapes() {
        let now = UnixMillis::parse("2026-03-09T00:00:00Z").expect("a date");
        let fact = raw().check(now).expect("well-formed");
        assert_eq!(&*fact.properties.0, r#"{"url":"https://example.com","n":1.5}"#);
        type Spoil = fn(&mut RawFact);
        let bad: [(&str, Spoil); 9] = [
            ("source", |f| f.source.clear()),
            ("fact_id", |f| f.fact_id = "x".repeat(129)),
            ("fact_id", |f| f.fact_id = "a\u{1b}".into()),
            ("type", |f| f.fact_type = "Wallet.Installed".into()),
            ("type", |f| f.fact_type = "points.credited".into()),
            ("occurred_at", |f| f.occurred_at = "2027-01-01T00:00:00Z".into()),
            ("occurred_at", |f| f.occurred_at = "yesterday".into()),
            ("properties", |f| f.properties = "[1]".into()),
            ("properties", |f| f.properties = "{".repeat(300)),
        ];
        for (field, spoil) in bad {
            let mut fact = raw();
            spoil(&mut fact);
            assert_eq!(fact.check(now).expect_err(field).field, field);
        }
    }
}
