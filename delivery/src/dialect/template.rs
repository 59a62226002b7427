//! Template texts on their way from the file to the engine: squeezed, looked over, and traceable.
//!
//! ```text
//! file ──TOML──▶ text ──read──▶ Source { text without blanks, where each byte stands in the file }
//! ```
//!
//! # Invariants
//!
//! - Blanks between JSON tokens are taken out here, once, and not from each body.
//! - A template binds nothing but elements of the event's own lists: `for` takes no list of its own
//!   making, and there is no `set`, no macro, no include. So no text is doubled and doubled again.
//! - Words are checked where they stand, also in branches that no example reaches.

use std::ops::Range;

use super::words::{FILTERS, TESTS};

/// The most bytes of one template.
pub(super) const TEMPLATE_BYTES_MAX: usize = 1 << 16;
/// The tags there are.
const TAGS: &[&str] = &["elif", "else", "endfor", "endif", "for", "if"];

/// What a template is for, which decides how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text around tags is JSON.
    Json,
    /// Text around tags stays as it is.
    Text,
    /// No text, no tags: an expression.
    Expression,
}

/// A template's text, and where in the file each of its bytes stands.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What the engine is given.
    pub(super) text: String,
    /// One more than `text` has bytes.
    offsets: Vec<u32>,
}

/// A word that is not known, or not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Where in the file.
    pub(super) offset: usize,
    /// Why.
    pub(super) fault: Fault,
}

/// Why a word is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such filter, test or tag.
    Word { what: &'static str, word: String, known: &'static [&'static str] },
    /// It would let a template make much out of little.
    NotAllowed { word: String, place: &'static str, instead: &'static str },
}

impl Source {
    /// Reads a text whose bytes stand at `offsets` in the file.
    pub(super) fn read(text: &str, offsets: &[u32], kind: Kind) -> Result<Source, Unknown> {
        let mut reader = Reader { text, offsets, out: Source { text: String::new(), offsets: Vec::new() } };
        match kind {
            Kind::Expression => {
                reader.copy(0..text.len());
                reader.look_over(0..text.len(), false)?;
            }
            Kind::Json => reader.run(true)?,
            Kind::Text => reader.run(false)?,
        }
        let end = offsets.last().copied().unwrap_or_default();
        reader.out.offsets.push(end);
        Ok(reader.out)
    }

    /// An expression as a template that renders to something where it holds.
    pub(super) fn into_condition(self) -> Source {
        let (before, after) = ("{% if ", " %}1{% endif %}");
        let (first, last) = (self.offsets[0], *self.offsets.last().expect("never empty"));
        let mut offsets = vec![first; before.len()];
        offsets.extend_from_slice(&self.offsets);
        offsets.resize(offsets.len() + after.len(), last);
        Source { text: format!("{before}{}{after}", self.text), offsets }
    }

    /// Where in the file a byte of the text stands.
    pub(super) fn offset_in_file(&self, offset: usize) -> usize {
        self.offsets[offset.min(self.offsets.len() - 1)] as usize
    }

    /// Where in the file a line of the text starts.
    pub(super) fn line_in_file(&self, line: usize) -> usize {
        let start = self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        self.offset_in_file(start)
    }

    /// Where in the file the path is first named, by its last word.
    pub(super) fn path_in_file(&self, path: &str) -> usize {
        let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let whole = |at: &usize| {
            !self.text[..*at].ends_with(joins) && !self.text[at + path.len()..].starts_with(|c| joins(c) && c != '.')
        };
        let at = self.text.match_indices(path).map(|(at, _)| at).find(whole);
        self.offset_in_file(at.map_or(0, |at| at + path.rfind('.').map_or(0, |dot| dot + 1)))
    }

    /// Without tags: the same for every event.
    pub(super) fn is_fixed(&self) -> bool {
        !["{{", "{%", "{#"].iter().any(|tag| self.text.contains(tag))
    }
}

struct Reader<'a> {
    text: &'a str,
    offsets: &'a [u32],
    out: Source,
}

