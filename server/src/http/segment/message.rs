//! One message of Segment's, and the command that it comes to.
//!
//! | message | becomes |
//! |---|---|
//! | `track`, its event named like a dynamic event of a campaign | a consumption of one line; its id is the `messageId` |
//! | `track` otherwise, `page`, `screen`, `group`, `alias` | a fact of the source `segment`; its id is the `messageId` |
//! | `identify` | a member registered or added to; the request id is `segment:<messageId>` |
//!
//! # Invariants
//!
//! - What a message comes to depends on its text alone and not on when it arrives, so that its repeat is
//!   seen to be one. Only a message without a `timestamp` gets the time of its arrival.
//! - A number where a text is expected is its digits: clients of untyped languages send user ids so.
//!
//! # What is absent on purpose
//!
//! - Splitting a `name` into its parts: which part is which differs from country to country.
//! - `sentAt` and `originalTimestamp`: they change from one attempt to the next.

use std::collections::{BTreeMap, HashSet};

use punchline_delivery::dialect::catalogue::is_publishable;
use punchline_engine::command::Action;
use punchline_engine::event::is_type_word;
use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
use punchline_engine::loyalty::fact::RawFact;
use punchline_engine::loyalty::fact_type;
use punchline_engine::loyalty::member::{ATTRIBUTES_MAX, Identifier, PROFILE_TEXT_LEN_MAX, Profile};
use punchline_engine::rejection::InvalidField;
use punchline_engine::time::UnixMillis;
use punchline_runtime::ids;
use serde_json::{Map, Value};

use crate::http::body::Fields;

/// The source of all facts that come in here, and where members come from.
pub(super) const SOURCE: &str = "segment";
/// Longest `messageId`, in bytes: with what stands before it, it is part of a key.
const MESSAGE_ID_LEN_MAX: usize = 100;
/// Longest text of a context that is kept, in bytes.
const CONTEXT_TEXT_LEN_MAX: usize = 512;
/// Longest key of an attribute, in bytes.
const ATTRIBUTE_KEY_LEN_MAX: usize = 64;
/// Longest last word of a fact's type, in bytes.
const TYPE_WORD_LEN_MAX: usize = 80;

/// What is read of a message.
const FIELDS: &[&str] = &[
    "type",
    "messageId",
    "timestamp",
    "userId",
    "anonymousId",
    "previousId",
    "groupId",
    "event",
    "name",
    "category",
    "properties",
    "traits",
    "context",
    "writeKey",
];
/// What is kept of a context; the rest is large, or personal as the address is.
const CONTEXT_KEPT: [(&str, &[&str]); 8] = [
    ("app", &["name", "version", "build"]),
    ("campaign", &["name", "source", "medium", "term", "content"]),
    ("device", &["type", "manufacturer", "model"]),
    ("library", &["name", "version"]),
    ("locale", &[]),
    ("os", &["name", "version"]),
    ("page", &["path", "referrer", "title", "url"]),
    ("timezone", &[]),
];

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] = [Kind::Track, Kind::Identify, Kind::Page, Kind::Screen, Kind::Group, Kind::Alias];

    /// The name that Segment gives it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Track => "track",
            Kind::Identify => "identify",
            Kind::Page => "page",
            Kind::Screen => "screen",
            Kind::Group => "group",
            Kind::Alias => "alias",
        }
    }
}

/// A message that has its id; what else it says is not looked at yet.
pub(super) struct Message<'a> {
    /// `None` where it names none that there is.
    pub(super) kind: Option<Kind>,
    id: String,
    fields: Fields<'a>,
    /// What stands before the names of its fields in errors.
    at: String,
}

/// What is to be carried out.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) request_id: Option<String>,
    pub(super) action: Action,
    /// Whether the message says when it happened.
    pub(super) is_dated: bool,
}

