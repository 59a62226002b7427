//! The schema of one type: compiled, bounded, and told apart by what is personal.
//!
//! ```text
//! text ──bounds──▶ JSON Schema ──compile──▶ Schema ──check(properties)──▶ the first field that breaks a rule
//! ```
//!
//! # Invariants
//!
//! - Checking ends, and soon: a schema comes to [`SCHEMAS_MAX`] parts at most, nested [`DEPTH_MAX`] deep,
//!   with everything that it refers to counted each time, and patterns are matched in linear time.
//! - Nothing is fetched: a reference leads into the same text, or the schema is refused.
//!
//! # What is absent on purpose
//!
//! - References that lead back to where they stand: what such a schema costs depends on the fact.
//! - Formats: draft 2020-12 has them as annotations, and so they are here.

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, ValidationError, Validator};
use punchline_engine::loyalty::fact_type::invalid_schema;
use punchline_engine::rejection::InvalidField;
use serde_json::{Map, Value};

/// Most schemas within a schema, with those that it refers to: a fact of 64 KiB is checked in milliseconds.
const SCHEMAS_MAX: usize = 1_000;
/// How deep they nest: the compiler's stack, and ours.
const DEPTH_MAX: usize = 32;
/// Most patterns of a schema, and bytes that each takes, compiled: 2 MiB for them all.
const PATTERNS_MAX: usize = 16;
const PATTERN_BYTES_MAX: usize = 128 * 1024;
/// Bytes of what a pattern remembers of its matches.
const PATTERN_CACHE_BYTES: usize = 128 * 1024;
/// Marks a property that says who somebody is.
const PERSONAL: &str = "x-personal";
/// The names of the drafts whose references are all found by [`Bounds`].
const DRAFTS: [&str; 3] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
];

/// A schema that facts are checked by.
pub(super) struct Schema {
    validator: Validator,
    personal: Vec<String>,
}

impl Schema {
    /// Compiles a text that is a JSON object.
    ///
    /// # Errors
    ///
    /// `INVALID_SCHEMA`, with the place in the schema.
    pub(super) fn compile(text: &str) -> Result<Schema, InvalidField> {
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| invalid_schema("schema", "", format!("must be a JSON object: {error}")))?;
        Schema::of(&schema)
    }

    /// As [`Schema::compile`], of one that is parsed.
    pub(super) fn of(schema: &Value) -> Result<Schema, InvalidField> {
        let mut bounds = Bounds { root: schema, left: SCHEMAS_MAX, patterns_left: PATTERNS_MAX, following: Vec::new() };
        bounds.schema(schema, "schema", 0)?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_CACHE_BYTES);
        let validator = jsonschema::options().offline().with_pattern_options(patterns).build(schema);
        let validator = validator.map_err(|error| {
            let (field, value) = (path("schema", &error), shown(error.instance()));
            invalid_schema(field, value, rule(&error))
        })?;
        let marked = |(name, schema): (&String, &Value)| (schema[PERSONAL] == true).then(|| name.clone());
        let properties = schema["properties"].as_object();
        Ok(Schema { validator, personal: properties.into_iter().flatten().filter_map(marked).collect() })
    }

    /// Names of the properties that are personal.
    pub(super) fn personal(&self) -> &[String] {
        &self.personal
    }

    /// Checks the properties of a fact.
    ///
    /// # Errors
    ///
    /// `FACT_SCHEMA_MISMATCH`, with the first field that breaks a rule.
    pub(super) fn check(&self, properties: &Value) -> Result<(), InvalidField> {
        self.validator.validate(properties).map_err(|error| {
            let mut field = path("properties", &error);
            let (value, rule) = match error.kind() {
                ValidationErrorKind::Required { property: Value::String(name) } => {
                    push(&mut field, name);
                    (String::new(), "is required".to_owned())
                }
                ValidationErrorKind::AdditionalProperties { unexpected }
                | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                    let first = unexpected.first().map_or("", String::as_str);
                    push(&mut field, first);
                    (shown(&error.instance()[first]), "is not a field of this type".to_owned())
                }
                _ => (shown(error.instance()), rule(&error)),
            };
            InvalidField::with_reason("FACT_SCHEMA_MISMATCH", field, value, rule)
        })
    }
}

/// Where an error is, as `properties.lines[2].sku`.
fn path(root: &str, error: &ValidationError<'_>) -> String {
    let mut path = root.to_owned();
    for segment in error.instance_path() {
        match segment {
            LocationSegment::Index(i) => path.push_str(&format!("[{i}]")),
            LocationSegment::Property(name) => push(&mut path, &name),
        }
    }
    path
}

