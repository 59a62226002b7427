//! Writing a backup.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use punchline_engine::time::UnixMillis;

use super::directory::Directory;
use super::manifest::{self, Manifest};
use super::part::{Name, PART_BYTES, listed};
use super::{BackupError, Place, Summary, tar};
use crate::block::BlockHash;
use crate::journal::{Damage, Journal, JournalError};

/// What a backup is made of.
pub struct Contents<'a> {
    /// The truth.
    pub journal: &'a dyn Journal,
    /// Its last sequence that goes in: the end of a block, and all before it is on disk.
    pub upto: u64,
    /// The file of members' keys as it was while `upto` was the head.
    pub keys: Box<dyn Read + 'a>,
    /// What a journal that was trimmed goes on from, and up to where that is folded.
    pub base: Option<(u64, PathBuf)>,
    /// When it is made.
    pub made_at: UnixMillis,
}

/// Brings the backup in a directory up to date, or makes one. `progress` is told the sequence reached and the
/// last one.
///
/// # Errors
///
/// [`BackupError`], with the file; the backup is what it was then.
pub fn to_directory(
    path: &Path,
    contents: Contents<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, BackupError> {
    let mut directory = Directory::write(path)?;
    let manifest = match directory.manifest() {
        None => begun(&contents)?,
        Some(manifest) => continued(path, manifest, &contents)?,
    };
    let mut into = |name, bytes: &[u8]| directory.put(name, bytes);
    let written = Writer { manifest, events_added: 0, bytes_written: 0, put: &mut into }.write(contents, progress);
    let summary = written.inspect_err(|_| {
        // Makes room again where that was lacking. What cannot be removed now the next run removes.
        drop(directory.remove_unlisted());
    })?;
    directory.publish(summary.manifest.clone())?;
    Ok(summary)
}

/// Writes a whole backup as a stream.
///
/// # Errors
///
/// [`BackupError`]; what was written is refused as cut off.
pub fn to_stream(
    out: &mut dyn Write,
    contents: Contents<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, BackupError> {
    let modified_s = contents.made_at.0.max(0).cast_unsigned() / 1_000;
    let failed = |source| BackupError::Io { place: Place::Stream, source };
    let manifest = begun(&contents)?;
    let mut into = |name: Name, bytes: &[u8]| tar::write(out, &name.to_string(), bytes, modified_s).map_err(failed);
    let summary = Writer { manifest, events_added: 0, bytes_written: 0, put: &mut into }.write(contents, progress)?;
    tar::write(out, manifest::NAME, summary.manifest.encode().as_bytes(), modified_s).map_err(failed)?;
    tar::finish(out).map_err(failed)?;
    Ok(summary)
}

/// A backup of which nothing is written.
fn begun(contents: &Contents<'_>) -> Result<Manifest, BackupError> {
    let first = contents.journal.first();
    match contents.base {
        Some((upto, _)) if first > 1 && !(first - 1..=contents.upto).contains(&upto) => {
            Err(BackupError::NoBase { first })
        }
        None if first > 1 => Err(BackupError::NoBase { first }),
        _ => Ok(Manifest::new(1, contents.made_at, first)),
    }
}

/// The backup as far as it goes, checked to be one of this journal.
fn continued(path: &Path, before: &Manifest, contents: &Contents<'_>) -> Result<Manifest, BackupError> {
    let (journal, last) = (contents.journal, before.last);
    let other = |what| Err(BackupError::OtherJournal { path: path.to_owned(), sequence: last, what });
    if last > contents.upto {
        return other("the journal is at its end already");
    }
    if last + 1 < journal.first() {
        return Err(BackupError::Gap { path: path.to_owned(), last, first: journal.first() });
    }
    let hash = if last == contents.upto {
        let block = if last == 0 { None } else { journal.read(last)? };
        block.map_or(BlockHash::NONE, |block| block.hash())
    } else {
        // The block before may be trimmed; its successor names it.
        match journal.read(last + 1)? {
            Some(block) if block.first_sequence() == last + 1 => block.previous_hash(),
            _ => return other("its blocks have other bounds"),
        }
    };
    if hash.to_string() != before.last_hash {
        return other("another block stands in it");
    }
    let is_kept = |name: &str| !matches!(Name::parse(name), Some(Name::Keys { .. }));
    let mut manifest = before.again(contents.made_at);
    manifest.parts.retain(|part| is_kept(&part.name));
    Ok(manifest)
}

/// Takes a part of the backup, by its name.
type Put<'a> = dyn FnMut(Name, &[u8]) -> Result<(), BackupError> + 'a;

struct Writer<'a> {
    manifest: Manifest,
    events_added: u64,
    bytes_written: u64,
    put: &'a mut Put<'a>,
}

impl Writer<'_> {
    fn write(mut self, contents: Contents<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Summary, BackupError> {
        let is_new = self.manifest.parts.is_empty();
        if let Some((upto, path)) = contents.base.filter(|_| is_new && self.manifest.first > 1) {
            let mut base = File::open(&path).map_err(BackupError::io(&path))?;
            self.copy(&mut base, Place::Path(path), |n| Name::Base { upto, n })?;
        }
        self.blocks(contents.journal, contents.upto, progress)?;
        let run = self.manifest.run;
        let (mut keys, place) = (contents.keys, Place::Path("members.keys".into()));
        self.copy(&mut keys, place, |n| Name::Keys { run, n })?;
        let Writer { manifest, events_added, bytes_written, .. } = self;
        Ok(Summary { manifest, events_added, bytes_written })
    }

    fn blocks(
        &mut self,
        journal: &dyn Journal,
        upto: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), BackupError> {
        let mut part = Vec::new();
        let mut part_first = self.manifest.last + 1;
        while self.manifest.last < upto {
            let next = self.manifest.last + 1;
            let corrupt = |what| JournalError::Corrupt { path: "(as opened)".into(), sequence: next, what };
            let block = journal.read(next)?.ok_or_else(|| corrupt(Damage::Short { head: next - 1, durable: upto }))?;
            if block.first_sequence() != next || block.last_sequence() > upto {
                return Err(corrupt(Damage::Gap { found: block.first_sequence() }).into());
            }
            let (named, found) = (block.previous_hash(), &self.manifest.last_hash);
            if !found.is_empty() && named.to_string() != *found {
                let what = format!("block names {named} as its predecessor, which is {found}");
                return Err(corrupt(Damage::Store(what)).into());
            }
            part.extend_from_slice(block.as_bytes());
            self.manifest.last_hash = block.hash().to_string();
            self.manifest.last = block.last_sequence();
            self.events_added += u64::from(block.event_count());
            if part.len() >= PART_BYTES || self.manifest.last == upto {
                self.part(Name::Blocks { first: part_first }, &part)?;
                part.clear();
                part_first = self.manifest.last + 1;
                progress(self.manifest.last, upto);
            }
        }
        Ok(())
    }

    /// Copies a file in parts.
    fn copy(&mut self, from: &mut dyn Read, place: Place, name: impl Fn(u32) -> Name) -> Result<(), BackupError> {
        for n in 1.. {
            let mut part = Vec::new();
            let read = (&mut *from).take(PART_BYTES as u64).read_to_end(&mut part);
            match read.map_err(|source| BackupError::Io { place: place.clone(), source })? {
                0 => break,
                _ => self.part(name(n), &part)?,
            }
        }
        Ok(())
    }

    fn part(&mut self, name: Name, bytes: &[u8]) -> Result<(), BackupError> {
        (self.put)(name, bytes)?;
        self.manifest.parts.push(listed(name, bytes));
        self.bytes_written += bytes.len() as u64;
        Ok(())
    }
}