impl<'a> Message<'a> {
    /// Reads a message; `kind` is the route's, where that says it.
    ///
    /// # Errors
    ///
    /// Where it is no object, or has no `messageId`.
    pub(super) fn of(kind: Option<Kind>, text: &'a str, at: &str) -> Result<Message<'a>, InvalidField> {
        let whole = if at.is_empty() { "body" } else { at };
        let fields = Fields::of(text, FIELDS);
        let fields = fields.ok_or_else(|| InvalidField::new(whole, text, "must be a JSON object"))?;
        let at = if at.is_empty() { String::new() } else { format!("{at}.") };
        let path = format!("{at}messageId");
        let id = scalar_text(&fields, "messageId").map_err(|()| {
            let value = fields.get("messageId").map_or("", |json| json.get());
            InvalidField::new(&path, value, "must be a string")
        })?;
        let Some(id) = id else {
            let rule = format!("{path} is required");
            return Err(InvalidField::with_reason("MESSAGE_ID_REQUIRED", path, "", rule));
        };
        let named = || {
            let name: String = serde_json::from_str(fields.get("type")?.get()).ok()?;
            Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
        };
        let kind = kind.or_else(named);
        Ok(Message { kind, id, fields, at })
    }

    /// The write key in it, for clients that cannot set a header.
    pub(super) fn write_key(&self) -> Option<String> {
        write_key(&self.fields)
    }

    /// Whether it is a dynamic event, by the SKUs of all of them.
    pub(super) fn is_consumption(&self, skus: &HashSet<&str>) -> bool {
        self.kind == Some(Kind::Track) && self.text("event").is_some_and(|event| skus.contains(event.as_str()))
    }

    /// What it comes to.
    ///
    /// # Errors
    ///
    /// The first field that is missing or out of bounds, by the name that Segment gives it.
    pub(super) fn prepare(&self, now: UnixMillis, skus: &HashSet<&str>) -> Result<Prepared, InvalidField> {
        self.prepared(now, skus).map_err(|invalid| self.renamed(invalid))
    }

    fn prepared(&self, now: UnixMillis, skus: &HashSet<&str>) -> Result<Prepared, InvalidField> {
        let Some(kind) = self.kind else {
            let given = self.fields.get("type").map_or("", |json| json.get());
            return Err(InvalidField::new("type", given, "must be track, identify, page, screen, group or alias"));
        };
        if self.id.len() > MESSAGE_ID_LEN_MAX || self.id.chars().any(char::is_control) {
            let rule = format!("must be 1 to {MESSAGE_ID_LEN_MAX} bytes without control characters");
            return Err(InvalidField::new("messageId", &self.id, rule));
        }
        let timestamp = self.timestamp()?;
        let is_dated = !timestamp.is_empty();
        let (request_id, action) = match kind {
            Kind::Identify => (Some(format!("{SOURCE}:{}", self.id)), self.identification(now)?),
            Kind::Track if self.is_consumption(skus) => {
                let consumed_at = if is_dated { timestamp } else { now.to_string() };
                let consumption = self.consumption(consumed_at)?.check(now)?;
                (None, Action::RecordConsumption(consumption))
            }
            _ => (None, Action::PublishFact(self.fact(kind, timestamp)?.check(now, is_publishable)?)),
        };
        Ok(Prepared { request_id, action, is_dated })
    }

    /// An error with the field's name in Segment's message.
    fn renamed(&self, invalid: InvalidField) -> InvalidField {
        let field = match invalid.field.as_str() {
            "consumptionId" | "fact_id" => "messageId",
            "consumptionDate" | "occurred_at" => "timestamp",
            "consumptionLines[0].sku" => "event",
            "consumptionLines[0].quantity" => "properties.quantity",
            "identifiers[0].value" => "userId",
            other => other,
        };
        InvalidField { field: format!("{}{field}", self.at), ..invalid }
    }

    fn consumption(&self, consumed_at: String) -> Result<RawConsumption, InvalidField> {
        let properties = self.object("properties")?;
        let quantity = match properties.get("quantity") {
            None | Some(Value::Null) => 1.0,
            // What is no number is told as it was given.
            Some(given) => given.as_f64().ok_or_else(|| {
                let rule = "must be a whole number from 1 to 10000";
                InvalidField::with_reason("INVALID_QUANTITY", "properties.quantity", given.to_string(), rule)
            })?,
        };
        let line = RawLine { sku: self.text("event").unwrap_or_default(), product_name: String::new(), quantity };
        let traits = [self.object("traits")?, self.context_traits(), properties];
        let identifiers = self.identifiers(self.user_id()?, &traits);
        let identifiers = identifiers.into_iter().map(|i| (i.kind.as_str().to_owned(), i.value)).collect();
        Ok(RawConsumption { consumption_id: self.id.clone(), consumed_at, identifiers, lines: vec![line] })
    }

    fn identification(&self, now: UnixMillis) -> Result<Action, InvalidField> {
        let traits = [self.object("traits")?, self.context_traits()];
        let identifiers = self.identifiers(self.user_id()?, &traits);
        if identifiers.is_empty() {
            let rule = "userId, or email or phone in traits, is required";
            return Err(InvalidField::with_reason("IDENTIFIERS_REQUIRED", "userId", "", rule));
        }
        let [traits, _] = traits;
        let profile = profile(traits, &identifiers, self.context().get("locale"));
        let registration_source = SOURCE.into();
        Ok(Action::IdentifyMember { member_id: ids::member_id(now), identifiers, profile, registration_source })
    }

    fn fact(&self, kind: Kind, timestamp: String) -> Result<RawFact, InvalidField> {
        let mut properties = match kind {
            Kind::Group | Kind::Alias => Map::new(),
            _ => self.object("properties")?,
        };
        // A group's traits are the group's: its telephone is nobody's.
        let about = [self.context_traits(), properties.clone()];
        let user_id = self.user_id().ok().flatten();
        let about = match kind {
            Kind::Track => self.identifiers(user_id, &[&[self.object("traits")?][..], &about].concat()),
            _ => self.identifiers(user_id, &about[..1]),
        };
        if kind == Kind::Group {
            properties.insert("traits".into(), self.object("traits")?.into());
        }
        let mut fact_type = format!("{SOURCE}.{}", kind.as_str());
        if kind == Kind::Track {
            let Some(event) = self.text("event") else {
                return Err(InvalidField::with_reason("EVENT_REQUIRED", "event", "", "event is required"));
            };
            fact_type = type_of(&event);
        }
        for (field, told) in [
            ("event", "event"),
            ("name", "name"),
            ("category", "category"),
            ("userId", "user_id"),
            ("anonymousId", "anonymous_id"),
            ("previousId", "previous_id"),
            ("groupId", "group_id"),
        ] {
            properties.extend(self.text(field).map(|text| (told.to_owned(), text.into())));
        }
        let context = kept(&self.context());
        if !context.is_empty() {
            properties.insert("context".into(), context.into());
        }
        Ok(RawFact {
            source: SOURCE.into(),
            fact_id: self.id.clone(),
            fact_type,
            identifiers: about.into_iter().map(|i| (i.kind.as_str().to_owned(), i.value)).collect(),
            occurred_at: timestamp,
            properties: Value::from(properties).to_string(),
        })
    }

    /// Empty where there is none.
    fn timestamp(&self) -> Result<String, InvalidField> {
        let Some(json) = self.fields.get("timestamp") else { return Ok(String::new()) };
        let text: Option<String> = serde_json::from_str(json.get()).ok();
        text.map(|text| text.trim().to_owned())
            .ok_or_else(|| InvalidField::new("timestamp", json.get(), "must be RFC 3339"))
    }

    /// Whoever the client says it is.
    ///
    /// # Errors
    ///
    /// Where that can be no identifier.
    fn user_id(&self) -> Result<Option<Identifier>, InvalidField> {
        let invalid = |value: &str, rule: &str| InvalidField::with_reason("INVALID_IDENTIFIER", "userId", value, rule);
        let given = scalar_text(&self.fields, "userId").map_err(|()| {
            let value = self.fields.get("userId").map_or("", |json| json.get());
            invalid(value, "must be a string or a number")
        })?;
        let parsed = given.map(|id| Identifier::parse("", "externalId", &id));
        parsed.transpose().map_err(|bad| invalid(&bad.value, &bad.rule))
    }

    /// The user's id, and the first address and number that can be some. What cannot names nobody.
    fn identifiers(&self, user_id: Option<Identifier>, said: &[Map<String, Value>]) -> Vec<Identifier> {
        let first = |name: &str, kind: &str| {
            let mut given = said.iter().filter_map(|said| scalar(said.get(name)?));
            given.find_map(|value| Identifier::parse("", kind, &value).ok())
        };
        [user_id, first("email", "email"), first("phone", "phoneNumber")].into_iter().flatten().collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        scalar_text(&self.fields, name).ok().flatten()
    }

    /// An object; empty where it is absent.
    fn object(&self, name: &str) -> Result<Map<String, Value>, InvalidField> {
        let Some(json) = self.fields.get(name) else { return Ok(Map::new()) };
        serde_json::from_str(json.get()).map_err(|_| InvalidField::new(name, json.get(), "must be a JSON object"))
    }

    /// What surrounds the message; what is none is left out, since it says nothing about the message itself.
    fn context(&self) -> Map<String, Value> {
        self.object("context").unwrap_or_default()
    }

    fn context_traits(&self) -> Map<String, Value> {
        match self.context().remove("traits") {
            Some(Value::Object(traits)) => traits,
            _ => Map::new(),
        }
    }
}

/// The write key beside the fields of a message or a batch.
pub(super) fn write_key(fields: &Fields<'_>) -> Option<String> {
    scalar_text(fields, "writeKey").ok().flatten()
}

/// A text, or a number as its digits; `None` where it is absent or blank.
fn scalar_text(fields: &Fields<'_>, name: &str) -> Result<Option<String>, ()> {
    let Some(json) = fields.get(name) else { return Ok(None) };
    let text = match json.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(json.get()).map_err(|_| ())?,
        Some(b'-' | b'0'..=b'9') => json.get().to_owned(),
        _ => return Err(()),
    };
    Ok(Some(text).filter(|text: &String| !text.trim().is_empty()))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What traits say about a person. What does not fit is left out, and so is what is no single value.
fn profile(traits: Map<String, Value>, identifiers: &[Identifier], locale: Option<&Value>) -> Profile {
    let said = |name: &str| scalar(traits.get(name)?).filter(|text| fits(text));
    let first_of = |names: &[&'static str]| {
        names.iter().find_map(|name| said(name).filter(|text| !text.trim().is_empty()).map(|text| (*name, text)))
    };
    let first_name = first_of(&["firstName", "first_name", "name"]);
    let last_name = first_of(&["lastName", "last_name"]);
    let birth_date = said("birthday").and_then(|text| date(&text)).map(|date| ("birthday", date));
    let own_locale = first_of(&["locale"]);
    let is_identifier = |name: &str, text: &str| {
        let kind = match name {
            "email" => "email",
            "phone" => "phoneNumber",
            _ => return false,
        };
        Identifier::parse("", kind, text).is_ok_and(|identifier| identifiers.contains(&identifier))
    };
    let used = [&first_name, &last_name, &birth_date, &own_locale];
    let mut attributes = BTreeMap::new();
    for (name, value) in &traits {
        let Some(text) = scalar(value).filter(|text| fits(text)) else { continue };
        let is_used = used.iter().any(|used| used.as_ref().is_some_and(|(used, _)| used == name));
        let key_fits = (1..=ATTRIBUTE_KEY_LEN_MAX).contains(&name.len());
        if !is_used && key_fits && !is_identifier(name, &text) && attributes.len() < ATTRIBUTES_MAX {
            attributes.insert(name.clone(), text);
        }
    }
    let context_locale = locale.and_then(scalar).filter(|text| fits(text));
    let text = |found: Option<(&str, String)>| found.map(|(_, text)| text).unwrap_or_default();
    Profile {
        first_name: text(first_name),
        last_name: text(last_name),
        birth_date: text(birth_date),
        locale: own_locale.map(|(_, text)| text).or(context_locale).unwrap_or_default(),
        marketing_consent: None,
        attributes,
    }
}

fn fits(text: &str) -> bool {
    text.len() <= PROFILE_TEXT_LEN_MAX && !text.chars().any(char::is_control)
}

/// The day of a date, or of an instant as Segment's clients write a `Date`.
fn date(text: &str) -> Option<String> {
    let day = text.get(..10)?;
    let is_instant = text.len() > 10 && UnixMillis::parse(text).is_some();
    let is_day = day.parse::<jiff::civil::Date>().is_ok();
    (is_day && (text.len() == 10 || is_instant)).then(|| day.to_owned())
}

/// The small part of a context that is worth keeping.
fn kept(context: &Map<String, Value>) -> Map<String, Value> {
    let short = |value: &Value| {
        let text = scalar(value)?;
        (text.len() <= CONTEXT_TEXT_LEN_MAX).then(|| value.clone())
    };
    let mut kept = Map::new();
    for (name, fields) in CONTEXT_KEPT {
        let Some(value) = context.get(name) else { continue };
        let value = match value {
            Value::Object(inner) => {
                let inner: Map<String, Value> =
                    fields.iter().filter_map(|f| Some(((*f).to_owned(), short(inner.get(*f)?)?))).collect();
                Some(Value::from(inner)).filter(|inner| inner.as_object().is_some_and(|inner| !inner.is_empty()))
            }
            value if fields.is_empty() => short(value),
            _ => None,
        };
        kept.extend(value.map(|value| (name.to_owned(), value)));
    }
    kept
}

/// The type of the fact that an event is: its own name where that is a type already and not one of ours, and
/// else `segment.` with its name in snake case.
fn type_of(event: &str) -> String {
    if fact_type::check_name("event", event, is_publishable(event)).is_ok() {
        return event.to_owned();
    }
    let mut word = String::new();
    let letters: Vec<char> = event.chars().collect();
    for (i, &c) in letters.iter().enumerate() {
        if !c.is_ascii_alphanumeric() {
            if !word.ends_with('_') && !word.is_empty() {
                word.push('_');
            }
            continue;
        }
        // "orderCompleted" and "HTTPError" are two words each.
        let before = i.checked_sub(1).map(|i| letters[i]);
        let begins = c.is_ascii_uppercase()
            && before.is_some_and(|before| {
                let after_small = before.is_ascii_lowercase() || before.is_ascii_digit();
                let before_small = letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
                after_small || (before.is_ascii_uppercase() && before_small)
            });
        if begins && !word.ends_with('_') {
            word.push('_');
        }
        word.push(c.to_ascii_lowercase());
        if word.len() >= TYPE_WORD_LEN_MAX {
            break;
        }
    }
    let word = word.trim_end_matches('_');
    match word {
        // Written in letters that a type cannot have: the event's name stands in the properties.
        "" => format!("{SOURCE}.track"),
        word if is_type_word(word) => format!("{SOURCE}.{word}"),
        word => format!("{SOURCE}.event_{word}"),
    }
}

#[cfg(test)]
mod tests;
