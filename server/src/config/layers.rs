//! Where settings come from: layers of dotted keys, of which the later one wins.
//!
//! ```text
//! default.toml ─▶ dev.toml (--dev) ─▶ file ─▶ environment ─▶ flags ─▶ Settings
//! ```
//!
//! The embedded default file is the schema: what it does not name does not exist, and a value has the
//! type that it has there. A value keeps its [`Origin`], so that whoever refuses it later can say where
//! it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

/// The embedded defaults.
pub(super) const DEFAULTS: &str = include_str!("default.toml");
/// What `--dev` changes about them.
pub(super) const DEV: &str = include_str!("dev.toml");
/// What begins a variable that is a setting, if `__` follows.
const ENV_PREFIX: &str = "PUNCHLINE_";
/// What ends a variable that names a file with the value.
const ENV_FILE_SUFFIX: &str = "_FILE";
/// What two keys must have in common for one to be proposed for the other; 1 is the same.
const LIKENESS_MIN: f64 = 0.62;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the embedded defaults.
    Default,
    /// In what `--dev` changes about them.
    Dev,
    /// In a configuration file.
    File {
        /// Its path as given.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// In the environment, or in the file that a `…_FILE` variable names.
    Env {
        /// The variable.
        variable: String,
    },
    /// On the command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("--dev"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env { variable } => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What; names key and value, but never a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: toml::Value,
    pub(super) origin: Origin,
}

/// Every key of the schema with the value that is in effect.
pub(super) struct Settings {
    defaults: BTreeMap<String, toml::Value>,
    sections: BTreeSet<String>,
    in_effect: BTreeMap<String, Setting>,
    pub(super) problems: Vec<Problem>,
}

impl Settings {
    /// The embedded defaults alone.
    pub(super) fn defaults() -> Self {
        let leaves = Leaf::all(DEFAULTS).expect("the embedded defaults are TOML");
        let defaults: BTreeMap<_, _> = leaves.into_iter().map(|leaf| (leaf.key, leaf.value)).collect();
        let sections = defaults.keys().flat_map(|key| parents(key).map(str::to_owned)).collect();
        let in_effect = defaults
            .iter()
            .map(|(key, value)| (key.clone(), Setting { value: value.clone(), origin: Origin::Default }))
            .collect();
        Self { defaults, sections, in_effect, problems: Vec::new() }
    }

    /// The value that is in effect.
    pub(super) fn get(&self, key: &str) -> &Setting {
        self.in_effect.get(key).expect("every key that is asked for stands in default.toml")
    }

    /// The default value.
    pub(super) fn default_of(&self, key: &str) -> &toml::Value {
        self.defaults.get(key).expect("every key that is asked for stands in default.toml")
    }

    /// Where each value comes from.
    pub(super) fn into_origins(self) -> BTreeMap<String, Origin> {
        self.in_effect.into_iter().map(|(key, setting)| (key, setting.origin)).collect()
    }

    /// Lays a TOML text on top; `origin_of` tells the origin of a line.
    pub(super) fn lay_toml(&mut self, text: &str, origin_of: impl Fn(usize) -> Origin) {
        let leaves = match Leaf::all(text) {
            Ok(leaves) => leaves,
            Err(error) => {
                let line = line_of(text, error.span().unwrap_or_default());
                // Only the first line: the second may quote the text, and with it a secret.
                let message = error.message().lines().next().unwrap_or("invalid TOML").to_owned();
                return self.problem(origin_of(line), message);
            }
        };
        for leaf in leaves {
            let origin = origin_of(line_of(text, leaf.span));
            match leaf.value {
                // An empty table: a section without keys, if it is one.
                toml::Value::Table(_) if self.sections.contains(&leaf.key) => {}
                value => self.lay(&leaf.key, value, origin),
            }
        }
    }

