//! A consumption: the checks in API.md's order, then everything that it earns.
//!
//! # Invariants
//!
//! - Every rule of every campaign that the member has joined is tried against every line, in the order they are
//!   written: all that match, earn.
//! - Conditions and multipliers see the member as it was before the consumption, so that the order of lines and
//!   rules makes no difference to them.
//! - A unit earns `points`; the line's points are multiplied as [`Stacking`](crate::loyalty::programme::Stacking)
//!   says, and rounded down.

use std::collections::BTreeMap;

use cel::Value;
use serde::Serialize;

use super::draft::{Draft, Owed, overflow};
use super::{Decision, WorkingSet, coupon, follow, live, referral, resolve, tenant_config};
use crate::command::Command;
use crate::event::*;
use crate::expression::variable;
use crate::id::{CouponBookId, MultiplierId, RuleId, Sequence};
use crate::loyalty::campaign::{Campaign, EarningRule};
use crate::loyalty::consumption::{self, Consumption, Line, Receipt};
use crate::loyalty::ledger::Currency;
use crate::loyalty::member::{CapUse, Card};
use crate::loyalty::punchcard;
use crate::quantity::Stamps;
use crate::rejection::Rejection;

pub(super) fn decide(
    set: &WorkingSet<'_>,
    command: &Command,
    consumption: &Consumption,
) -> Result<Decision, Rejection> {
    if let Some((sequence, record)) = set.seen {
        return Err(seen_before(set, sequence, record, consumption));
    }
    let config = tenant_config(set, command)?;
    let conflict = |(first, second)| Rejection::IdentifiersConflict { first, second };
    let found = resolve(&consumption.identifiers, set.owners).map_err(conflict)?;
    let member = found.and(set.member).ok_or(Rejection::AccountNotFound)?;
    live(member)?;
    if member.blocked.is_some() {
        return Err(Rejection::UserBlocked);
    }
    if member.cards.is_empty() {
        return Err(Rejection::UserHasNoCards);
    }
    let mut draft = Draft::new(set, config, member);
    draft.push(ConsumptionRecorded {
        consumption_id: consumption.consumption_id.clone(),
        member_id: member.id,
        consumed_at: consumption.consumed_at,
        lines: consumption.lines.clone(),
        identifiers_digest: consumption.identifiers_digest(set.digest_key),
    })?;
    let matched = vec![false; consumption.lines.len()];
    let mut earning = Earning { draft, consumption, matched, seen: None, coupons: BTreeMap::new() };
    for card in &member.cards {
        let campaign = config.campaigns.get(&card.campaign_id).expect("campaigns are never removed");
        if campaign.validity.contains(consumption.consumed_at) {
            earning.campaign(campaign, card)?;
        }
    }
    earning.unmatched()?;
    follow::up(earning.draft)
}

fn seen_before(set: &WorkingSet<'_>, sequence: Sequence, record: &Record, consumption: &Consumption) -> Rejection {
    let receipt = Receipt::of(sequence, record.time, &record.events);
    let first = Box::new(receipt.expect("a consumption's key leads to a consumption's record"));
    let Some(Event::ConsumptionRecorded(recorded)) = record.events.first() else {
        unreachable!("the receipt was made from it")
    };
    match consumption::difference(recorded, consumption, set.digest_key) {
        None => Rejection::ConsumptionExists { first },
        Some(field) => Rejection::ConsumptionExistsWithDifferentContent { field, first },
    }
}

/// What one consumption earns, while it is being worked out.
struct Earning<'a> {
    draft: Draft<'a>,
    consumption: &'a Consumption,
    /// By line.
    matched: Vec<bool>,
    /// What expressions see of the consumption and of the member, once one is asked.
    seen: Option<(Value, Value)>,
    /// Coupons given so far, of each book: the next free one is not one of them.
    coupons: BTreeMap<CouponBookId, u64>,
}

/// What a campaign's rules came to so far.
struct Tally<'a> {
    campaign: &'a Campaign,
    /// As it was before the consumption.
    card: &'a Card,
    card_seen: Option<Value>,
    cap_uses: Vec<CapUse>,
    rules: Vec<RuleId>,
}

