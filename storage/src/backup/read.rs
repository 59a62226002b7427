//! Reading a backup: every byte of it is checked, and what is sound goes into a data directory, if one is given.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::manifest::{self, Manifest, Part};
use super::part::{self, Name};
use super::tar::Reader;
use super::{BackupError, Place};
use crate::block::{Block, BlockHash};
use crate::data_dir::DataDir;
use crate::journal::Journal;
use crate::sled_journal::Import;
use crate::sync::sync_dir;

/// Where a backup is read from.
pub enum Source<'a> {
    /// A directory.
    Directory(Directory),
    /// A stream.
    Stream(&'a mut dyn Read),
}

/// What was read, and found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What the backup consists of.
    pub manifest: Manifest,
    /// How many blocks.
    pub blocks: u64,
}

/// Reads a whole backup, and keeps nothing. `progress` is told how many bytes were read.
///
/// # Errors
///
/// [`BackupError`], with the file and where in it.
pub fn check(source: Source<'_>, progress: &mut dyn FnMut(u64)) -> Result<Unpacked, BackupError> {
    read(source, &mut Nowhere, progress)
}

/// Reads a whole backup into an empty data directory: journal, members' keys, base. All is on disk then.
///
/// # Errors
///
/// [`BackupError`], with the file and where in it; the data directory is to be thrown away then.
pub fn unpack(source: Source<'_>, data_dir: &DataDir, progress: &mut dyn FnMut(u64)) -> Result<Unpacked, BackupError> {
    let mut into = IntoDataDir {
        journal: Import::begin(&data_dir.journal_path())?,
        keys: data_dir.keys_path(),
        bases: data_dir.bases_path(),
        base: None,
    };
    let unpacked = read(source, &mut into, progress)?;
    into.finish(&unpacked.manifest)?;
    Ok(unpacked)
}

/// Compares every block of `journal` up to `upto` with the backup's.
///
/// # Errors
///
/// [`BackupError`] where one of them is not in the backup, or not the same.
pub fn holds(directory: &Directory, journal: &dyn Journal, upto: u64) -> Result<(), BackupError> {
    let manifest = directory.manifest().expect("it was opened to be read");
    let other = |sequence, what| BackupError::OtherJournal { path: directory.path().to_owned(), sequence, what };
    let mut next = journal.first();
    let first_of = |listed: &Part| match Name::parse(&listed.name) {
        Some(Name::Blocks { first }) => Some((first, listed.name.clone())),
        _ => None,
    };
    let parts: Vec<(u64, String)> = manifest.parts.iter().filter_map(first_of).collect();
    for (n, (first, name)) in parts.iter().enumerate() {
        // Parts before the journal's beginning need not be read.
        let is_before = parts.get(n + 1).is_some_and(|(after, _)| *after <= next);
        if is_before || *first > upto {
            continue;
        }
        let place = Place::Path(directory.path().join(name));
        for (offset, block) in part::blocks(directory.part(name)?.into()) {
            let block = block.map_err(|error| BackupError::damaged(place.clone(), offset, error))?;
            if next > upto || block.first_sequence() != next {
                continue;
            }
            match journal.read(next)? {
                Some(ours) if ours.as_bytes() == block.as_bytes() => next = block.last_sequence() + 1,
                _ => return Err(other(next, "another block stands in it")),
            }
        }
    }
    if next <= upto { Err(other(next, "it has no block")) } else { Ok(()) }
}

/// Takes what is sound.
trait Sink {
    fn block(&mut self, block: &Block) -> Result<(), BackupError>;
    fn keys(&mut self, bytes: &[u8]) -> Result<(), BackupError>;
    fn base(&mut self, upto: u64, bytes: &[u8]) -> Result<(), BackupError>;
}

struct Nowhere;

impl Sink for Nowhere {
    fn block(&mut self, _: &Block) -> Result<(), BackupError> {
        Ok(())
    }

    fn keys(&mut self, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }

    fn base(&mut self, _: u64, _: &[u8]) -> Result<(), BackupError> {
        Ok(())
    }
}

fn read(source: Source<'_>, sink: &mut dyn Sink, progress: &mut dyn FnMut(u64)) -> Result<Unpacked, BackupError> {
    let mut reading = Reading { sink, parts: Vec::new(), blocks: 0, first: None, last: 0, last_hash: String::new() };
    let mut bytes_read = 0;
    let (place, manifest) = match source {
        Source::Directory(directory) => {
            let manifest = directory.manifest().expect("it was opened to be read").clone();
            for listed in &manifest.parts {
                let place = Place::Path(directory.path().join(&listed.name));
                let bytes = directory.part(&listed.name)?;
                bytes_read += bytes.len() as u64;
                let name = Name::parse(&listed.name).expect("a manifest lists nothing else");
                reading.part(&place, name, bytes, Some(listed))?;
                progress(bytes_read);
            }
            (Place::Path(directory.path().join(manifest::NAME)), manifest)
        }
        Source::Stream(from) => {
            let mut files = Reader::new(from);
            let manifest = loop {
                let at = bytes_read;
                let damaged = |what: String| BackupError::damaged(Place::Stream, at, what);
                let (name, bytes) = files.next()?.ok_or_else(|| damaged("it has no manifest".into()))?;
                bytes_read += bytes.len() as u64;
                if name == manifest::NAME {
                    break Manifest::decode(&Place::Stream, &bytes)?;
                }
                let parsed = Name::parse(&name).ok_or_else(|| damaged(format!("{name:?} is no part of a backup")))?;
                reading.part(&Place::Path(name.into()), parsed, bytes, None)?;
                progress(bytes_read);
            };
            // Whoever writes the stream is not to be cut off while it ends it.
            let ended = std::io::copy(files.rest(), &mut std::io::sink());
            ended.map_err(|source| BackupError::Io { place: Place::Stream, source })?;
            (Place::Stream, manifest)
        }
    };
    reading.finish(&place, &manifest)?;
    Ok(Unpacked { manifest, blocks: reading.blocks })
}