fn push(path: &mut String, name: &str) {
    path.push('.');
    path.push_str(name);
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// The rule that is broken, to stand behind field and value.
fn rule(error: &ValidationError<'_>) -> String {
    let told = error.masked().to_string();
    told.strip_prefix("value ").map(str::to_owned).unwrap_or(told)
}

/// Looks through a schema, following what it refers to, before anybody spends much on it.
struct Bounds<'a> {
    root: &'a Value,
    left: usize,
    patterns_left: usize,
    /// References that are being followed.
    following: Vec<&'a str>,
}

impl<'a> Bounds<'a> {
    fn schema(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<(), InvalidField> {
        // `true` and `false` are schemas, too; whatever else is none, the compiler refuses.
        let Value::Object(keywords) = schema else { return Ok(()) };
        if depth > DEPTH_MAX {
            return Err(invalid_schema(at, "", format!("nests deeper than {DEPTH_MAX}")));
        }
        let too_many = || {
            let rule = format!("comes to more than {SCHEMAS_MAX} schemas, with what it refers to");
            invalid_schema("schema", "", rule)
        };
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        for (keyword, value) in keywords {
            self.keyword(keyword, value, &format!("{at}.{keyword}"), depth)?;
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: &str, value: &'a Value, at: &str, depth: usize) -> Result<(), InvalidField> {
        let refuse = |rule: &str| Err(invalid_schema(at, shown(value), rule));
        let patterns = match (keyword, value) {
            ("pattern", _) => 1,
            ("patternProperties", Value::Object(named)) => named.len(),
            _ => 0,
        };
        let patterns_left = self.patterns_left.checked_sub(patterns);
        self.patterns_left = patterns_left.ok_or_else(|| {
            let rule = format!("has more than {PATTERNS_MAX} patterns, with what it refers to");
            invalid_schema("schema", "", rule)
        })?;
        match (keyword, value) {
            ("const" | "enum" | "default" | "examples" | "required" | "type", _) => Ok(()),
            ("$schema", _) => {
                let known = value.as_str().map(|draft| draft.trim_end_matches('#'));
                let supported = known.is_some_and(|draft| DRAFTS.contains(&draft));
                if supported { Ok(()) } else { refuse("must be draft 2020-12, 2019-09 or 07, or left out") }
            }
            ("$ref", Value::String(reference)) => self.follow(reference, at, depth),
            ("$dynamicRef" | "$recursiveRef", _) => refuse("is not supported: use $ref"),
            ("$id", _) if depth > 0 => refuse("is not supported within a schema"),
            (PERSONAL, _) => {
                let of_fact = at.strip_prefix("schema.properties.").is_some() && depth == 1;
                match value {
                    Value::Bool(_) if of_fact => Ok(()),
                    Value::Bool(_) => {
                        refuse("marks a field of the fact itself, in its own schema, and nothing within one")
                    }
                    _ => refuse("must be true or false"),
                }
            }
            ("properties" | "patternProperties" | "dependentSchemas" | "dependencies" | "$defs" | "definitions", _) => {
                let named: &Map<String, Value> = match value {
                    Value::Object(named) => named,
                    // The compiler says what is wrong with it.
                    _ => return Ok(()),
                };
                named.iter().try_for_each(|(name, schema)| self.schema(schema, &format!("{at}.{name}"), depth + 1))
            }
            (_, Value::Array(schemas)) => {
                let mut each = schemas.iter().enumerate();
                each.try_for_each(|(i, schema)| self.schema(schema, &format!("{at}[{i}]"), depth + 1))
            }
            (_, schema) => self.schema(schema, at, depth + 1),
        }
    }

    fn follow(&mut self, reference: &'a str, at: &str, depth: usize) -> Result<(), InvalidField> {
        let refuse = |rule: &str| invalid_schema(at, reference, rule);
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
        let pointer = pointer.ok_or_else(|| refuse("must be a pointer into this schema, as #/$defs/name"))?;
        let target = self.root.pointer(pointer).ok_or_else(|| refuse("leads nowhere"))?;
        if self.following.contains(&pointer) {
            return Err(refuse("leads back to itself"));
        }
        self.following.push(pointer);
        let followed = self.schema(target, at, depth + 1);
        self.following.pop();
        followed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(outcome: Result<impl Sized, InvalidField>) -> String {
        outcome.map_or_else(|invalid| format!("{}: {invalid}", invalid.reason), |_| "ok".into())
    }

    #[test]
    fn errors_name_the_field() {
        let schema = json!({
            "type": "object",
            "properties": {
                "cost": {"type": "object", "properties": {"points": {"type": "integer", "minimum": 1}}, "required": ["points"]},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                "a/b~c": {"type": "string"},
                "code": {"pattern": "^[A-Z]+$"},
                "kind": {"enum": ["a", "b"]},
            },
            "additionalProperties": false,
            "$defs": {"line": {"properties": {"sku": {"type": ["string", "null"]}}}},
        });
        let schema = Schema::of(&schema).expect("compiles");
        for (properties, expected) in [
            (json!({}), "ok"),
            (json!({"cost": {"points": 5}, "lines": [{"sku": "a"}, {"sku": null}]}), "ok"),
            (json!({"cost": {"points": "5"}}), r#"properties.cost.points "5" is not of type "integer""#),
            (json!({"cost": {"points": 0}}), r#"properties.cost.points "0" is less than the minimum of 1"#),
            (json!({"cost": {}}), r#"properties.cost.points "" is required"#),
            (json!({"lines": [{}, {"sku": 7}]}), r#"properties.lines[1].sku "7" is not of types "null", "string""#),
            (json!({"a/b~c": 1}), r#"properties.a/b~c "1" is not of type "string""#),
            (json!({"code": "abc"}), r#"properties.code "abc" does not match "^[A-Z]+$""#),
            (json!({"kind": "c"}), r#"properties.kind "c" is not one of "a" or "b""#),
            (json!({"more": 1}), r#"properties.more "1" is not a field of this type"#),
        ] {
            let expected = if expected == "ok" { expected.into() } else { format!("FACT_SCHEMA_MISMATCH: {expected}") };
            assert_eq!(told(schema.check(&properties)), expected, "{properties}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let doubling: Map<String, Value> = (0..12)
            .map(|i| (format!("d{i}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}, {"$ref": format!("#/$defs/d{}", i + 1)}]})))
            .chain([("d12".to_owned(), json!({}))])
            .collect();
        let chain: Map<String, Value> = (0..100)
            .map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)})))
            .chain([("d100".to_owned(), json!({}))])
            .collect();
        let patterns = |count: usize| -> Map<String, Value> {
            (0..count).map(|i| (format!("p{i}"), json!({"pattern": "^[A-Z]{2}$"}))).collect()
        };
        let deep = (0..100).fold(json!({}), |inner, _| json!({"items": inner}));
        for (schema, expected) in [
            (json!({}), "ok"),
            (json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}}), "ok"),
            (json!({"$id": "https://example.com/a", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}), "ok"),
            (json!({"properties": {"$ref": {"type": "string"}, "const": {"type": "string"}}}), "ok"),
            (json!({"const": {"$ref": "https://example.com"}}), "ok"),
            (json!({"type": "objekt"}), "schema.type \"objekt\""),
            (json!({"properties": {"a": {"minimum": "1"}}}), "schema.properties.a.minimum \"1\""),
            (json!({"properties": {"a": {"pattern": "("}}}), "schema.properties.a.pattern"),
            (json!({"properties": {"a": {"pattern": "(?=a)"}}}), "schema.properties.a.pattern"),
            (json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}), "schema.properties.a.pattern"),
            (
                json!({"$ref": "https://example.com/a.json"}),
                "schema.$ref \"https://example.com/a.json\" must be a pointer",
            ),
            (json!({"items": [{"$ref": "file:///etc/passwd"}]}), "schema.items[0].$ref"),
            (json!({"$ref": "other.json#/$defs/a"}), "schema.$ref"),
            (json!({"$ref": "#"}), "schema.$ref"),
            (json!({"$ref": "#/$defs/a"}), "schema.$ref \"#/$defs/a\" leads nowhere"),
            (
                json!({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
                "schema.$defs.a.items.$ref.items.$ref \"#/$defs/a\" leads back",
            ),
            (json!({"$dynamicRef": "#a"}), "schema.$dynamicRef"),
            (json!({"properties": {"a": {"$id": "https://example.com"}}}), "schema.properties.a.$id"),
            (json!({"$schema": "https://example.com/own"}), "schema.$schema"),
            (json!({"$defs": doubling, "$ref": "#/$defs/d0"}), "schema \"\" comes to more than 1000"),
            (json!({"$defs": chain}), "nests deeper"),
            (deep, "nests deeper"),
            (json!({"properties": patterns(16)}), "ok"),
            (json!({"properties": patterns(17)}), "has more than 16 patterns"),
            (json!({"properties": patterns(16), "patternProperties": {"^x": {}}}), "has more than 16 patterns"),
            (
                json!({"properties": {"a": {"x-personal": "yes"}}}),
                "schema.properties.a.x-personal \"yes\" must be true or false",
            ),
            (
                json!({"properties": {"a": {"properties": {"b": {"x-personal": true}}}}}),
                "marks a field of the fact itself",
            ),
            (json!({"items": {"x-personal": true}}), "schema.items.x-personal"),
        ] {
            let told = told(Schema::of(&schema));
            let as_expected = if expected == "ok" {
                told == "ok"
            } else {
                told.starts_with("INVALID_SCHEMA: ") && told.contains(expected)
            };
            assert!(as_expected, "{schema}: {told}, not {expected}");
        }
    }

    #[test]
    fn what_is_personal_is_marked() {
        let schema = json!({"properties": {"email": {"x-personal": true}, "n": {"x-personal": false}, "tel": {"x-personal": true}}});
        assert_eq!(Schema::of(&schema).expect("compiles").personal(), ["email", "tel"]);
    }
}