impl<'a> Earning<'a> {
    fn campaign(&mut self, campaign: &'a Campaign, card: &'a Card) -> Result<(), Rejection> {
        let before = self.draft.events.len();
        let mut tally = Tally { campaign, card, card_seen: None, cap_uses: Vec::new(), rules: Vec::new() };
        for line in 0..self.consumption.lines.len() {
            for rule in &campaign.rules {
                let sku = &self.consumption.lines[line].sku;
                if rule.skus.matches(sku) && rule.validity.contains(self.consumption.consumed_at) {
                    self.matched[line] = true;
                    self.rule(rule, line as u32, &mut tally)?;
                }
            }
        }
        if tally.rules.is_empty() {
            return Ok(());
        }
        let member_id = self.draft.member().id;
        let campaign_id = campaign.id.clone();
        if card.consumptions == 0 {
            let consumption_id = self.consumption.consumption_id.clone();
            let first = ConsumptionFirst { consumption_id: consumption_id.clone(), member_id, campaign_id };
            self.draft.events.insert(before, first.into());
            let bonus = campaign.programme.first_bonus;
            let origin = Origin::FirstConsumption { consumption_id };
            let points = Currency::Points(campaign.id.clone());
            self.draft.earn(member_id, &points, bonus.points.0, origin.clone())?;
            self.draft.earn(member_id, &Currency::Coins, bonus.coins.0, origin)?;
        }
        let campaign_id = campaign.id.clone();
        self.draft.push(ConsumptionCounted { campaign_id, cap_uses: tally.cap_uses })?;
        referral::succeed(&mut self.draft, campaign, &tally.rules)
    }

    fn rule(&mut self, rule: &EarningRule, line: u32, tally: &mut Tally<'a>) -> Result<(), Rejection> {
        let at = self.consumption.consumed_at;
        let quantity = self.consumption.lines[line as usize].quantity.units();
        if let Some(condition) = &rule.condition {
            let variables = self.variables(line, tally);
            if !condition.holds(&variables) {
                return self.refuse(Unrewarded::ConditionNotMet, rule, line, quantity, tally);
            }
        }
        let mut units = quantity;
        for cap in &rule.caps {
            let number = cap.period.number(at);
            let now_used: u64 = (tally.cap_uses.iter())
                .filter(|u| u.rule_id == rule.id && u.period == cap.period && u.number == number)
                .map(|u| u.units)
                .sum();
            let left = tally.card.cap_left(&rule.id, cap.period, cap.units_max, at);
            units = units.min(left.saturating_sub(now_used));
        }
        if units < quantity {
            self.refuse(Unrewarded::CapReached, rule, line, quantity - units, tally)?;
        }
        if units == 0 {
            return Ok(());
        }
        for cap in &rule.caps {
            let (period, number) = (cap.period, cap.period.number(at));
            let same = |u: &&mut CapUse| u.rule_id == rule.id && u.period == period && u.number == number;
            match tally.cap_uses.iter_mut().find(same) {
                Some(used) => used.units += units,
                None => tally.cap_uses.push(CapUse { rule_id: rule.id.clone(), period, number, units }),
            }
        }
        self.draft.push(ConsumptionMatched {
            consumption_id: self.consumption.consumption_id.clone(),
            member_id: self.draft.member().id,
            campaign_id: tally.campaign.id.clone(),
            rule_id: rule.id.clone(),
            line,
            sku: self.consumption.lines[line as usize].sku.clone(),
            units,
        })?;
        tally.rules.push(rule.id.clone());
        self.points(rule, line, units, tally)?;
        self.coins(rule, line, units)?;
        self.stamps(rule, line, units, tally)?;
        self.coupon(rule, line, units, tally)?;
        self.external(rule, line, units, tally)
    }

