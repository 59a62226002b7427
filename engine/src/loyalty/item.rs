//! Things with a life of their own, each in a row of its own: redemptions, coupons, obligations.
//!
//! # Invariants
//!
//! - An item is a fold of its events; each knows the last one that it holds.

use serde::{Deserialize, Serialize};

use crate::event::{Event, Recorded};
use crate::id::{CampaignId, CouponBookId, MemberId, RewardId, Sequence};
use crate::loyalty::coupon::Coupon;
use crate::loyalty::reward::{Redemption, RedemptionState};
use crate::time::UnixMillis;

/// Which item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKey {
    /// By the caller's id.
    Redemption(String),
    /// By its code.
    Coupon(CouponBookId, String),
    /// The code at a place of a book.
    Place(CouponBookId, u64),
    /// By its id.
    Obligation(String),
}

/// One of them, with the position of the last event that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub body: Body,
    /// Position of the last event applied.
    pub as_of: Sequence,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// An exchange for a reward.
    Redemption(Redemption),
    /// A code.
    Coupon(Coupon),
    /// The code that is at a place of a book.
    Place(String),
    /// What a subscriber has to pay out.
    Obligation(Obligation),
}

/// What a subscriber has to pay out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    /// `ob-` and the position of its event's cause with a number.
    pub obligation_id: String,
    /// To whom.
    pub member_id: MemberId,
    /// In which campaign.
    pub campaign_id: CampaignId,
    /// What it is called there.
    pub reward_id: RewardId,
    /// How much of it.
    pub amount: i64,
    /// Since when.
    pub created_at: UnixMillis,
    /// When the subscriber said that it was paid out.
    pub confirmed_at: Option<UnixMillis>,
    /// What the subscriber calls the payout.
    pub reference: String,
}

impl Item {
    /// A redemption's.
    pub fn redemption(&self) -> Option<&Redemption> {
        if let Body::Redemption(redemption) = &self.body { Some(redemption) } else { None }
    }

    /// A coupon's.
    pub fn coupon(&self) -> Option<&Coupon> {
        if let Body::Coupon(coupon) = &self.body { Some(coupon) } else { None }
    }

    /// Whose it is, if somebody's.
    pub fn member(&self) -> Option<MemberId> {
        match &self.body {
            Body::Redemption(redemption) => Some(redemption.member_id),
            Body::Coupon(coupon) => coupon.member_id,
            Body::Place(_) => None,
            Body::Obligation(obligation) => Some(obligation.member_id),
        }
    }

    /// An obligation's.
    pub fn obligation(&self) -> Option<&Obligation> {
        if let Body::Obligation(obligation) = &self.body { Some(obligation) } else { None }
    }
}

/// The items that an event changes. Few have any: the first thing asked of each event.
pub fn keys(event: &Event) -> Vec<ItemKey> {
    match event {
        Event::RedemptionStarted(e) => vec![ItemKey::Redemption(e.redemption_id.clone())],
        Event::RedemptionCompleted(e) => vec![ItemKey::Redemption(e.redemption_id.clone())],
        Event::RedemptionFailed(e) => vec![ItemKey::Redemption(e.redemption_id.clone())],
        Event::RedemptionRefunded(e) => vec![ItemKey::Redemption(e.redemption_id.clone())],
        Event::CouponsAdded(e) => {
            let place = |(i, _): (usize, _)| ItemKey::Place(e.coupon_book_id.clone(), e.first_place + i as u64);
            let places = e.codes.iter().enumerate().map(place);
            let codes = e.codes.iter().map(|code| ItemKey::Coupon(e.coupon_book_id.clone(), code.clone()));
            places.chain(codes).collect()
        }
        Event::CouponAssigned(e) => vec![ItemKey::Coupon(e.coupon_book.coupon_book_id.clone(), e.code.clone())],
        Event::CouponUsed(e) => vec![ItemKey::Coupon(e.coupon_book.coupon_book_id.clone(), e.code.clone())],
        Event::RedemptionRolledBack(e) => vec![ItemKey::Coupon(e.coupon_book_id.clone(), e.code.clone())],
        Event::ObligationCreated(e) => vec![ItemKey::Obligation(e.obligation_id.clone())],
        Event::ObligationConfirmed(e) => vec![ItemKey::Obligation(e.obligation_id.clone())],
        _ => Vec::new(),
    }
}

