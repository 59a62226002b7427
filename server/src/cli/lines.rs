//! Lines of a file of JSON objects, on their way to be sent.

use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use futures_util::Stream;
use punchline_proto::v1;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines read ahead.
const AHEAD: usize = 256;
/// The longest line: more than the largest consumption or fact that the server takes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a line turned out to be.
pub(super) enum Line<T> {
    /// Something to send.
    Item(Item<T>),
    /// Something that is none of what the file should hold.
    Malformed {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The end, too early.
    Unreadable(io::Error),
}

/// One of a file's things, and where it stands.
pub(super) struct Item<T> {
    /// From 1.
    pub(super) line: usize,
    /// Where its line ends in the file.
    pub(super) end_bytes: u64,
    /// How often it was sent in vain.
    pub(super) tries: u32,
    /// How long to wait before the next try.
    pub(super) wait: Duration,
    pub(super) what: T,
}

/// How a line is read.
pub(super) type Parse<T> = fn(&[u8]) -> Result<T, String>;

/// Reads lines on a thread of its own: a pipe may be silent for long.
pub(super) fn read<T: Send + 'static>(
    mut reader: Box<dyn BufRead + Send>,
    parse: Parse<T>,
) -> impl Stream<Item = Line<T>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    // Not joined: it ends with the input, or with the process.
    std::thread::spawn(move || {
        let mut position = Position { line: 0, end_bytes: 0 };
        while let Some(line) = next_line(&mut reader, &mut position, parse) {
            let is_end = matches!(line, Line::Unreadable(_));
            if sender.blocking_send(line).is_err() || is_end {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

struct Position {
    line: usize,
    end_bytes: u64,
}

/// The next line that is not empty.
fn next_line<T>(reader: &mut impl BufRead, position: &mut Position, parse: Parse<T>) -> Option<Line<T>> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let length = match reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return None,
            Ok(length) => length as u64,
            Err(error) => return Some(Line::Unreadable(error)),
        };
        position.line += 1;
        position.end_bytes += length;
        if length == LINE_BYTES_MAX && !text.ends_with(b"\n") {
            return Some(match skip_line(reader) {
                Ok(skipped) => {
                    position.end_bytes += skipped;
                    let message = format!("longer than {LINE_BYTES_MAX} bytes");
                    Line::Malformed { line: position.line, message }
                }
                Err(error) => Line::Unreadable(error),
            });
        }
        if !text.trim_ascii().is_empty() {
            let Position { line, end_bytes } = *position;
            return Some(match parse(&text) {
                Ok(what) => Line::Item(Item { line, end_bytes, tries: 0, wait: Duration::ZERO, what }),
                Err(message) => Line::Malformed { line, message },
            });
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let length = end.unwrap_or(buffer.len());
        reader.consume(length);
        skipped += length as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
    }
}

/// As Wecheer writes one.
#[derive(Deserialize)]
pub(super) struct Identifier {
    pub(super) key: String,
    pub(super) value: String,
}

impl From<Identifier> for v1::Identifier {
    fn from(Identifier { key, value }: Identifier) -> Self {
        Self { key, value }
    }
}

/// Reads one JSON object.
pub(super) fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        // The line that serde counts is always the first here; the column is what helps.
        let told = error.to_string();
        let what = told.split(" at line ").next().unwrap_or(&told);
        format!("{what}, at column {}", error.column())
    })
}

#[cfg(test)]
mod tests {
    use super::super::consumptions::parse;
    use super::*;

    #[test]
    fn lines_are_items_or_told_with_their_number() {
        let documented = r#"{"consumptionId":"I198037776491223","consumptionDate":"20250425T12:34:00Z","identifiers":[{"key":"phoneNumber","value":"40720005123"}],"consumptionLines":[{"sku":"a","productName":"a","quantity":1}]}"#;
        let too_long = format!("{{\"consumptionId\":\"{}\"}}", "x".repeat(LINE_BYTES_MAX as usize));
        let text = format!("{documented}\n\n  \r\n{{\"consumptionId\":5}}\n{{\n{too_long}\n\u{feff}x\n{{}}");
        let mut reader = text.as_bytes();
        let mut position = Position { line: 0, end_bytes: 0 };
        let mut got = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut position, parse) {
            got.push(match line {
                Line::Item(item) => format!("{} {}", item.line, item.what.consumption_id),
                Line::Malformed { line, message } => format!("{line} ! {message}"),
                Line::Unreadable(error) => panic!("{error}"),
            });
        }
        let expected = [
            "1 I198037776491223",
            "4 ! invalid type: integer `5`, expected a string, at column 18",
            "5 ! EOF while parsing an object, at column 0",
            "6 ! longer than 1048576 bytes",
            "7 ! expected value, at column 1",
            "8 ",
        ];
        assert_eq!(got, expected);
        assert_eq!(position.end_bytes, text.len() as u64);
    }
}
