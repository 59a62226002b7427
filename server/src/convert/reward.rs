//! The catalogue, redemptions, obligations, coupons, gift cards.

use punchline_engine::event::GiftCardSent;
use punchline_engine::loyalty::coupon::{BookKind, Coupon, CouponBook};
use punchline_engine::loyalty::item::Obligation;
use punchline_engine::loyalty::ledger::BookState;
use punchline_engine::loyalty::reward::{
    COOL_DOWN_MS_DEFAULT, Cost, HOLD_MS_DEFAULT, Offered, Redemption, RedemptionState, Reward,
};
use punchline_proto::v1;

use super::{id, instant, optional_id, timestamp};
use crate::refuse::Refused;

/// A reward as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn reward(given: v1::Reward) -> Result<Reward, Refused> {
    use v1::cost::Kind;
    let cost = match given.cost.and_then(|cost| cost.kind) {
        Some(Kind::Points(points)) => Cost::Points(points),
        Some(Kind::Coins(coins)) => Cost::Coins(coins),
        None => return Err(Refused::field("cost", "", "must be points or coins")),
    };
    Ok(Reward {
        reward_id: id("reward_id", &given.reward_id)?,
        campaign_id: id("campaign_id", &given.campaign_id)?,
        reward_name: given.reward_name,
        description: given.description,
        picture_url: given.picture_url,
        reward_link: given.reward_link,
        reward_value: given.reward_value,
        cost,
        stock: given.stock,
        per_member_max: given.per_member_max,
        coupon_book_id: optional_id("coupon_book_id", &given.coupon_book_id)?,
        offered: offered(given.valid_from, given.valid_to)?,
        hold_ms: if given.hold_ms == 0 { HOLD_MS_DEFAULT } else { given.hold_ms },
        cool_down_ms: given.cool_down_ms.unwrap_or(COOL_DOWN_MS_DEFAULT),
        active: !given.inactive,
        version: 0,
    })
}

fn offered(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> Result<Offered, Refused> {
    Ok(Offered {
        valid_from: from.map(|at| instant("valid_from", at)).transpose()?,
        valid_to: to.map(|at| instant("valid_to", at)).transpose()?,
    })
}

/// A reward, for the wire; `redeemed` were given.
pub fn reward_to_wire(reward: &Reward, redeemed: u64) -> v1::Reward {
    v1::Reward {
        reward_id: reward.reward_id.to_string(),
        campaign_id: reward.campaign_id.to_string(),
        reward_name: reward.reward_name.clone(),
        description: reward.description.clone(),
        picture_url: reward.picture_url.clone(),
        reward_link: reward.reward_link.clone(),
        reward_value: reward.reward_value.clone(),
        cost: Some(cost(reward.cost)),
        stock: reward.stock,
        per_member_max: reward.per_member_max,
        coupon_book_id: reward.coupon_book_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        valid_from: reward.offered.valid_from.map(timestamp),
        valid_to: reward.offered.valid_to.map(timestamp),
        hold_ms: reward.hold_ms,
        cool_down_ms: Some(reward.cool_down_ms),
        inactive: !reward.active,
        redeemed,
        etag: reward.version.to_string(),
    }
}

fn cost(cost: Cost) -> v1::Cost {
    use v1::cost::Kind;
    let kind = match cost {
        Cost::Points(points) => Kind::Points(points),
        Cost::Coins(coins) => Kind::Coins(coins),
    };
    v1::Cost { kind: Some(kind) }
}

/// A redemption, for the wire.
pub fn redemption(redemption: &Redemption) -> v1::Redemption {
    let state = match redemption.state {
        RedemptionState::Started => v1::RedemptionState::Started,
        RedemptionState::Completed => v1::RedemptionState::Completed,
        RedemptionState::Failed => v1::RedemptionState::Failed,
        RedemptionState::Refunded => v1::RedemptionState::Refunded,
    };
    v1::Redemption {
        redemption_id: redemption.redemption_id.clone(),
        member_id: redemption.member_id.to_string(),
        reward_id: redemption.reward_id.to_string(),
        campaign_id: redemption.campaign_id.to_string(),
        cost: Some(cost(redemption.cost)),
        state: state.into(),
        voucher_code: redemption.voucher_code.clone(),
        reason: redemption.reason.clone(),
        started_at: Some(timestamp(redemption.started_at)),
        updated_at: Some(timestamp(redemption.updated_at)),
        expires_at: Some(timestamp(redemption.until)),
    }
}

/// An obligation, for the wire.
pub fn obligation(obligation: &Obligation) -> v1::Obligation {
    v1::Obligation {
        obligation_id: obligation.obligation_id.clone(),
        member_id: obligation.member_id.to_string(),
        campaign_id: obligation.campaign_id.to_string(),
        reward_id: obligation.reward_id.to_string(),
        amount: obligation.amount,
        created_at: Some(timestamp(obligation.created_at)),
        confirmed_at: obligation.confirmed_at.map(timestamp),
        reference: obligation.reference.clone(),
    }
}

/// A coupon book as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn coupon_book(given: v1::CouponBook, kind: BookKind) -> Result<CouponBook, Refused> {
    Ok(CouponBook {
        coupon_book_id: id("coupon_book_id", &given.coupon_book_id)?,
        campaign_id: optional_id("campaign_id", &given.campaign_id)?,
        name: given.name,
        kind,
        external_id: given.external_id,
        description: given.description,
        picture_url: given.picture_url,
        discount_type: given.discount_type,
        discount_amount: given.discount_amount,
        offered: offered(given.valid_from, given.valid_to)?,
        expire_after_days: given.expire_after_days,
        uses_max: given.uses_max.max(1),
        version: 0,
    })
}

/// A coupon book with its counts, for the wire.
pub fn coupon_book_to_wire(book: &CouponBook, state: BookState) -> v1::CouponBook {
    v1::CouponBook {
        coupon_book_id: book.coupon_book_id.to_string(),
        campaign_id: book.campaign_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: book.name.clone(),
        external_id: book.external_id.clone(),
        description: book.description.clone(),
        picture_url: book.picture_url.clone(),
        discount_type: book.discount_type.clone(),
        discount_amount: book.discount_amount,
        valid_from: book.offered.valid_from.map(timestamp),
        valid_to: book.offered.valid_to.map(timestamp),
        expire_after_days: book.expire_after_days,
        uses_max: book.uses_max,
        generated: book.kind == BookKind::Generated,
        codes: state.codes,
        assigned: state.assigned,
        used: state.used,
    }
}

/// A coupon, for the wire.
pub fn coupon(coupon: &Coupon) -> v1::Coupon {
    v1::Coupon {
        coupon_book_id: coupon.coupon_book_id.to_string(),
        code: coupon.code.clone(),
        created_at: Some(timestamp(coupon.created_at)),
        member_id: coupon.member_id.map(|id| id.to_string()).unwrap_or_default(),
        assigned_at: coupon.assigned_at.map(timestamp),
        expires_at: coupon.expires_at.map(timestamp),
        usage_ids: coupon.usage_ids.clone(),
    }
}

/// A gift card as it came in; its bounds are the engine's to check.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn gift_card(given: v1::GiftCard) -> Result<GiftCardSent, Refused> {
    Ok(GiftCardSent {
        member_id: id("member_id", &given.member_id)?,
        gift_card_id: given.gift_card_id,
        code: given.code,
        value: given.value,
        header: given.header,
        body: given.body,
        slug: given.slug,
        assigned_from: "admin".into(),
        install_url: given.install_url,
        mail_sent: given.mail_sent,
    })
}
