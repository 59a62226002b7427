//! What is newer than the rows on disk, and how it gets there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use punchline_engine::dispatch::DeliveryState;
use punchline_engine::id::{KeySlot, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::ledger::House;
use punchline_engine::loyalty::member::Member;
use punchline_engine::planted::{Bug, is_planted};

use super::keys::{self, Hash, MemberKey};
use super::seen::SeenIndex;
use crate::codec;
use crate::layout::Table;
use crate::member_keys::MemberKeys;
use crate::rows::{RowChange, Rows, RowsError};

/// Rows written between two pauses: about a millisecond of work.
const SLICE_ROWS: usize = 256;
/// Bytes written between two pauses, where rows are large.
const SLICE_BYTES: usize = 64 * 1024;

/// Changes since a freeze.
#[derive(Default)]
pub struct Overlay {
    /// Boxed, since they move from map to map.
    pub(super) members: HashMap<MemberKey, Box<Member>>,
    /// Their keys, for lists.
    pub(super) member_keys: BTreeSet<MemberKey>,
    pub(super) identifiers: HashMap<Hash, Option<MemberId>>,
    pub(super) seen: HashMap<Hash, Sequence>,
    /// Where they go.
    pub(super) index: Arc<SeenIndex>,
    /// Rows that are kept as bytes: ledger chunks, configuration, deliveries, items, deadlines.
    pub(super) rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Which houses changed.
    pub(super) houses: BTreeSet<Tenant>,
    /// Which subscriptions' delivery states changed.
    pub(super) cursors: BTreeSet<SubscriptionId>,
    /// Position of the last event in it.
    pub(super) upto: Sequence,
    /// The last slot that a member's key has.
    pub(super) key_slot: KeySlot,
    /// Keys of members that were erased.
    pub(super) to_destroy: BTreeSet<KeySlot>,
    captured: Vec<(Table, RowChange)>,
}

impl Overlay {
    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert((table, key), Some(value));
    }

    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.rows.insert((table, key), None);
    }

    pub(super) fn put_member(&mut self, key: MemberKey, member: Box<Member>) {
        self.members.insert(key, member);
        self.member_keys.insert(key);
    }

    pub(super) fn len(&self) -> usize {
        // An id costs a twentieth of a member.
        self.members.len() + self.rows.len() + (self.identifiers.len() + self.seen.len()) / 20
    }

    /// Takes the small aggregates that changed as they are now.
    pub(super) fn capture(
        &mut self,
        houses: &BTreeMap<Tenant, House>,
        deliveries: &BTreeMap<SubscriptionId, DeliveryState>,
    ) {
        for tenant in &self.houses {
            let value = houses.get(tenant).map(codec::encode_house);
            self.captured.push((Table::Houses, (tenant.to_key().to_vec(), value)));
        }
        for id in &self.cursors {
            let value = deliveries.get(id).map(codec::encode_delivery_state);
            self.captured.push((Table::Cursors, (id.0.as_bytes().to_vec(), value)));
        }
    }
}

/// Writes a frozen overlay to `rows`, then the checkpoint, each synced; `pause` is called between slices,
/// so that a large overlay never holds up the commits beside it. Between the two, the keys of members that it
/// erases are destroyed: rows that hold nothing of them any more are on disk then, and no checkpoint ever
/// comes after an erasure whose key is there.
///
/// # Errors
///
/// [`RowsError`] if the store fails. The checkpoint stays where it was then.
pub fn write_behind(
    rows: &dyn Rows,
    member_keys: &MemberKeys,
    overlay: &Overlay,
    mut pause: impl FnMut(),
) -> Result<(), RowsError> {
    if is_planted(Bug::CheckpointFirst) {
        write_checkpoint(rows, overlay)?;
    }
    let mut writer = Writer::new(rows, &mut pause);
    // What others refer to comes first: see the invariants of the parent module.
    for ((table, key), value) in &overlay.rows {
        writer.write(*table, key.clone(), value.clone())?;
    }
    let mut identifiers: Vec<_> = overlay.identifiers.iter().collect();
    identifiers.sort_unstable();
    for (key, owner) in identifiers {
        writer.write(Table::Identifiers, key.to_vec(), owner.map(|id| id.0.as_bytes().to_vec()))?;
    }
    overlay.index.write(&mut writer, &overlay.seen)?;
    for key @ (tenant, id) in &overlay.member_keys {
        let row = codec::encode_member(&overlay.members[key], member_keys).map_err(RowsError::from_keys)?;
        writer.write(Table::Members, keys::member(*tenant, *id), Some(row))?;
    }
    for (table, (key, value)) in &overlay.captured {
        writer.write(*table, key.clone(), value.clone())?;
    }
    writer.flush()?;
    rows.sync()?;
    for slot in &overlay.to_destroy {
        member_keys.destroy(*slot).map_err(RowsError::from_keys)?;
    }
    write_checkpoint(rows, overlay)
}

fn write_checkpoint(rows: &dyn Rows, overlay: &Overlay) -> Result<(), RowsError> {
    let version = super::FORMAT_VERSION.to_be_bytes().to_vec();
    let checkpoint = overlay.upto.0.to_be_bytes().to_vec();
    let key_slot = overlay.key_slot.0.to_be_bytes().to_vec();
    let meta = [(keys::FORMAT, version), (keys::KEY_SLOT, key_slot), (keys::CHECKPOINT, checkpoint)];
    let meta = meta.map(|(key, value)| (key.to_vec(), Some(value)));
    rows.write(Table::Meta, &meta)?;
    rows.sync()
}

/// Writes rows in slices.
pub(super) struct Writer<'a> {
    pub(super) rows: &'a dyn Rows,
    slice: Vec<RowChange>,
    slice_bytes: usize,
    table: Table,
    pause: &'a mut dyn FnMut(),
}

impl<'a> Writer<'a> {
    pub(super) fn new(rows: &'a dyn Rows, pause: &'a mut dyn FnMut()) -> Self {
        Writer { rows, slice: Vec::with_capacity(SLICE_ROWS), slice_bytes: 0, table: Table::Meta, pause }
    }

    pub(super) fn write(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), RowsError> {
        if table != self.table || self.slice.len() >= SLICE_ROWS || self.slice_bytes >= SLICE_BYTES {
            self.flush()?;
            self.table = table;
        }
        self.slice_bytes += value.as_ref().map_or(0, Vec::len);
        self.slice.push((key, value));
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), RowsError> {
        if !self.slice.is_empty() {
            self.rows.write(self.table, &self.slice)?;
            self.slice.clear();
            self.slice_bytes = 0;
            (self.pause)();
        }
        Ok(())
    }
}
