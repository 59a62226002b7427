//! Files and options as they come in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use punchline_proto::v1;

use super::failure::Failure;

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

/// `phoneNumber` and `email`, where given.
pub(super) fn identifiers(phones: &[String], emails: &[String]) -> Vec<v1::Identifier> {
    let of = |key: &'static str, values: &[String]| {
        values.iter().map(move |value| v1::Identifier { key: key.into(), value: value.clone() }).collect::<Vec<_>>()
    };
    [of("phoneNumber", phones), of("email", emails)].concat()
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
}
