//! The exactly-once index: where each id was used up, for ever.
//!
//! ```text
//! overlay ──write_behind──▶ run ─┐
//!                           run ─┼─ merge ─▶ run ─┐
//!                           run ─┘           run ─┼─ merge ─▶ …
//! look up:  runs, the newest first: filter (in memory) → one chunk (a row)
//! ```
//!
//! An overlay's ids become one sorted run. Runs of about one size (a tier) are merged into one of the next, so
//! an id is written once for each tier, and their number grows with the logarithm of the number of ids. Of a
//! run only its filter and where its chunks begin are in memory: about two bytes an id.
//!
//! # Invariants
//!
//! - A run never changes. Which runs there are is one row, the manifest, written after the rows of the runs that
//!   it is the first to list and before the checkpoint.
//! - An id up to the checkpoint is in a run that the manifest lists. Ids after it may be too, and are applied
//!   again with the same position.
//! - Writing n ids merges at most some multiple of n, which grows with the number of tiers, so nothing ever
//!   waits for a large merge. The smallest merge goes first: the larger ones are in nobody's way.
//! - The rows of a run that was merged are deleted by a later call than the one that replaced it. Between the
//!   two [`Views::written`](super::Views::written) takes over the new list, so nobody looks into a run that is
//!   being deleted: only the owner of the views looks ids up, and it alone freezes overlays.
//! - Rows of runs that are not listed, which a crash left, are deleted the same way, and ids of runs that have
//!   rows are not given again.
//!
//! # What is absent on purpose
//!
//! - Locks in look-ups: the list of runs is immutable, and replaced.
//! - A second writer. What another one wrote in between is noticed, and taken over.

mod entry;
mod filter;
mod manifest;
mod merge;
mod run;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use punchline_engine::id::Sequence;

use super::keys::Hash;
use super::overlay::Writer;
use crate::layout::Table;
use crate::rows::{Rows, RowsError};
use entry::{Entry, Prefix};
use manifest::{Manifest, Planned};
use merge::Merge;
use run::{Builder, CHUNK_ENTRIES, Extent, PART_ENTRIES, Run, damaged};

pub(super) use verify::compare;

/// Runs of one tier that are merged. Fewer would write more, more would be asked for each id.
const FANOUT: usize = 4;
/// Most runs merged at once, where they have piled up behind a merge of their tier.
const MERGED_MAX: usize = 2 * FANOUT;
/// Runs of fewer entries are of the lowest tier.
const TIER_ENTRIES: u64 = 1024;
/// Entries merged in any case: more than all that one merge of the lowest tier can have.
const WORK_MIN: u64 = PART_ENTRIES as u64;
const _: () = assert!(WORK_MIN >= MERGED_MAX as u64 * TIER_ENTRIES);
/// Rows deleted in any case.
const DELETED_MIN: u64 = 64;
/// Rows looked at for deletion at once.
const PAGE_ROWS: usize = 16;

fn tier(entries: u64) -> u32 {
    (entries / TIER_ENTRIES).checked_ilog(FANOUT as u64).map_or(0, |tiers| tiers + 1)
}

/// The runs there are, the newest first.
#[derive(Clone, Default)]
pub(super) struct Runs(Arc<[Arc<Run>]>);

