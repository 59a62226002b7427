//! A fact: what an upstream system tells of that is no consumption, as `wallet_pass.installed`.
//!
//! # Invariants
//!
//! - A [`Fact`] has passed its shape check; its properties are a JSON object of bounded size and depth.
//! - What is personal of them stands apart, so that it can be sealed; no property stands in both parts.

use crate::event::{FactPublished, Json};
use crate::id::{MemberId, Sequence};
use crate::loyalty::consumption::{FUTURE_MAX_MS, IDENTIFIERS_MAX};
use crate::loyalty::fact_type;
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
    /// What it says, but for what is personal.
    pub properties: Json,
    /// What it says that is personal: [`Fact::split`] takes it out of the rest.
    pub personal: Json,
}

impl Fact {
    /// Takes the properties of these names out of the rest, as personal ones.
    #[must_use]
    pub fn split(mut self, personal: &[&str]) -> Fact {
        let Some(mut rest) =
            fields(&self.properties).filter(|rest| personal.iter().any(|name| rest.contains_key(*name)))
        else {
            return self;
        };
        let mut apart = fields(&self.personal).unwrap_or_default();
        apart.extend(personal.iter().filter_map(|name| rest.shift_remove_entry(*name)));
        self.properties = Json(serde_json::Value::Object(rest).to_string().into());
        self.personal = Json(serde_json::Value::Object(apart).to_string().into());
        self
    }
}

fn fields(json: &Json) -> Option<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(&json.0).ok()
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
    /// The shape check. `built_in` says which types others publish, even where the engine tells of the same.
    ///
    /// # Errors
    ///
    /// The first field that is missing or out of bounds.
    pub fn check(self, now: UnixMillis, built_in: impl Fn(&str) -> bool) -> Result<Fact, InvalidField> {
        let plain = |field: &str, value: &str, max: usize| {
            if !value.trim().is_empty() && value.len() <= max && !value.chars().any(char::is_control) {
                return Ok(());
            }
            let rule = format!("must be 1 to {max} bytes without control characters");
            Err(InvalidField::new(field, value, rule))
        };
        plain("source", &self.source, SOURCE_LEN_MAX)?;
        plain("fact_id", &self.fact_id, FACT_ID_LEN_MAX)?;
        fact_type::check_name("type", &self.fact_type, built_in(&self.fact_type))?;
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
        Ok(Fact { source, fact_id, fact_type, identifiers, occurred_at, properties, personal: Json::empty() })
    }
}

fn properties(text: &str) -> Result<Json, InvalidField> {
    if text.is_empty() {
        return Ok(Json::empty());
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

/// The first field in which a repeat differs from what was recorded, of those that it gives. What was recorded
/// is about `about` by now, the repeat about `member`.
pub fn difference(
    recorded: &FactPublished,
    about: Option<MemberId>,
    member: Option<MemberId>,
    fact: &Fact,
) -> Option<&'static str> {
    let checks = [
        ("type", recorded.fact_type == fact.fact_type),
        ("identifiers", member.is_none() || about == member),
        ("occurred_at", fact.occurred_at.is_none_or(|at| recorded.occurred_at == at)),
        ("properties", says_the_same(recorded, fact)),
    ];
    checks.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

/// Whether both say the same, whatever of it was personal when they came in: a type may have been registered
/// anew in between.
fn says_the_same(recorded: &FactPublished, fact: &Fact) -> bool {
    if (&recorded.properties, &recorded.personal) == (&fact.properties, &fact.personal) {
        return true;
    }
    let whole = |properties, personal| {
        let mut whole = fields(properties)?;
        whole.extend(fields(personal)?);
        Some(whole)
    };
    whole(&recorded.properties, &recorded.personal) == whole(&fact.properties, &fact.personal)
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
        let none = |_: &str| false;
        let fact = raw().check(now, none).expect("well-formed");
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
            assert_eq!(fact.check(now, none).expect_err(field).field, field);
        }
        // What others publish stays theirs when the engine comes to tell of it; what is ours alone does not.
        let tier = RawFact { fact_type: "tier.changed".into(), ..raw() };
        assert!(tier.check(now, |name| name == "tier.changed").is_ok());
        let ours = RawFact { fact_type: "points.credited".into(), ..raw() };
        assert!(ours.check(now, |_| true).is_err());
    }

    #[test]
    fn what_is_personal_stands_apart_and_is_compared_with_the_rest() {
        let now = UnixMillis::parse("2026-03-09T00:00:00Z").expect("a date");
        let fact = |properties: &str, personal: &[&str]| {
            let raw = RawFact { properties: properties.into(), ..raw() };
            raw.check(now, |_| false).expect("well-formed").split(personal)
        };
        let whole = r#"{"email":"a@b","n":1,"who":{"name":"Ana"}}"#;
        let split = fact(whole, &["who", "email", "phone"]);
        assert_eq!(
            (&*split.properties.0, &*split.personal.0),
            (r#"{"n":1}"#, r#"{"who":{"name":"Ana"},"email":"a@b"}"#)
        );
        assert_eq!(fact(whole, &["phone"]).personal, Json::empty());
        let recorded = FactPublished {
            source: split.source.clone(),
            fact_id: split.fact_id.clone(),
            fact_type: split.fact_type.clone(),
            member_id: None,
            occurred_at: split.occurred_at.expect("given"),
            properties: split.properties.clone(),
            personal: split.personal.clone(),
        };
        for (properties, personal, differs) in [
            (whole, &["who", "email"][..], None),
            (whole, &["email"], None),
            (r#"{"who":{"name":"Ana"},"n":1,"email":"a@b"}"#, &[], None),
            (r#"{"email":"b@b","n":1,"who":{"name":"Ana"}}"#, &["email"], Some("properties")),
            (r#"{"n":1,"who":{"name":"Ana"}}"#, &["email"], Some("properties")),
            (r#"{"email":"a@b","n":2,"who":{"name":"Ana"}}"#, &["who", "email"], Some("properties")),
        ] {
            assert_eq!(
                difference(&recorded, None, None, &fact(properties, personal)),
                differs,
                "{properties} {personal:?}"
            );
        }
    }
}
