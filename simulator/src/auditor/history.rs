//! The journal and the views of a disk, read from the beginning.

use std::collections::BTreeMap;
use std::sync::Arc;

use punchline_engine::event::Record;
use punchline_engine::id::Tenant;
use punchline_runtime::feed::decode;
use punchline_runtime::sequencer::fold;
use punchline_runtime::verify::verify;
use punchline_storage::journal::Journal;
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::memory::MemoryDisk;
use punchline_storage::rows::Rows;
use punchline_storage::views::{Views, checkpoint, write_behind};

/// All that is on a disk.
pub struct History {
    /// Last position.
    pub head: u64,
    /// By the position of their first event.
    pub records: BTreeMap<u64, Record>,
    /// Where each key was used up.
    pub keys: BTreeMap<(Tenant, String), u64>,
    /// The views, recovered.
    pub views: Views,
    /// Compared with a fold from the beginning.
    pub rows_compared: u64,
    member_keys: Arc<MemberKeys>,
}

impl History {
    /// Recovers the disk as a start would, reads it, and compares the views with what the journal comes to.
    pub fn read(disk: &MemoryDisk) -> Result<History, String> {
        let text = |what: &str, error: &dyn std::fmt::Display| format!("G9: {what}: {error}");
        let (rows, member_keys): (Arc<dyn Rows>, _) = (Arc::new(disk.rows()), Arc::new(disk.member_keys()));
        let checkpoint = checkpoint(&*rows).map_err(|e| text("the views do not open", &e))?;
        let (journal, report) = disk.journal(checkpoint.0).map_err(|e| text("the journal does not open", &e))?;
        if report.head < checkpoint.0 {
            return Err(format!("G2: the views are at {checkpoint}, the journal ends at {}", report.head));
        }
        let (records, keys) = read(&journal, &member_keys)?;
        let folded = fold(&journal, rows.clone(), &member_keys, 1_000, usize::MAX);
        let (mut views, _) = folded.map_err(|e| text("the views do not fold", &e))?;
        if let Some(overlay) = views.freeze() {
            write_behind(&*rows, &member_keys, &overlay, || {}).map_err(|e| text("the views cannot be written", &e))?;
            drop(overlay);
            views.written();
        }
        let fresh: Arc<dyn Rows> = Arc::new(MemoryDisk::new().rows());
        let verified = verify(&journal, &rows, &member_keys, &fresh, &mut |_, _| {});
        let verified = verified.map_err(|e| text("it cannot be verified", &e))?;
        match verified.difference {
            Some(difference) => Err(format!("G8: {difference}")),
            None => Ok(History { head: report.head, records, keys, views, rows_compared: verified.rows, member_keys }),
        }
    }

    /// Whether a record is what was acknowledged: personal fields may be gone with their key.
    pub fn is_same(&self, acknowledged: &Record, found: &Record) -> bool {
        let erased = || self.member_keys.is_destroyed(acknowledged.key_slot).unwrap_or(false);
        acknowledged == found || erased() && acknowledged.impersonal().as_ref() == Some(found)
    }
}

type Records = (BTreeMap<u64, Record>, BTreeMap<(Tenant, String), u64>);

/// Reads the journal; checks positions, times and keys.
fn read(journal: &dyn Journal, member_keys: &MemberKeys) -> Result<Records, String> {
    let (mut records, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let (mut next, mut last_time) = (1, None);
    while next <= journal.head() {
        let block = journal.read(next).map_err(|e| format!("G9: the journal cannot be read: {e}"))?;
        let block = block.ok_or_else(|| format!("G2: the journal has nothing at {next}"))?;
        for (first, events, bytes) in block.records() {
            let record = decode(first, bytes, member_keys).map_err(|e| format!("G9: {e}"))?;
            if first != next || record.events.len() != events as usize || events == 0 {
                return Err(format!("G3: a record of {events} events at {first}, not at {next}"));
            }
            if last_time > Some(record.time) {
                return Err(format!("G8: time goes back at {first}, to {}", record.time.0));
            }
            last_time = Some(record.time);
            let key = record.key.as_ref().map(|key| (record.tenant, format!("{key:?}")));
            if let Some(before) = key.and_then(|key| keys.insert(key, first)) {
                return Err(format!("G1: {:?} is at {before} and again at {first}", record.key));
            }
            next = first + u64::from(events);
            records.insert(first, record);
        }
    }
    Ok((records, keys))
}
