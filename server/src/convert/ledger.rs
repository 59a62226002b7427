//! Balances, holds and entries.

use punchline_engine::event::Origin;
use punchline_engine::id::MemberId;
use punchline_engine::loyalty::account::{Account, Hold, Lot};
use punchline_engine::loyalty::ledger::{Currency, Entry};
use punchline_engine::loyalty::member::Member;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use v1::origin::Kind;

use super::{id, timestamp};
use crate::refuse::Refused;

/// A balance, for the wire.
pub fn balance(currency: &Currency, amount: i64) -> v1::Balance {
    use v1::balance::Currency as Wire;
    let currency = match currency {
        Currency::Points(campaign) => Wire::PointsOfCampaignId(campaign.to_string()),
        Currency::Coins => Wire::Coins(true),
    };
    v1::Balance { currency: Some(currency), amount }
}

/// The currency that an adjustment names.
///
/// # Errors
///
/// `INVALID_FIELD` where it names none.
pub fn adjusted_currency(given: Option<v1::adjust_balance_request::Currency>) -> Result<Currency, Refused> {
    use v1::adjust_balance_request::Currency as Wire;
    use v1::currency::Kind;
    let kind = given.map(|given| match given {
        Wire::PointsOfCampaignId(campaign) => Kind::PointsOfCampaignId(campaign),
        Wire::Coins(coins) => Kind::Coins(coins),
    });
    of_kind("", kind)
}

/// A currency as it came in.
///
/// # Errors
///
/// `INVALID_FIELD` where it names none.
pub fn currency(given: Option<v1::Currency>) -> Result<Currency, Refused> {
    of_kind("currency.", given.and_then(|given| given.kind))
}

fn of_kind(at: &str, given: Option<v1::currency::Kind>) -> Result<Currency, Refused> {
    use v1::currency::Kind;
    match given {
        Some(Kind::PointsOfCampaignId(campaign)) => {
            Ok(Currency::Points(id(&format!("{at}points_of_campaign_id"), &campaign)?))
        }
        Some(Kind::Coins(true)) => Ok(Currency::Coins),
        Some(Kind::Coins(false)) => {
            Err(Refused::field(format!("{at}coins"), "false", "must be true where it is the currency"))
        }
        None => Err(Refused::field("currency", "", "must be points_of_campaign_id or coins")),
    }
}

fn currency_to_wire(currency: &Currency) -> v1::Currency {
    use v1::currency::Kind;
    let kind = match currency {
        Currency::Points(campaign) => Kind::PointsOfCampaignId(campaign.to_string()),
        Currency::Coins => Kind::Coins(true),
    };
    v1::Currency { kind: Some(kind) }
}

/// The accounts of a member with their currencies: points for each card, then coins.
pub fn accounts_of(member: &Member) -> impl Iterator<Item = (Currency, &Account)> {
    let currency = |campaign: Option<&_>| campaign.map_or(Currency::Coins, |id| Currency::Points(Clone::clone(id)));
    member.accounts().map(move |(campaign, account)| (currency(campaign), account))
}

/// An account, for the wire.
pub fn account(currency: &Currency, account: &Account) -> v1::Account {
    let lot = |lot: &Lot| v1::Lot { amount: lot.amount, expires_at: lot.expires_at.map(timestamp) };
    v1::Account {
        balance: Some(balance(currency, account.balance)),
        available: account.available(),
        held: account.held(),
        lots: account.lots.iter().map(lot).collect(),
    }
}

/// What is set aside of a member's balances.
pub fn holds(member: &Member) -> Vec<v1::Hold> {
    let of = |(currency, account): (Currency, &Account)| {
        let one = |held: &Hold| hold(member.id, &currency, &held.id, held.amount(), held.until);
        account.holds.iter().map(one).collect::<Vec<_>>()
    };
    accounts_of(member).flat_map(of).collect()
}

/// A hold, for the wire.
pub fn hold(member_id: MemberId, currency: &Currency, hold_id: &str, amount: i64, until: UnixMillis) -> v1::Hold {
    v1::Hold {
        hold_id: hold_id.into(),
        member_id: member_id.to_string(),
        currency: Some(currency_to_wire(currency)),
        amount,
        expires_at: Some(timestamp(until)),
    }
}

/// A ledger entry, for the wire.
pub fn entry(entry: Entry) -> v1::Entry {
    v1::Entry {
        sequence: entry.sequence.0,
        cause_sequence: entry.cause.0,
        time: Some(timestamp(entry.time)),
        member_id: entry.member_id.to_string(),
        new_balance: Some(balance(&entry.currency, entry.balance)),
        amount: entry.amount,
        origin: Some(v1::Origin { kind: Some(origin(entry.origin)) }),
    }
}

fn origin(origin: Origin) -> Kind {
    match origin {
        Origin::Consumption { consumption_id, line, sku, rule_id, multipliers } => {
            let applied = |(id, percent): &(punchline_engine::id::MultiplierId, u32)| v1::AppliedMultiplier {
                multiplier_id: id.to_string(),
                percent: *percent,
            };
            let multipliers = multipliers.iter().map(applied).collect();
            let rule_id = rule_id.to_string();
            Kind::Consumption(v1::ConsumptionOrigin { consumption_id, line, sku, rule_id, multipliers })
        }
        Origin::Adjustment { reason } => Kind::Adjustment(v1::AdjustmentOrigin { reason }),
        Origin::FirstConsumption { consumption_id } => {
            Kind::FirstConsumption(v1::FirstConsumptionOrigin { consumption_id })
        }
        Origin::Birthday => Kind::Birthday(v1::BirthdayOrigin {}),
        Origin::Referral { advocate_id, friend_id } => Kind::Referral(v1::ReferralOrigin {
            advocate_member_id: advocate_id.to_string(),
            friend_member_id: friend_id.to_string(),
        }),
        Origin::Leaderboard { leaderboard_id, rank } => {
            Kind::Leaderboard(v1::LeaderboardOrigin { leaderboard_id: leaderboard_id.to_string(), rank })
        }
        Origin::Redemption { redemption_id, reward_id } => {
            Kind::Redemption(v1::RedemptionOrigin { redemption_id, reward_id: reward_id.to_string() })
        }
        Origin::Refund { redemption_id, reward_id } => {
            Kind::Refund(v1::RefundOrigin { redemption_id, reward_id: reward_id.to_string() })
        }
        Origin::Hold { hold_id, reason } => Kind::Hold(v1::HoldOrigin { hold_id, reason }),
        Origin::Expiry { expired_at } => Kind::Expiry(v1::ExpiryOrigin { expired_at: Some(timestamp(expired_at)) }),
        Origin::Transfer { other_member_id, reason } => {
            Kind::Transfer(v1::TransferOrigin { other_member_id: other_member_id.to_string(), reason })
        }
        Origin::Reversal { reversed_sequence, reason, .. } => {
            Kind::Reversal(v1::ReversalOrigin { reversed_sequence: reversed_sequence.0, reason })
        }
        Origin::Merge { other_member_id } => {
            Kind::Merge(v1::MergeOrigin { other_member_id: other_member_id.to_string() })
        }
    }
}
