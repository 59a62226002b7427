//! The words that templates may use: variables, functions, filters and tests.
//!
//! # Invariants
//!
//! - No word makes much out of little: a text grows by its arguments, never by a factor. With what
//!   [`super::template`] refuses (bindings, `*`), a template's work is bounded by its own length, the
//!   event's size and its fuel.
//! - A filter passes `null` and what is missing through, so that `default` may come anywhere.
//! - Errors never tell a value: it may be personal.

use std::io::Write;

use http::HeaderValue;
use jiff::Timestamp;
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, filters, tests};

/// Steps that one template may take. The longest of the built-in ones takes some 200.
const FUEL: u64 = 50_000;
/// The most bytes a body has, and anything in it.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// The most bytes that `join` makes.
const JOINED_BYTES_MAX: usize = 1 << 16;

/// What a template may name.
pub(super) const VARIABLES: &[&str] = &[
    "advertiser_id",
    "cause_id",
    "cause_sequence",
    "data",
    "email",
    "environment",
    "event_id",
    "member_id",
    "name",
    "phone",
    "properties",
    "sequence",
    "settings",
    "time",
    "type",
    "webhook_id",
];
/// What it may call.
pub(super) const FUNCTIONS: &[&str] = &["optional"];
/// What it may pipe through.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "bool",
    "camel",
    "default",
    "first",
    "float",
    "int",
    "items",
    "join",
    "kebab",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "omit",
    "pad",
    "pascal",
    "percent_encoded",
    "prefixed",
    "reject",
    "rejectattr",
    "rfc3339",
    "round",
    "select",
    "selectattr",
    "snake",
    "split",
    "string",
    "sum",
    "times",
    "trim",
    "ulid",
    "unix",
    "unix_ms",
    "upper",
    "without_nulls",
];
/// What may follow `is`.
pub(super) const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "endingwith",
    "eq",
    "false",
    "ge",
    "gt",
    "in",
    "integer",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
];

/// An environment that knows these words and no others.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(50);
    env.set_debug(true); // ranges in errors; costs nothing until there is one
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_auto_escape_callback(|name| if name.starts_with("text:") { AutoEscape::None } else { AutoEscape::Json });
    env.set_formatter(write);
    env.add_function("optional", optional);
    for (name, filter) in [("camel", Casing::Camel), ("kebab", Casing::Kebab)] {
        env.add_filter(name, move |value: &Value| recased(value, filter));
    }
    for (name, filter) in [("pascal", Casing::Pascal), ("snake", Casing::Snake)] {
        env.add_filter(name, move |value: &Value| recased(value, filter));
    }
    env.add_filter("abs", |value: &Value| through(value, |v| filters::abs(v.clone())));
    env.add_filter("bool", filters::bool);
    env.add_filter("default", default);
    env.add_filter("first", |value: &Value| through(value, filters::first));
    env.add_filter("float", filters::float);
    env.add_filter("int", filters::int);
    env.add_filter("items", |value: &Value| through(value, filters::items));
    env.add_filter("join", join);
    env.add_filter("last", |value: &Value| through(value, |v| filters::last(v.clone())));
    env.add_filter("length", |value: &Value| if is_missing(value) { Ok(0) } else { filters::length(value) });
    env.add_filter("list", filters::list);
    env.add_filter("lower", |value: &Value| through(value, |v| Ok(text(v)?.to_lowercase().into())));
    env.add_filter("map", filters::map);
    env.add_filter("omit", omit);
    env.add_filter("pad", pad);
    env.add_filter("percent_encoded", |value: &Value| through(value, |v| Ok(percent_encoded(&text(v)?).into())));
    env.add_filter("prefixed", prefixed);
    env.add_filter("reject", filters::reject);
    env.add_filter("rejectattr", filters::rejectattr);
    env.add_filter("rfc3339", rfc3339);
    env.add_filter("round", filters::round);
    env.add_filter("select", filters::select);
    env.add_filter("selectattr", filters::selectattr);
    env.add_filter("split", |value: &Value, by: &str| through(value, |v| split(&text(v)?, by)));
    env.add_filter("string", |value: &Value| through(value, |v| Ok(text(v)?.into())));
    env.add_filter("sum", filters::sum);
    env.add_filter("times", times);
    env.add_filter("trim", |value: &Value| through(value, |v| Ok(text(v)?.trim().into())));
    env.add_filter("ulid", |value: &Value| through(value, ulid));
    env.add_filter("unix", |value: &Value| through(value, |v| Ok(timestamp(v)?.as_second().into())));
    env.add_filter("unix_ms", |value: &Value| through(value, |v| Ok(timestamp(v)?.as_millisecond().into())));
    env.add_filter("upper", |value: &Value| through(value, |v| Ok(text(v)?.to_uppercase().into())));
    env.add_filter("without_nulls", without_nulls);
    env.add_test("boolean", tests::is_boolean);
    env.add_test("defined", tests::is_defined);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("eq", tests::is_eq);
    env.add_test("false", tests::is_false);
    env.add_test("ge", tests::is_ge);
    env.add_test("gt", tests::is_gt);
    env.add_test("in", tests::is_in);
    env.add_test("integer", tests::is_integer);
    env.add_test("le", tests::is_le);
    env.add_test("lt", tests::is_lt);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("ne", tests::is_ne);
    env.add_test("none", is_missing);
    env.add_test("number", tests::is_number);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("string", tests::is_string);
    env.add_test("true", tests::is_true);
    env.add_test("undefined", tests::is_undefined);
    env
}

