//! Dialects: from an event to the bytes that one kind of subscriber reads.
//!
//! A dialect is a file in `delivery/dialects`, or one of the operator's own: a new system is a new file.
//! Only `standard` is code, since most events leave through it.
//!
//! ```text
//! file ──file──▶ Definition ──check──▶ Dialect ──render(settings, message)──▶ headers, body
//!      (shape, keys, words)  (compiles, renders every message with an example)
//! ```
//!
//! `docs` of the format: `delivery/dialects/README.md`. Field names of facts: `delivery/dialects/facts.toml`.
//!
//! # Invariants
//!
//! - A dialect that loads has given valid JSON for every message, with an example and with no data.
//! - Rendering ends: templates have fuel, a length and nothing that doubles (see `template`).
//! - A header that comes out with a line break is refused, whatever it was made of.
//!
//! # What is absent on purpose
//!
//! - The headers of Standard Webhooks: the transport adds them to every dialect's requests.
//! - No clock and no randomness: a body is a function of the event, the subscription and the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use minijinja::value::Value;
use serde::de::IgnoredAny;
use sha2::Sha256;

use self::file::{DialectError, Encoding, File, Problem, SETTING_BYTES_MAX, Setting, Signature, nearest};
use self::message::{Message, RenderError, Rendered};
use self::template::Source;
use self::view::{Facts, View};
use self::words::{BODY_BYTES_MAX, header_value};
use crate::courier::APPLICATION_JSON;

pub mod catalogue;
pub mod examples;
pub mod file;
pub mod message;
pub mod standard;

mod check;
mod template;
mod view;
mod words;

/// The dialect that is code.
pub const STANDARD_NAME: &str = "standard";

/// The built-in files.
const BUILTIN: &[(&str, &str)] = &[
    ("cloudevents.toml", include_str!("../../dialects/cloudevents.toml")),
    ("jericommerce.toml", include_str!("../../dialects/jericommerce.toml")),
    ("qurable.toml", include_str!("../../dialects/qurable.toml")),
    ("rehook.toml", include_str!("../../dialects/rehook.toml")),
    ("wecheer.toml", include_str!("../../dialects/wecheer.toml")),
];

/// All dialects, by name.
#[derive(Clone, Debug, Default)]
pub struct Dialects {
    by_name: BTreeMap<String, Arc<Dialect>>,
}

impl Dialects {
    /// Those that come with Punchline.
    ///
    /// # Panics
    ///
    /// Never: tests load every built-in file.
    #[must_use]
    pub fn builtin() -> Dialects {
        let mut dialects = Dialects::default();
        dialects.by_name.insert(STANDARD_NAME.into(), Arc::new(Dialect::standard()));
        for (file, text) in BUILTIN {
            let loaded = Dialect::parse(file, text);
            let mut dialect = loaded.unwrap_or_else(|e| panic!("a built-in dialect does not load: {e}"));
            dialect.is_builtin = true;
            dialects.by_name.insert(dialect.name.clone(), Arc::new(dialect));
        }
        dialects
    }

    /// Adds the dialect of an operator's file. It may take the place of a built-in one, `standard`
    /// excepted; `file` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`DialectError`] with the place in the file.
    pub fn load(&mut self, file: &str, text: &str) -> Result<(), DialectError> {
        let dialect = Dialect::parse(file, text)?;
        if let Some(other) = self.by_name.get(&dialect.name)
            && (!other.is_builtin || dialect.name == STANDARD_NAME)
        {
            let by = other.file().to_owned();
            let offset = dialect.name_offset;
            return Err(File { name: file, text }.error(offset, Problem::Taken { name: dialect.name, by }));
        }
        self.by_name.insert(dialect.name.clone(), Arc::new(dialect));
        Ok(())
    }

    /// The dialect of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Dialect>> {
        self.by_name.get(name).cloned()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// How one kind of subscriber is spoken to.
#[derive(Debug)]
pub struct Dialect {
    name: String,
    name_offset: usize,
    description: String,
    settings: Vec<Setting>,
    is_builtin: bool,
    speech: Option<Templates>,
}

/// A compiled file.
#[derive(Debug)]
struct Templates {
    file: String,
    text: String,
    env: minijinja::Environment<'static>,
    /// Of each template, for errors.
    sources: HashMap<String, Source>,
    content_type: Line,
    headers: Vec<(HeaderName, Line)>,
    signature: Option<Signature>,
    messages: Vec<Entry>,
    /// Indices of the messages that may be used for a type, in order; `*` is among them.
    by_type: HashMap<String, Vec<usize>>,
    /// For types that have no entry of their own.
    by_any: Vec<usize>,
}

/// One line of the table from canonical to foreign names.
#[derive(Debug)]
struct Entry {
    name: Value,
    /// Names of templates.
    when: Option<String>,
    properties: Option<String>,
    body: String,
}

/// A header's value.
#[derive(Debug)]
enum Line {
    Fixed(HeaderValue),
    Template(String),
}

/// What a subscription has chosen, checked and completed with the defaults.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    chosen: Arc<BTreeMap<String, String>>,
    value: Value,
}

