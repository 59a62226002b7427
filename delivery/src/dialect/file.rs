//! Reads a dialect's file: TOML whose shape is checked, with every key and text traceable to its line.
//!
//! # What is absent on purpose
//!
//! - No rendering: whether the templates make sense is [`super::check`]'s to say.

use std::ops::Range;

use http::HeaderName;
use toml::de::{DeTable, DeValue};

use super::template::{Fault, Kind, Source, TEMPLATE_BYTES_MAX, Unknown, string_offsets};
use crate::headers::{HeaderError, check_custom_header};

/// The most bytes of a file. The longest of the built-in ones has some 15 000.
pub const FILE_BYTES_MAX: usize = 1 << 18;
/// The most messages of a dialect: the catalogue has some 60 types.
pub const MESSAGES_MAX: usize = 512;
/// The most settings of a dialect.
pub const SETTINGS_MAX: usize = 16;
/// The most values to choose from. With all settings together, see [`super::check`].
pub const VALUES_MAX: usize = 16;
/// The most headers of a dialect.
pub const HEADERS_MAX: usize = 16;
/// The most bytes of a setting's value.
pub const SETTING_BYTES_MAX: usize = 256;

/// A file that is no dialect: which, where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct DialectError {
    /// As it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Box<Problem>,
}

/// What is wrong with a dialect's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("not TOML: {0}")]
    Toml(String),
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("the file is longer than 256 KiB")]
    TooLong,
    /// More than there may be.
    #[error("at most {max} {what}")]
    TooMany {
        /// `messages`, `settings` …
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A key that has no place here.
    #[error("unknown key `{key}`{}", suggestion(nearest, known))]
    UnknownKey {
        /// The key.
        key: String,
        /// The right key it may have meant.
        nearest: Option<String>,
        /// The keys there are.
        known: Vec<String>,
    },
    /// A word of a template that is not known, or not allowed.
    #[error("unknown {what} `{word}`{}", suggestion(nearest, known))]
    UnknownWord {
        /// `filter`, `variable`, `field` …
        what: &'static str,
        /// The word.
        word: String,
        /// The right word it may have meant.
        nearest: Option<String>,
        /// The words there are.
        known: Vec<String>,
    },
    /// What a template may not do.
    #[error("`{word}` is not allowed {place}, only {instead}")]
    NotAllowed {
        /// An operator or a word.
        word: String,
        /// Where it may not be.
        place: &'static str,
        /// What there is instead.
        instead: &'static str,
    },
    /// A key is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A value of another kind than it has to be.
    #[error("`{key}` must be {expected}, is {found}")]
    Kind {
        /// The key.
        key: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A value that breaks a rule.
    #[error("`{key}` is {value:?}, must be {rule}")]
    Value {
        /// The key.
        key: String,
        /// The value, cut to 80 characters.
        value: String,
        /// The rule.
        rule: String,
    },
    /// The template does not parse, or fails on the example.
    #[error("{0}")]
    Template(String),
    /// What the template gives with the example is not JSON.
    #[error("with {with} this does not give JSON: {problem}, near `{near}`")]
    NotJson {
        /// Which example.
        with: String,
        /// What is wrong.
        problem: String,
        /// The output about there.
        near: String,
    },
    /// What the template gives with the example cannot be a header's value.
    #[error("with {with} this does not give a header's value")]
    NotHeader {
        /// Which example.
        with: String,
    },
    /// The header may not be set by a dialect.
    #[error("{0}")]
    Header(HeaderError),
    /// The name is taken.
    #[error("dialect {name:?} is already there, from {by}")]
    Taken {
        /// The name.
        name: String,
        /// Which file it came from.
        by: String,
    },
    /// No message after the one that is always used can be reached.
    #[error("this message is never used: the one at line {line} takes every `{event_type}`")]
    Unreachable {
        /// Its type.
        event_type: String,
        /// Where the other one stands.
        line: usize,
    },
}

fn suggestion(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(", did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!(", known are {}", known.join(", ")),
    }
}

/// The nearest of the known words, if it is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (strsim::jaro_winkler(word, known), known)).filter(|(score, _)| *score > 0.8);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// A file's text, and how to speak about its places.
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl File<'_> {
    /// Line and column of a byte, from 1.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    pub(super) fn error(&self, offset: usize, problem: Problem) -> DialectError {
        let (line, column) = self.place(offset);
        DialectError { file: self.name.to_owned(), line, column, problem: Box::new(problem) }
    }

    pub(super) fn unknown_word<'k>(
        &self,
        offset: usize,
        what: &'static str,
        word: &str,
        known: impl Iterator<Item = &'k str>,
    ) -> DialectError {
        let known: Vec<String> = known.map(str::to_owned).collect();
        let nearest = nearest(word, known.iter().map(String::as_str)).map(str::to_owned);
        self.error(offset, Problem::UnknownWord { what, word: word.to_owned(), nearest, known })
    }
}

