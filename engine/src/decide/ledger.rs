//! Balances: corrections, holds, transfers, reversals.
//!
//! # Invariants
//!
//! - What is held cannot be spent otherwise.
//! - A balance goes below zero by corrections and reversals only, and as far as the policy allows.

use super::draft::{Draft, not_joined};
use super::{Decision, WorkingSet, live, one, text};
use crate::event::{HoldPlaced, HoldVoided, Origin, RedemptionFailed};
use crate::id::{MemberId, Sequence};
use crate::loyalty::account::{Account, HOLDS_MAX};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::Member;
use crate::loyalty::reward;
use crate::loyalty::tenant::TenantConfig;
use crate::planted::{Bug, is_planted};
use crate::rejection::{InvalidField, Rejection};
use crate::time::UnixMillis;

/// Longest hold: a year.
const HOLD_MS_MAX: i64 = 366 * UnixMillis::DAY_MS;
/// Longest id of a hold, in bytes.
const HOLD_ID_LEN_MAX: usize = 128;

fn reason_given(reason: &str) -> Result<(), InvalidField> {
    text("reason", reason, 500)?;
    if reason.trim().is_empty() {
        return Err(InvalidField::new("reason", reason, "is required"));
    }
    Ok(())
}

/// An id that a caller chose.
pub(super) fn check_id(field: &str, id: &str, max: usize) -> Result<(), InvalidField> {
    if id.trim().is_empty() || id.len() > max || id.chars().any(char::is_control) {
        return Err(InvalidField::new(field, id, format!("must be 1 to {max} bytes without control characters")));
    }
    Ok(())
}

fn positive(amount: i64) -> Result<(), InvalidField> {
    if amount > 0 { Ok(()) } else { Err(InvalidField::new("amount", amount.to_string(), "must be more than 0")) }
}

fn account<'a>(member: &'a Member, currency: &Currency) -> Result<&'a Account, Rejection> {
    member.account(currency).ok_or_else(|| not_joined(member, currency))
}

/// Checks that a member may spend this.
pub(super) fn spendable(member: &Member, currency: &Currency, wanted: i64) -> Result<(), Rejection> {
    let balance = account(member, currency)?.available();
    if balance >= wanted {
        return Ok(());
    }
    Err(Rejection::InsufficientBalance { currency: currency.to_string(), balance, wanted })
}

/// Checks that taking this leaves no more of a debt than allowed.
fn within_overdraft(config: &TenantConfig, member: &Member, currency: &Currency, wanted: i64) -> Result<(), Rejection> {
    let balance = account(member, currency)?.available();
    if balance.checked_sub(wanted).is_some_and(|left| left >= -config.policy(currency).overdraft) {
        return Ok(());
    }
    Err(Rejection::InsufficientBalance { currency: currency.to_string(), balance, wanted })
}

pub(super) fn adjust<'a>(
    set: &'a WorkingSet<'a>,
    config: &'a TenantConfig,
    member: &'a Member,
    (currency, amount, reason): (&Currency, i64, &str),
) -> Result<Draft<'a>, Rejection> {
    text("reason", reason, 500)?;
    if amount == 0 {
        return Err(InvalidField::new("amount", "0", "is required").into());
    }
    reason_given(reason)?;
    account(member, currency)?;
    let origin = Origin::Adjustment { reason: reason.into() };
    let mut draft = Draft::new(set, config, member);
    if amount > 0 {
        draft.earn(member.id, currency, amount, origin)?;
    } else {
        let wanted = amount.checked_neg().ok_or_else(|| super::draft::overflow(currency))?;
        within_overdraft(config, member, currency, wanted)?;
        draft.debit(member.id, currency, wanted, None, origin)?;
    }
    Ok(draft)
}

pub(super) fn place_hold(
    set: &WorkingSet<'_>,
    member: &Member,
    currency: &Currency,
    placed: HoldPlaced,
) -> Result<Decision, Rejection> {
    check_id("hold_id", &placed.hold_id, HOLD_ID_LEN_MAX)?;
    if placed.hold_id.starts_with("redemption/") {
        return Err(InvalidField::new("hold_id", placed.hold_id, "must not begin with redemption/").into());
    }
    text("reason", &placed.reason, 500)?;
    positive(placed.amount)?;
    if placed.until <= set.now || placed.until > set.now.plus_ms(HOLD_MS_MAX) {
        let rule = "must be in the future, at most 366 days";
        return Err(InvalidField::new("until", placed.until.to_string(), rule).into());
    }
    super::limit("holds of this account", account(member, currency)?.holds.len(), HOLDS_MAX)?;
    spendable(member, currency, placed.amount)?;
    Ok(one(placed.into()))
}

/// A hold of a member, wherever it is, with its currency. Those of redemptions end with these.
fn hold<'a>(member: &'a Member, id: &str) -> Result<(Currency, &'a crate::loyalty::account::Hold), Rejection> {
    let found = member.accounts().find_map(|(campaign, account)| Some((campaign, account.hold(id)?)));
    let (campaign, hold) = found.ok_or_else(|| Rejection::HoldNotFound(id.into()))?;
    Ok((campaign.map_or(Currency::Coins, |id| Currency::Points(id.clone())), hold))
}

fn own_hold<'a>(member: &'a Member, id: &str) -> Result<(Currency, &'a crate::loyalty::account::Hold), Rejection> {
    if id.starts_with("redemption/") {
        return Err(InvalidField::new("hold_id", id, "is a redemption's: complete or fail that").into());
    }
    hold(member, id)
}