    fn refuse(
        &mut self,
        reason: Unrewarded,
        rule: &EarningRule,
        line: u32,
        units: u64,
        tally: &Tally<'_>,
    ) -> Result<(), Rejection> {
        self.draft.push(ConsumptionRejected {
            consumption_id: self.consumption.consumption_id.clone(),
            member_id: self.draft.member().id,
            reason,
            line,
            sku: self.consumption.lines[line as usize].sku.clone(),
            units,
            campaign_id: Some(tally.campaign.id.clone()),
            rule_id: Some(rule.id.clone()),
        })
    }

    fn variables(&mut self, line: u32, tally: &mut Tally<'a>) -> [(&'static str, Value); 4] {
        #[derive(Serialize)]
        struct Seen<'a> {
            consumption_id: &'a str,
            consumed_at_ms: i64,
            lines: &'a [Line],
        }
        let (consumption, before) = (self.consumption, &self.draft.parties[0].before);
        let (whole, member) = self.seen.get_or_insert_with(|| {
            let whole = Seen {
                consumption_id: &consumption.consumption_id,
                consumed_at_ms: consumption.consumed_at.0,
                lines: &consumption.lines,
            };
            (variable(&whole), follow::member_variable(before))
        });
        let card = tally.card_seen.get_or_insert_with(|| follow::card_variable(tally.card));
        [
            ("line", variable(&consumption.lines[line as usize])),
            ("consumption", whole.clone()),
            ("member", member.clone()),
            ("card", card.clone()),
        ]
    }

    fn points(&mut self, rule: &EarningRule, line: u32, units: u64, tally: &mut Tally<'a>) -> Result<(), Rejection> {
        if rule.points.0 == 0 {
            return Ok(());
        }
        let currency = Currency::Points(tally.campaign.id.clone());
        let multipliers = self.multipliers(line, tally);
        let percents: Vec<u32> = multipliers.iter().map(|(_, percent)| *percent).collect();
        let stacking = tally.campaign.programme.stacking;
        let amount = rule.points.checked_mul(units).and_then(|base| stacking.apply(base.0, &percents));
        let amount = amount.ok_or_else(|| overflow(&currency))?;
        let origin = self.origin(rule, line, multipliers);
        self.draft.earn(self.draft.member().id, &currency, amount, origin)
    }

    /// Those that hold, in the order written.
    fn multipliers(&mut self, line: u32, tally: &mut Tally<'a>) -> Vec<(MultiplierId, u32)> {
        let mut held = Vec::new();
        for multiplier in &tally.campaign.programme.multipliers {
            let member = &self.draft.parties[0].before;
            let holds = multiplier.validity.contains(self.consumption.consumed_at)
                && multiplier.tier.as_ref().is_none_or(|tier| tally.card.tier.as_ref() == Some(tier))
                && multiplier.segment.as_ref().is_none_or(|segment| member.segments.contains(segment));
            if !holds {
                continue;
            }
            if let Some(condition) = &multiplier.condition
                && !condition.holds(&self.variables(line, tally))
            {
                continue;
            }
            held.push((multiplier.id.clone(), multiplier.percent));
        }
        held
    }

    fn origin(&self, rule: &EarningRule, line: u32, multipliers: Vec<(MultiplierId, u32)>) -> Origin {
        Origin::Consumption {
            consumption_id: self.consumption.consumption_id.clone(),
            line,
            sku: self.consumption.lines[line as usize].sku.clone(),
            rule_id: rule.id.clone(),
            multipliers,
        }
    }

    fn coins(&mut self, rule: &EarningRule, line: u32, units: u64) -> Result<(), Rejection> {
        if rule.coins.0 == 0 {
            return Ok(());
        }
        let amount = rule.coins.checked_mul(units).ok_or_else(|| overflow(&Currency::Coins))?;
        let origin = self.origin(rule, line, Vec::new());
        self.draft.earn(self.draft.member().id, &Currency::Coins, amount.0, origin)
    }

    fn stamps(&mut self, rule: &EarningRule, line: u32, units: u64, tally: &Tally<'_>) -> Result<(), Rejection> {
        let Some(reward) = &rule.stamps else { return Ok(()) };
        let definition = tally.campaign.punchcard(&reward.punchcard_id).expect("checked when the campaign was written");
        let member = self.draft.member();
        let member_id = member.id;
        let (stamps, rows) = member.card(&tally.campaign.id).expect("it is the member's").row(&definition.id);
        let added = punchcard::add(definition, (stamps, rows), units * u64::from(reward.per_unit));
        let (campaign_id, punchcard_id) = (tally.campaign.id.clone(), definition.id.clone());
        let origin = self.origin(rule, line, Vec::new());
        if added.kept > 0 {
            self.draft.push(PunchcardStampsReceived {
                member_id,
                campaign_id: campaign_id.clone(),
                punchcard_id: punchcard_id.clone(),
                stamps: Stamps(added.kept),
                row_length: definition.row_length,
                previous: RowState { stamps, rows_completed: rows },
                new: RowState { stamps: Stamps(added.stamps), rows_completed: added.rows_completed },
                origin: origin.clone(),
            })?;
        }
        for (step, times) in added.steps {
            let (campaign_id, punchcard_id) = (campaign_id.clone(), punchcard_id.clone());
            self.draft.push(PunchcardStepCompleted { member_id, campaign_id, punchcard_id, step, times })?;
        }
        if added.rows_completed > rows {
            let (campaign_id, punchcard_id) = (campaign_id.clone(), punchcard_id.clone());
            let (rows, rows_completed) = (added.rows_completed - rows, added.rows_completed);
            self.draft.push(PunchcardCompleted { member_id, campaign_id, punchcard_id, rows, rows_completed })?;
        }
        if added.discarded > 0 {
            let stamps = Stamps(added.discarded);
            self.draft.push(PunchcardStampsDiscarded { member_id, campaign_id, punchcard_id, stamps, origin })?;
        }
        Ok(())
    }

    /// One for the line, if any is left.
    fn coupon(&mut self, rule: &EarningRule, line: u32, units: u64, tally: &Tally<'_>) -> Result<(), Rejection> {
        let Some(book) = &rule.coupon_book else { return Ok(()) };
        let given = self.coupons.entry(book.clone()).or_default();
        match coupon::next_free(self.draft.set, book, *given) {
            Ok(found) => {
                *given += 1;
                let usage_id = format!("{}/{line}/{}", self.consumption.consumption_id, rule.id);
                let (set, config) = (self.draft.set, self.draft.config);
                let assigned = coupon::assigned(set, config, &found, self.draft.member(), "rule", &usage_id);
                self.draft.push(assigned)
            }
            Err(Rejection::NoCouponsLeft(_)) => self.refuse(Unrewarded::NoCouponsLeft, rule, line, units, tally),
            Err(other) => Err(other),
        }
    }

    fn external(&mut self, rule: &EarningRule, line: u32, units: u64, tally: &Tally<'_>) -> Result<(), Rejection> {
        let Some(external) = &rule.external else { return Ok(()) };
        let amount = i64::try_from(units).ok().and_then(|units| external.amount.checked_mul(units));
        let owed = Owed {
            campaign_id: &tally.campaign.id,
            campaign_type: "loyalty",
            reward_id: &external.reward_id,
            reward_name: &external.reward_name,
            amount: amount.ok_or_else(|| Rejection::BalanceOverflow { currency: external.reward_id.to_string() })?,
        };
        let origin = self.origin(rule, line, Vec::new());
        self.draft.owe(self.draft.member().id, owed, origin)
    }

    fn unmatched(&mut self) -> Result<(), Rejection> {
        for line in 0..self.matched.len() {
            if self.matched[line] {
                continue;
            }
            let Line { sku, quantity, .. } = &self.consumption.lines[line];
            self.draft.push(ConsumptionRejected {
                consumption_id: self.consumption.consumption_id.clone(),
                member_id: self.draft.member().id,
                reason: Unrewarded::NoRuleMatched,
                line: line as u32,
                sku: sku.clone(),
                units: quantity.units(),
                campaign_id: None,
                rule_id: None,
            })?;
        }
        Ok(())
    }
}
