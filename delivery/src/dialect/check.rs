//! Compiles what a file says, and tries every message before anybody relies on it.
//!
//! # Invariants
//!
//! - Variables, and fields of canonical types, are known ones: a slip of the pen is found here and not by
//!   the first event. Fields of an operator's own come with an `example`; own types need none.
//! - Every message is rendered with its example, with fields that are all null, and with no data at all,
//!   under each choice of settings.

use std::collections::{BTreeMap, HashMap};

use minijinja::value::Value;
use punchline_engine::id::{AdvertiserId, Environment};
use serde_json::Value as Json;

use super::file::{Definition, DialectError, File, MessageText, Problem, Setting, Spanned, read};
use super::message::{Data, Message, RenderError};
use super::template::Source;
use super::words::{FUNCTIONS, VARIABLES, environment, header_value};
use super::{Dialect, Entry, Line, Settings, Speaking, Templates, catalogue};
use crate::dialect::view::Facts;

/// The most choices of settings that are tried with each message.
const CHOICES_MAX: usize = 64;

const BODY: &str = "body";
const CONTENT_TYPE: &str = "text:content_type";

impl Dialect {
    pub(super) fn parse(file: &str, text: &str) -> Result<Dialect, DialectError> {
        let file = File { name: file, text };
        let definition = read(&file)?;
        let templates = Compiler { file: &file, env: environment(), sources: HashMap::new() };
        let speech = templates.compile(&definition)?;
        let Definition { name, description, settings, messages, .. } = definition;
        let dialect = Dialect {
            name: name.value,
            name_offset: name.offset,
            description,
            settings,
            is_builtin: false,
            speech: Some(speech),
        };
        for (index, message) in messages.iter().enumerate() {
            dialect.attempt(&file, index, message)?;
        }
        Ok(dialect)
    }

    /// Renders a message as often as it takes to trust it.
    fn attempt(&self, file: &File<'_>, index: usize, message: &MessageText) -> Result<(), DialectError> {
        let speech = self.speech.as_ref().expect("it was just compiled");
        let entry = &speech.messages[index];
        let nothing = Json::Object(serde_json::Map::new());
        for event_type in &message.types {
            let event_type = if event_type == "*" { "points.credited" } else { event_type };
            let example = match &message.example {
                Some(own) => own.clone(),
                None => catalogue::known_fields(event_type).unwrap_or_else(|| nothing.clone()),
            };
            let nulls = nulled(&example);
            let variants = [("the example", &example), ("null in every field", &nulls), ("no data", &nothing)];
            for (what, data) in variants {
                for settings in choices(&self.settings) {
                    let mut with = format!("{what} of {event_type}");
                    if !settings.chosen.is_empty() {
                        let chosen: Vec<String> = settings.chosen.iter().map(|(k, v)| format!("{k} {v:?}")).collect();
                        with.push_str(&format!(" and {}", chosen.join(", ")));
                    }
                    let message_now = Message { event_type, data: Data::Json(data), ..catalogue::message(&nothing) };
                    let facts = Facts::of(&message_now, settings.value.clone()).into();
                    let speaking = Speaking { dialect: &self.name, speech, event_type };
                    let said = speaking.holds(entry, &facts).and_then(|_| speaking.say(entry, &facts));
                    said.map_err(|e| self.refused(file, message, &speaking, &facts, entry, e, with))?;
                }
            }
        }
        Ok(())
    }

    /// An error of a rendering as an error of the file.
    fn refused(
        &self,
        file: &File<'_>,
        message: &MessageText,
        speaking: &Speaking<'_>,
        facts: &std::sync::Arc<Facts>,
        entry: &Entry,
        error: RenderError,
        with: String,
    ) -> DialectError {
        let speech = speaking.speech;
        let start_of = |template: &str| speech.sources[template].offset_in_file(0);
        match error {
            RenderError::Template { line, column, problem, .. } => DialectError {
                file: file.name.to_owned(),
                line,
                column,
                problem: Box::new(Problem::Template(format!("with {with}: {problem}"))),
            },
            RenderError::Header { header, .. } => {
                let index = speech.headers.iter().position(|(name, _)| name.as_str() == header);
                let template = index.map_or(CONTENT_TYPE.to_owned(), header_template);
                file.error(start_of(&template), Problem::NotHeader { with })
            }
            RenderError::NotJson { problem, .. } => {
                // The properties are at fault if they are not JSON by themselves.
                let mut at_fault = (entry.body.as_str(), None);
                if let Some(properties) = &entry.properties {
                    let text = speaking.template(properties, facts, entry, Value::UNDEFINED).unwrap_or_default();
                    if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
                        at_fault = (properties, Some(text));
                    } else {
                        let properties = Value::from_safe_string(text);
                        at_fault.1 = speaking.template(&entry.body, facts, entry, properties).ok();
                    }
                } else {
                    let properties = Value::from_safe_string("{}".into());
                    at_fault.1 = speaking.template(&entry.body, facts, entry, properties).ok();
                }
                let text = at_fault.1.unwrap_or_default();
                let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
                let (column, problem) = parsed.err().map_or((1, problem), |e| {
                    let told = e.to_string();
                    let told = told.split(" at line ").next().unwrap_or_default().to_owned();
                    (e.column(), told)
                });
                // An offset in bytes: a squeezed text has one line, unless a tag has more.
                let near = text.char_indices().filter(|(at, _)| at + 24 > column && *at < column + 8);
                let near = near.map(|(_, c)| c).collect();
                let offset = match at_fault.0 {
                    BODY if message.body.is_none() => start_of(BODY),
                    template => start_of(template),
                };
                file.error(offset, Problem::NotJson { with, problem, near })
            }
        }
    }
}

