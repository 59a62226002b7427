//! A run: entries in ascending order, each prefix once, never changed once it is written.
//!
//! ```text
//! chunk  256 entries                                          read for a hit
//! part   32 chunks: where each begins, and a filter           in memory
//! run    all chunks and parts are full but the last ones
//! ```

use punchline_engine::id::Sequence;

use super::entry::{ENTRY_BYTES, Entry, PREFIX_BYTES, Prefix};
use super::filter::Filter;
use crate::layout::{CHUNK_BYTES_MAX, Table};
use crate::rows::{Rows, RowsError};
use crate::views::overlay::Writer;

/// 4 KiB. sled reads a page of up to 17 values for each, so chunks of 24 KiB cost six times as much to read.
pub(super) const CHUNK_ENTRIES: usize = 256;
const PART_CHUNKS: usize = 32;
pub(super) const PART_ENTRIES: usize = PART_CHUNKS * CHUNK_ENTRIES;

const _: () = assert!(PART_CHUNKS * PREFIX_BYTES + PART_ENTRIES * 16 / 8 <= CHUNK_BYTES_MAX);

const CHUNK: u8 = b'c';
const PART: u8 = b'p';

fn key(run: u64, kind: u8, number: u64) -> Vec<u8> {
    let number = u32::try_from(number).expect("a run has fewer than 10^12 entries");
    [&run.to_be_bytes()[..], &[kind], &number.to_be_bytes()].concat()
}

/// An error of a row of the index.
pub(super) fn damaged(what: String) -> RowsError {
    RowsError::Damaged { path: "views".into(), what: format!("view seen: {what}") }
}

/// What the manifest says of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) id: u64,
    pub(super) entries: u64,
}

impl Extent {
    pub(super) fn parts(self) -> u64 {
        self.entries.div_ceil(PART_ENTRIES as u64)
    }

    pub(super) fn part_key(self, number: u64) -> Vec<u8> {
        key(self.id, PART, number)
    }

    /// How many of its entries are from `from` on, where no more than `most` lie together.
    fn entries_from(self, from: u64, most: usize) -> usize {
        self.entries.saturating_sub(from).min(most as u64) as usize
    }

    pub(super) fn chunk(self, rows: &dyn Rows, number: u64) -> Result<Vec<u8>, RowsError> {
        let bytes = rows.get(Table::Seen, &key(self.id, CHUNK, number))?.unwrap_or_default();
        let expected = ENTRY_BYTES * self.entries_from(number * CHUNK_ENTRIES as u64, CHUNK_ENTRIES);
        if bytes.len() == expected {
            return Ok(bytes);
        }
        Err(damaged(format!("chunk {number} of run {} has {} bytes, not {expected}", self.id, bytes.len())))
    }

    fn part(self, rows: &dyn Rows, number: u64) -> Result<Part, RowsError> {
        let entries = self.entries_from(number * PART_ENTRIES as u64, PART_ENTRIES);
        let bytes = rows.get(Table::Seen, &self.part_key(number))?.unwrap_or_default();
        let damage = || damaged(format!("part {number} of run {} is not one of {entries} entries", self.id));
        Part::decode(&bytes, entries).ok_or_else(damage)
    }
}

pub(super) struct Part {
    /// What each chunk begins with.
    starts: Box<[Prefix]>,
    filter: Filter,
}

impl Part {
    pub(super) fn of(entries: &[Entry]) -> Part {
        let starts = entries.iter().step_by(CHUNK_ENTRIES).map(|entry| entry.prefix()).collect();
        Part { starts, filter: Filter::of(entries) }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.starts.iter().flat_map(|start| start.to_bytes()).collect();
        self.filter.encode_into(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8], entries: usize) -> Option<Part> {
        let (starts, filter) = bytes.split_at_checked(entries.div_ceil(CHUNK_ENTRIES) * PREFIX_BYTES)?;
        let starts = starts.as_chunks().0.iter().map(Prefix::from_bytes).collect();
        Some(Part { starts, filter: Filter::decode(filter, entries)? })
    }
}

/// A run, and what of it is in memory.
pub(super) struct Run {
    pub(super) extent: Extent,
    /// What each part begins with.
    starts: Vec<Prefix>,
    parts: Vec<Part>,
}