/// Bytes up to a limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > BODY_BYTES_MAX {
            return Err(std::io::Error::other("longer than 1 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A value as JSON, compact.
pub(super) fn json(value: &Value) -> Result<String, Error> {
    let mut bytes = Bounded(Vec::with_capacity(64));
    serde_json::to_writer(&mut bytes, value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, format!("cannot be said in JSON: {e}")))?;
    Ok(String::from_utf8(bytes.0).expect("JSON is UTF-8"))
}

/// `{{ value }}`: JSON in a body, plain text in a header; what is missing is `null`, or nothing.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let plain = matches!(state.auto_escape(), AutoEscape::None);
    if value.is_safe() || plain {
        return match value.kind() {
            ValueKind::Undefined | ValueKind::None => Ok(()),
            ValueKind::String => Ok(out.write_str(value.as_str().unwrap_or_default())?),
            ValueKind::Number | ValueKind::Bool => Ok(write!(out, "{value}")?),
            _ => Ok(out.write_str(&json(value)?)?),
        };
    }
    Ok(out.write_str(&json(value)?)?)
}

fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}

fn through(value: &Value, filter: impl Fn(&Value) -> Result<Value, Error>) -> Result<Value, Error> {
    if is_missing(value) { Ok(value.clone()) } else { filter(value) }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// A scalar as text.
fn text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
        kind => Err(wrong(format!("needs text or a number, has {kind}"))),
    }
}

/// `optional("url", data.url)`: the member of an object with its comma, `"url":"…",`; nothing where the
/// value is missing. The last member of the object has to be another one.
fn optional(key: &str, value: &Value) -> Result<Value, Error> {
    if is_missing(value) {
        return Ok(Value::from_safe_string(String::new()));
    }
    Ok(Value::from_safe_string(format!("{}:{},", json(&Value::from(key))?, json(value)?)))
}

/// `default(x)` where the value is missing or null; `default(x, true)` also where it is empty or false.
fn default(value: &Value, other: &Value, also_empty: Option<bool>) -> Value {
    let replaced = is_missing(value) || (also_empty == Some(true) && !value.is_true());
    if replaced { other.clone() } else { value.clone() }
}

fn split(text: &str, by: &str) -> Result<Value, Error> {
    if by.is_empty() {
        return Err(wrong("needs something to split by"));
    }
    Ok(text.split(by).map(Value::from).collect())
}

fn join(value: &Value, by: &str) -> Result<Value, Error> {
    let mut joined = String::new();
    if is_missing(value) {
        return Ok(value.clone());
    }
    for (i, item) in value.try_iter()?.enumerate() {
        joined.push_str(if i == 0 { "" } else { by });
        joined.push_str(&text(&item)?);
        if joined.len() > JOINED_BYTES_MAX {
            return Err(wrong("joins to more than 64 KiB"));
        }
    }
    Ok(joined.into())
}

fn entries(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(wrong(format!("needs an object, has {}", value.kind())));
    }
    value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect()
}

fn without_nulls(value: &Value) -> Result<Value, Error> {
    through(value, |v| Ok(Value::from_pairs(entries(v)?.into_iter().filter(|(_, value)| !is_missing(value)))))
}

fn omit(value: &Value, keys: Rest<String>) -> Result<Value, Error> {
    let omitted = |key: &Value| key.as_str().is_some_and(|key| keys.iter().any(|k| k == key));
    through(value, |v| Ok(Value::from_pairs(entries(v)?.into_iter().filter(|(key, _)| !omitted(key)))))
}

/// The prefix before the text, unless it is there already: `velo-club` is `camp_velo-club`, and an id
/// that came from the other system keeps its form.
fn prefixed(value: &Value, prefix: &str) -> Result<Value, Error> {
    through(value, |v| {
        let text = text(v)?;
        Ok(if text.starts_with(prefix) { text.into() } else { format!("{prefix}{text}").into() })
    })
}

fn pad(value: &Value, width: usize) -> Result<Value, Error> {
    let width = width.min(64);
    through(value, |v| Ok(format!("{:0>width$}", text(v)?).into()))
}