impl Settings {
    fn new(chosen: BTreeMap<String, String>) -> Settings {
        let value = Value::from_pairs(chosen.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        Settings { chosen: Arc::new(chosen), value }
    }

    /// The value of a setting.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.chosen.get(key).map(String::as_str)
    }
}

/// A setting that the dialect does not have, or that has no such value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such key.
    #[error("dialect {dialect:?} has no setting {key:?}, it has {}", listed(allowed))]
    Key {
        /// The dialect.
        dialect: String,
        /// The key that was given.
        key: String,
        /// The keys there are, the nearest first.
        allowed: Vec<String>,
    },
    /// No such value.
    #[error("setting {key:?} of dialect {dialect:?} is {value:?}, must be {}", listed(allowed))]
    Value {
        /// The dialect.
        dialect: String,
        /// The setting.
        key: String,
        /// The value that was given, cut to 80 characters.
        value: String,
        /// The values there are, the nearest first; for free text, its rule.
        allowed: Vec<String>,
    },
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

/// The words, the nearest to `word` first.
fn nearest_first<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    if let Some(near) = nearest(word, words.iter().map(String::as_str)).map(str::to_owned) {
        words.sort_by_key(|w| *w != near);
    }
    words
}

impl Dialect {
    fn standard() -> Dialect {
        Dialect {
            name: STANDARD_NAME.into(),
            name_offset: 0,
            description: "Standard Webhooks 1.0.0: {\"type\",\"timestamp\",\"data\"}, with Punchline's own names."
                .into(),
            settings: Vec::new(),
            is_builtin: true,
            speech: None,
        }
    }

    /// Its name, as subscriptions say it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, in one line.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The file it came from.
    #[must_use]
    pub fn file(&self) -> &str {
        self.speech.as_ref().map_or("delivery/src/dialect/standard.rs", |speech| &speech.file)
    }

    /// What a subscription may choose, in the order of the file.
    #[must_use]
    pub fn choices(&self) -> &[Setting] {
        &self.settings
    }

    /// Checks what a subscription has chosen; what it leaves open is the default.
    ///
    /// # Errors
    ///
    /// [`SettingError`], which names the key, the value and what is allowed.
    pub fn settings(&self, given: &BTreeMap<String, String>) -> Result<Settings, SettingError> {
        for (key, value) in given {
            let Some(setting) = self.settings.iter().find(|s| s.key == *key) else {
                let allowed = nearest_first(key, self.settings.iter().map(|s| s.key.as_str()));
                return Err(SettingError::Key { dialect: self.name.clone(), key: key.clone(), allowed });
            };
            let is_free = setting.values.is_empty();
            let plain = value.len() <= SETTING_BYTES_MAX && !value.chars().any(char::is_control);
            if if is_free { plain } else { setting.values.contains(value) } {
                continue;
            }
            let allowed = match is_free {
                true => vec!["at most 256 bytes without control characters".to_owned()],
                false => nearest_first(value, setting.values.iter().map(String::as_str)),
            };
            let value = value.chars().take(80).collect();
            return Err(SettingError::Value { dialect: self.name.clone(), key: key.clone(), value, allowed });
        }
        let chosen = |s: &Setting| (s.key.clone(), given.get(&s.key).unwrap_or(&s.default).clone());
        Ok(Settings::new(self.settings.iter().map(chosen).collect()))
    }

    /// Whether there is a message for events of this type. With some settings, or for some events, it may
    /// still have none: see [`Dialect::render`].
    #[must_use]
    pub fn speaks(&self, event_type: &str) -> bool {
        self.speech.as_ref().is_none_or(|speech| !speech.candidates(event_type).is_empty())
    }

    /// Puts a message into this dialect. `None` if it has no word for it: then it is not delivered.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if a template fails on this event, which only a published fact can bring about.
    pub fn render(&self, settings: &Settings, message: &Message<'_>) -> Result<Option<Rendered>, RenderError> {
        let Some(speech) = &self.speech else {
            let body = standard::body_of(message);
            return Ok(Some(Rendered { headers: Vec::new(), content_type: APPLICATION_JSON, body }));
        };
        let candidates = speech.candidates(message.event_type);
        if candidates.is_empty() {
            return Ok(None);
        }
        let speaking = Speaking { dialect: &self.name, speech, event_type: message.event_type };
        let facts = Arc::new(Facts::of(message, settings.value.clone()));
        for &index in candidates {
            if speaking.holds(&speech.messages[index], &facts)? {
                return speaking.say(&speech.messages[index], &facts).map(Some);
            }
        }
        Ok(None)
    }