/// Every choice of settings, up to a limit; free text is its default.
fn choices(settings: &[Setting]) -> Vec<Settings> {
    let mut choices = vec![BTreeMap::new()];
    for setting in settings {
        let values = if setting.values.is_empty() { std::slice::from_ref(&setting.default) } else { &setting.values };
        let with = |chosen: &BTreeMap<String, String>, value: &String| {
            let mut chosen = chosen.clone();
            chosen.insert(setting.key.clone(), value.clone());
            chosen
        };
        choices = values.iter().flat_map(|value| choices.iter().map(move |chosen| with(chosen, value))).collect();
        choices.truncate(CHOICES_MAX);
    }
    choices.into_iter().map(Settings::new).collect()
}

/// The same, with null for each value.
fn nulled(example: &Json) -> Json {
    match example {
        Json::Object(map) => map.iter().map(|(key, _)| (key.clone(), Json::Null)).collect(),
        _ => Json::Null,
    }
}

fn header_template(index: usize) -> String {
    format!("text:header {index}")
}

/// Where in the file an error of the engine is.
pub(super) fn offset_of(source: &Source, error: &minijinja::Error) -> usize {
    match (error.range(), error.line()) {
        (Some(range), _) => source.offset_in_file(range.start),
        (None, Some(line)) => source.line_in_file(line),
        (None, None) => source.offset_in_file(0),
    }
}

/// What the engine says, without the place, which is that of the template.
pub(super) fn problem_of(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

struct Compiler<'a> {
    file: &'a File<'a>,
    env: minijinja::Environment<'static>,
    sources: HashMap<String, Source>,
}

