//! The ledger: double entry, in whole numbers.
//!
//! ```text
//! points.credited 150   house −150   member +150
//! ```
//!
//! # Invariants
//!
//! - Every entry moves an amount between one member's account and the house's: over all accounts of a
//!   currency the sum is 0 after every event.
//! - An entry is its event; its id is the event's sequence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Origin, Recorded, RedemptionFailed, RedemptionRefunded};
use crate::id::{CampaignId, CouponBookId, MemberId, RewardId, Sequence};
use crate::loyalty::job::{Job, Run};
use crate::time::UnixMillis;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Currency {
    /// A campaign's points.
    Points(CampaignId),
    /// The advertiser's coins.
    Coins,
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Currency::Points(campaign) => write!(f, "points of campaign {campaign}"),
            Currency::Coins => f.write_str("coins"),
        }
    }
}

/// One movement on a member's account; the house's account moves by the opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub sequence: Sequence,
    /// The event that caused it.
    pub cause: Sequence,
    /// When.
    pub time: UnixMillis,
    /// Whose account.
    pub member_id: MemberId,
    /// Of what.
    pub currency: Currency,
    /// Signed: what came to the member.
    pub amount: i64,
    /// The member's balance afterwards.
    pub balance: i64,
    /// From where.
    pub origin: Origin,
}

impl Entry {
    /// The entry that an event is; `None` for events that move nothing.
    pub fn of(recorded: &Recorded<'_>) -> Option<Entry> {
        let (member_id, currency, amount, balance, origin) = match recorded.event {
            Event::PointsCredited(e) => {
                (e.member_id, Currency::Points(e.campaign_id.clone()), e.amount.0, e.new_balance.0, &e.origin)
            }
            Event::PointsDebited(e) => {
                (e.member_id, Currency::Points(e.campaign_id.clone()), -e.amount.0, e.new_balance.0, &e.origin)
            }
            Event::CoinsChanged(e) => (e.member_id, Currency::Coins, e.amount.0, e.new_balance.0, &e.origin),
            _ => return None,
        };
        Some(Entry {
            sequence: recorded.sequence,
            cause: recorded.cause,
            time: recorded.time,
            member_id,
            currency,
            amount,
            balance,
            origin: origin.clone(),
        })
    }
}

/// The house's accounts of one tenant, and beside them the sum of all members' accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct House {
    /// By currency.
    pub accounts: BTreeMap<Currency, HouseAccount>,
    /// Members registered.
    pub members: u64,
    /// Consumptions taken in.
    pub consumptions: u64,
    /// How often a reward was given: what its stock is counted by.
    pub redeemed: BTreeMap<RewardId, u64>,
    /// Codes of the coupon books.
    pub books: BTreeMap<CouponBookId, BookState>,
    /// The last completed run of each job.
    pub jobs: BTreeMap<Job, JobRun>,
    /// Position of the last event applied.
    pub as_of: Sequence,
}

/// How far a coupon book is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BookState {
    /// Codes in it.
    pub codes: u64,
    /// Codes given to members.
    pub assigned: u64,
    /// No code before this place is free.
    pub next_place: u64,
    /// Uses, those rolled back left out.
    pub used: u64,
}

/// A completed run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Which.
    pub run: Run,
    /// When it ended.
    pub completed_at: UnixMillis,
    /// Members it concerned.
    pub concerned: u64,
}

/// Two sums that are each other's opposite, kept apart so that a difference can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HouseAccount {
    /// What the house has given, as a negative number.
    pub house: i64,
    /// What the members' balances say, from their own before and after.
    pub members: i64,
}

impl House {
    /// Folds an event of this tenant in. One that was folded in before changes nothing.
    pub fn apply(&mut self, recorded: &Recorded<'_>) {
        if recorded.sequence <= self.as_of {
            return;
        }
        let (currency, amount, difference) = match recorded.event {
            Event::PointsCredited(e) => {
                let difference = e.new_balance.0 - e.previous_balance.0;
                (Currency::Points(e.campaign_id.clone()), e.amount.0, difference)
            }
            Event::PointsDebited(e) => {
                let difference = e.new_balance.0 - e.previous_balance.0;
                (Currency::Points(e.campaign_id.clone()), -e.amount.0, difference)
            }
            Event::CoinsChanged(e) => (Currency::Coins, e.amount.0, e.new_balance.0 - e.previous_balance.0),
            event => {
                if self.count(event, recorded.time) {
                    self.as_of = recorded.sequence;
                }
                return;
            }
        };
        self.as_of = recorded.sequence;
        let account = self.accounts.entry(currency).or_default();
        account.house -= amount;
        account.members += difference;
    }

    /// What is no entry; whether it changed anything.
    fn count(&mut self, event: &Event, at: UnixMillis) -> bool {
        match event {
            Event::MemberCreated(_) => self.members += 1,
            Event::ConsumptionRecorded(_) => self.consumptions += 1,
            Event::RedemptionStarted(e) => *self.redeemed.entry(e.reward_id.clone()).or_default() += 1,
            Event::RedemptionFailed(RedemptionFailed { reward_id, .. })
            | Event::RedemptionRefunded(RedemptionRefunded { reward_id, .. }) => {
                let given = self.redeemed.entry(reward_id.clone()).or_default();
                *given = given.saturating_sub(1);
            }
            Event::CouponsAdded(e) => self.book(&e.coupon_book_id).codes += e.codes.len() as u64,
            Event::CouponAssigned(e) => {
                let place: Option<u64> = e.coupon_id.rsplit_once('/').and_then(|(_, place)| place.parse().ok());
                let book = self.book(&e.coupon_book.coupon_book_id);
                book.assigned += 1;
                // The next free one was taken: those before it are not free.
                if let Some(place) = place.filter(|_| !e.chosen) {
                    book.next_place = book.next_place.max(place + 1);
                }
            }
            Event::CouponUsed(e) => self.book(&e.coupon_book.coupon_book_id).used += 1,
            Event::RedemptionRolledBack(e) => {
                let place: Option<u64> = e.coupon_id.rsplit_once('/').and_then(|(_, place)| place.parse().ok());
                let book = self.book(&e.coupon_book_id);
                book.used = book.used.saturating_sub(1);
                // It was used by nobody in particular: it may be free again.
                if let Some(place) = place.filter(|_| e.member_id.is_none()) {
                    book.next_place = book.next_place.min(place);
                }
            }
            Event::JobCompleted(e) => {
                self.jobs.insert(e.job, JobRun { run: e.run, completed_at: at, concerned: e.concerned });
            }
            _ => return false,
        }
        true
    }

    fn book(&mut self, id: &CouponBookId) -> &mut BookState {
        self.books.entry(id.clone()).or_default()
    }

    /// The sum over all accounts of all currencies: 0, or something is wrong.
    pub fn imbalance(&self) -> i64 {
        self.accounts.values().map(|a| (a.house + a.members).abs()).sum()
    }
}
