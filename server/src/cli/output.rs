//! What a command answers, as a table for people or as JSON for programs.
//!
//! Data goes to standard output, and nothing else does; notes go to standard error. This is the one
//! place of the command line that writes.
//!
//! # Invariants
//!
//! - What others have written (receivers, senders, servers) does nothing to a terminal: where people look,
//!   control characters are shown as `\u{1b}`.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::Value;

use super::failure::Failure;

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one document, or one object a line where a command goes on.
    Json,
}

/// What a command answers.
pub(super) enum Answer {
    /// It said all it had to say.
    Nothing,
    /// One thing, with its fields.
    One(Value),
    /// Several of a kind; a column is a path, as `profile.locale`, or `title:path`.
    Rows(&'static [&'static str], Vec<Value>),
    /// A text of its own format.
    Text(String),
    /// Something to be seen although the command failed.
    Although(Box<Answer>, Failure),
}

/// Writes one thing with its fields to standard output.
pub(crate) fn print_one(format: Format, value: Value) {
    // Standard output may be closed; then nobody wants to know.
    let _ = format.print(Answer::One(value));
}

/// Tells people something that is no data.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(harmless).collect();
    // Standard error may be closed; then nobody wants to know.
    let _ = writeln!(io::stderr().lock(), "{}", lines.join("\n"));
}

/// A text as people may see it: on one line, without what a terminal would obey.
pub(crate) fn harmless(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A text of several lines as people may see it.
pub(super) fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// Whether a progress bar would be seen.
pub(super) fn progress_is_seen() -> bool {
    io::stderr().is_terminal()
}

/// Standard output, for what is no text.
pub(crate) fn stdout() -> io::StdoutLock<'static> {
    io::stdout().lock()
}

/// Writes one line to standard output, at once.
///
/// # Errors
///
/// Standard output is gone.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

impl Format {
    /// Writes an answer.
    ///
    /// # Errors
    ///
    /// Standard output is gone; or what an [`Answer::Although`] carries.
    pub(super) fn print(self, answer: Answer) -> Result<(), Failure> {
        let text = match (self, answer) {
            (_, Answer::Nothing) => return Ok(()),
            (_, Answer::Although(answer, failure)) => {
                self.print(*answer)?;
                return Err(failure);
            }
            (_, Answer::Text(text)) => text,
            (Self::Json, Answer::One(value)) => format!("{value:#}"),
            (Self::Json, Answer::Rows(_, rows)) => format!("{:#}", Value::Array(rows)),
            (Self::Table, Answer::One(value)) => fields_table(&value),
            (Self::Table, Answer::Rows(columns, rows)) => rows_table(columns, &rows),
        };
        Ok(line(text.trim_end_matches('\n'))?)
    }
}

/// A line under the titles, and no other: easy on the eye, and on `grep`.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Fields of something within something that are shown on one line.
const FIELDS_ON_A_LINE: usize = 8;

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn rows_table(columns: &[&str], rows: &[Value]) -> String {
    let columns = columns.iter().map(|column| column.split_once(':').unwrap_or((title_of(column), column)));
    let columns: Vec<(&str, &str)> = columns.collect();
    let mut table = new_table();
    table.set_header(columns.iter().map(|(title, _)| *title));
    for row in rows {
        table.add_row(columns.iter().map(|(_, path)| cell(at(row, path))));
    }
    table.trim_fmt()
}

fn title_of(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn fields_table(value: &Value) -> String {
    let Value::Object(fields) = value else { return cell(value) };
    let mut table = new_table();
    for (name, value) in fields {
        // What is large within has its fields below each other too.
        let (within, prefix) = match value {
            Value::Object(within) if within.len() > FIELDS_ON_A_LINE => (within.iter().collect(), format!("{name}.")),
            value => (vec![(name, value)], String::new()),
        };
        for (name, value) in within {
            let shown = cell(value);
            if !shown.is_empty() {
                table.add_row([harmless(&format!("{prefix}{name}")), shown]);
            }
        }
    }
    table.trim_fmt()
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// A value on one line, or on one line each.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => harmless(&enum_word(text).unwrap_or_else(|| text.clone())),
        Value::Array(items) if items.iter().any(Value::is_object) => joined(items.iter().map(cell), "\n"),
        Value::Array(items) => joined(items.iter().map(cell), ", "),
        Value::Object(fields) => {
            let shown = fields.iter().map(|(name, value)| (name, cell(value))).filter(|(_, value)| !value.is_empty());
            joined(shown.map(|(name, value)| format!("{}={value}", harmless(name))), " ")
        }
    }
}

fn joined(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

/// `SUBSCRIPTION_STATE_ACTIVE` is `active` where only people look.
fn enum_word(text: &str) -> Option<String> {
    const PREFIXES: [&str; 15] = [
        "SUBSCRIPTION_STATE_",
        "BREAKER_STATE_",
        "ORDERING_",
        "ON_DEAD_LETTER_",
        "SIGNATURE_SCHEME_",
        "DELIVERY_STATE_",
        "DELIVERY_JOB_STATE_",
        "DELIVERY_JOB_KIND_",
        "ATTEMPT_OUTCOME_",
        "SCOPE_",
        "PERIOD_",
        "OVERFLOW_",
        "REDEMPTION_STATE_",
        "STACKING_",
        "TIER_BASIS_KIND_",
    ];
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_for_people() {
        let cases = [
            (json!(null), ""),
            (json!(true), "yes"),
            (json!(5), "5"),
            (json!("DELIVERY_STATE_DEAD_LETTERED"), "dead_lettered"),
            (json!("DELIVERED"), "DELIVERED"),
            (json!("BREAKER_STATE_HALF_OPEN"), "half_open"),
            (json!(["a", "b"]), "a, b"),
            (json!([{"key": "email", "value": "a@b"}]), "key=email value=a@b"),
            (json!({"a": 1, "b": ""}), "a=1"),
            (json!("a\u{1b}[2J\nb\u{9b}1m"), "a\\u{1b}[2J\\nb\\u{9b}1m"),
            (json!({"\u{7}": "é"}), "\\u{7}=é"),
        ];
        for (value, expected) in cases {
            assert_eq!(cell(&value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_large_within_has_a_line_for_each_field() {
        let large: serde_json::Map<String, Value> = (0..9).map(|n| (format!("f{n}"), json!(n))).collect();
        let table = fields_table(&json!({"large": large, "small": {"a": 1}, "b": "x"}));
        assert!(table.contains("large.f8") && table.contains("a=1") && !table.contains("small.a"), "{table}");
    }

    #[test]
    fn rows_have_titles_and_paths() {
        let rows = [json!({"a": 1, "b": {"c": "x"}}), json!({"a": 2})];
        let table = rows_table(&["a", "b.c", "again:a"], &rows);
        for word in ["a", "c", "again", "x", "2"] {
            assert!(table.contains(word), "{table}");
        }
    }
}
