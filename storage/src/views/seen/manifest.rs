//! The manifest: which runs there are, and which merges are under way. One row, so that it changes at once.

use super::run::{Extent, damaged};
use crate::layout::Table;
use crate::rows::{Rows, RowsError};

/// Before all runs, whose ids begin at 1.
const KEY: [u8; 8] = [0; 8];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The newest first.
    pub(super) runs: Vec<Extent>,
    pub(super) merges: Vec<Planned>,
}

/// A merge as far as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// What is written of the run that it makes: full parts.
    pub(super) target: Extent,
    pub(super) sources: Vec<u64>,
}

impl Manifest {
    pub(super) fn key() -> Vec<u8> {
        KEY.to_vec()
    }

    pub(super) fn load(rows: &dyn Rows) -> Result<Manifest, RowsError> {
        let Some(bytes) = rows.get(Table::Seen, &KEY)? else { return Ok(Manifest::default()) };
        Manifest::decode(&bytes).ok_or_else(|| damaged("the manifest is none".into()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let extent = |extent: &Extent| [extent.id, extent.entries];
        let runs = self.runs.iter().flat_map(extent);
        let merge = |merge: &Planned| {
            let counted = [&extent(&merge.target)[..], &[merge.sources.len() as u64], &merge.sources];
            counted.concat()
        };
        let numbers = [self.runs.len() as u64].into_iter().chain(runs);
        let numbers = numbers.chain([self.merges.len() as u64]).chain(self.merges.iter().flat_map(merge));
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (numbers, []) = bytes.as_chunks() else { return None };
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let mut manifest = Manifest::default();
        for _ in 0..numbers.next()? {
            manifest.runs.push(Extent { id: numbers.next()?, entries: numbers.next()? });
        }
        for _ in 0..numbers.next()? {
            let target = Extent { id: numbers.next()?, entries: numbers.next()? };
            let sources = (0..numbers.next()?).map(|_| numbers.next()).collect::<Option<_>>()?;
            manifest.merges.push(Planned { target, sources });
        }
        numbers.next().is_none().then_some(manifest)
    }
}