pub(super) fn post_hold<'a>(
    set: &'a WorkingSet<'a>,
    config: &'a TenantConfig,
    member: &'a Member,
    (hold_id, amount, reason): (&str, Option<i64>, &str),
) -> Result<Draft<'a>, Rejection> {
    text("reason", reason, 500)?;
    let (currency, hold) = own_hold(member, hold_id)?;
    let held = hold.amount();
    let amount = amount.unwrap_or(held);
    positive(amount)?;
    if amount > held {
        return Err(InvalidField::new("amount", amount.to_string(), format!("is more than the {held} held")).into());
    }
    let origin = Origin::Hold { hold_id: hold_id.into(), reason: reason.into() };
    let mut draft = Draft::new(set, config, member);
    draft.debit(member.id, &currency, amount, Some(hold_id.into()), origin)?;
    Ok(draft)
}

pub(super) fn void_hold(member: &Member, hold_id: &str, reason: &str) -> Result<Decision, Rejection> {
    text("reason", reason, 500)?;
    let (currency, hold) = own_hold(member, hold_id)?;
    let (hold_id, amount, reason) = (hold_id.into(), hold.amount(), reason.into());
    Ok(one(HoldVoided { member_id: member.id, hold_id, currency, amount, reason }.into()))
}

/// The clock's: what is finished already, or has more time by now, is left alone.
pub(super) fn time_out_hold(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    hold_id: &str,
) -> Result<Decision, Rejection> {
    let Ok((currency, hold)) = hold(member, hold_id) else { return Ok(Decision::Already(member.as_of)) };
    if hold.until > set.now {
        return Ok(Decision::Already(member.as_of));
    }
    let reason = String::from("timed_out");
    let Some(redemption_id) = hold_id.strip_prefix("redemption/") else {
        let (hold_id, amount) = (hold_id.into(), hold.amount());
        return Ok(one(HoldVoided { member_id: member.id, hold_id, currency, amount, reason }.into()));
    };
    let item = set.world.item(&crate::loyalty::item::ItemKey::Redemption(redemption_id.into()));
    let redemption = item.as_ref().and_then(|item| item.redemption());
    let redemption = redemption.ok_or_else(|| Rejection::RedemptionNotFound(redemption_id.into()))?;
    debug_assert_eq!(reward::hold_id(&redemption.redemption_id), hold_id);
    let reward_name = super::reward::name(config, redemption);
    Ok(one(RedemptionFailed {
        member_id: member.id,
        redemption_id: redemption_id.into(),
        campaign_id: redemption.campaign_id.clone(),
        reward_id: redemption.reward_id.clone(),
        reward_name,
        cost: redemption.cost,
        reason,
    }
    .into()))
}

/// From one member to another: each part keeps its expiry.
pub(super) fn transfer<'a>(
    set: &'a WorkingSet<'a>,
    config: &'a TenantConfig,
    member: &'a Member,
    (to, currency, amount, reason): (MemberId, &Currency, i64, &str),
) -> Result<Draft<'a>, Rejection> {
    reason_given(reason)?;
    positive(amount)?;
    if to == member.id {
        return Err(InvalidField::new("to_member_id", to.to_string(), "is the member itself").into());
    }
    if member.blocked.is_some() {
        return Err(Rejection::UserBlocked);
    }
    spendable(member, currency, amount)?;
    let lots = account(member, currency)?.next_lots(amount);
    let mut draft = Draft::new(set, config, member);
    let other = draft.invite(to).ok_or(Rejection::MemberNotFound(to))?;
    live(other)?;
    if other.blocked.is_some() {
        return Err(Rejection::UserBlocked);
    }
    account(other, currency)?;
    let origin = |other_member_id| Origin::Transfer { other_member_id, reason: reason.into() };
    draft.debit(member.id, currency, amount, None, origin(to))?;
    for lot in lots {
        let gain = i64::from(is_planted(Bug::MoneyFromNowhere));
        draft.credit(to, currency, lot.amount + gain, lot.expires_at, origin(member.id))?;
    }
    Ok(draft)
}

/// The opposite of an entry. What a redemption, a transfer, an expiry or a merge moved has its own way back.
pub(super) fn reverse<'a>(
    set: &'a WorkingSet<'a>,
    config: &'a TenantConfig,
    member: &'a Member,
    (entry, reason): (Sequence, &str),
) -> Result<Draft<'a>, Rejection> {
    reason_given(reason)?;
    let found = set.world.entry(entry).filter(|found| found.member_id == member.id);
    let found = found.ok_or(Rejection::EntryNotFound(entry))?;
    let why = match found.origin {
        Origin::Redemption { .. } | Origin::Refund { .. } => Some("refund the redemption instead"),
        Origin::Transfer { .. } => Some("transfer it back instead"),
        Origin::Merge { .. } => Some("members were merged by it"),
        Origin::Reversal { .. } => Some("it is a reversal itself"),
        Origin::Expiry { .. } => Some("it expired; adjust the balance instead"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(Rejection::EntryNotReversible { entry, why });
    }
    let earned = found.origin.is_earned();
    let origin = Origin::Reversal { reversed_sequence: entry, reason: reason.into(), earned };
    let mut draft = Draft::new(set, config, member);
    if found.amount > 0 {
        within_overdraft(config, member, &found.currency, found.amount)?;
        draft.debit(member.id, &found.currency, found.amount, None, origin)?;
    } else {
        draft.earn(member.id, &found.currency, -found.amount, origin)?;
    }
    Ok(draft)
}
