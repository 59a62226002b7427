//! Coupon books and their codes.

use super::ledger::check_id;
use super::{Decision, WorkingSet, limit, one, text};
use crate::event::*;
use crate::id::CouponBookId;
use crate::loyalty::coupon::*;
use crate::loyalty::item::{Body, ItemKey};
use crate::loyalty::member::Member;
use crate::loyalty::tenant::TenantConfig;
use crate::rejection::{InvalidField, Rejection};
use crate::time::UnixMillis;

/// Places looked at for a free code: those given out of their order lie between.
const PLACES_TRIED: u64 = 1_000;

pub(super) fn create(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    book: &CouponBook,
    codes: &[String],
) -> Result<Decision, Rejection> {
    if config.coupon_books.contains_key(&book.coupon_book_id) {
        return Err(Rejection::CouponBookExists(book.coupon_book_id.clone()));
    }
    limit("coupon books", config.coupon_books.len(), COUPON_BOOKS_MAX)?;
    book.validate()?;
    if let Some(campaign) = book.campaign_id.as_ref().filter(|id| !config.campaigns.contains_key(*id)) {
        return Err(InvalidField::new("campaign_id", campaign.as_str(), "names no campaign").into());
    }
    let created = CouponBookCreated { coupon_book: Box::new(CouponBook { version: 1, ..book.clone() }) };
    let mut events = vec![created.into()];
    if !codes.is_empty() {
        events.push(filled(set, &book.coupon_book_id, codes)?);
    }
    Ok(Decision::Events(events))
}

pub(super) fn add(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    id: &CouponBookId,
    codes: &[String],
) -> Result<Decision, Rejection> {
    book(config, id)?;
    if codes.is_empty() {
        return Err(InvalidField::new("codes", "[]", "must have at least one entry").into());
    }
    filled(set, id, codes).map(one)
}

fn filled(set: &WorkingSet<'_>, id: &CouponBookId, codes: &[String]) -> Result<Event, Rejection> {
    super::super::loyalty::programme::count("codes", codes.len(), CODES_MAX)?;
    let mut seen = std::collections::HashSet::new();
    for (i, code) in codes.iter().enumerate() {
        let at = format!("codes[{i}]");
        check_code(&at, code)?;
        if !seen.insert(code) || set.world.item(&ItemKey::Coupon(id.clone(), code.clone())).is_some() {
            return Err(InvalidField::new(at, code, "is in the book already").into());
        }
    }
    let first_place = set.house.books.get(id).map_or(0, |book| book.codes);
    Ok(CouponsAdded { coupon_book_id: id.clone(), first_place, codes: codes.to_vec() }.into())
}

/// Whether a repeated call brought the codes of the first: those that were made differ each time.
pub(super) fn same_codes(kind: BookKind, first: &[String], again: &[String]) -> bool {
    match kind {
        BookKind::Generated => first.len() == again.len(),
        BookKind::Listed => first == again,
    }
}

fn book<'a>(config: &'a TenantConfig, id: &CouponBookId) -> Result<&'a CouponBook, Rejection> {
    config.coupon_books.get(id).map(|book| &**book).ok_or_else(|| Rejection::CouponBookNotFound(id.clone()))
}

fn coupon(set: &WorkingSet<'_>, id: &CouponBookId, code: &str) -> Result<Coupon, Rejection> {
    let item = set.world.item(&ItemKey::Coupon(id.clone(), code.into()));
    let coupon = item.as_ref().and_then(|item| item.coupon()).cloned();
    coupon.ok_or_else(|| Rejection::CouponNotFound { coupon_book: id.clone(), code: code.into() })
}

/// The next code that nobody has; `taken` says how many this decision has given already.
pub(super) fn next_free(set: &WorkingSet<'_>, id: &CouponBookId, taken: u64) -> Result<Coupon, Rejection> {
    let state = set.house.books.get(id).copied().unwrap_or_default();
    let mut left = taken;
    for place in state.next_place..state.codes.min(state.next_place + PLACES_TRIED) {
        let Some(Body::Place(code)) = set.world.item(&ItemKey::Place(id.clone(), place)).map(|item| item.body) else {
            continue;
        };
        let coupon = coupon(set, id, &code)?;
        if coupon.member_id.is_some() || !coupon.usage_ids.is_empty() {
            continue;
        }
        if left == 0 {
            return Ok(coupon);
        }
        left -= 1;
    }
    Err(Rejection::NoCouponsLeft(id.clone()))
}