/// What the file says, with templates that are not compiled yet.
pub(super) struct Definition {
    pub(super) name: Spanned<String>,
    pub(super) description: String,
    pub(super) settings: Vec<Setting>,
    pub(super) content_type: Spanned<Source>,
    pub(super) headers: Vec<(HeaderName, Spanned<Source>)>,
    pub(super) body: Option<Spanned<Source>>,
    pub(super) signature: Option<Signature>,
    pub(super) messages: Vec<MessageText>,
}

/// A value and where it starts in the file.
#[derive(Clone)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) offset: usize,
}

/// What a subscription may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// What it is about; may be empty.
    pub description: String,
    /// What it is where the subscription does not say.
    pub default: String,
    /// What there is to choose from; empty for free text.
    pub values: Vec<String>,
}

/// How a body is signed.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) header: HeaderName,
    pub(super) prefix: String,
    pub(super) encoding: Encoding,
}

/// How a signature is written.
#[derive(Clone, Debug)]
pub(super) enum Encoding {
    Hex,
    Base64,
    /// As the setting of that name says.
    Setting(String),
}

/// One entry of the table from canonical to foreign names.
pub(super) struct MessageText {
    pub(super) offset: usize,
    /// `*` is any.
    pub(super) types: Vec<String>,
    pub(super) when: Option<Spanned<Source>>,
    pub(super) name: String,
    pub(super) properties: Option<Spanned<Source>>,
    pub(super) body: Option<Spanned<Source>>,
    pub(super) example: Option<serde_json::Value>,
}

