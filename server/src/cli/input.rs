//! Files and options as they come in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use prost_types::Timestamp;
use punchline_proto::v1;

use super::failure::Failure;
use crate::campaign_file::timestamp;

/// What `-` is called.
const STANDARD_INPUT: &str = "standard input";

/// A file's name; `-`, or none, is standard input.
pub(super) fn name_of(path: Option<&Path>) -> String {
    named(path).map_or_else(|| STANDARD_INPUT.to_owned(), |path| path.display().to_string())
}

fn named(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| *path != Path::new("-"))
}

/// Opens a file, or standard input, with its size where it has one.
///
/// # Errors
///
/// [`Failure::Unreadable`].
pub(super) fn open(path: Option<&Path>) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
    let Some(file_path) = named(path) else {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    };
    let unreadable = |source| Failure::Unreadable { path: name_of(path), source };
    let file = File::open(file_path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let size_bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(1 << 16, file)), size_bytes))
}

/// Reads a whole file, or standard input.
///
/// # Errors
///
/// [`Failure::Unreadable`].
pub(super) fn read(path: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let (mut reader, _) = open(path)?;
    reader.read_to_end(&mut content).map_err(|source| Failure::Unreadable { path: name_of(path), source })?;
    Ok(content)
}

/// Reads a whole text, or standard input.
///
/// # Errors
///
/// [`Failure::Unreadable`], also where it is no UTF-8.
pub(super) fn read_text(path: Option<&Path>) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|error| Failure::Malformed { path: name_of(path), message: format!("is not UTF-8: {error}") })
}

/// A secret on the first line of a file; editors and `echo` end it with a line break.
///
/// # Errors
///
/// [`Failure::Unreadable`], [`Failure::Malformed`] without the text.
pub(super) fn read_secret(path: &Path) -> Result<String, Failure> {
    let malformed = |message: &str| Failure::Malformed { path: name_of(Some(path)), message: message.into() };
    let text = read_text(Some(path))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret {
        "" => Err(malformed("is empty")),
        secret if secret.contains(char::is_control) => Err(malformed("is not one line (its content is not shown)")),
        secret => Ok(secret.to_owned()),
    }
}

/// `phoneNumber`, `email` and `externalId`, where given.
pub(super) fn identifiers(phones: &[String], emails: &[String], external_ids: &[String]) -> Vec<v1::Identifier> {
    let of = |key: &'static str, values: &[String]| {
        values.iter().map(move |value| v1::Identifier { key: key.into(), value: value.clone() }).collect::<Vec<_>>()
    };
    [of("phoneNumber", phones), of("email", emails), of("externalId", external_ids)].concat()
}

/// `500ms`, `5s`, `5m`, `2h`; in milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    number
        .zip(unit_ms)
        .and_then(|(number, unit_ms)| number.checked_mul(unit_ms))
        .ok_or_else(|| format!("{text} is no duration, as 500ms, 5s, 5m or 2h"))
}

/// The same, or `never`: 0.
pub(super) fn duration_ms_or_never(text: &str) -> Result<u64, String> {
    if text == "never" { Ok(0) } else { duration_ms(text).map_err(|error| format!("{error}, or never")) }
}

/// RFC 3339, or a date.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    timestamp(text).ok_or_else(|| format!("{text} is neither a time, as 2025-01-31T12:00:00Z, nor a date"))
}

/// A span of time for people, to two units: `4s`, `3m 12s`, `2h 5m`, `3d 4h`.
pub(super) fn span_text(seconds: u64) -> String {
    let units = [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let first = units.iter().position(|(_, count)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).enumerate().filter(|(i, (_, count))| *i == 0 || *count > 0);
    shown.map(|(_, (unit, count))| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("is to be of the form name=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `name:value` of an option that may hold a secret: not for clap, which shows what it refuses.
///
/// # Errors
///
/// [`Failure::Usage`], without the text.
pub(super) fn secret_pair(option: &str, text: &str) -> Result<(String, String), Failure> {
    let malformed = || Failure::Usage(format!("{option} has no colon (its value is not shown)"));
    let (name, value) = text.split_once(':').ok_or_else(malformed)?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let read = secret_pair("--header", "Authorization: Bearer a:b").expect("a pair");
        assert_eq!((read.0.as_str(), read.1.as_str()), ("Authorization", "Bearer a:b"));
        let told = secret_pair("--basic-auth", "s3cret").expect_err("no pair").to_string();
        assert!(told.contains("--basic-auth") && !told.contains("s3cret"), "{told}");
    }

    #[test]
    fn durations_are_read() {
        let cases = [
            ("500ms", Some(500)),
            ("5s", Some(5_000)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("5", None),
            ("-5s", None),
            ("s", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn spans_are_for_people() {
        let cases = [(0, "0s"), (4, "4s"), (192, "3m 12s"), (7_500, "2h 5m"), (86_400, "1d"), (90_061, "1d 1h")];
        for (seconds, expected) in cases {
            assert_eq!(span_text(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_secret_file_is_one_line() {
        let cases = [("s3cret\n", Some("s3cret")), ("s3cret", Some("s3cret")), ("\n", None), ("s3cret\nmore", None)];
        for (content, expected) in cases {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), content).expect("written");
            match read_secret(file.path()) {
                Ok(secret) => assert_eq!(Some(secret.as_str()), expected),
                Err(failure) => {
                    assert!(expected.is_none() && !failure.to_string().contains("s3cret"), "{failure}");
                }
            }
        }
    }
}
