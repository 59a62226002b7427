//! Types of facts: what others may publish, and what it must look like.
//!
//! Some types are built in (`delivery/dialects/facts.toml`); a tenant registers its own with a JSON Schema.
//! Registering one again writes its next version, by which facts are checked from then on; what was
//! published before stays.
//!
//! # Invariants
//!
//! - A type that only Punchline tells of can neither be published nor be registered.
//! - The text of a schema is a JSON object of bounded size.
//!
//! # What is absent on purpose
//!
//! - What the schema means: it is compiled, and facts are checked by it, where they come in.
//! - Taking a type away: facts of it stand in the journal, and their schema explains them.

use serde::Serialize;

use crate::event::{EventType, is_type_name};
use crate::rejection::InvalidField;

/// Most types of one tenant.
pub const FACT_TYPES_MAX: usize = 1_000;
/// Most bytes of a schema: with the above, 16 MiB of the directory.
pub const SCHEMA_BYTES_MAX: usize = 16 * 1024;
/// Longest description, in bytes.
pub const DESCRIPTION_LEN_MAX: usize = 500;

/// A type that a tenant registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactType {
    /// As `fitting.booked`.
    pub name: String,
    /// What it says, for people.
    pub description: String,
    /// The JSON Schema of its properties, as text.
    pub schema: String,
    /// Counts changes, from 1.
    pub version: u64,
}

impl FactType {
    /// Checks everything but whether the schema compiles.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        check_name("name", &self.name, false)?;
        if self.description.len() > DESCRIPTION_LEN_MAX {
            let rule = format!("must be at most {DESCRIPTION_LEN_MAX} bytes");
            return Err(InvalidField::new("description", &self.description, rule));
        }
        if self.schema.len() > SCHEMA_BYTES_MAX {
            let rule = format!("must be at most {SCHEMA_BYTES_MAX} bytes");
            return Err(invalid_schema("schema", self.schema.len().to_string(), rule));
        }
        match serde_json::from_str(&self.schema) {
            Ok(serde_json::Value::Object(_)) => Ok(()),
            Ok(_) => Err(invalid_schema("schema", &self.schema, "must be a JSON object")),
            Err(error) => Err(invalid_schema("schema", "", format!("must be a JSON object: {error}"))),
        }
    }
}

/// A field of a schema that cannot be used.
pub fn invalid_schema(field: impl Into<String>, value: impl AsRef<str>, rule: impl Into<String>) -> InvalidField {
    InvalidField::with_reason("INVALID_SCHEMA", field, value, rule)
}

/// Checks a type's name; `built_in` are those that others publish, even where the engine tells of the same.
///
/// # Errors
///
/// Where it is no name of a type, or Punchline's alone.
pub fn check_name(field: &str, name: &str, built_in: bool) -> Result<(), InvalidField> {
    if !is_type_name(name) {
        return Err(InvalidField::new(field, name, "must be dotted lower-case words, as wallet_pass.installed"));
    }
    if is_own(name) || (!built_in && EventType::parse(name).is_some()) {
        return Err(InvalidField::new(field, name, "is told by Punchline itself: publish it under another name"));
    }
    Ok(())
}

/// Whether nobody but Punchline ever tells of this: it would be taken for what the ledger says.
pub fn is_own(name: &str) -> bool {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    match first {
        "advertiser" | "breaker" | "campaign" | "consumption" | "credential" | "delivery" | "delivery_job"
        | "fact_type" | "punchcard" | "subscription" => true,
        "coins" => rest == "changed",
        "fact" => rest == "published",
        "member" => matches!(rest, "created" | "updated" | "blocked" | "unblocked" | "joined_campaign"),
        "points" => matches!(rest, "credited" | "debited"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_told_by_us_alone_unless_it_is_built_in() {
        for kind in EventType::ALL {
            let name = kind.as_str();
            assert!(check_name("type", name, false).is_err(), "{name}");
        }
        for (name, own) in [
            ("member.birthday", false),
            ("member.created", true),
            ("points.expired", false),
            ("consumption.cancelled", true),
            ("delivery_job.started", true),
            ("delivery_van.arrived", false),
            ("fact.published", true),
            ("fact.checked", false),
            ("tier.changed", false),
        ] {
            assert_eq!(is_own(name), own, "{name}");
        }
    }

    #[test]
    fn types_have_bounds() {
        let good = FactType {
            name: "fitting.booked".into(),
            description: "A fitting was booked.".into(),
            schema: r#"{"type":"object"}"#.into(),
            version: 1,
        };
        assert_eq!(good.validate(), Ok(()));
        type Spoil = fn(&mut FactType);
        let bad: [(&str, &str, Spoil); 7] = [
            ("name", "INVALID_FIELD", |t| t.name = "fitting".into()),
            ("name", "INVALID_FIELD", |t| t.name = "points.credited".into()),
            ("name", "INVALID_FIELD", |t| t.name = "campaign.viewed".into()),
            ("description", "INVALID_FIELD", |t| t.description = "x".repeat(501)),
            ("schema", "INVALID_SCHEMA", |t| t.schema = "true".into()),
            ("schema", "INVALID_SCHEMA", |t| t.schema = "{".into()),
            ("schema", "INVALID_SCHEMA", |t| t.schema = format!("{{\"title\":\"{}\"}}", "x".repeat(16 * 1024))),
        ];
        for (field, reason, spoil) in bad {
            let mut fact_type = good.clone();
            spoil(&mut fact_type);
            let invalid = fact_type.validate().expect_err(field);
            assert_eq!((invalid.field.as_str(), invalid.reason), (field, reason));
        }
    }
}
