//! What has a row of its own: redemptions, coupons, obligations; and the deadlines of holds.
//!
//! # Invariants
//!
//! - There is a deadline for each hold that a member has. It is put and deleted as the member's holds change,
//!   so an event that the member's row holds already changes none.

use punchline_engine::event::{Event, Recorded};
use punchline_engine::id::{CouponBookId, MemberId, Tenant};
use punchline_engine::loyalty::item::{self, Item, ItemKey};
use punchline_engine::loyalty::member::Member;
use punchline_engine::loyalty::reward;
use punchline_engine::time::UnixMillis;

use super::{Views, ViewsError, damaged, keys};
use crate::codec;
use crate::layout::Table;

/// Items that are listed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemList {
    /// All of a tenant, by their ids.
    Redemptions,
    /// Those of a book, by their codes.
    Coupons(CouponBookId),
    /// All of a tenant, by their ids.
    Obligations,
}

/// A hold that is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueHold {
    /// Since when.
    pub until: UnixMillis,
    /// Whose programme.
    pub tenant: Tenant,
    /// Whose.
    pub member_id: MemberId,
    /// Which.
    pub hold_id: String,
}

impl Views {
    /// A redemption, a coupon, an obligation, if there is one.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if its row cannot be read.
    pub fn item(&self, tenant: Tenant, key: &ItemKey) -> Result<Option<Item>, ViewsError> {
        let key = keys::item(tenant, key);
        let row = self.row(Table::Items, &key)?;
        row.map(|row| codec::decode_item(&row).map_err(damaged(Table::Items, &key))).transpose()
    }

    /// Items in order of their keys, from the one after `after`.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read.
    pub fn items(
        &self,
        tenant: Tenant,
        list: &ItemList,
        after: Option<&ItemKey>,
        limit: usize,
    ) -> Result<Vec<Item>, ViewsError> {
        let prefix = keys::items(tenant, list);
        let from = after.map_or_else(|| prefix.clone(), |after| [&keys::item(tenant, after)[..], &[0]].concat());
        let rows = self.merged(Table::Items, from, |key| key.starts_with(&prefix), limit)?;
        rows.iter().map(|(key, row)| codec::decode_item(row).map_err(damaged(Table::Items, key))).collect()
    }

    /// Holds that end at `now` or did before, of all tenants, the earliest first.
    ///
    /// # Errors
    ///
    /// [`ViewsError`] if a row cannot be read.
    pub fn due_holds(&self, now: UnixMillis, limit: usize) -> Result<Vec<DueHold>, ViewsError> {
        let due = keys::deadline_at(now);
        let rows = self.merged(Table::Deadlines, Vec::new(), |key| key.get(..8) <= Some(&due), limit)?;
        Ok(rows.iter().filter_map(|(key, _)| keys::parse_deadline(key)).collect())
    }

    /// Folds an event into the items that it changes.
    pub(super) fn apply_items(&mut self, recorded: &Recorded<'_>) -> Result<(), ViewsError> {
        for (nth, key) in item::keys(recorded.event).into_iter().enumerate() {
            let before = self.item(recorded.tenant, &key)?;
            if let Some(item) = item::apply((nth, &key), before, recorded) {
                self.active.put(Table::Items, keys::item(recorded.tenant, &key), codec::encode_item(&item));
            }
        }
        Ok(())
    }

    /// Follows a change of a member's hold, which ended at `before`, with its deadline.
    pub(super) fn move_deadline(
        &mut self,
        (tenant, member_id): keys::MemberKey,
        hold_id: String,
        before: Option<UnixMillis>,
        after: Option<UnixMillis>,
    ) {
        if before == after {
            return;
        }
        let key = |until| keys::deadline(&DueHold { until, tenant, member_id, hold_id: hold_id.clone() });
        if let Some(key) = before.map(key) {
            self.active.delete(Table::Deadlines, key);
        }
        if let Some(key) = after.map(key) {
            self.active.put(Table::Deadlines, key, Vec::new());
        }
    }
}

/// The hold that an event may place or end.
pub(super) fn hold_of(event: &Event) -> Option<String> {
    match event {
        Event::HoldPlaced(e) => Some(e.hold_id.clone()),
        Event::HoldVoided(e) => Some(e.hold_id.clone()),
        Event::PointsDebited(e) => e.hold_id.clone(),
        Event::CoinsChanged(e) => e.hold_id.clone(),
        Event::RedemptionStarted(e) => Some(reward::hold_id(&e.redemption_id)),
        Event::RedemptionFailed(e) => Some(reward::hold_id(&e.redemption_id)),
        _ => None,
    }
}

/// When a member's hold ends; `None` where there is none of that id.
pub(super) fn hold_until(member: &Member, id: &str) -> Option<UnixMillis> {
    member.accounts().find_map(|(_, account)| account.hold(id)).map(|hold| hold.until)
}