struct Reading<'a> {
    sink: &'a mut dyn Sink,
    parts: Vec<Part>,
    blocks: u64,
    first: Option<u64>,
    last: u64,
    last_hash: String,
}

impl Reading<'_> {
    /// Takes a part; one from a directory must be what is `listed`.
    fn part(&mut self, place: &Place, name: Name, bytes: Vec<u8>, listed: Option<&Part>) -> Result<(), BackupError> {
        let found = part::listed(name, &bytes);
        let bytes = bytes::Bytes::from(bytes);
        if let Name::Blocks { first } = name {
            // Before its digest, since a block says where the damage is.
            for (offset, block) in part::blocks(bytes.clone()) {
                let block = block.map_err(|error| BackupError::damaged(place.clone(), offset, error))?;
                self.follows(&block, first, offset)
                    .map_err(|what| BackupError::damaged(place.clone(), offset, what))?;
                self.sink.block(&block)?;
            }
        }
        if let Some(listed) = listed.filter(|listed| **listed != found) {
            let what = match listed.bytes == found.bytes {
                true => "its SHA-256 is not the one in the manifest".into(),
                false => format!("it is {} bytes long instead of {}", found.bytes, listed.bytes),
            };
            return Err(BackupError::damaged(place.clone(), listed.bytes.min(found.bytes), what));
        }
        match name {
            Name::Blocks { .. } => {}
            Name::Keys { .. } => self.sink.keys(&bytes)?,
            Name::Base { upto, .. } => self.sink.base(upto, &bytes)?,
        }
        self.parts.push(found);
        Ok(())
    }

    fn follows(&mut self, block: &Block, part_first: u64, offset: u64) -> Result<(), String> {
        let sequence = block.first_sequence();
        match self.first {
            _ if offset == 0 && sequence != part_first => {
                return Err(format!("its first block begins at sequence {sequence}"));
            }
            Some(_) if sequence != self.last + 1 => {
                return Err(format!("the block begins at sequence {sequence} instead of {}", self.last + 1));
            }
            Some(_) if block.previous_hash().to_string() != self.last_hash => {
                return Err(format!("the block at sequence {sequence} does not continue the one before"));
            }
            None if sequence == 1 && block.previous_hash() != BlockHash::NONE => {
                return Err("the first block of all continues another".into());
            }
            _ => {}
        }
        self.first.get_or_insert(sequence);
        (self.last, self.last_hash) = (block.last_sequence(), block.hash().to_string());
        self.blocks += 1;
        Ok(())
    }

    fn finish(&self, place: &Place, manifest: &Manifest) -> Result<(), BackupError> {
        let damaged = |what: String| Err(BackupError::damaged(place.clone(), 0, what));
        if self.parts != manifest.parts {
            let differs = self.parts.iter().zip(&manifest.parts).find(|(found, listed)| found != listed);
            return damaged(match differs {
                Some((found, listed)) => format!("{} is not what the manifest says of {}", found.name, listed.name),
                None => format!("it lists {} parts, and there are {}", manifest.parts.len(), self.parts.len()),
            });
        }
        let found = self.first.map(|first| (first, self.last, &*self.last_hash));
        let listed = (manifest.last >= manifest.first).then_some((manifest.first, manifest.last, &*manifest.last_hash));
        if found != listed {
            return damaged(format!("it says {listed:?} of the journal, and there is {found:?}"));
        }
        let base = manifest.parts.iter().find_map(|part| match Name::parse(&part.name) {
            Some(Name::Base { upto, .. }) => Some(upto),
            _ => None,
        });
        match base {
            _ if manifest.first == 1 => Ok(()),
            Some(upto) if (manifest.first - 1..=manifest.last).contains(&upto) => Ok(()),
            _ => damaged(format!("it begins at sequence {} and has no base to go on from", manifest.first)),
        }
    }
}

struct IntoDataDir {
    journal: Import,
    keys: PathBuf,
    bases: PathBuf,
    base: Option<PathBuf>,
}

impl Sink for IntoDataDir {
    fn block(&mut self, block: &Block) -> Result<(), BackupError> {
        Ok(self.journal.push(block)?)
    }

    fn keys(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        append(&self.keys, bytes)
    }

    fn base(&mut self, upto: u64, bytes: &[u8]) -> Result<(), BackupError> {
        let path = self.base.insert(crate::data_dir::base_file(&self.bases, upto));
        append(path, bytes)
    }
}

impl IntoDataDir {
    fn finish(self, manifest: &Manifest) -> Result<(), BackupError> {
        self.journal.finish(manifest.first)?;
        for path in self.base.iter().chain([&self.keys]).filter(|path| path.exists()) {
            let parent = path.parent().expect("they are in directories of their own");
            let synced = File::open(path).and_then(|file| file.sync_all()).and_then(|()| sync_dir(parent));
            synced.map_err(BackupError::io(path))?;
        }
        Ok(())
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let appended = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(bytes)
    };
    appended().map_err(BackupError::io(path))
}