    /// The dialect's own signature: HMAC-SHA256 over the body, keyed with the secret's text as it was
    /// displayed. `None` if it has none: Standard Webhooks' signature is the transport's.
    #[must_use]
    pub fn signature(&self, settings: &Settings, secret_text: &str, body: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        let signature = self.speech.as_ref()?.signature.as_ref()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret_text.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(body);
        let digest = mac.finalize().into_bytes();
        let base64 = match &signature.encoding {
            Encoding::Hex => false,
            Encoding::Base64 => true,
            Encoding::Setting(key) => settings.get(key) == Some("base64"),
        };
        let digits = match base64 {
            true => STANDARD.encode(digest),
            false => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let value = HeaderValue::try_from(format!("{}{digits}", signature.prefix)).expect("visible ASCII");
        Some((signature.header.clone(), value))
    }
}

impl Templates {
    fn candidates(&self, event_type: &str) -> &[usize] {
        self.by_type.get(event_type).unwrap_or(&self.by_any)
    }
}

/// One rendering: what its errors have to name.
struct Speaking<'a> {
    dialect: &'a str,
    speech: &'a Templates,
    event_type: &'a str,
}

impl Speaking<'_> {
    fn holds(&self, entry: &Entry, facts: &Arc<Facts>) -> Result<bool, RenderError> {
        let Some(when) = &entry.when else { return Ok(true) };
        Ok(!self.template(when, facts, entry, Value::UNDEFINED)?.is_empty())
    }

    fn say(&self, entry: &Entry, facts: &Arc<Facts>) -> Result<Rendered, RenderError> {
        let properties = match &entry.properties {
            Some(template) => self.template(template, facts, entry, Value::UNDEFINED)?,
            None => "{}".to_owned(),
        };
        let properties = Value::from_safe_string(properties);
        let body = self.template(&entry.body, facts, entry, properties.clone())?;
        let too_long = body.len() > BODY_BYTES_MAX;
        let parsed = serde_json::from_str::<IgnoredAny>(&body).map_err(|e| e.to_string());
        if let Err(problem) = if too_long { Err("longer than 1 MiB".to_owned()) } else { parsed } {
            let (dialect, event_type) = (self.dialect.to_owned(), self.event_type.to_owned());
            return Err(RenderError::NotJson { dialect, event_type, problem });
        }
        let mut headers = Vec::with_capacity(self.speech.headers.len());
        for (name, line) in &self.speech.headers {
            if let Some(value) = self.line(name.as_str(), line, facts, entry, &properties)? {
                headers.push((name.clone(), value));
            }
        }
        let content_type = self.line("content-type", &self.speech.content_type, facts, entry, &properties)?;
        let content_type = content_type.ok_or_else(|| self.bad_header("content-type"))?;
        Ok(Rendered { headers, content_type, body: Bytes::from(body) })
    }

    fn line(
        &self,
        name: &str,
        line: &Line,
        facts: &Arc<Facts>,
        entry: &Entry,
        properties: &Value,
    ) -> Result<Option<HeaderValue>, RenderError> {
        match line {
            Line::Fixed(value) => Ok(Some(value.clone())),
            Line::Template(template) => {
                let text = self.template(template, facts, entry, properties.clone())?;
                header_value(&text).map_err(|()| self.bad_header(name))
            }
        }
    }

    fn template(
        &self,
        template: &str,
        facts: &Arc<Facts>,
        entry: &Entry,
        properties: Value,
    ) -> Result<String, RenderError> {
        let view = View { facts: facts.clone(), name: entry.name.clone(), properties };
        let compiled = self.speech.env.get_template(template).expect("compiled when the file was loaded");
        compiled.render(Value::from_object(view)).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &minijinja::Error) -> RenderError {
        let file = File { name: &self.speech.file, text: &self.speech.text };
        let source = error.name().and_then(|name| self.speech.sources.get(name));
        let (line, column) = file.place(source.map_or(0, |source| check::offset_of(source, error)));
        RenderError::Template {
            dialect: self.dialect.to_owned(),
            event_type: self.event_type.to_owned(),
            file: self.speech.file.clone(),
            line,
            column,
            problem: check::problem_of(error),
        }
    }

    fn bad_header(&self, name: &str) -> RenderError {
        let (dialect, event_type) = (self.dialect.to_owned(), self.event_type.to_owned());
        RenderError::Header { dialect, event_type, header: name.to_owned() }
    }
}
