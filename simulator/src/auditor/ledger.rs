//! The ledger, summed up apart from the engine (G7), and records that are whole (G3).

use std::collections::BTreeMap;

use punchline_engine::event::{Event, Origin, Record};
use punchline_engine::id::{MemberId, Tenant};
use punchline_engine::loyalty::ledger::Currency;

use super::history::History;

/// A movement on a member's account.
struct Movement {
    member: MemberId,
    currency: Currency,
    amount: i64,
    before: i64,
    after: i64,
    /// Whether the same amount has to come to another member, or to leave it.
    moves: bool,
}

fn movement(event: &Event) -> Option<Movement> {
    let moves = |origin: &Origin| matches!(origin, Origin::Transfer { .. } | Origin::Merge { .. });
    Some(match event {
        Event::PointsCredited(e) => Movement {
            member: e.member_id,
            currency: Currency::Points(e.campaign_id.clone()),
            amount: e.amount.0,
            before: e.previous_balance.0,
            after: e.new_balance.0,
            moves: moves(&e.origin),
        },
        Event::PointsDebited(e) => Movement {
            member: e.member_id,
            currency: Currency::Points(e.campaign_id.clone()),
            amount: -e.amount.0,
            before: e.previous_balance.0,
            after: e.new_balance.0,
            moves: moves(&e.origin),
        },
        Event::CoinsChanged(e) => Movement {
            member: e.member_id,
            currency: Currency::Coins,
            amount: e.amount.0,
            before: e.previous_balance.0,
            after: e.new_balance.0,
            moves: moves(&e.origin),
        },
        _ => return None,
    })
}

/// Checks that every balance goes on from the one before, that what is moved from one member comes to another,
/// and that the views have the same sums.
pub fn check(history: &History) -> Result<(), String> {
    let mut balances: BTreeMap<(Tenant, MemberId, Currency), i64> = BTreeMap::new();
    for (first, record) in &history.records {
        let mut moved: BTreeMap<Currency, i64> = BTreeMap::new();
        for movement in record.events.iter().filter_map(movement) {
            let Movement { member, currency, amount, before, after, moves } = movement;
            let balance = balances.entry((record.tenant, member, currency.clone())).or_default();
            if *balance != before || before + amount != after {
                return Err(format!("G7: {member} had {balance} {currency:?}; at {first}, {before} becomes {after}"));
            }
            *balance = after;
            *moved.entry(currency).or_default() += if moves { amount } else { 0 };
        }
        if let Some((currency, left)) = moved.iter().find(|(_, left)| **left != 0) {
            return Err(format!("G7: at {first}, {left} {currency:?} come from nowhere"));
        }
        check_whole(*first, record)?;
    }
    let mut of_members = BTreeMap::new();
    for ((tenant, member, currency), balance) in balances {
        of_members.entry((tenant, member)).or_insert_with(Vec::new).push((currency, balance));
    }
    for ((tenant, id), expected) in of_members {
        let member = history.views.peek_member(tenant, id).map_err(|e| format!("G8: {id} cannot be read: {e}"))?;
        let member = member.ok_or_else(|| format!("G8: {id} has a balance and is not there"))?;
        for (currency, balance) in expected {
            let found = match &currency {
                Currency::Coins => member.coins.balance,
                Currency::Points(campaign) => member.card(campaign).map_or(0, |card| card.points.balance),
            };
            if found != balance {
                return Err(format!("G7: {id} has {found} {currency:?}, and {balance} by the journal"));
            }
        }
    }
    Ok(())
}

/// What one consumption earns by the simplest of rules is in its record, all of it.
fn check_whole(first: u64, record: &Record) -> Result<(), String> {
    let (mut units, mut credited) = (0, 0);
    for event in &record.events {
        match event {
            Event::ConsumptionMatched(e) if e.rule_id.as_str() == crate::programme::PLAIN_RULE => {
                units += e.units as i64;
            }
            Event::PointsCredited(e) => {
                if let Origin::Consumption { rule_id, .. } = &e.origin
                    && rule_id.as_str() == crate::programme::PLAIN_RULE
                {
                    credited += e.amount.0;
                }
            }
            _ => {}
        }
    }
    match credited == units * crate::programme::PLAIN_POINTS {
        true => Ok(()),
        false => Err(format!("G3: at {first}, {units} units earned {credited} points")),
    }
}