/// The item of the `nth` of an event's [`keys`] after the event; `None` where it holds it already.
///
/// # Panics
///
/// If the event changes what is not there: `decide` checked it.
pub fn apply((nth, key): (usize, &ItemKey), item: Option<Item>, recorded: &Recorded<'_>) -> Option<Item> {
    if item.as_ref().is_some_and(|item| recorded.sequence <= item.as_of) {
        return None;
    }
    let there = || item.expect("decide checked that it is there").body;
    let mut body = match (recorded.event, key) {
        (Event::RedemptionStarted(e), _) => Body::Redemption(Redemption {
            redemption_id: e.redemption_id.clone(),
            member_id: e.member_id,
            reward_id: e.reward_id.clone(),
            campaign_id: e.campaign_id.clone(),
            cost: e.cost,
            state: RedemptionState::Started,
            voucher_code: String::new(),
            reason: String::new(),
            started_at: recorded.time,
            updated_at: recorded.time,
            until: e.until,
        }),
        (Event::CouponsAdded(e), ItemKey::Place(_, place)) => {
            Body::Place(e.codes[(place - e.first_place) as usize].clone())
        }
        (Event::CouponsAdded(e), ItemKey::Coupon(_, code)) => Body::Coupon(Coupon {
            coupon_book_id: e.coupon_book_id.clone(),
            code: code.clone(),
            // The keys of the codes come after those of their places.
            place: e.first_place + (nth - e.codes.len()) as u64,
            created_at: recorded.time,
            member_id: None,
            assigned_at: None,
            expires_at: None,
            usage_ids: Vec::new(),
        }),
        (Event::ObligationCreated(e), _) => Body::Obligation(Obligation {
            obligation_id: e.obligation_id.clone(),
            member_id: e.member_id,
            campaign_id: e.campaign_id.clone(),
            reward_id: e.reward_id.clone(),
            amount: e.amount,
            created_at: recorded.time,
            confirmed_at: None,
            reference: String::new(),
        }),
        _ => there(),
    };
    match (&mut body, recorded.event) {
        (Body::Redemption(redemption), event) => {
            redemption.updated_at = recorded.time;
            match event {
                Event::RedemptionCompleted(e) => {
                    redemption.state = RedemptionState::Completed;
                    redemption.voucher_code.clone_from(&e.voucher_code);
                }
                Event::RedemptionFailed(e) => {
                    redemption.state = RedemptionState::Failed;
                    redemption.reason.clone_from(&e.reason);
                }
                Event::RedemptionRefunded(e) => {
                    redemption.state = RedemptionState::Refunded;
                    redemption.reason.clone_from(&e.reason);
                }
                _ => {}
            }
        }
        (Body::Coupon(coupon), Event::CouponAssigned(e)) => {
            coupon.member_id = Some(e.member_id);
            coupon.assigned_at = Some(recorded.time);
            coupon.expires_at = e.expires_at;
        }
        (Body::Coupon(coupon), Event::CouponUsed(e)) => coupon.usage_ids.push(e.usage_id.clone()),
        (Body::Coupon(coupon), Event::RedemptionRolledBack(e)) => {
            coupon.usage_ids.retain(|id| *id != e.reverted_usage_id);
        }
        (Body::Obligation(obligation), Event::ObligationConfirmed(e)) => {
            obligation.confirmed_at = Some(recorded.time);
            obligation.reference.clone_from(&e.reference);
        }
        _ => {}
    }
    Some(Item { body, as_of: recorded.sequence })
}