impl Compiler<'_> {
    fn compile(mut self, definition: &Definition) -> Result<Templates, DialectError> {
        let settings = &definition.settings;
        let known: Vec<Option<Json>> = definition.messages.iter().map(known_of).collect();
        // The envelope is everybody's: it may name what any message has.
        let any = known.iter().cloned().collect::<Option<Vec<Json>>>().map(|all| {
            let mut fields = Json::Object(serde_json::Map::new());
            all.into_iter().for_each(|known| catalogue::merge(&mut fields, known));
            fields
        });
        let content_type = self.line(CONTENT_TYPE.to_owned(), &definition.content_type, settings, any.as_ref())?;
        let mut headers = Vec::new();
        for (index, (name, source)) in definition.headers.iter().enumerate() {
            headers.push((name.clone(), self.line(header_template(index), source, settings, any.as_ref())?));
        }
        if let Some(body) = &definition.body {
            self.add(BODY.to_owned(), body.value.clone(), settings, any.as_ref())?;
        }
        let mut messages = Vec::new();
        for (index, (message, known)) in definition.messages.iter().zip(&known).enumerate() {
            messages.push(self.entry(index, message, settings, known.as_ref())?);
        }
        let (by_type, by_any) = tables(&definition.messages);
        let Compiler { file, env, sources } = self;
        let (file, text) = (file.name.to_owned(), file.text.to_owned());
        let signature = definition.signature.clone();
        Ok(Templates { file, text, env, sources, content_type, headers, signature, messages, by_type, by_any })
    }

    fn entry(
        &mut self,
        index: usize,
        message: &MessageText,
        settings: &[Setting],
        known: Option<&Json>,
    ) -> Result<Entry, DialectError> {
        let when = match &message.when {
            None => None,
            Some(when) => {
                // By itself first: `a %} b` is no expression, and errors have their own place.
                let compiled = self.env.compile_expression_owned(when.value.text.clone());
                compiled.map_err(|e| self.syntax(&when.value, &e))?;
                let name = format!("text:when {index}");
                self.add(name.clone(), when.value.clone().into_condition(), settings, known)?;
                Some(name)
            }
        };
        let properties = match &message.properties {
            None => None,
            Some(properties) => {
                let name = format!("properties {index}");
                self.add(name.clone(), properties.value.clone(), settings, known)?;
                Some(name)
            }
        };
        let body = match &message.body {
            None => BODY.to_owned(),
            Some(body) => {
                let name = format!("body {index}");
                self.add(name.clone(), body.value.clone(), settings, known)?;
                name
            }
        };
        let name = if message.name.is_empty() { Value::UNDEFINED } else { Value::from(message.name.as_str()) };
        Ok(Entry { name, when, properties, body })
    }

    fn line(
        &mut self,
        name: String,
        source: &Spanned<Source>,
        settings: &[Setting],
        known: Option<&Json>,
    ) -> Result<Line, DialectError> {
        if source.value.is_fixed() {
            let value = header_value(&source.value.text).ok().flatten();
            let with = || Problem::NotHeader { with: "any event".into() };
            return value.map(Line::Fixed).ok_or_else(|| self.file.error(source.offset, with()));
        }
        self.add(name.clone(), source.value.clone(), settings, known)?;
        Ok(Line::Template(name))
    }

    fn syntax(&self, source: &Source, error: &minijinja::Error) -> DialectError {
        self.file.error(offset_of(source, error), Problem::Template(problem_of(error)))
    }

    fn add(
        &mut self,
        name: String,
        source: Source,
        settings: &[Setting],
        known: Option<&Json>,
    ) -> Result<(), DialectError> {
        let added = self.env.add_template_owned(name.clone(), source.text.clone());
        added.map_err(|e| self.syntax(&source, &e))?;
        let template = self.env.get_template(&name).expect("it was just added");
        let mut paths: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        paths.sort_by_key(|path| (source.path_in_file(path), path.clone()));
        for path in paths {
            let unknown = |what, prefix: &str, word: &str, known: Vec<&str>| {
                let at = source.path_in_file(&format!("{prefix}{word}"));
                Err(self.file.unknown_word(at, what, word, known.into_iter()))
            };
            let (root, rest) = path.split_once('.').unwrap_or((&path, ""));
            match root {
                "data" if !rest.is_empty() => {
                    if let Some((prefix, word, fields)) = known.and_then(|known| unknown_field(known, rest)) {
                        return unknown("field", &prefix, &word, fields);
                    }
                }
                "settings" if !rest.is_empty() => {
                    let word = rest.split('.').next().unwrap_or_default();
                    if settings.iter().all(|s| s.key != word) {
                        return unknown(
                            "setting",
                            "settings.",
                            word,
                            settings.iter().map(|s| s.key.as_str()).collect(),
                        );
                    }
                }
                _ if VARIABLES.contains(&root) || FUNCTIONS.contains(&root) => {}
                _ => {
                    let is_field = known.is_some_and(|known| known.get(root).is_some());
                    let (at, meant) = (source.path_in_file(root), format!("data.{root}"));
                    let words = VARIABLES.iter().chain(FUNCTIONS).copied();
                    let mut error = self.file.unknown_word(at, "variable", root, words);
                    if let Problem::UnknownWord { nearest, .. } = &mut *error.problem
                        && is_field
                    {
                        *nearest = Some(meant);
                    }
                    return Err(error);
                }
            }
        }
        self.sources.insert(name, source);
        Ok(())
    }
}

/// The fields a message's events may have; `None` if anything goes.
fn known_of(message: &MessageText) -> Option<Json> {
    let mut fields = Json::Object(serde_json::Map::new());
    for event_type in &message.types {
        match catalogue::known_fields(event_type) {
            Some(known) => catalogue::merge(&mut fields, known),
            None if message.example.is_some() => catalogue::merge(&mut fields, catalogue::common_fields()),
            None => return None,
        }
    }
    message.example.iter().for_each(|own| catalogue::merge(&mut fields, own.clone()));
    Some(fields)
}

/// The first word of a path that the example has no field for: what stands before it, the word, and the
/// fields there are. Lists and values end the search: nothing is known about what is in them.
fn unknown_field<'k>(known: &'k Json, path: &str) -> Option<(String, String, Vec<&'k str>)> {
    let (mut here, mut before) = (known, "data.".to_owned());
    for word in path.split('.') {
        let fields = here.as_object().filter(|fields| !fields.is_empty())?;
        match fields.get(word) {
            Some(field) => here = field,
            None => return Some((before, word.to_owned(), fields.keys().map(String::as_str).collect())),
        }
        before = format!("{before}{word}.");
    }
    None
}

fn tables(messages: &[MessageText]) -> (HashMap<String, Vec<usize>>, Vec<usize>) {
    let indices = |event_type: &str| {
        let speaks = |m: &&(usize, &MessageText)| m.1.types.iter().any(|t| t == event_type || t == "*");
        messages.iter().enumerate().collect::<Vec<_>>().iter().filter(speaks).map(|(i, _)| *i).collect::<Vec<_>>()
    };
    let types = messages.iter().flat_map(|m| &m.types).filter(|t| *t != "*");
    (types.map(|t| (t.clone(), indices(t))).collect(), indices("*"))
}

/// What the checks say to be the tenant.
pub(super) const TENANT: (AdvertiserId, Environment) = (AdvertiserId::FIRST, Environment::Production);