fn times(value: &Value, factor: &Value) -> Result<Value, Error> {
    through(value, |v| {
        if let (Some(a), Some(b)) = (v.as_i64(), factor.as_i64()) {
            return a.checked_mul(b).map(Value::from).ok_or_else(|| wrong("is too large"));
        }
        let number = |v: &Value| f64::try_from(v.clone());
        Ok(Value::from(number(v)? * number(factor)?))
    })
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | 0..=0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

/// A UUID in the 26 letters and digits of a ULID; anything else stays as it is.
fn ulid(value: &Value) -> Result<Value, Error> {
    const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let text = text(value)?;
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let uuid = if text.len() == 36 && hex.len() == 32 { u128::from_str_radix(&hex, 16).ok() } else { None };
    Ok(match uuid {
        None => text.into(),
        Some(n) => (0..26).rev().map(|i| char::from(LETTERS[(n >> (5 * i)) as usize & 31])).collect::<String>().into(),
    })
}

/// An instant: RFC 3339 with any number of digits, or milliseconds since 1970.
fn timestamp(value: &Value) -> Result<Timestamp, Error> {
    let parsed = match (value.as_str(), value.as_i64()) {
        (Some(text), _) => text.parse().ok(),
        (_, Some(ms)) => Timestamp::from_millisecond(ms).ok(),
        _ => None,
    };
    parsed.ok_or_else(|| wrong(format!("needs an RFC 3339 date or unix milliseconds, has another {}", value.kind())))
}

/// `rfc3339` with as many digits as it takes, `rfc3339("s")` and `rfc3339("ms")`, `rfc3339(7)`; UTC.
fn rfc3339(value: &Value, precision: Option<&Value>) -> Result<Value, Error> {
    through(value, |v| {
        let instant = timestamp(v)?;
        let digits = match precision {
            None => return Ok(instant.to_string().into()),
            Some(p) if p.as_str() == Some("s") => 0,
            Some(p) if p.as_str() == Some("ms") => 3,
            Some(p) => p.as_usize().filter(|n| *n <= 9).ok_or_else(|| wrong(r#"needs "s", "ms" or 0 to 9 digits"#))?,
        };
        Ok(format!("{instant:.digits$}").into())
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Casing {
    Camel,
    Pascal,
    Snake,
    Kebab,
}

/// Words are parted by anything that is no letter or digit, and where a capital follows a small letter.
fn cased(text: &str, casing: Casing) -> String {
    let mut words: Vec<String> = Vec::new();
    let (mut starts, mut was_small) = (true, false);
    for c in text.chars() {
        if !c.is_alphanumeric() {
            (starts, was_small) = (true, false);
            continue;
        }
        if starts || (c.is_uppercase() && was_small) {
            words.push(String::new());
        }
        (starts, was_small) = (false, c.is_lowercase() || c.is_numeric());
        words.last_mut().expect("the first letter starts a word").extend(c.to_lowercase());
    }
    let capital = |word: &String| {
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
    };
    match casing {
        Casing::Snake => words.join("_"),
        Casing::Kebab => words.join("-"),
        Casing::Pascal => words.iter().map(capital).collect(),
        Casing::Camel => words.iter().enumerate().map(|(i, w)| if i == 0 { w.clone() } else { capital(w) }).collect(),
    }
}

/// A text in another casing; of an object or a list, the keys at every depth.
fn recased(value: &Value, casing: Casing) -> Result<Value, Error> {
    fn keys(value: &Value, casing: Casing, depth: usize) -> Result<Value, Error> {
        if depth > 32 {
            return Err(wrong("is nested too deep"));
        }
        match value.kind() {
            ValueKind::Map => {
                let recased = |(key, value): (Value, Value)| {
                    let key = key.as_str().map_or_else(|| key.clone(), |key| cased(key, casing).into());
                    Ok((key, keys(&value, casing, depth + 1)?))
                };
                Ok(Value::from_pairs(entries(value)?.into_iter().map(recased).collect::<Result<Vec<_>, Error>>()?))
            }
            ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.map(|v| keys(&v, casing, depth + 1)).collect(),
            _ => Ok(value.clone()),
        }
    }
    match value.as_str() {
        Some(text) => Ok(cased(text, casing).into()),
        None => keys(value, casing, 0),
    }
}

/// A text as a header's value, if it can be one. Empty is none.
pub(super) fn header_value(text: &str) -> Result<Option<HeaderValue>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > crate::headers::VALUE_BYTES_MAX {
        return Err(());
    }
    HeaderValue::try_from(text).map(Some).map_err(|_| ())
}

#[cfg(test)]
mod tests_of_words {
    use super::*;

    fn eval(expression: &str) -> String {
        let env = environment();
        let value = env.compile_expression(expression).and_then(|e| e.eval(Value::UNDEFINED));
        value.and_then(|value| json(&value)).unwrap_or_else(|e| e.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn words() {
        for (expression, expected) in [
            (r#""points_received" | camel"#, r#""pointsReceived""#),
            (r#""points_received" | pascal"#, r#""PointsReceived""#),
            (r#""PunchcardStampsReceived" | snake"#, r#""punchcard_stamps_received""#),
            (r#""Redeem Reward Started" | kebab"#, r#""redeem-reward-started""#),
            (r#"{"a_b": [{"c_d": 1}], "e": none} | camel"#, r#"{"aB":[{"cD":1}],"e":null}"#),
            (r#"none | camel"#, "null"),
            (r#"{"a": none, "b": 0} | without_nulls"#, r#"{"b":0}"#),
            (r#"{"a": 1, "b": 2, "c": 3} | omit("a", "c")"#, r#"{"b":2}"#),
            (r#"nothing | default("NA")"#, r#""NA""#),
            (r#"none | default("NA")"#, r#""NA""#),
            (r#""" | default("NA")"#, r#""""#),
            (r#""" | default("NA", true)"#, r#""NA""#),
            (r#""2023-09-22T10:12:48.68849339Z" | rfc3339"#, r#""2023-09-22T10:12:48.68849339Z""#),
            (r#""2023-09-22T12:12:48.68849339+02:00" | rfc3339(9)"#, r#""2023-09-22T10:12:48.688493390Z""#),
            (r#""2023-09-22T10:12:48.68849339Z" | rfc3339(7)"#, r#""2023-09-22T10:12:48.6884933Z""#),
            (r#""2023-09-22T10:12:48.68849339Z" | rfc3339("ms")"#, r#""2023-09-22T10:12:48.688Z""#),
            (r#""2023-09-22T10:12:48.68849339Z" | rfc3339("s")"#, r#""2023-09-22T10:12:48Z""#),
            (r#"1695377568688 | rfc3339"#, r#""2023-09-22T10:12:48.688Z""#),
            (r#""0001-01-01T00:00:00Z" | rfc3339"#, r#""0001-01-01T00:00:00Z""#),
            (r#""2023-09-22T10:12:48.688Z" | unix"#, "1695377568"),
            (r#""2023-09-22T10:12:48.688Z" | unix_ms"#, "1695377568688"),
            (r#""yesterday" | unix"#, "needs an RFC 3339 date or unix milliseconds, has another string"),
            (r#""velo-club" | prefixed("camp_")"#, r#""camp_velo-club""#),
            (r#""camp_1" | prefixed("camp_")"#, r#""camp_1""#),
            (r#"none | prefixed("camp_")"#, "null"),
            (r#"42 | pad(5)"#, r#""00042""#),
            (r#"150 | times(-1)"#, "-150"),
            (r#"9223372036854775807 | times(2)"#, "is too large"),
            (r#""a b\"%ü" | percent_encoded"#, r#""a%20b%22%25%C3%BC""#),
            (r#""01966cf2-3c40-7000-8000-000000000001" | ulid"#, r#""01JSPF4F20E008000000000001""#),
            (r#""ev_1" | ulid"#, r#""ev_1""#),
            (r#""a,b" | split(",") | join("-")"#, r#""a-b""#),
            (r#"[3, 4] | first"#, "3"),
            (r#"none | first"#, "null"),
            (r#"none | length"#, "0"),
            (r#"[{"k": 1, "v": 2}] | selectattr("k", "eq", 1) | map(attribute="v") | list"#, "[2]"),
            (r#"optional("a", "\"")"#, r#""\"a\":\"\\\"\",""#),
            (r#"optional("a", none)"#, r#""""#),
        ] {
            assert_eq!(eval(expression), expected, "{expression}");
        }
    }

    #[test]
    fn every_word_is_there_and_every_filter_is_in_the_readme() {
        let readme = include_str!("../../dialects/README.md");
        for filter in FILTERS {
            let known = environment().compile_expression(&format!("none | {filter}")).map(|e| e.eval(Value::UNDEFINED));
            let unknown = matches!(known, Ok(Err(e)) if e.kind() == ErrorKind::UnknownFilter);
            assert!(!unknown, "{filter}");
            assert!(readme.contains(&format!("`{filter}`")) || readme.contains(&format!("`{filter}(")), "{filter}");
        }
        for test in TESTS {
            let known = environment().compile_expression(&format!("1 is {test}(1)")).map(|e| e.eval(Value::UNDEFINED));
            assert!(!matches!(known, Ok(Err(e)) if e.kind() == ErrorKind::UnknownTest), "{test}");
        }
        for variable in VARIABLES {
            assert!(readme.contains(&format!("`{variable}`")), "{variable}");
        }
        for words in [VARIABLES, FUNCTIONS, FILTERS, TESTS] {
            assert!(words.is_sorted(), "{words:?}");
        }
    }
}
