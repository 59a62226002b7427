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

use serde::Serialize;

use crate::event::{Event, Origin, Recorded};
use crate::id::{CampaignId, MemberId, Sequence};
use crate::time::UnixMillis;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
    /// Position of the last event applied.
    pub as_of: Sequence,
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
            Event::MemberCreated(_) => {
                self.members += 1;
                self.as_of = recorded.sequence;
                return;
            }
            Event::ConsumptionRecorded(_) => {
                self.consumptions += 1;
                self.as_of = recorded.sequence;
                return;
            }
            Event::PointsCredited(e) => {
                let difference = e.new_balance.0 - e.previous_balance.0;
                (Currency::Points(e.campaign_id.clone()), e.amount.0, difference)
            }
            Event::PointsDebited(e) => {
                let difference = e.new_balance.0 - e.previous_balance.0;
                (Currency::Points(e.campaign_id.clone()), -e.amount.0, difference)
            }
            Event::CoinsChanged(e) => (Currency::Coins, e.amount.0, e.new_balance.0 - e.previous_balance.0),
            _ => return,
        };
        self.as_of = recorded.sequence;
        let account = self.accounts.entry(currency).or_default();
        account.house -= amount;
        account.members += difference;
    }

    /// The sum over all accounts of all currencies: 0, or something is wrong.
    pub fn imbalance(&self) -> i64 {
        self.accounts.values().map(|a| (a.house + a.members).abs()).sum()
    }
}
