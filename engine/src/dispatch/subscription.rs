//! A subscription: which events go where, and how.
//!
//! # Invariants
//!
//! - Selection is by name alone, so a type is matched once, not per event; only a filter looks into one.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::dispatch::{BreakerPolicy, RetrySchedule};
use crate::event::{Event, EventType, is_type_name};
use crate::id::SubscriptionId;
use crate::loyalty::tenant::SealedSecret;
use crate::rejection::InvalidField;

/// Most type patterns of one subscription.
pub const PATTERNS_MAX: usize = 100;
/// Most custom headers of one subscription.
pub const HEADERS_MAX: usize = 20;
/// Longest time-out of one attempt.
pub const TIMEOUT_MS_MAX: u64 = 60_000;
/// Longest that a consumer may take over one event.
pub const ACK_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Most attempts in flight to one subscription.
pub const IN_FLIGHT_MAX: u32 = 1_024;
/// Longest that one attempt may take, where nothing is said.
pub const TIMEOUT_MS_DEFAULT: u64 = 15_000;
/// Attempts under way at once, where nothing is said.
pub const IN_FLIGHT_DEFAULT: u32 = 64;
/// Longest filter, in bytes.
pub const FILTER_LEN_MAX: usize = crate::expression::EXPRESSION_LEN_MAX;

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
    /// How attempts authenticate, apart from the signature.
    pub auth: Auth,
    /// The client certificate for mTLS, if any.
    pub client_certificate: Option<ClientCertificate>,
    /// Signing keys are of this kind.
    pub signature: SignatureScheme,
    /// In which form events are told.
    pub dialect: DialectChoice,
    /// CEL over `event` that must hold; empty: everything.
    pub filter: String,
    /// What waits for what.
    pub ordering: Ordering,
    /// What a dead letter means for its successors.
    pub on_dead_letter: OnDeadLetter,
    /// When to try again.
    pub schedule: RetrySchedule,
    /// Longest that one attempt may take.
    pub timeout_ms: u64,
    /// Attempts under way at once.
    pub max_in_flight: u32,
    /// Attempts begun in a second; 0: no limit.
    pub rate_per_second: u32,
    /// When the endpoint is left in peace.
    pub breaker: BreakerPolicy,
    /// Name of the consumer whose connections take the events instead of the URL; empty: none.
    pub consumer: String,
    /// Statuses after which trying again is pointless.
    pub permanent_statuses: Vec<u16>,
    /// Counts changes, from 1; the etag.
    pub version: u64,
}

/// How attempts authenticate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Auth {
    /// By the signature alone.
    #[default]
    None,
    /// Basic authentication.
    Basic(BasicAuth),
    /// A fixed token.
    Bearer {
        /// The token.
        #[serde(skip)]
        token: SealedSecret,
    },
    /// A token fetched by client credentials (RFC 6749, section 4.4).
    #[serde(rename = "oauth2")]
    OAuth2(OAuth2),
    /// A write key of Segment.
    WriteKey {
        /// The key.
        #[serde(skip)]
        key: SealedSecret,
    },
}

/// Client credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OAuth2 {
    /// Where tokens come from.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// Its secret.
    #[serde(skip)]
    pub client_secret: SealedSecret,
    /// What for; may be empty.
    pub scopes: Vec<String>,
    /// For whom; may be empty.
    pub audience: String,
}

/// A certificate that the receiver asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// The chain, PEM, the client's own first.
    #[serde(rename = "certificate")]
    pub chain_pem: String,
    /// Its private key, PEM.
    #[serde(skip)]
    pub key_pem: SealedSecret,
}

/// Kinds of signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureScheme {
    /// HMAC-SHA256 under a shared secret.
    #[default]
    V1,
    /// Ed25519: the receiver knows the public key only.
    V1a,
}

/// A dialect with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DialectChoice {
    /// As `standard`.
    pub name: String,
    /// What the dialect lets a subscription choose.
    pub settings: BTreeMap<String, String>,
}

impl Default for DialectChoice {
    fn default() -> Self {
        DialectChoice { name: "standard".into(), settings: BTreeMap::new() }
    }
}

/// What waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// A member's events are in order; members do not wait for each other.
    #[default]
    PerMember,
    /// All events are in order: each waits until the one before is settled.
    Strict,
    /// Nothing waits.
    None,
}

/// What a dead letter means for the events behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadLetter {
    /// They go on without it.
    #[default]
    GoOn,
    /// They are held until it is redriven and arrives, or is dropped.
    Hold,
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
    /// Stopped by the server: the receiver asked for it, or failed for too long.
    Disabled,
}

