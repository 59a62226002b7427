//! Filters of lists: the part of AIP-160 that compares fields with values.
//!
//! ```text
//! filter     = [ expression ]
//! expression = any { "AND" any }
//! any        = term { "OR" term }            OR binds tighter than AND, as in AIP-160
//! term       = [ "NOT" ] ( "(" expression ")" | field operator value )
//! operator   = "=" | "!=" | "<" | "<=" | ">" | ">="
//! value      = bare word | "quoted" | 'quoted'        \ before a quote or another \
//! ```
//!
//! A text that ends in `*` is compared by its beginning, with `=` and `!=`.
//!
//! # Invariants
//!
//! - A [`Filter`] is valid: every field exists, and its value is of the field's kind. Matching cannot fail.
//! - Whatever is given, parsing neither panics nor nests deeper than [`DEPTH_MAX`].
//!
//! # What is absent on purpose
//!
//! - The operator `:`, functions, nested fields, a value alone.
//!
//! # Sources
//!
//! AIP-160, "Filtering", and its EBNF.

use std::cmp::Ordering;

use punchline_engine::time::UnixMillis;

use crate::refuse::Refused;

/// Longest filter, in bytes.
pub const LENGTH_MAX: usize = 2_048;
/// Most brackets and NOTs around one comparison.
pub const DEPTH_MAX: usize = 16;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number,
    /// A text, ordered by its bytes.
    Text,
    /// An instant, RFC 3339.
    Time,
    /// One of these words; has no order.
    Word(&'static [&'static str]),
}

/// A field that may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(pub &'static str, pub Kind);

/// What a field of one element holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of [`Kind::Number`].
    Number(u64),
    /// Of [`Kind::Text`] or [`Kind::Word`].
    Text(&'a str),
    /// Of [`Kind::Time`].
    Time(UnixMillis),
}

/// A filter that was understood; by default it lets everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter(Option<Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare { field: &'static str, operator: Operator, with: With },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum With {
    Number(i64),
    Text(String),
    Beginning(String),
    Time(UnixMillis),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position {position}: {what}")]
pub struct FilterError {
    /// The character that is to blame, from 1.
    pub position: usize,
    /// What is wrong.
    pub what: String,
}

impl FilterError {
    /// The refusal of a request.
    pub fn refused(&self, filter: &str) -> Refused {
        Refused::field("filter", filter, format!("cannot be understood at {self}"))
    }
}

impl Filter {
    /// Understands `text`, whose fields are among `fields`.
    ///
    /// # Errors
    ///
    /// [`FilterError`] at the first thing that is wrong.
    pub fn parse(text: &str, fields: &'static [Field]) -> Result<Filter, FilterError> {
        if text.len() > LENGTH_MAX {
            return Err(FilterError { position: 1, what: format!("more than {LENGTH_MAX} bytes") });
        }
        let mut parser = Parser { text, at: 0, fields };
        if parser.peek()?.is_none() {
            return Ok(Filter(None));
        }
        let node = parser.expression(0)?;
        match parser.next()? {
            None => Ok(Filter(Some(node))),
            Some((at, _)) => Err(parser.error(at, "AND, OR or the end expected")),
        }
    }

    /// Whether it says anything about `field`.
    pub fn names(&self, field: &str) -> bool {
        fn in_node(node: &Node, field: &str) -> bool {
            match node {
                Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(|node| in_node(node, field)),
                Node::Not(node) => in_node(node, field),
                Node::Compare { field: named, .. } => *named == field,
            }
        }
        self.0.as_ref().is_some_and(|node| in_node(node, field))
    }

    /// Whether it lets an element through, of which `value` tells each field by name.
    pub fn matches<'a>(&self, value: impl Fn(&'static str) -> Value<'a>) -> bool {
        self.0.as_ref().is_none_or(|node| node.holds(&value))
    }
}

impl Node {
    fn holds<'a>(&self, value: &impl Fn(&'static str) -> Value<'a>) -> bool {
        match self {
            Node::All(nodes) => nodes.iter().all(|node| node.holds(value)),
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(value)),
            Node::Not(node) => !node.holds(value),
            Node::Compare { field, operator, with } => operator.holds(with.compare(value(field))),
        }
    }
}

impl With {
    /// How the element's value stands to this one; `None` where they cannot be compared.
    fn compare(&self, value: Value<'_>) -> Option<Ordering> {
        match (value, self) {
            (Value::Number(value), With::Number(with)) => {
                Some(i64::try_from(value).map_or(Ordering::Greater, |value| value.cmp(with)))
            }
            (Value::Text(value), With::Text(with)) => Some(value.cmp(with)),
            (Value::Text(value), With::Beginning(with)) => value.starts_with(with).then_some(Ordering::Equal),
            (Value::Time(value), With::Time(with)) => Some(value.cmp(with)),
            _ => None,
        }
    }
}

impl Operator {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        match self {
            Operator::Equal => ordering == Some(Ordering::Equal),
            Operator::NotEqual => ordering != Some(Ordering::Equal),
            Operator::Less => ordering == Some(Ordering::Less),
            Operator::LessOrEqual => ordering.is_some_and(Ordering::is_le),
            Operator::Greater => ordering == Some(Ordering::Greater),
            Operator::GreaterOrEqual => ordering.is_some_and(Ordering::is_ge),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Operator(Operator),
    Open,
    Close,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    fields: &'static [Field],
}

impl Parser<'_> {
    fn error(&self, at: usize, what: impl Into<String>) -> FilterError {
        FilterError { position: self.text[..at].chars().count() + 1, what: what.into() }
    }

