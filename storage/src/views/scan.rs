//! Lists: rows on disk with the overlays laid over them.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use punchline_engine::dispatch::DeliveryRow;
use punchline_engine::id::{MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::member::Member;
use uuid::Uuid;

use super::{ENTRIES_PER_CHUNK, Views, ViewsError, damaged, keys};
use crate::codec;
use crate::layout::Table;
use crate::rows::{Row, Rows, RowsError};

/// Rows read at once.
const PAGE_ROWS: usize = 512;

/// All rows of a small table.
pub(super) fn all(rows: &dyn Rows, table: Table) -> Result<Vec<Row>, RowsError> {
    let mut found = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = rows.scan(table, &from, PAGE_ROWS)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        from = [last, &[0][..]].concat();
        found.extend(page);
    }
}

impl Views {
    /// Members of a tenant in order of their ids, from the one after `after`: a slice of a walk over all of them,
    /// which costs as much wherever it is.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read.
    pub fn members(&self, tenant: Tenant, after: Option<MemberId>, limit: usize) -> Result<Vec<Member>, ViewsError> {
        let prefix = tenant.to_key();
        let from = after.map_or(prefix.to_vec(), |id| [&keys::member(tenant, id)[..], &[0]].concat());
        let mut slice: BTreeMap<MemberId, Option<Row>> = BTreeMap::new();
        for row in self.rows.scan(Table::Members, &from, limit)? {
            let Some(id) = row.0.strip_prefix(&prefix).and_then(keys::parse_member_id) else { break };
            slice.insert(id, Some(row));
        }
        let start = after.map_or(Included((tenant, MemberId(Uuid::nil()))), |id| Excluded((tenant, id)));
        for overlay in self.frozen.iter().map(|f| &**f).chain([&self.active]) {
            let newer = overlay.member_keys.range((start, Unbounded)).take_while(|(of, _)| *of == tenant);
            slice.extend(newer.take(limit).map(|(_, id)| (*id, None)));
        }
        let member = |(id, row): (MemberId, Option<Row>)| match row {
            Some((key, row)) => codec::decode_member(&row, &self.keys).map_err(damaged(Table::Members, &key)),
            None => Ok(self.in_memory(&(tenant, id)).expect("the overlays have it").clone()),
        };
        slice.into_iter().take(limit).map(member).collect()
    }

    /// Positions of a member's ledger entries, newest first, from before `before`.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read.
    pub fn entries(
        &mut self,
        tenant: Tenant,
        id: MemberId,
        before: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<Sequence>, ViewsError> {
        let Some(member) = self.member(tenant, id)? else { return Ok(Vec::new()) };
        let wanted = |s: &Sequence| before.is_none_or(|before| *s < before);
        let mut chunks = (member.entries as usize - member.entries_tail.len()) / ENTRIES_PER_CHUNK;
        let mut found: Vec<Sequence> = member.entries_tail.iter().rev().copied().filter(wanted).collect();
        while found.len() < limit && chunks > 0 {
            chunks -= 1;
            let chunk = self.row(Table::Ledger, &keys::chunk(tenant, id, chunks as u32))?.unwrap_or_default();
            let positions = chunk.chunks_exact(8).rev().map(|b| Sequence(keys::read_u64(Some(b.to_vec()))));
            found.extend(positions.filter(wanted));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// One delivery that departed.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if its row cannot be read.
    pub fn delivery_row(&self, id: SubscriptionId, sequence: Sequence) -> Result<Option<DeliveryRow>, ViewsError> {
        let key = keys::delivery(id, sequence);
        let row = self.row(Table::Deliveries, &key)?;
        row.map(|row| codec::decode_delivery_row(&row).map_err(damaged(Table::Deliveries, &key))).transpose()
    }

    /// Deliveries of one subscription that departed, in order, from `from` on.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read.
    pub fn delivery_rows(
        &self,
        id: SubscriptionId,
        from: Sequence,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>, ViewsError> {
        let prefix = id.0.as_bytes();
        let rows = self.merged(Table::Deliveries, keys::delivery(id, from), |key| key.starts_with(prefix), limit)?;
        rows.iter().map(|(key, row)| codec::decode_delivery_row(row).map_err(damaged(Table::Deliveries, key))).collect()
    }

    /// Rows that are kept as bytes, from `from` on, up to the first that is not `within`.
    pub(super) fn merged(
        &self,
        table: Table,
        from: Vec<u8>,
        within: impl Fn(&[u8]) -> bool,
        limit: usize,
    ) -> Result<Vec<Row>, ViewsError> {
        let start = (table, from);
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let overlays: Vec<_> = self.frozen.iter().map(|f| &**f).chain([&self.active]).collect();
        let is_changed = |key: &Vec<u8>| overlays.iter().any(|o| o.rows.contains_key(&(table, key.clone())));
        // Rows that an overlay deletes must not count, so pages are read until enough remain.
        let mut at = start.1.clone();
        loop {
            let page = self.rows.scan(table, &at, PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { break };
            at = [last, &[0][..]].concat();
            let ended = page.len() < PAGE_ROWS || !within(last);
            found.extend(page.into_iter().filter(|(key, _)| within(key) && !is_changed(key)));
            if ended || found.len() >= limit {
                break;
            }
        }
        for overlay in &overlays {
            for ((of, key), value) in overlay.rows.range(start.clone()..) {
                if *of != table || !within(key) {
                    break;
                }
                match value {
                    Some(value) => found.insert(key.clone(), value.clone()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    pub(super) fn row(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        let key = (table, key.to_vec());
        let frozen = || self.frozen.as_ref().and_then(|f| f.rows.get(&key));
        match self.active.rows.get(&key).or_else(frozen) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.rows.get(table, &key.1)?),
        }
    }
}
