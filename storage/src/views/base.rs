//! The base: all rows as of a position, in a file. What a journal that was trimmed goes on from.
//!
//! ```text
//! rows as of a checkpoint ──write_base──▶ base/<position> ──load_base──▶ empty rows, to fold the journal onto
//! ```
//!
//! A file and no sled database: it is as much the truth as the journal, and is written once.
//!
//! # Invariants
//!
//! - It has its name once it is whole, on disk, and was read back.
//! - A byte that is another is found before the first row is written.
//! - What comes of it is what a fold of the journal from its beginning would come to now: of members whose key
//!   was destroyed since it was made, it brings neither personal fields nor identifiers.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use punchline_engine::id::{KeySlot, Sequence};

use super::{FORMAT_VERSION, ViewsError, checkpoint, damaged, keys};
use crate::codec;
use crate::data_dir::base_file;
use crate::layout::Table;
use crate::member_keys::MemberKeys;
use crate::rows::{Row, RowChange, Rows};
use crate::sync::sync_dir;

const MAGIC: &[u8; 16] = b"punchline base 1";
/// A frame is finished at this size.
const FRAME_BYTES: usize = 64 * 1024;
/// Longer than any frame: a row may be as large as a record.
const FRAME_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Rows read or written at once.
const PAGE_ROWS: usize = 256;

/// Is shown each row.
type EachRow<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), ViewsError> + 'a;

/// How a base failed.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The file system.
    #[error("base {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("base {path} is damaged at byte {offset}: {what}; restore a backup into a new directory", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the damaged frame begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Its rows are of a version that this program does not write.
    #[error(
        "base {path} holds rows of version {found}, this program has {FORMAT_VERSION}: restore a backup that begins \
         at sequence 1 into a new directory, or run the version that made it",
        path = path.display()
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: u32,
    },
    /// There is none.
    #[error(
        "the journal was trimmed and begins at sequence {first}, and {bases} has no base that it goes on from: restore \
         a backup into a new directory",
        bases = bases.display()
    )]
    Missing {
        /// Where it should be.
        bases: PathBuf,
        /// First sequence of the journal.
        first: u64,
    },
    /// The rows.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

/// Writes the rows, which are exactly as of their checkpoint, into the directory `bases`. Gives that position.
///
/// # Errors
///
/// [`BaseError`]; there is no new base then.
pub fn write_base(rows: &dyn Rows, bases: &Path) -> Result<Sequence, BaseError> {
    let upto = checkpoint(rows)?;
    let path = base_file(bases, upto.0);
    let unfinished = path.with_extension("new");
    let io = |source| BaseError::Io { path: unfinished.clone(), source };
    fs::create_dir_all(bases).map_err(io)?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).map_err(io)?;
    let written = write_rows(rows, upto, BufWriter::new(file), &io);
    let sealed = written.and_then(|file| {
        file.sync_all().map_err(io)?;
        Frames::open(&unfinished)?.each(&mut |_, _, _| Ok(()))?;
        fs::rename(&unfinished, &path).and_then(|()| sync_dir(bases)).map_err(io)?;
        bases.parent().map_or(Ok(()), sync_dir).map_err(io)
    });
    // Makes room again where that was lacking.
    sealed.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    Ok(upto)
}

fn write_rows(
    rows: &dyn Rows,
    upto: Sequence,
    mut out: BufWriter<File>,
    io: &impl Fn(io::Error) -> BaseError,
) -> Result<File, BaseError> {
    let mut put = |body: &[u8]| {
        let length = (body.len() as u32).to_be_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&length), body);
        out.write_all(&crc.to_be_bytes()).and_then(|()| out.write_all(&length)).and_then(|()| out.write_all(body))
    };
    put(&[&MAGIC[..], &FORMAT_VERSION.to_be_bytes(), &upto.0.to_be_bytes()].concat()).map_err(io)?;
    let mut count = 0_u64;
    for table in Table::ALL {
        let mut from = Vec::new();
        let mut frame = begun(table);
        loop {
            let page = rows.scan(table, &from, PAGE_ROWS).map_err(ViewsError::from)?;
            let Some((last, _)) = page.last() else { break };
            from = [last, &[0][..]].concat();
            for (key, value) in &page {
                for part in [key, value] {
                    frame.extend_from_slice(&(part.len() as u32).to_be_bytes());
                    frame.extend_from_slice(part);
                }
                count += 1;
                if frame.len() >= FRAME_BYTES {
                    put(&std::mem::replace(&mut frame, begun(table))).map_err(io)?;
                }
            }
        }
        if frame.len() > begun(table).len() {
            put(&frame).map_err(io)?;
        }
    }
    put(&[&[0][..], &count.to_be_bytes()].concat()).map_err(io)?;
    out.into_inner().map_err(|error| io(error.into_error()))
}

/// A frame of a table: its name, then its rows.
fn begun(table: Table) -> Vec<u8> {
    let name = table.name().as_bytes();
    [&[name.len() as u8], name].concat()
}

