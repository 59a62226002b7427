//! Comparing: how ids are spread over runs depends on when they were written, which ids there are does not.

use super::entry::Entry;
use super::manifest::Manifest;
use super::merge::{Merged, Source};
use super::run::{Extent, PART_ENTRIES, Part};
use crate::layout::Table;
use crate::rows::{Rows, RowsError};
use crate::views::verify::Difference;

fn differs(key: &[u8], what: &'static str) -> Difference {
    Difference { table: Table::Seen, key: key.iter().map(|b| format!("{b:02x}")).collect(), what }
}

/// Compares the ids of both, and what finds those that are stored with what it is made of. Gives the number of
/// ids, or the first difference.
pub(in crate::views) fn compare(stored: &dyn Rows, folded: &dyn Rows) -> Result<Result<u64, Difference>, RowsError> {
    for run in Manifest::load(stored)?.runs {
        if let Err(difference) = check(stored, run)? {
            return Ok(Err(difference));
        }
    }
    let (mut left, mut right) = (all(stored)?, all(folded)?);
    let mut compared = 0;
    loop {
        let (entry, what) = match (left.next(stored)?, right.next(folded)?) {
            (None, None) => return Ok(Ok(compared)),
            (Some(l), Some(r)) if l == r => {
                compared += 1;
                continue;
            }
            (Some(l), Some(r)) if l.prefix() == r.prefix() => (l, "differs from what the journal comes to"),
            (Some(l), Some(r)) if l > r => (r, "is missing, the journal has it"),
            (None, Some(r)) => (r, "is missing, the journal has it"),
            (Some(l), _) => (l, "is stored, but the journal does not have it"),
        };
        return Ok(Err(differs(&entry.prefix().to_bytes(), what)));
    }
}

fn all(rows: &dyn Rows) -> Result<Merged, RowsError> {
    Merged::new(rows, Manifest::load(rows)?.runs.into_iter().map(Source::new).collect())
}

/// Whether a run's entries ascend and its parts lead to them: an id that is there but not found would be taken
/// again.
fn check(rows: &dyn Rows, run: Extent) -> Result<Result<(), Difference>, RowsError> {
    let mut source = Source::new(run);
    let mut last: Option<Entry> = None;
    for number in 0..run.parts() {
        let mut entries = Vec::with_capacity(PART_ENTRIES);
        while entries.len() < PART_ENTRIES
            && let Some(entry) = source.next(rows)?
        {
            if last.replace(entry).is_some_and(|last| last.prefix() >= entry.prefix()) {
                return Ok(Err(differs(&entry.prefix().to_bytes(), "is not in its order")));
            }
            entries.push(entry);
        }
        let key = run.part_key(number);
        if rows.get(Table::Seen, &key)?.unwrap_or_default() != Part::of(&entries).encode() {
            return Ok(Err(differs(&key, "does not lead to its ids")));
        }
    }
    Ok(Ok(()))
}