impl Reader<'_> {
    fn copy(&mut self, range: Range<usize>) {
        self.out.offsets.extend_from_slice(&self.offsets[range.clone()]);
        self.out.text.push_str(&self.text[range]);
    }

    fn run(&mut self, squeezes: bool) -> Result<(), Unknown> {
        let (mut at, mut in_string, mut escaped) = (0, false, false);
        while at < self.text.len() {
            let rest = &self.text[at..];
            if let Some(open) = ["{{", "{%", "{#"].into_iter().find(|open| rest.starts_with(open)) {
                let end = at + tag_len(rest);
                // `{ {{ x }}` squeezed would open another tag.
                if squeezes && self.out.text.ends_with('{') {
                    self.out.text.push(' ');
                    self.out.offsets.push(self.offsets[at]);
                }
                match open {
                    "{#" => {}
                    _ => {
                        self.look_over(at + 2..end.saturating_sub(2).max(at + 2), open == "{%")?;
                        self.copy(at..end);
                    }
                }
                at = end;
                continue;
            }
            let c = rest.chars().next().expect("not at the end");
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
            } else {
                in_string = c == '"';
            }
            if !squeezes || in_string || !c.is_ascii_whitespace() {
                self.copy(at..at + c.len_utf8());
            }
            at += c.len_utf8();
        }
        Ok(())
    }

    /// Checks the words between the braces of a tag, or of an expression.
    fn look_over(&self, inside: Range<usize>, is_tag: bool) -> Result<(), Unknown> {
        let refused = |at: usize, fault| Err(Unknown { offset: self.offsets[at] as usize, fault });
        let unknown = |at, what, word: &str, known| refused(at, Fault::Word { what, word: word.to_owned(), known });
        let (mut before, mut tag, mut in_for) = (String::new(), None, false);
        let mut at = inside.start;
        while at < inside.end {
            let rest = &self.text[at..inside.end];
            let c = rest.chars().next().expect("not at the end");
            let len = match c {
                '"' | '\'' => string_len(rest),
                'a'..='z' | 'A'..='Z' | '_' => {
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
                }
                _ => c.len_utf8(),
            };
            let token = &rest[..len];
            let is_word = c.is_ascii_alphabetic() || c == '_';
            match (is_word, before.as_str()) {
                (true, "") if is_tag => {
                    if !TAGS.contains(&token) {
                        return unknown(at, "tag", token, TAGS);
                    }
                    tag = Some(token);
                }
                (true, "|") if !FILTERS.contains(&token) => return unknown(at, "filter", token, FILTERS),
                (true, "is") if token != "not" && !TESTS.contains(&token) => return unknown(at, "test", token, TESTS),
                (true, "is not") if !TESTS.contains(&token) => return unknown(at, "test", token, TESTS),
                (false, _) if c == '*' => {
                    let (word, instead) = (token.to_owned(), "`times`, as in `data.amount | times(100)`");
                    return refused(at, Fault::NotAllowed { word, place: "here", instead });
                }
                _ if in_for && (token == "recursive" || "[{~+".contains(token) || makes_a_list(c, &before)) => {
                    let (word, instead) = (token.to_owned(), "the lists that an event has");
                    return refused(at, Fault::NotAllowed { word, place: "in a `for`", instead });
                }
                _ => {}
            }
            in_for |= tag == Some("for") && token == "in";
            if is_word && before == "is" && token == "not" {
                before = "is not".to_owned();
            } else if !(c.is_whitespace() || (c == '-' && before.is_empty())) {
                before = token.to_owned();
            }
            at += len;
        }
        Ok(())
    }
}

/// A parenthesis that is no filter's: `(a, a)` is a list.
fn makes_a_list(c: char, before: &str) -> bool {
    let is_call = before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && !["and", "else", "if", "in", "is", "not", "or"].contains(&before);
    c == '(' && !is_call
}

/// Bytes of the tag that `text` starts with; all of them where it does not end.
fn tag_len(text: &str) -> usize {
    let close = match &text[..2] {
        "{{" => "}}",
        "{%" => "%}",
        _ => return text.find("#}").map_or(text.len(), |at| at + 2),
    };
    let mut at = 2;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(close) {
            return at + 2;
        }
        at += match rest.chars().next() {
            Some('"' | '\'') => string_len(rest),
            Some(c) => c.len_utf8(),
            None => 1,
        };
    }
    text.len()
}