impl Runs {
    /// Where the id with this hash was used up.
    pub(super) fn find(&self, rows: &dyn Rows, hash: &Hash) -> Result<Option<Sequence>, RowsError> {
        let prefix = Prefix::of(hash);
        for run in &*self.0 {
            if let Some(sequence) = run.find(rows, prefix)? {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }
}

/// The index as who writes it knows it.
#[derive(Default)]
pub(super) struct SeenIndex {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runs: Runs,
    /// `None` until the first write, and after one that failed: then what is on disk counts.
    writing: Option<Writing>,
}

/// What is known besides the runs.
struct Writing {
    manifest: Manifest,
    merges: Vec<Merge>,
    next_run: u64,
    /// Runs that the last write replaced, or that were found and nobody lists.
    retired: Vec<u64>,
    /// Runs that nobody reads any more.
    doomed: VecDeque<u64>,
}

impl SeenIndex {
    /// Reads what is kept in memory. Writes nothing: others may be at the rows.
    pub(super) fn open(rows: &dyn Rows) -> Result<SeenIndex, RowsError> {
        let (runs, _) = Writing::load(rows, &Runs::default())?;
        Ok(SeenIndex { state: Mutex::new(State { runs, writing: None }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runs as of the last write.
    pub(super) fn runs(&self) -> Runs {
        self.state().runs.clone()
    }

    /// Writes the ids as a run, then merges and deletes as much as they call for, then the manifest.
    pub(super) fn write(&self, writer: &mut Writer<'_>, ids: &HashMap<Hash, Sequence>) -> Result<(), RowsError> {
        let mut state = self.state();
        let stored = Manifest::load(writer.rows)?;
        let mut writing = match state.writing.take().filter(|writing| writing.manifest == stored) {
            Some(mut writing) => {
                writing.doomed.extend(writing.retired.drain(..));
                writing
            }
            None => {
                let (runs, mut writing) = Writing::load(writer.rows, &state.runs)?;
                writing.resume(writer.rows, &runs)?;
                state.runs = runs;
                writing
            }
        };
        let mut runs = state.runs.0.to_vec();
        let new = ids.len() as u64;
        // Each entry has these tiers before it, and two to spare, or the largest merge would hardly get on.
        let tiers = runs.iter().map(|run| tier(run.extent.entries)).max().unwrap_or(0).saturating_sub(tier(new)) + 3;
        let work = new * u64::from(tiers) + WORK_MIN;
        if new > 0 {
            runs.insert(0, Arc::new(writing.write_run(writer, ids)?));
        }
        writing.merge(writer, &mut runs, work)?;
        writing.delete(writer, DELETED_MIN + 2 * (new + work) / CHUNK_ENTRIES as u64)?;
        writing.list(writer, &runs)?;
        *state = State { runs: Runs(runs.into()), writing: Some(writing) };
        Ok(())
    }
}

impl Writing {
    /// What is on disk; runs that are `known` are not read again.
    fn load(rows: &dyn Rows, known: &Runs) -> Result<(Runs, Writing), RowsError> {
        let manifest = Manifest::load(rows)?;
        let load = |extent: &Extent| match known.0.iter().find(|run| run.extent == *extent) {
            Some(run) => Ok(run.clone()),
            None => Run::load(rows, *extent).map(Arc::new),
        };
        let runs = Runs(manifest.runs.iter().map(load).collect::<Result<_, _>>()?);
        let listed = manifest.runs.iter().chain(manifest.merges.iter().map(|merge| &merge.target));
        let listed: BTreeSet<u64> = listed.map(|extent| extent.id).collect();
        let mut next_run = listed.last().map_or(1, |last| last + 1);
        let mut retired = Vec::new();
        let mut from = 1u64;
        while let Some((key, _)) = rows.scan(Table::Seen, &from.to_be_bytes(), 1)?.pop() {
            let run = key.first_chunk().map(|id| u64::from_be_bytes(*id));
            let run = run.ok_or_else(|| damaged(format!("a key of {} bytes is no run's", key.len())))?;
            if !listed.contains(&run) {
                retired.push(run);
            }
            from = run + 1;
            next_run = next_run.max(from);
        }
        let writing = Writing { manifest, merges: Vec::new(), next_run, retired, doomed: VecDeque::new() };
        Ok((runs, writing))
    }

    /// Takes up the merges that the manifest lists.
    fn resume(&mut self, rows: &dyn Rows, runs: &Runs) -> Result<(), RowsError> {
        for Planned { target, sources } in &self.manifest.merges {
            let found: Vec<_> = runs.0.iter().filter(|run| sources.contains(&run.extent.id)).collect();
            let tier = found.iter().map(|run| tier(run.extent.entries)).max();
            let tier = tier.filter(|_| found.len() == sources.len());
            let tier = tier.ok_or_else(|| damaged(format!("run {} is made of runs that are not there", target.id)))?;
            self.merges.push(Merge::resume(rows, tier, &found, Run::load(rows, *target)?)?);
        }
        Ok(())
    }

    fn new_run(&mut self) -> Run {
        self.next_run += 1;
        Run::empty(self.next_run - 1)
    }

    fn write_run(&mut self, writer: &mut Writer<'_>, ids: &HashMap<Hash, Sequence>) -> Result<Run, RowsError> {
        let mut entries: Vec<Entry> = ids.iter().map(|(hash, sequence)| Entry::new(hash, *sequence)).collect();
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.prefix());
        let mut builder = Builder::after(self.new_run());
        entries.into_iter().try_for_each(|entry| builder.push(writer, entry))?;
        builder.finish(writer)
    }

    /// Merges `work` entries, those of the lowest tier first.
    fn merge(&mut self, writer: &mut Writer<'_>, runs: &mut Vec<Arc<Run>>, mut work: u64) -> Result<(), RowsError> {
        while work > 0 {
            // What was written just now is read from now on.
            writer.flush()?;
            self.begin_merges(writer.rows, runs)?;
            let Some(next) = (0..self.merges.len()).min_by_key(|n| self.merges[*n].tier) else { break };
            if self.merges[next].advance(writer, &mut work)? {
                continue;
            }
            let mut merge = self.merges.swap_remove(next);
            self.retired.append(&mut merge.sources);
            let target = Arc::new(merge.finish(writer)?);
            let is_source = |run: &Arc<Run>| self.retired.contains(&run.extent.id);
            // As old as the newest of its sources: what was used up last is looked for most.
            let at = runs.iter().position(is_source).expect("runs that are merged stay until then");
            runs.retain(|run| !is_source(run));
            runs.insert(at, target);
        }
        Ok(())
    }

    fn begin_merges(&mut self, rows: &dyn Rows, runs: &[Arc<Run>]) -> Result<(), RowsError> {
        let mut idle: Vec<Vec<&Arc<Run>>> = Vec::new();
        for run in runs.iter().filter(|run| !self.merges.iter().any(|merge| merge.sources.contains(&run.extent.id))) {
            let tier = tier(run.extent.entries) as usize;
            idle.resize(idle.len().max(tier + 1), Vec::new());
            idle[tier].push(run);
        }
        for (tier, sources) in (0..).zip(idle) {
            let is_busy = self.merges.iter().any(|merge| merge.tier == tier);
            if sources.len() >= FANOUT && !is_busy {
                // The oldest ones: the list has them last.
                let sources = &sources[sources.len().saturating_sub(MERGED_MAX)..];
                let target = self.new_run();
                self.merges.push(Merge::resume(rows, tier, sources, target)?);
            }
        }
        Ok(())
    }

    /// Deletes `most` rows of runs that nobody reads, or a few more.
    fn delete(&mut self, writer: &mut Writer<'_>, most: u64) -> Result<(), RowsError> {
        let mut deleted = 0;
        while let Some(run) = self.doomed.front().copied().filter(|_| deleted < most) {
            let mut from = run.to_be_bytes().to_vec();
            while deleted < most {
                let mut page = writer.rows.scan(Table::Seen, &from, PAGE_ROWS)?;
                page.retain(|(key, _)| key.starts_with(&run.to_be_bytes()));
                let Some((last, _)) = page.last() else {
                    self.doomed.pop_front();
                    break;
                };
                from = [&last[..], &[0]].concat();
                deleted += page.len() as u64;
                page.into_iter().try_for_each(|(key, _)| writer.write(Table::Seen, key, None))?;
            }
        }
        Ok(())
    }

    fn list(&mut self, writer: &mut Writer<'_>, runs: &[Arc<Run>]) -> Result<(), RowsError> {
        let planned = |merge: &Merge| Planned { target: merge.written(), sources: merge.sources.clone() };
        let manifest = Manifest {
            runs: runs.iter().map(|run| run.extent).collect(),
            merges: self.merges.iter().map(planned).collect(),
        };
        if manifest != self.manifest {
            writer.write(Table::Seen, Manifest::key(), Some(manifest.encode()))?;
            self.manifest = manifest;
        }
        writer.flush()
    }
}