    /// Lays the variables that are settings on top.
    pub(super) fn lay_env<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a OsStr)>) {
        let mut laid: BTreeMap<String, &str> = BTreeMap::new();
        for (variable, value) in variables {
            // Without `__` it is an option of the command line (PUNCHLINE_TOKEN), or what Kubernetes
            // makes for a service of our name (PUNCHLINE_PORT_8080_TCP).
            let Some(name) = variable.strip_prefix(ENV_PREFIX).filter(|name| name.contains("__")) else {
                continue;
            };
            let origin = Origin::Env { variable: variable.to_owned() };
            let key_of = |name: &str| name.to_ascii_lowercase().replace("__", ".");
            let key = key_of(name);
            let in_file = name.strip_suffix(ENV_FILE_SUFFIX).map(key_of).filter(|_| !self.defaults.contains_key(&key));
            let is_file = in_file.is_some();
            let key = in_file.unwrap_or(key);
            // Whichever won, it would be chance.
            if let Some(other) = laid.insert(key.clone(), variable) {
                self.problem(origin, format!("{key} is set by {other} too: only one of them may be"));
                continue;
            }
            let Some(text) = value.to_str() else {
                self.problem(origin, format!("{key} is not UTF-8 (its value is not shown)"));
                continue;
            };
            if !is_file {
                self.lay_text(&key, text, origin);
                continue;
            }
            match std::fs::read_to_string(text) {
                Ok(content) => self.lay_text(&key, content.trim_end_matches(['\r', '\n']), origin),
                Err(error) => self.problem(origin, format!("cannot read {text}: {error}")),
            }
        }
    }

    /// Lays a value on top that has no type yet: it takes that of the key.
    pub(super) fn lay_text(&mut self, key: &str, text: &str, origin: Origin) {
        let value = match self.defaults.get(key) {
            Some(toml::Value::Integer(_)) => text.replace('_', "").parse().ok().map(toml::Value::Integer),
            Some(toml::Value::Boolean(_)) => text.parse().ok().map(toml::Value::Boolean),
            Some(toml::Value::Array(_)) => Some(list_of(text)),
            _ => None,
        };
        self.lay(key, value.unwrap_or_else(|| toml::Value::String(text.to_owned())), origin);
    }

    fn lay(&mut self, key: &str, value: toml::Value, origin: Origin) {
        let Some(default) = self.defaults.get(key) else {
            let message = self.unknown(key);
            return self.problem(origin, message);
        };
        if default.same_type(&value) {
            self.in_effect.insert(key.to_owned(), Setting { value, origin });
        } else {
            let (wanted, given) = (default.type_str(), value.type_str());
            // Secrets are texts: what stands where a text should may be one.
            let shown = if default.is_str() { String::new() } else { format!(" = {value}") };
            self.problem(origin, format!("{key}{shown} is to be of type {wanted}, not {given}"));
        }
    }

    fn problem(&mut self, origin: Origin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    fn unknown(&self, key: &str) -> String {
        if self.sections.contains(key) {
            return format!("{key} is a section, not a value");
        }
        let candidates = self.defaults.keys().chain(&self.sections);
        match nearest(key, candidates.map(String::as_str)) {
            Some(right) => format!("unknown key {key}; did you mean {right}?"),
            None => {
                let top: Vec<&str> = self.sections.iter().map(String::as_str).filter(|s| !s.contains('.')).collect();
                format!("unknown key {key}; the sections are {}", top.join(", "))
            }
        }
    }
}

/// The candidate that `key` was most probably meant to be. A right name in the wrong section counts too.
fn nearest<'a>(key: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
    let own_name = key.rsplit('.').next().unwrap_or(key);
    let likeness = |candidate: &'a str| {
        let whole = strsim::normalized_damerau_levenshtein(key, candidate);
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(own_name, name(candidate)))
    };
    candidates
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The sections that a key is in.
fn parents(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('.').map(|(at, _)| &key[..at])
}

/// `a, b` or `["a", "b"]`.
fn list_of(text: &str) -> toml::Value {
    if text.trim_start().starts_with('[')
        && let Ok(value) = text.parse::<toml::Value>()
    {
        return value;
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect())
}

/// The line, from 1, that a place in a text is on.
pub(super) fn line_of(text: &str, span: Range<usize>) -> usize {
    1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// A dotted key and its value; a table only where it is empty.
struct Leaf {
    key: String,
    value: toml::Value,
    /// Of the key.
    span: Range<usize>,
}

impl Leaf {
    fn all(text: &str) -> Result<Vec<Self>, toml::de::Error> {
        let spans = DeTable::parse(text)?;
        let values: toml::Table = toml::from_str(text)?;
        let mut leaves = Vec::new();
        Self::collect("", spans.get_ref(), &values, &mut leaves);
        Ok(leaves)
    }

    fn collect(prefix: &str, spans: &DeTable<'_>, values: &toml::Table, leaves: &mut Vec<Self>) {
        for (key, span) in spans {
            let name: &str = key.get_ref();
            let Some(value) = values.get(name) else { continue };
            let dotted = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            match (span.get_ref().as_table(), value) {
                (Some(inner), toml::Value::Table(table)) if !table.is_empty() => {
                    Self::collect(&dotted, inner, table, leaves);
                }
                _ => leaves.push(Self { key: dotted, value: value.clone(), span: key.span() }),
            }
        }
    }
}

/// Reads a file's text.
pub(super) fn read_file(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| Problem {
        origin: Origin::File { path: path.to_owned(), line: 1 },
        message: format!("cannot be read: {error}"),
    })
}