    /// The next token, with where it begins; `None` at the end.
    fn next(&mut self) -> Result<Option<(usize, Token)>, FilterError> {
        let rest = self.text[self.at..].trim_start();
        let at = self.text.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '=' => (Token::Operator(Operator::Equal), 1),
            '!' if rest.starts_with("!=") => (Token::Operator(Operator::NotEqual), 2),
            '<' if rest.starts_with("<=") => (Token::Operator(Operator::LessOrEqual), 2),
            '>' if rest.starts_with(">=") => (Token::Operator(Operator::GreaterOrEqual), 2),
            '<' => (Token::Operator(Operator::Less), 1),
            '>' => (Token::Operator(Operator::Greater), 1),
            '"' | '\'' => self.quoted(at, rest, first)?,
            '!' => return Err(self.error(at, "`!` is no operator: != or NOT expected")),
            _ => {
                let is_end = |c: char| c.is_whitespace() || "()=!<>\"'".contains(c);
                let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
                (Token::Word(word.to_owned()), word.len())
            }
        };
        self.at = at + length;
        Ok(Some((at, token)))
    }

    fn quoted(&self, at: usize, rest: &str, quote: char) -> Result<(Token, usize), FilterError> {
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                _ if c == quote => return Ok((Token::Quoted(text), i + 1)),
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\'' | '\\'))) => text.push(c),
                    _ => return Err(self.error(at + i, r"\ stands before a quote or another \")),
                },
                _ => text.push(c),
            }
        }
        Err(self.error(at, "the quote has no end"))
    }

    fn peek(&mut self) -> Result<Option<Token>, FilterError> {
        let before = self.at;
        let token = self.next()?;
        self.at = before;
        Ok(token.map(|(_, token)| token))
    }

    fn takes(&mut self, word: &str) -> Result<bool, FilterError> {
        let is_it = matches!(self.peek()?, Some(Token::Word(next)) if next == word);
        if is_it {
            self.next()?;
        }
        Ok(is_it)
    }

    fn expression(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut all = vec![self.any(depth)?];
        while self.takes("AND")? {
            all.push(self.any(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::All(all) })
    }

    fn any(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut any = vec![self.term(depth)?];
        while self.takes("OR")? {
            any.push(self.term(depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Node::Any(any) })
    }

    fn term(&mut self, depth: usize) -> Result<Node, FilterError> {
        let Some((at, token)) = self.next()? else {
            return Err(self.error(self.text.len(), "ends where a field, NOT or ( is expected"));
        };
        let nests = token == Token::Open || token == Token::Word("NOT".into());
        if nests && depth == DEPTH_MAX {
            return Err(self.error(at, format!("nested deeper than {DEPTH_MAX}")));
        }
        match token {
            Token::Open => {
                let inner = self.expression(depth + 1)?;
                match self.next()? {
                    Some((_, Token::Close)) => Ok(inner),
                    Some((at, _)) => Err(self.error(at, "AND, OR or ) expected")),
                    None => Err(self.error(at, "the bracket has no end")),
                }
            }
            Token::Word(word) if word == "NOT" => Ok(Node::Not(Box::new(self.term(depth + 1)?))),
            token => self.comparison(at, token),
        }
    }

    fn comparison(&mut self, at: usize, name: Token) -> Result<Node, FilterError> {
        let Token::Word(name) = name else { return Err(self.error(at, "a field, NOT or ( expected")) };
        let Some(Field(field, kind)) = self.fields.iter().find(|field| field.0 == name) else {
            let known: Vec<&str> = self.fields.iter().map(|field| field.0).collect();
            return Err(self.error(at, format!("{name:?} is no field; known are {}", known.join(", "))));
        };
        let end = self.text.len();
        let operator = match self.next()? {
            Some((_, Token::Operator(operator))) => operator,
            other => {
                let at = other.map_or(end, |(at, _)| at);
                return Err(self.error(at, format!("= != < <= > or >= expected after {field}")));
            }
        };
        let (at, text) = match self.next()? {
            Some((at, Token::Word(text) | Token::Quoted(text))) => (at, text),
            other => return Err(self.error(other.map_or(end, |(at, _)| at), format!("a value expected for {field}"))),
        };
        let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        let with = match kind {
            Kind::Number => text.parse().map(With::Number).map_err(|_| "is a whole number".to_owned()),
            Kind::Time => {
                let rule = "is an instant as 2026-09-01T10:00:00Z";
                UnixMillis::parse(&text).map(With::Time).ok_or_else(|| rule.to_owned())
            }
            Kind::Text => match text.strip_suffix('*').filter(|_| equality) {
                Some(beginning) => Ok(With::Beginning(beginning.to_owned())),
                None => Ok(With::Text(text)),
            },
            Kind::Word(words) if !equality || !words.contains(&text.as_str()) => {
                Err(format!("is, by = or !=, one of {}", words.join(", ")))
            }
            Kind::Word(_) => Ok(With::Text(text)),
        };
        let with = with.map_err(|rule| self.error(at, format!("{field} {rule}")))?;
        Ok(Node::Compare { field, operator, with })
    }
}

#[cfg(test)]
mod tests;
