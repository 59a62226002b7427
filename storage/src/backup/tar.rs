//! The stream: a tar of plain files, as POSIX has it (ustar), so that every tar can list and unpack it.
//!
//! # What is absent on purpose
//!
//! - All of tar that a backup does not need: directories, links, long names, owners.

use std::io::{self, Read, Write};

use super::part::PART_BYTES_MAX;
use super::{BackupError, Place};

const BLOCK: usize = 512;
/// Where the checksum stands, which is counted as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Writes a file.
pub(super) fn write(out: &mut dyn Write, name: &str, bytes: &[u8], modified_s: u64) -> io::Result<()> {
    out.write_all(&header(name, bytes.len(), modified_s))?;
    out.write_all(bytes)?;
    out.write_all(&[0; BLOCK][..padding(bytes.len())])
}

/// Writes the end.
pub(super) fn finish(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(BLOCK) - len
}

fn header(name: &str, len: usize, modified_s: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{len:011o}"));
    put(136, &format!("{modified_s:011o}"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum = checksum(&header);
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn checksum(header: &[u8; BLOCK]) -> u32 {
    let counted = |(at, byte): (usize, &u8)| u32::from(if CHECKSUM.contains(&at) { b' ' } else { *byte });
    header.iter().enumerate().map(counted).sum()
}

/// Reads the files of a stream.
pub(super) struct Reader<'a> {
    from: &'a mut dyn Read,
    at: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Reader<'a> {
        Reader { from, at: 0 }
    }

    /// The next file: its name and its content. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(String, Vec<u8>)>, BackupError> {
        let begins = self.at;
        let damaged = |what: &str| BackupError::damaged(Place::Stream, begins, what);
        let header: [u8; BLOCK] = self.take(BLOCK)?.try_into().expect("as many were taken");
        if header == [0; BLOCK] {
            return Ok(None);
        }
        let text = |range: std::ops::Range<usize>| {
            let field = header[range].split(|byte| *byte == 0).next().unwrap_or_default();
            str::from_utf8(field).map(str::trim).map_err(|_| damaged("it is no tar of a backup"))
        };
        let octal = |range| u64::from_str_radix(text(range)?, 8).map_err(|_| damaged("it is no tar of a backup"));
        if octal(CHECKSUM)? != u64::from(checksum(&header)) {
            return Err(damaged("the checksum of a header is another"));
        }
        let (name, len) = (text(0..100)?.to_owned(), octal(124..136)?);
        if len > PART_BYTES_MAX || header[156] != b'0' {
            return Err(damaged("it holds what no backup does"));
        }
        let bytes = self.take(len as usize)?;
        self.take(padding(bytes.len()))?;
        Ok(Some((name, bytes)))
    }

    /// What comes after the files.
    pub(super) fn rest(&mut self) -> &mut dyn Read {
        &mut *self.from
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        let read = (&mut *self.from).take(len as u64).read_to_end(&mut bytes);
        read.map_err(|source| BackupError::Io { place: Place::Stream, source })?;
        self.at += bytes.len() as u64;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(BackupError::damaged(Place::Stream, self.at, "it ends early: the backup was cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        let files = [("a", vec![]), ("b", vec![1; 511]), ("c", vec![2; 512]), ("d", vec![3; 513])];
        for (name, bytes) in &files {
            write(&mut out, name, bytes, 1_700_000_000).expect("memory has room");
        }
        finish(&mut out).expect("memory has room");
        let mut whole = &out[..];
        let mut reader = Reader::new(&mut whole);
        for (name, bytes) in files {
            assert_eq!(reader.next().expect("sound"), Some((name.to_owned(), bytes)));
        }
        assert_eq!(reader.next().expect("sound"), None);
        let mut cut = &out[..2000];
        let mut reader = Reader::new(&mut cut);
        let error = (0..4).find_map(|_| reader.next().err()).expect("it is cut off");
        assert!(error.to_string().contains("byte 2000: it ends early"), "{error}");
    }

    #[test]
    fn tar_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.tar");
        let mut file = std::fs::File::create(&path).expect("made");
        write(&mut file, "blocks-1", b"hello", 1_700_000_000).expect("written");
        finish(&mut file).expect("written");
        let said = std::process::Command::new("tar").args(["-xOf"]).arg(&path).output().expect("there is a tar");
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"hello"[..], &b""[..]));
    }
}
