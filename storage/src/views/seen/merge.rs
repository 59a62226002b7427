//! Several runs read as one, and written as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::entry::{ENTRY_BYTES, Entry, Prefix};
use super::run::{Builder, CHUNK_ENTRIES, Extent, Run};
use crate::rows::{Rows, RowsError};
use crate::views::overlay::Writer;

/// The entries of one run in order, a chunk at a time in memory.
pub(super) struct Source {
    extent: Extent,
    next: u64,
    chunk: Vec<u8>,
}

impl Source {
    pub(super) fn new(extent: Extent) -> Source {
        Source { extent, next: 0, chunk: Vec::new() }
    }

    /// What comes after `last`.
    fn after(rows: &dyn Rows, run: &Run, last: Prefix) -> Result<Source, RowsError> {
        let mut source = Source::new(run.extent);
        if let Some(number) = run.chunk_of(last) {
            source.chunk = run.extent.chunk(rows, number)?;
            source.next = number * CHUNK_ENTRIES as u64;
            let entries = source.chunk.as_chunks().0;
            let passed = entries.partition_point(|bytes| Entry(u128::from_be_bytes(*bytes)).prefix() <= last);
            source.next += passed as u64;
        }
        Ok(source)
    }

    pub(super) fn next(&mut self, rows: &dyn Rows) -> Result<Option<Entry>, RowsError> {
        if self.next == self.extent.entries {
            return Ok(None);
        }
        let at = (self.next % CHUNK_ENTRIES as u64) as usize;
        if at == 0 {
            self.chunk = self.extent.chunk(rows, self.next / CHUNK_ENTRIES as u64)?;
        }
        self.next += 1;
        Ok(Some(Entry(u128::from_be_bytes(self.chunk.as_chunks::<ENTRY_BYTES>().0[at]))))
    }
}

/// The entries of several runs in order. Of those with the same prefix, which are of one id that was applied
/// again after a crash, the one with the lowest position.
pub(super) struct Merged {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
    last: Option<Prefix>,
}

impl Merged {
    pub(super) fn new(rows: &dyn Rows, mut sources: Vec<Source>) -> Result<Merged, RowsError> {
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (n, source) in sources.iter_mut().enumerate() {
            heads.extend(source.next(rows)?.map(|entry| Reverse((entry, n))));
        }
        Ok(Merged { sources, heads, last: None })
    }

    pub(super) fn next(&mut self, rows: &dyn Rows) -> Result<Option<Entry>, RowsError> {
        while let Some(mut head) = self.heads.peek_mut() {
            let Reverse((entry, n)) = *head;
            match self.sources[n].next(rows)? {
                Some(next) => *head = Reverse((next, n)),
                None => drop(PeekMut::pop(head)),
            }
            if self.last.replace(entry.prefix()) != Some(entry.prefix()) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// A merge under way.
pub(super) struct Merge {
    /// Of what it merges.
    pub(super) tier: u32,
    pub(super) sources: Vec<u64>,
    merged: Merged,
    target: Builder,
}

impl Merge {
    /// Goes on after what is written of the target, which ends with a full part or is empty.
    pub(super) fn resume(rows: &dyn Rows, tier: u32, sources: &[&Arc<Run>], target: Run) -> Result<Merge, RowsError> {
        let mut last = None;
        if let Some(chunk) = (target.extent.entries / CHUNK_ENTRIES as u64).checked_sub(1) {
            let bytes = target.extent.chunk(rows, chunk)?;
            last = bytes.last_chunk().map(|bytes| Entry(u128::from_be_bytes(*bytes)).prefix());
        }
        let source = |run: &&Arc<Run>| match last {
            Some(last) => Source::after(rows, run, last),
            None => Ok(Source::new(run.extent)),
        };
        let merged = Merged::new(rows, sources.iter().map(source).collect::<Result<_, _>>()?)?;
        let sources = sources.iter().map(|run| run.extent.id).collect();
        Ok(Merge { tier, sources, merged, target: Builder::after(target) })
    }

    /// What is written of the target.
    pub(super) fn written(&self) -> Extent {
        self.target.written()
    }

    /// Merges as many entries, and says whether there are more.
    pub(super) fn advance(&mut self, writer: &mut Writer<'_>, work: &mut u64) -> Result<bool, RowsError> {
        while *work > 0 {
            let Some(entry) = self.merged.next(writer.rows)? else { return Ok(false) };
            self.target.push(writer, entry)?;
            *work -= 1;
        }
        Ok(true)
    }

    pub(super) fn finish(self, writer: &mut Writer<'_>) -> Result<Run, RowsError> {
        self.target.finish(writer)
    }
}
