//! CEL expressions over named variables: what a condition is made of.
//!
//! # Invariants
//!
//! - An evaluation ends: an expression is short, and may walk a list but not a list for each of a list, nor what
//!   another walk made. A regular expression is written out, and small when compiled.
//! - An expression that fails, as for a field that is not there, or gives no boolean, does not hold.
//! - Two expressions are equal where their texts are.

use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, LiteralValue};
use cel::{Context, IdedExpr, Program, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rejection::InvalidField;

/// Longest expression, in bytes.
pub const EXPRESSION_LEN_MAX: usize = 2_000;
/// Most lists that one expression may walk.
const WALKS_MAX: usize = 8;
/// Most regular expressions of one expression.
const PATTERNS_MAX: usize = 4;
/// Most bytes that a regular expression may take once compiled, since each use compiles it: a few milliseconds.
const PATTERN_BYTES_MAX: usize = 512 * 1024;

/// What a condition of a rule or a multiplier may name.
pub const RULE_NAMES: &[&str] = &["line", "consumption", "member", "card"];
/// What the condition of a segment may name.
pub const SEGMENT_NAMES: &[&str] = &["member"];

/// What the condition of a segment may not look at: segments that go by segments might never come to rest.
const SEGMENT_HIDDEN: &str = "segments";

/// The functions of the language, set up once.
static LANGUAGE: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);

/// A checked expression.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    program: Arc<Program>,
}

impl Expression {
    /// Checks an expression over `names`; `field` is the path for the error.
    ///
    /// # Errors
    ///
    /// `INVALID_EXPRESSION` with what is wrong and where.
    pub fn parse(field: &str, text: &str, names: &[&str]) -> Result<Expression, InvalidField> {
        Expression::parse_with_reason("INVALID_EXPRESSION", field, text, names)
    }

    /// Checks the condition of a segment.
    ///
    /// # Errors
    ///
    /// As [`Expression::parse`].
    pub fn parse_segment(field: &str, text: &str) -> Result<Expression, InvalidField> {
        Expression::parse_hiding("INVALID_EXPRESSION", field, text, SEGMENT_NAMES, Some(SEGMENT_HIDDEN))
    }

    pub(crate) fn parse_with_reason(
        reason: &'static str,
        field: &str,
        text: &str,
        names: &[&str],
    ) -> Result<Expression, InvalidField> {
        Expression::parse_hiding(reason, field, text, names, None)
    }

    fn parse_hiding(
        reason: &'static str,
        field: &str,
        text: &str,
        names: &[&str],
        hidden: Option<&str>,
    ) -> Result<Expression, InvalidField> {
        let refused = |rule: String| InvalidField::with_reason(reason, field, text, rule);
        if text.len() > EXPRESSION_LEN_MAX {
            return Err(refused(format!("must be at most {EXPRESSION_LEN_MAX} bytes")));
        }
        // The parser is not ours: should it fail on some text, that text is refused.
        let compiled = std::panic::catch_unwind(|| Program::compile(text));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => {
                let why: Vec<String> =
                    errors.errors.iter().map(|e| format!("line {}, column {}: {}", e.pos.0, e.pos.1, e.msg)).collect();
                return Err(refused(format!("is no CEL expression: {}", why.join("; "))));
            }
            Err(_) => return Err(refused("is no CEL expression".into())),
        };
        let mut check = Check { names, hidden, walked: Vec::new(), walks: 0, in_range: false, patterns: 0 };
        check.expression(program.expression()).map_err(&refused)?;
        if check.walks > WALKS_MAX {
            return Err(refused(format!("walks {} lists, at most {WALKS_MAX} are allowed", check.walks)));
        }
        Ok(Expression { text: text.into(), program: Arc::new(program) })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds for these variables.
    pub fn holds(&self, variables: &[(&'static str, Value)]) -> bool {
        let mut scope = LANGUAGE.new_inner_scope();
        for (name, value) in variables {
            scope.add_variable_from_value(*name, value.clone());
        }
        matches!(self.program.execute(&scope), Ok(Value::Bool(true)))
    }
}

/// A variable's value; `Null` where it cannot be one.
pub(crate) fn variable(value: &impl Serialize) -> Value {
    // Through JSON, since a fact's properties are JSON text.
    serde_json::to_value(value).ok().and_then(|value| cel::to_value(value).ok()).unwrap_or(Value::Null)
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

/// From the journal: what it names and how far it may go was checked when it was written, and may have been
/// restricted since.
impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let program = Program::compile(&text).map_err(serde::de::Error::custom)?;
        Ok(Expression { text: text.into(), program: Arc::new(program) })
    }
}

/// Refuses names that are not there, and a walk within a walk or over one.
struct Check<'a> {
    names: &'a [&'a str],
    /// A field that is not to be looked at.
    hidden: Option<&'a str>,
    walked: Vec<String>,
    walks: usize,
    /// Whether this is what is walked.
    in_range: bool,
    patterns: usize,
}

impl Check<'_> {
    fn expression(&mut self, expression: &IdedExpr) -> Result<(), String> {
        match &expression.expr {
            Expr::Ident(name) if self.names.contains(&name.as_str()) || self.walked.contains(name) => Ok(()),
            Expr::Ident(name) => Err(format!("names {name:?}, which is not there: only {} is", self.names.join(", "))),
            Expr::Select(select) if Some(select.field.as_str()) == self.hidden => {
                Err(format!("looks at {}, which might never come to rest", select.field))
            }
            Expr::Select(select) => self.expression(&select.operand),
            Expr::Call(call) => {
                // Each use compiles its pattern.
                if call.func_name == "matches" {
                    self.patterns += 1;
                    if !self.walked.is_empty() || self.patterns > PATTERNS_MAX {
                        let rule = "uses matches within a walk over a list, or more than";
                        return Err(format!("{rule} {PATTERNS_MAX} times"));
                    }
                    check_pattern(call.args.last())?;
                }
                if let Some(target) = &call.target {
                    self.expression(target)?;
                }
                call.args.iter().try_for_each(|argument| self.expression(argument))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element)),
            Expr::Comprehension(walk) => {
                if !self.walked.is_empty() {
                    return Err("walks a list within a list".into());
                }
                // Each might make its list a hundred times as long.
                if self.in_range {
                    return Err("walks what a walk over a list made".into());
                }
                self.walks += 1;
                self.in_range = true;
                self.expression(&walk.iter_range)?;
                self.in_range = false;
                self.walked.extend([walk.iter_var.clone(), walk.accu_var.clone()]);
                self.walked.extend(walk.iter_var2.clone());
                for part in [&walk.accu_init, &walk.loop_cond, &walk.loop_step, &walk.result] {
                    self.expression(part)?;
                }
                self.walked.clear();
                Ok(())
            }
            Expr::Map(_) | Expr::Struct(_) => Err("makes a map, which a condition has no use for".into()),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }
}

/// Refuses a regular expression that cannot be judged now, or that would take long to compile.
fn check_pattern(pattern: Option<&IdedExpr>) -> Result<(), String> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        return Err("uses matches with a pattern that is not written out".into());
    };
    match regex::RegexBuilder::new(pattern.inner()).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("uses matches with what is no pattern, or too large a one: {why}")),
    }
}
