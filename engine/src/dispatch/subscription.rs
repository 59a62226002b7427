//! A subscription: which events go where, and how.
//!
//! # Invariants
//!
//! - Selection is by name alone and never looks into an event, so a type is matched once, not per event.

use serde::{Serialize, Serializer};

use crate::dispatch::RetrySchedule;
use crate::event::EventType;
use crate::id::SubscriptionId;
use crate::loyalty::tenant::SealedSecret;
use crate::rejection::InvalidField;

/// Most type patterns of one subscription.
pub const PATTERNS_MAX: usize = 100;
/// Most custom headers of one subscription.
pub const HEADERS_MAX: usize = 20;
/// Longest time-out of one attempt.
pub const TIMEOUT_MS_MAX: u64 = 60_000;
/// Most attempts in flight to one subscription.
pub const IN_FLIGHT_MAX: u32 = 1_024;

/// A standing order for events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// What it is for, for people.
    pub description: String,
    /// Where attempts go.
    pub url: String,
    /// Which events.
    pub event_types: EventSelection,
    /// Headers of its own, names in lower case. Values may be secrets, so they are sealed and not told.
    #[serde(serialize_with = "names_only")]
    pub headers: Vec<(String, SealedSecret)>,
    /// Basic authentication, if any.
    pub basic_auth: Option<BasicAuth>,
    /// When to try again.
    pub schedule: RetrySchedule,
    /// Longest that one attempt may take.
    pub timeout_ms: u64,
    /// Attempts under way at once.
    pub max_in_flight: u32,
    /// Statuses after which trying again is pointless.
    pub permanent_statuses: Vec<u16>,
    /// Counts changes, from 1; the etag.
    pub version: u64,
}

/// Basic authentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The password.
    #[serde(skip)]
    pub password: SealedSecret,
}

fn names_only<S: Serializer>(headers: &[(String, SealedSecret)], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(headers.iter().map(|(name, _)| name))
}

/// Whether a subscription is served. Its backlog is kept in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// Served.
    Active,
    /// Stopped by somebody.
    Paused,
    /// Stopped by the server: the receiver answered 410.
    Disabled,
}

/// Event types by name or wildcard: `points.credited`, `points.*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSelection {
    patterns: Vec<String>,
    mask: u64,
}

impl EventSelection {
    /// Everything.
    pub fn all() -> EventSelection {
        EventSelection::parse("event_types", vec!["*".into()]).expect("* is a pattern")
    }

    /// Takes patterns: an event type, a prefix followed by `.*`, or `*`.
    ///
    /// # Errors
    ///
    /// The first pattern that selects nothing.
    pub fn parse(field: &str, patterns: Vec<String>) -> Result<EventSelection, InvalidField> {
        if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
            let rule = "must list 1 to 100 event types";
            return Err(InvalidField::new(field, patterns.len().to_string(), rule));
        }
        let mut mask = 0;
        for (i, pattern) in patterns.iter().enumerate() {
            let selected = EventType::ALL.iter().filter(|t| t.is_public() && matches(pattern, t.as_str()));
            let bits = selected.fold(0, |bits, t| bits | bit(*t));
            if bits == 0 {
                let rule = "selects no event type: give one, a prefix as points.*, or *";
                return Err(InvalidField::new(format!("{field}[{i}]"), pattern, rule));
            }
            mask |= bits;
        }
        Ok(EventSelection { patterns, mask })
    }

    /// The patterns, as given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether events of this type are selected.
    pub fn selects(&self, event_type: EventType) -> bool {
        self.mask & bit(event_type) != 0
    }

    /// One bit for each type that is selected, to be tested against others' [`bit`]s at once.
    pub fn mask(&self) -> u64 {
        self.mask
    }
}

impl Serialize for EventSelection {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(s)
    }
}

/// The bit of a type in a mask.
pub fn bit(event_type: EventType) -> u64 {
    const { assert!(EventType::ALL.len() <= 64) };
    1 << event_type as u8
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && name.starts_with(prefix),
        None => pattern == name,
    }
}

impl Subscription {
    /// Checks numbers and counts. URL and headers are checked by `delivery`, which knows the rules.
    ///
    /// # Errors
    ///
    /// The first field out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.description.len() > 500 {
            return Err(InvalidField::new("description", &self.description, "must be at most 500 bytes"));
        }
        if self.headers.len() > HEADERS_MAX {
            return Err(InvalidField::new("headers", self.headers.len().to_string(), "must be at most 20"));
        }
        if !(100..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(InvalidField::new("timeout_ms", self.timeout_ms.to_string(), "must be from 100 to 60000"));
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.max_in_flight) {
            let rule = "must be from 1 to 1024";
            return Err(InvalidField::new("max_in_flight", self.max_in_flight.to_string(), rule));
        }
        if let Some(status) = self.permanent_statuses.iter().find(|s| !(300..=599).contains(*s)) {
            let rule = "must be from 300 to 599";
            return Err(InvalidField::new("permanent_statuses", status.to_string(), rule));
        }
        self.schedule.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection() {
        for (patterns, name, expected) in [
            ("*", "points.credited", true),
            ("*", "delivery.progressed", false),
            ("points.*", "points.debited", true),
            ("points.*", "coins.changed", false),
            ("points.credited,coins.*", "coins.changed", true),
            ("points.credited", "points.debited", false),
        ] {
            let list = patterns.split(',').map(String::from).collect();
            let selection = EventSelection::parse("event_types", list).expect(patterns);
            let event_type = EventType::parse(name).expect(name);
            assert_eq!(selection.selects(event_type), expected, "{patterns} {name}");
        }
        for bad in ["", "point", "points*", "points.", "*.credited", "delivery.progressed", "nothing.*"] {
            assert!(EventSelection::parse("event_types", vec![bad.into()]).is_err(), "{bad}");
        }
    }
}