/// The event by which a member gets a code.
pub(super) fn assigned(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    coupon: &Coupon,
    member: &Member,
    from: &str,
    usage_id: &str,
) -> CouponAssigned {
    let book = config.coupon_books.get(&coupon.coupon_book_id).expect("coupon books are never removed");
    let days = i64::from(book.expire_after_days);
    let by_days = (days > 0).then(|| set.now.plus_ms(days * UnixMillis::DAY_MS));
    let expires_at = [by_days, book.offered.valid_to].into_iter().flatten().min();
    CouponAssigned {
        member_id: member.id,
        campaign_id: book.campaign_id.clone(),
        code: coupon.code.clone(),
        coupon_id: coupon.coupon_id(),
        assigned_from: from.into(),
        chosen: false,
        coupon_created_at: coupon.created_at,
        expires_at,
        usage_id: usage_id.into(),
        amount_used: 0,
        amount_assigned: 1,
        usages_before: 0,
        assigned_before: 0,
        usages: 0,
        assigned: 1,
        coupon_book: Box::new((**book).clone()),
    }
}

pub(super) fn assign(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    member: &Member,
    (id, code, usage_id): (&CouponBookId, Option<&str>, &str),
) -> Result<Decision, Rejection> {
    check_id("usage_id", usage_id, USAGE_ID_LEN_MAX)?;
    book(config, id)?;
    let coupon = match code {
        Some(code) => coupon(set, id, code)?,
        None => next_free(set, id, 0)?,
    };
    if coupon.member_id.is_some() {
        return Err(Rejection::CouponState { code: coupon.code, why: "was given to somebody already" });
    }
    let mut event = assigned(set, config, &coupon, member, "admin", usage_id);
    event.chosen = code.is_some();
    Ok(one(event.into()))
}

pub(super) fn use_(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    (id, code): (&CouponBookId, &str),
    (usage_id, order_id, discount_amount): (&str, &str, i64),
) -> Result<Decision, Rejection> {
    check_id("usage_id", usage_id, USAGE_ID_LEN_MAX)?;
    text("order_id", order_id, 200)?;
    if discount_amount < 0 {
        return Err(InvalidField::new("discount_amount", discount_amount.to_string(), "must be at least 0").into());
    }
    let book = book(config, id)?;
    let coupon = coupon(set, id, code)?;
    let why = if coupon.usage_ids.len() >= book.uses_max as usize {
        Some("was used as often as allowed")
    } else if coupon.expires_at.is_some_and(|at| at <= set.now) || !book.offered.contains(set.now) {
        Some("is not valid at this time")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(Rejection::CouponState { code: code.into(), why });
    }
    let usages_before = coupon.usage_ids.len() as u32;
    let assigned = u32::from(coupon.member_id.is_some());
    Ok(one(CouponUsed {
        member_id: coupon.member_id,
        campaign_id: book.campaign_id.clone(),
        code: code.into(),
        coupon_id: coupon.coupon_id(),
        order_id: order_id.into(),
        discount_amount,
        coupon_created_at: coupon.created_at,
        expires_at: coupon.expires_at,
        usage_id: usage_id.into(),
        amount_used: 1,
        amount_assigned: assigned,
        usages_before,
        assigned_before: assigned,
        usages: usages_before + 1,
        assigned,
        coupon_book: Box::new(book.clone()),
    }
    .into()))
}

pub(super) fn roll_back(
    set: &WorkingSet<'_>,
    config: &TenantConfig,
    (id, code): (&CouponBookId, &str),
    (reverted_usage_id, reason): (&str, &str),
) -> Result<Decision, Rejection> {
    text("reason", reason, 500)?;
    book(config, id)?;
    let coupon = coupon(set, id, code)?;
    if !coupon.usage_ids.iter().any(|usage| usage == reverted_usage_id) {
        return Err(Rejection::CouponState { code: code.into(), why: "has no such use" });
    }
    Ok(one(RedemptionRolledBack {
        member_id: coupon.member_id,
        redemption_id: reverted_usage_id.into(),
        coupon_book_id: id.clone(),
        code: code.into(),
        coupon_id: coupon.coupon_id(),
        reverted_usage_id: reverted_usage_id.into(),
        reason: reason.into(),
    }
    .into()))
}

pub(super) fn send_gift_card(card: &GiftCardSent) -> Result<Decision, Rejection> {
    check_id("gift_card_id", &card.gift_card_id, USAGE_ID_LEN_MAX)?;
    check_code("code", &card.code)?;
    let texts = [("value", &card.value), ("header", &card.header), ("slug", &card.slug)];
    for (field, value) in texts.into_iter().chain([("install_url", &card.install_url)]) {
        text(field, value, 500)?;
    }
    text("body", &card.body, 2_000)?;
    Ok(one(card.clone().into()))
}