impl Run {
    pub(super) fn empty(id: u64) -> Run {
        Run { extent: Extent { id, entries: 0 }, starts: Vec::new(), parts: Vec::new() }
    }

    pub(super) fn load(rows: &dyn Rows, extent: Extent) -> Result<Run, RowsError> {
        let parts = (0..extent.parts()).map(|number| extent.part(rows, number)).collect::<Result<Vec<_>, _>>()?;
        Ok(Run { extent, starts: parts.iter().map(|part| part.starts[0]).collect(), parts })
    }

    pub(super) fn find(&self, rows: &dyn Rows, prefix: Prefix) -> Result<Option<Sequence>, RowsError> {
        let Some(part) = self.part_of(prefix) else { return Ok(None) };
        if !self.parts[part].filter.may_hold(prefix) {
            return Ok(None);
        }
        let bytes = self.extent.chunk(rows, self.chunk_in(part, prefix))?;
        let entries = bytes.as_chunks().0;
        let at = entries.partition_point(|bytes| Entry(u128::from_be_bytes(*bytes)).prefix() < prefix);
        let entry = entries.get(at).map(|bytes| Entry(u128::from_be_bytes(*bytes)));
        Ok(entry.filter(|entry| entry.prefix() == prefix).map(Entry::sequence))
    }

    /// The chunk that holds the prefix, if one does.
    pub(super) fn chunk_of(&self, prefix: Prefix) -> Option<u64> {
        self.part_of(prefix).map(|part| self.chunk_in(part, prefix))
    }

    /// The last part that begins at the prefix or before.
    fn part_of(&self, prefix: Prefix) -> Option<usize> {
        // Prefixes are spread evenly: it is where its share of them all says, or one or two beside.
        let mut next = (prefix.share_of(self.starts.len()) + 1).min(self.starts.len());
        while self.starts.get(next).is_some_and(|start| *start <= prefix) {
            next += 1;
        }
        while next > 0 && self.starts[next - 1] > prefix {
            next -= 1;
        }
        next.checked_sub(1)
    }

    fn chunk_in(&self, part: usize, prefix: Prefix) -> u64 {
        let chunk = self.parts[part].starts.partition_point(|start| *start <= prefix) - 1;
        (part * PART_CHUNKS + chunk) as u64
    }
}

/// Writes a run part by part, from ascending entries.
pub(super) struct Builder {
    /// Those parts that are written.
    run: Run,
    part: Vec<Entry>,
}

impl Builder {
    /// Goes on with a run that ends with a full part so far.
    pub(super) fn after(run: Run) -> Builder {
        Builder { run, part: Vec::new() }
    }

    /// What is written, and stays if the rest is not.
    pub(super) fn written(&self) -> Extent {
        self.run.extent
    }

    pub(super) fn push(&mut self, writer: &mut Writer<'_>, entry: Entry) -> Result<(), RowsError> {
        self.part.push(entry);
        if self.part.len() == PART_ENTRIES { self.write_part(writer) } else { Ok(()) }
    }

    /// The run, which can be read once the writer is flushed.
    pub(super) fn finish(mut self, writer: &mut Writer<'_>) -> Result<Run, RowsError> {
        if !self.part.is_empty() {
            self.write_part(writer)?;
        }
        Ok(self.run)
    }

    fn write_part(&mut self, writer: &mut Writer<'_>) -> Result<(), RowsError> {
        let Run { extent, starts, parts } = &mut self.run;
        for (n, chunk) in self.part.chunks(CHUNK_ENTRIES).enumerate() {
            let mut bytes = Vec::with_capacity(chunk.len() * ENTRY_BYTES);
            chunk.iter().for_each(|entry| bytes.extend(entry.0.to_be_bytes()));
            let number = parts.len() * PART_CHUNKS + n;
            writer.write(Table::Seen, key(extent.id, CHUNK, number as u64), Some(bytes))?;
        }
        let part = Part::of(&self.part);
        writer.write(Table::Seen, extent.part_key(parts.len() as u64), Some(part.encode()))?;
        extent.entries += self.part.len() as u64;
        starts.push(part.starts[0]);
        parts.push(part);
        self.part.clear();
        Ok(())
    }
}