/// Reads the file.
pub(super) fn read(file: &File<'_>) -> Result<Definition, DialectError> {
    if file.text.len() > FILE_BYTES_MAX {
        return Err(file.error(0, Problem::TooLong));
    }
    let table = DeTable::parse(file.text).map_err(|e| {
        let offset = e.span().map_or(0, |span| span.start);
        file.error(offset, Problem::Toml(e.message().to_owned()))
    })?;
    let root = Table { file, table: table.get_ref(), offset: 0 };
    root.only(&["body", "content_type", "description", "headers", "message", "name", "settings", "signature"])?;
    let settings = settings(&root)?;
    let headers = headers(&root)?;
    let signature = root.table("signature")?.map(|table| signature(&table, &settings)).transpose()?;
    let name = root.required("name")?;
    let is_name = |n: &str| {
        n.len() <= 64
            && n.starts_with(|c: char| c.is_ascii_lowercase())
            && n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    root.rule("name", &name.value, is_name(&name.value), "1 to 64 characters of a-z 0-9 - _, a letter first")?;
    let content_type = root.source("content_type", Kind::Text)?.ok_or_else(|| root.missing("content_type"))?;
    let body = root.source("body", Kind::Json)?;
    let messages = messages(&root, body.is_some())?;
    let description = root.text("description")?.map_or(String::new(), |text| text.value);
    Ok(Definition { name, description, settings, content_type, headers, body, signature, messages })
}

fn settings(root: &Table<'_, '_>) -> Result<Vec<Setting>, DialectError> {
    let Some(table) = root.table("settings")? else { return Ok(Vec::new()) };
    root.at_most("settings", table.table.len(), SETTINGS_MAX)?;
    let mut settings = Vec::new();
    for (key, offset) in table.keys() {
        let setting = table.table(key)?.expect("it is one of the keys");
        setting.only(&["default", "description", "values"])?;
        let is_word =
            |k: &str| !k.is_empty() && k.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_word(key) || key.len() > 64 {
            let rule = "1 to 64 characters of a-z 0-9 _".to_owned();
            return Err(root.file.error(offset, Problem::Value { key: "settings".into(), value: key.into(), rule }));
        }
        let default = setting.required("default")?.value;
        let values = setting.texts("values")?.unwrap_or_default();
        setting.at_most("values", values.len(), VALUES_MAX)?;
        let listed = values.is_empty() || values.contains(&default);
        setting.rule("default", &default, listed, &format!("one of {}", values.join(", ")))?;
        for value in values.iter().chain([&default]) {
            let plain = value.len() <= SETTING_BYTES_MAX && !value.chars().any(char::is_control);
            setting.rule("default", value, plain, "at most 256 bytes without control characters")?;
        }
        let description = setting.text("description")?.map_or(String::new(), |text| text.value);
        settings.push(Setting { key: key.to_owned(), description, default, values });
    }
    Ok(settings)
}

fn headers(root: &Table<'_, '_>) -> Result<Vec<(HeaderName, Spanned<Source>)>, DialectError> {
    let Some(table) = root.table("headers")? else { return Ok(Vec::new()) };
    root.at_most("headers", table.table.len(), HEADERS_MAX)?;
    let mut headers: Vec<(HeaderName, Spanned<Source>)> = Vec::new();
    for (key, offset) in table.keys() {
        let refused = |e| root.file.error(offset, Problem::Header(e));
        let (name, _) = check_custom_header(key, "").map_err(refused)?;
        if headers.iter().any(|(other, _)| *other == name) {
            return Err(refused(HeaderError::Twice { name: key.to_owned() }));
        }
        headers.push((name, table.source(key, Kind::Text)?.expect("it is one of the keys")));
    }
    Ok(headers)
}

fn signature(table: &Table<'_, '_>, settings: &[Setting]) -> Result<Signature, DialectError> {
    table.only(&["encoding", "header", "prefix"])?;
    let header = table.required("header")?;
    let (name, _) =
        check_custom_header(&header.value, "").map_err(|e| table.file.error(header.offset, Problem::Header(e)))?;
    let encoding = table.required("encoding")?;
    let setting = encoding.value.strip_prefix("settings.").and_then(|key| settings.iter().find(|s| s.key == key));
    let is_encoding = |value: &String| matches!(value.as_str(), "hex" | "base64");
    let encoding = match (encoding.value.as_str(), setting) {
        ("hex", _) => Encoding::Hex,
        ("base64", _) => Encoding::Base64,
        (_, Some(s)) if !s.values.is_empty() && s.values.iter().all(is_encoding) => Encoding::Setting(s.key.clone()),
        (other, _) => {
            let rule = "hex, base64, or settings.<key> of a setting with these values";
            return Err(table.rule("encoding", other, false, rule).expect_err("the rule is broken"));
        }
    };
    let prefix = table.text("prefix")?.map_or(String::new(), |text| text.value);
    let plain = prefix.len() <= 64 && prefix.chars().all(|c| c.is_ascii_graphic());
    table.rule("prefix", &prefix, plain, "at most 64 visible ASCII characters")?;
    Ok(Signature { header: name, prefix, encoding })
}

fn messages(root: &Table<'_, '_>, has_body: bool) -> Result<Vec<MessageText>, DialectError> {
    let Some(list) = root.table.get("message") else { return Err(root.missing("message")) };
    let wrong = |value: &toml::Spanned<DeValue<'_>>| root.kind("message", "an array of tables: [[message]]", value);
    let items = list.get_ref().as_array().ok_or_else(|| wrong(list))?;
    root.at_most("message", items.len(), MESSAGES_MAX)?;
    let mut messages: Vec<MessageText> = Vec::with_capacity(items.len());
    for item in items.iter() {
        let offset = item.span().start;
        let table = Table { file: root.file, table: item.get_ref().as_table().ok_or_else(|| wrong(item))?, offset };
        let message = message(&table, has_body)?;
        let covers = |other: &&MessageText| {
            other.when.is_none() && message.types.iter().all(|t| other.types.iter().any(|o| o == t || o == "*"))
        };
        if let Some(other) = messages.iter().find(covers) {
            let (line, _) = root.file.place(other.offset);
            let event_type = message.types.join(", ");
            return Err(root.file.error(offset, Problem::Unreachable { event_type, line }));
        }
        messages.push(message);
    }
    Ok(messages)
}

fn message(table: &Table<'_, '_>, has_body: bool) -> Result<MessageText, DialectError> {
    table.only(&["body", "example", "name", "properties", "type", "when"])?;
    let types = match table.table.get("type") {
        Some(value) if value.get_ref().is_array() => table.texts("type")?.unwrap_or_default(),
        _ => vec![table.required("type")?.value],
    };
    table.rule("type", "", !types.is_empty(), "at least one event type")?;
    for event_type in &types {
        table.rule("type", event_type, event_type == "*" || is_event_type(event_type), EVENT_TYPE_RULE)?;
    }
    let (properties, body) = (table.source("properties", Kind::Json)?, table.source("body", Kind::Json)?);
    if body.is_none() && !has_body {
        return Err(table.missing("body"));
    }
    if let (Some(properties), Some(_)) = (&properties, &body) {
        let problem = Problem::Template("a message with its own `body` has no use for `properties`".into());
        return Err(table.file.error(properties.offset, problem));
    }
    let example = match table.text("example")? {
        None => None,
        Some(text) => {
            Some(serde_json::from_str(&text.value).ok().filter(serde_json::Value::is_object).ok_or_else(|| {
                table.rule("example", &text.value, false, "a JSON object").expect_err("the rule is broken")
            })?)
        }
    };
    let name = match table.text("name")? {
        Some(name) => name.value,
        None if body.is_some() || types.iter().any(|t| t == "*") => String::new(),
        None => return Err(table.missing("name")),
    };
    table.rule("name", &name, name.len() <= 256 && !name.chars().any(char::is_control), "at most 256 bytes of text")?;
    let when = table.source("when", Kind::Expression)?;
    Ok(MessageText { offset: table.offset, types, when, name, properties, body, example })
}

const EVENT_TYPE_RULE: &str = "`*` or dotted lower-case words, as points.credited";

/// Dotted lower-case names, as published facts may have of their own.
pub(super) fn is_event_type(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    name.len() <= 128 && name.contains('.') && name.split('.').all(is_word)
}

/// A table of the file, for questions that are answered or refused with a place.
struct Table<'f, 'd> {
    file: &'f File<'f>,
    table: &'f DeTable<'d>,
    offset: usize,
}

impl<'f, 'd> Table<'f, 'd> {
    /// The keys in the order of the file.
    fn keys(&self) -> Vec<(&'f str, usize)> {
        let mut keys: Vec<_> = self.table.iter().map(|(key, _)| (key.get_ref().as_ref(), key.span().start)).collect();
        keys.sort_by_key(|(_, offset)| *offset);
        keys
    }

    fn only(&self, known: &[&str]) -> Result<(), DialectError> {
        for (key, offset) in self.keys() {
            if !known.contains(&key) {
                let nearest = nearest(key, known.iter().copied()).map(str::to_owned);
                let known = known.iter().map(|k| (*k).to_owned()).collect();
                return Err(self.file.error(offset, Problem::UnknownKey { key: key.to_owned(), nearest, known }));
            }
        }
        Ok(())
    }

    fn missing(&self, key: &'static str) -> DialectError {
        self.file.error(self.offset, Problem::Missing { key })
    }

    fn kind(&self, key: &str, expected: &'static str, value: &toml::Spanned<DeValue<'_>>) -> DialectError {
        let found = value.get_ref().type_str();
        self.file.error(value.span().start, Problem::Kind { key: key.to_owned(), expected, found })
    }

    fn span_of(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(self.offset..self.offset, toml::Spanned::span)
    }

    fn rule(&self, key: &str, value: &str, holds: bool, rule: &str) -> Result<(), DialectError> {
        if holds {
            return Ok(());
        }
        let value = value.chars().take(80).collect();
        let problem = Problem::Value { key: key.to_owned(), value, rule: rule.to_owned() };
        Err(self.file.error(self.span_of(key).start, problem))
    }

    fn at_most(&self, what: &'static str, count: usize, max: usize) -> Result<(), DialectError> {
        if count <= max {
            Ok(())
        } else {
            Err(self.file.error(self.span_of(what).start, Problem::TooMany { what, max }))
        }
    }

    fn table(&self, key: &str) -> Result<Option<Table<'f, 'd>>, DialectError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let table = value.get_ref().as_table().ok_or_else(|| self.kind(key, "a table", value))?;
        Ok(Some(Table { file: self.file, table, offset: value.span().start }))
    }

    fn text(&self, key: &str) -> Result<Option<Spanned<String>>, DialectError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let text = value.get_ref().as_str().ok_or_else(|| self.kind(key, "a string", value))?;
        Ok(Some(Spanned { value: text.to_owned(), offset: value.span().start }))
    }

    fn required(&self, key: &'static str) -> Result<Spanned<String>, DialectError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<String>>, DialectError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let expected = "an array of strings";
        let items = value.get_ref().as_array().ok_or_else(|| self.kind(key, expected, value))?;
        let text = |item: &toml::Spanned<DeValue<'_>>| {
            item.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.kind(key, expected, item))
        };
        items.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    fn source(&self, key: &str, kind: Kind) -> Result<Option<Spanned<Source>>, DialectError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        if text.value.len() > TEMPLATE_BYTES_MAX {
            return Err(self.rule(key, &text.value, false, "at most 64 KiB").expect_err("the rule is broken"));
        }
        let offsets = string_offsets(&self.file.text[self.span_of(key)], text.offset, &text.value);
        let source = Source::read(&text.value, &offsets, kind).map_err(|Unknown { offset, fault }| match fault {
            Fault::Word { what, word, known } => self.file.unknown_word(offset, what, &word, known.iter().copied()),
            Fault::NotAllowed { word, place, instead } => {
                self.file.error(offset, Problem::NotAllowed { word, place, instead })
            }
        })?;
        Ok(Some(Spanned { value: source, offset: text.offset }))
    }
}