/// Fills empty rows with the base at `path`; gives the position that they are folded to then.
///
/// # Errors
///
/// [`BaseError`]. Nothing was written where the base is damaged.
pub fn load_base(path: &Path, rows: &dyn Rows, member_keys: &MemberKeys) -> Result<Sequence, BaseError> {
    let mut erased = BTreeSet::new();
    let upto = Frames::open(path)?.each(&mut |table, key, value| {
        if table == Table::Members {
            let member = codec::decode_member(value, member_keys).map_err(damaged(table, key))?;
            let slot = member.key_slot;
            if slot != KeySlot::NONE && member_keys.is_destroyed(slot).map_err(ViewsError::from)? {
                erased.insert(member.id);
            }
        }
        Ok(())
    })?;
    let mut writing = Writing { rows, table: Table::Meta, page: Vec::new(), meta: Vec::new() };
    Frames::open(path)?.each(&mut |table, key, value| {
        let row = match table {
            Table::Identifiers if keys::parse_member_id(value).is_some_and(|id| erased.contains(&id)) => return Ok(()),
            Table::Members => {
                let member = codec::decode_member(value, member_keys).map_err(damaged(table, key))?;
                match erased.contains(&member.id) {
                    true => codec::encode_member(&member, member_keys).map_err(ViewsError::from)?,
                    false => value.to_vec(),
                }
            }
            _ => value.to_vec(),
        };
        writing.put(table, (key.to_vec(), row))
    })?;
    writing.finish()?;
    Ok(upto)
}

/// Rows on their way, the checkpoint last.
struct Writing<'a> {
    rows: &'a dyn Rows,
    table: Table,
    page: Vec<RowChange>,
    meta: Vec<RowChange>,
}

impl Writing<'_> {
    fn put(&mut self, table: Table, (key, value): Row) -> Result<(), ViewsError> {
        if table == Table::Meta {
            self.meta.push((key, Some(value)));
            return Ok(());
        }
        if table != self.table || self.page.len() >= PAGE_ROWS {
            self.rows.write(self.table, &std::mem::take(&mut self.page))?;
            self.table = table;
        }
        self.page.push((key, Some(value)));
        Ok(())
    }

    fn finish(self) -> Result<(), ViewsError> {
        self.rows.write(self.table, &self.page)?;
        self.rows.sync()?;
        self.rows.write(Table::Meta, &self.meta)?;
        Ok(self.rows.sync()?)
    }
}

/// The frames of a file.
struct Frames<'a> {
    path: &'a Path,
    file: BufReader<File>,
    at: u64,
}

impl<'a> Frames<'a> {
    fn open(path: &'a Path) -> Result<Frames<'a>, BaseError> {
        let file = File::open(path).map_err(|source| BaseError::Io { path: path.to_owned(), source })?;
        Ok(Frames { path, file: BufReader::new(file), at: 0 })
    }

    fn damaged(&self, what: &'static str) -> BaseError {
        BaseError::Damaged { path: self.path.to_owned(), offset: self.at, what }
    }

    fn next(&mut self) -> Result<Vec<u8>, BaseError> {
        let failed = |frames: &Self, source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => frames.damaged("it ends early"),
            _ => BaseError::Io { path: frames.path.to_owned(), source },
        };
        let mut head = [0; 8];
        self.file.read_exact(&mut head).map_err(|error| failed(self, error))?;
        let (crc, length) = head.split_at(4);
        let length: [u8; 4] = length.try_into().expect("half of eight");
        if u32::from_be_bytes(length) > FRAME_BYTES_MAX {
            return Err(self.damaged("a frame is longer than any"));
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.file.read_exact(&mut body).map_err(|error| failed(self, error))?;
        if crc != crc32c::crc32c_append(crc32c::crc32c(&length), &body).to_be_bytes() {
            return Err(self.damaged("the checksum of a frame is another"));
        }
        Ok(body)
    }

    /// Shows every row; gives the position that they are folded to.
    fn each(mut self, row: &mut EachRow<'_>) -> Result<Sequence, BaseError> {
        let first = self.next()?;
        let read = first.strip_prefix(MAGIC).and_then(|rest| Some((rest.first_chunk()?, rest[4..].try_into().ok()?)));
        let (version, upto): (&[u8; 4], [u8; 8]) = read.ok_or_else(|| self.damaged("it does not begin as a base"))?;
        let (version, upto) = (u32::from_be_bytes(*version), Sequence(u64::from_be_bytes(upto)));
        if version != FORMAT_VERSION {
            return Err(BaseError::Version { path: self.path.to_owned(), found: version });
        }
        self.at += first.len() as u64 + 8;
        let mut count = 0_u64;
        loop {
            let frame = self.next()?;
            let (name, mut rest) = take(&frame, 1)
                .and_then(|(len, rest)| take(rest, usize::from(len[0])))
                .ok_or_else(|| self.damaged("a frame has no table"))?;
            if name.is_empty() {
                let whole = rest == count.to_be_bytes() && self.file.read(&mut [0]).is_ok_and(|more| more == 0);
                return if whole { Ok(upto) } else { Err(self.damaged("it has another number of rows")) };
            }
            let table = Table::ALL.into_iter().find(|table| table.name().as_bytes() == name);
            let table = table.ok_or_else(|| self.damaged("a frame is of an unknown table"))?;
            while !rest.is_empty() {
                let (key, value, after) = part(rest)
                    .and_then(|(key, rest)| part(rest).map(|(value, rest)| (key, value, rest)))
                    .ok_or_else(|| self.damaged("a row ends early"))?;
                row(table, key, value)?;
                rest = after;
                count += 1;
            }
            self.at += frame.len() as u64 + 8;
        }
    }
}

fn take(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(len)
}

/// A length, and as many bytes.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    take(rest, u32::from_be_bytes(*len) as usize)
}