/// Event types by name or wildcard: `points.credited`, `points.*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSelection {
    patterns: Vec<String>,
    mask: TypeMask,
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
            mask |= selected.fold(0, |bits, t| bits | bit(*t));
            if may_match_a_fact(pattern) {
                mask |= bit(EventType::FactPublished);
            } else if !EventType::ALL.iter().any(|t| t.is_public() && matches(pattern, t.as_str())) {
                let rule = "selects no event type: give one, a prefix as points.*, or *";
                return Err(InvalidField::new(format!("{field}[{i}]"), pattern, rule));
            }
        }
        Ok(EventSelection { patterns, mask })
    }

    /// The patterns, as given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether this event is selected. A published fact goes by the type that its publisher gave it.
    pub fn selects(&self, event: &Event) -> bool {
        let known = self.mask & bit(event.event_type()) != 0;
        match event {
            Event::FactPublished(fact) => known && self.selects_name(&fact.fact_type),
            _ => known,
        }
    }

    /// Whether events of the type of this name are selected.
    pub fn selects_name(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, name))
    }

    /// One bit for each type that is selected, to be tested against others' [`bit`]s at once.
    pub fn mask(&self) -> TypeMask {
        self.mask
    }
}

impl Serialize for EventSelection {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(s)
    }
}

/// One bit for each type of event.
pub type TypeMask = u128;

/// The bit of a type in a mask.
pub fn bit(event_type: EventType) -> TypeMask {
    const { assert!(EventType::ALL.len() <= TypeMask::BITS as usize) };
    1 << event_type as u8
}

/// A pattern that is no type of ours may be one of a published fact: those are open.
fn may_match_a_fact(pattern: &str) -> bool {
    let private = |name: &str| EventType::parse(name).is_some_and(|t| !t.is_public());
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.strip_suffix('.').is_some_and(|p| p.split('.').all(crate::event::is_type_word)),
        None => is_type_name(pattern) && !private(pattern),
    }
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
        // What a consumer does with an event may take longer than an answer to a request.
        let timeout_ms_max = if self.consumer.is_empty() { TIMEOUT_MS_MAX } else { ACK_TIMEOUT_MS_MAX };
        if !(100..=timeout_ms_max).contains(&self.timeout_ms) {
            let rule = format!("must be from 100 to {timeout_ms_max}");
            return Err(InvalidField::new("timeout_ms", self.timeout_ms.to_string(), rule));
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.max_in_flight) {
            let rule = "must be from 1 to 1024";
            return Err(InvalidField::new("max_in_flight", self.max_in_flight.to_string(), rule));
        }
        if let Some(status) = self.permanent_statuses.iter().find(|s| !(300..=599).contains(*s)) {
            let rule = "must be from 300 to 599";
            return Err(InvalidField::new("permanent_statuses", status.to_string(), rule));
        }
        if self.filter.len() > FILTER_LEN_MAX {
            let rule = "must be at most 2000 bytes";
            return Err(InvalidField::new("filter", self.filter.len().to_string(), rule));
        }
        self.breaker.validate()?;
        self.schedule.validate()
    }

    /// A subscription to everything, with the defaults.
    pub fn to(id: SubscriptionId, url: &str) -> Subscription {
        Subscription {
            id,
            description: String::new(),
            url: url.into(),
            event_types: EventSelection::all(),
            headers: Vec::new(),
            auth: Auth::None,
            client_certificate: None,
            signature: SignatureScheme::V1,
            dialect: DialectChoice::default(),
            filter: String::new(),
            ordering: Ordering::PerMember,
            on_dead_letter: OnDeadLetter::GoOn,
            schedule: RetrySchedule::default(),
            timeout_ms: TIMEOUT_MS_DEFAULT,
            max_in_flight: IN_FLIGHT_DEFAULT,
            rate_per_second: 0,
            breaker: BreakerPolicy::default(),
            consumer: String::new(),
            permanent_statuses: Vec::new(),
            version: 1,
        }
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
            assert_eq!(selection.mask() & bit(event_type) != 0, expected, "{patterns} {name}");
        }
        let facts = EventSelection::parse("event_types", vec!["wallet_pass.*".into()]).expect("a type of facts");
        assert!(facts.selects_name("wallet_pass.installed") && !facts.selects_name("wallet.installed"));
        assert_eq!(facts.mask(), bit(EventType::FactPublished));
        for bad in ["", "point", "points*", "points.", "*.credited", "delivery.progressed", "Wallet.*", "a..b"] {
            assert!(EventSelection::parse("event_types", vec![bad.into()]).is_err(), "{bad}");
        }
    }
}