/// Bytes of the quoted string that `text` starts with.
fn string_len(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut escaped = false;
    for (at, c) in chars {
        if !escaped && Some(c) == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

/// Where in the file each byte of a TOML string's value stands, and its end: `raw` is the string with
/// its quotes, which starts at `start`.
pub(super) fn string_offsets(raw: &str, start: usize, value: &str) -> Vec<u32> {
    let quotes = ["'''", r#"""""#, "'", r#"""#].into_iter().find(|q| raw.starts_with(q)).unwrap_or("");
    let (mut decoded, mut offsets) = (String::new(), Vec::with_capacity(value.len() + 1));
    let end = raw.len().saturating_sub(quotes.len());
    let mut at = quotes.len();
    if quotes.len() == 3 {
        at += ["\r\n", "\n"].into_iter().find(|nl| raw[at..].starts_with(nl)).map_or(0, str::len);
    }
    while at < end {
        let rest = &raw[at..end];
        let c = rest.chars().next().expect("not at the end");
        let (len, meant) = if c == '\\' && quotes.starts_with('"') { escape(rest) } else { (c.len_utf8(), Some(c)) };
        if let Some(meant) = meant {
            decoded.push(meant);
            offsets.resize(decoded.len(), (start + at) as u32);
        }
        at += len;
    }
    if decoded != value {
        return vec![start as u32; value.len() + 1];
    }
    offsets.push((start + at) as u32);
    offsets
}

/// Length and meaning of the escape that `text` starts with.
fn escape(text: &str) -> (usize, Option<char>) {
    let digits = |n: usize| {
        let code = text.get(2..2 + n).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        (2 + n, code.and_then(char::from_u32))
    };
    match text[1..].chars().next() {
        Some('n') => (2, Some('\n')),
        Some('t') => (2, Some('\t')),
        Some('r') => (2, Some('\r')),
        Some('b') => (2, Some('\u{8}')),
        Some('f') => (2, Some('\u{c}')),
        Some('e') => (2, Some('\u{1b}')),
        Some('x') => digits(2),
        Some('u') => digits(4),
        Some('U') => digits(8),
        Some(c) if c.is_whitespace() => (text.len() - text[1..].trim_start().len(), None),
        Some(c) => (1 + c.len_utf8(), Some(c)),
        None => (1, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(text: &str) -> Vec<u32> {
        (0..=text.len() as u32).collect()
    }

    #[test]
    fn blanks_between_tokens_go_and_no_others() {
        for (text, squeezed) in [
            ("{ \"a b\" : 1 ,\n \"c\" : [ ] }", r#"{"a b":1,"c":[]}"#),
            (r#"{ "a \" b" : 1 }"#, r#"{"a \" b":1}"#),
            (r#"{ "a\\" : 1 }"#, r#"{"a\\":1}"#),
            ("{ {{ a }} }", "{ {{ a }}}"),
            ("{\"a\": {{ b | default(\"} }\") }} }", "{\"a\":{{ b | default(\"} }\") }}}"),
            ("{\n  {% if a %}\n \"b\": 1\n {% endif %} }", "{ {% if a %}\"b\":1{% endif %}}"),
            ("[ {# none }} #} 1 ]", "[1]"),
            ("{{ never ends ", "{{ never ends "),
        ] {
            let source = Source::read(text, &offsets(text), Kind::Json).expect("known words");
            assert_eq!(source.text, squeezed, "{text}");
            for (i, c) in source.text.char_indices().filter(|(_, c)| !c.is_whitespace()) {
                assert_eq!(text[source.offset_in_file(i)..].chars().next(), Some(c), "{text}");
            }
        }
    }

    #[test]
    fn each_byte_of_a_string_is_found_in_the_file() {
        for raw in [
            "'''\nabc\n  def'''",
            "'abc'",
            r#""a\tb\u0041ü\\ c""#,
            "\"\"\"\nab\\\n   cd \\x41 \"\" e\"\"\"",
            "'''\r\nabc'''",
        ] {
            let document = format!("k = {raw}");
            let table = toml::de::DeTable::parse(&document).expect(raw);
            let value = table.get_ref().get("k").expect("k");
            let text = value.get_ref().as_str().expect("a string");
            let offsets = string_offsets(&document[value.span()], value.span().start, text);
            assert_eq!(offsets.len(), text.len() + 1, "{raw}");
            for (i, c) in text.char_indices() {
                let found = document[offsets[i] as usize..].chars().next();
                assert!(found == Some(c) || found == Some('\\'), "{raw}: {c:?} at {found:?}");
            }
            assert_ne!(offsets.first(), offsets.last(), "{raw}: not the fallback");
        }
    }
}
