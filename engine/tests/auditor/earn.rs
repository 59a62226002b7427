//! What a consumption earns, line by line.

use std::collections::BTreeSet;

use punchline_engine::id::{CampaignId, MemberId, RewardId};
use punchline_engine::loyalty::campaign::{Campaign, EarningRule, SkuSelector, Validity};
use punchline_engine::loyalty::consumption::{Consumption, Line};
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::loyalty::programme::{Bonus, Multiplier, Stacking};

use super::model::{Auditor, Kind, Verdict, number};

/// What conditions and multipliers look at: the member before anything was earned.
struct Before {
    points: i64,
    tier: Option<String>,
    rich: bool,
}

fn inside(validity: &Validity, at: i64) -> bool {
    validity.starts_at.is_none_or(|from| from.0 <= at) && validity.ends_at.is_none_or(|until| at < until.0)
}

fn is_about(rule: &EarningRule, sku: &str) -> bool {
    match &rule.skus {
        SkuSelector::Exact(exact) => sku == exact,
        SkuSelector::Prefix(prefix) => sku.get(..prefix.len()) == Some(prefix.as_str()),
        SkuSelector::List(list) => list.iter().any(|one| one == sku),
    }
}

/// Conditions are known by their texts.
fn holds(condition: &str, consumption: &Consumption, line: &Line, before: &Before) -> bool {
    match condition {
        "line.quantity >= 3" => line.quantity.units() >= 3,
        "card.points >= 100" => before.points >= 100,
        "line.sku == 'tea_green'" => line.sku == "tea_green",
        "consumption.lines.size() > 1" => consumption.lines.len() > 1,
        other => panic!("the auditor does not know {other}"),
    }
}

fn multiplied(amount: i64, stacking: Stacking, percents: &[i64]) -> i64 {
    match stacking {
        Stacking::Best => amount * percents.iter().max().unwrap_or(&100) / 100,
        Stacking::Add => amount * (100 + percents.iter().map(|p| p - 100).sum::<i64>()) / 100,
        Stacking::Multiply => percents.iter().fold(amount, |amount, percent| amount * percent / 100),
    }
}

impl Auditor {
    pub fn consume(&mut self, consumption: &Consumption) -> Verdict {
        if let Some(first) = self.consumptions.get(&consumption.consumption_id) {
            let reason =
                if first == consumption { "CONSUMPTION_EXISTS" } else { "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT" };
            return Verdict::No(vec![reason]);
        }
        let owners: BTreeSet<MemberId> =
            consumption.identifiers.iter().filter_map(|i| self.emails.get(i)).copied().collect();
        let no = |reason| Verdict::No(vec![reason]);
        let who = match owners.len() {
            0 => return no("ACCOUNT_NOT_FOUND"),
            1 => *owners.first().expect("there is one"),
            _ => return no("IDENTIFIERS_CONFLICT"),
        };
        if self.people[&who].blocked {
            return no("USER_BLOCKED");
        }
        if self.people[&who].cards.is_empty() {
            return no("USER_HAS_NO_CARDS");
        }
        self.consumptions.insert(consumption.consumption_id.clone(), consumption.clone());
        let joined = self.people[&who].cards.clone();
        for id in joined {
            let campaign = self.campaigns[&id].clone();
            self.consume_in(who, &campaign, consumption);
        }
        Verdict::Yes
    }

    fn consume_in(&mut self, who: MemberId, campaign: &Campaign, consumption: &Consumption) {
        let at = consumption.consumed_at.0;
        let card = (who, campaign.id.clone());
        let before = Before {
            points: self.read(who, &Currency::Points(campaign.id.clone())).balance(),
            tier: self.tiers.get(&card).cloned().flatten().map(|tier| tier.to_string()),
            rich: self.rich.contains(&who),
        };
        let mut qualifies = Vec::new();
        for line in &consumption.lines {
            for rule in &campaign.rules {
                let in_time = inside(&campaign.validity, at) && inside(&rule.validity, at);
                if !in_time || !is_about(rule, &line.sku) {
                    continue;
                }
                let met = |condition: &str| holds(condition, consumption, line, &before);
                if rule.condition.as_ref().is_some_and(|c| !met(c.as_str())) {
                    continue;
                }
                let use_of = |cap: &punchline_engine::loyalty::campaign::Cap| {
                    (who, campaign.id.clone(), rule.id.clone(), cap.period, number(cap.period, at))
                };
                let mut units = line.quantity.units();
                for cap in &rule.caps {
                    let used = self.caps.get(&use_of(cap)).copied().unwrap_or(0);
                    units = units.min(cap.units_max - used);
                }
                if units == 0 {
                    continue;
                }
                for cap in &rule.caps {
                    *self.caps.entry(use_of(cap)).or_default() += units;
                }
                qualifies.push(rule.id.clone());
                let times = |m: &Multiplier| {
                    m.tier.as_ref().is_none_or(|tier| before.tier.as_deref() == Some(tier.as_str()))
                        && (m.segment.is_none() || before.rich)
                        && m.condition.as_ref().is_none_or(|c| met(c.as_str()))
                        && inside(&m.validity, at)
                };
                let programme = &campaign.programme;
                let percents: Vec<i64> =
                    programme.multipliers.iter().filter(|m| times(m)).map(|m| i64::from(m.percent)).collect();
                let units = units as i64;
                let points = multiplied(rule.points.0 * units, programme.stacking, &percents);
                self.credit(who, &Currency::Points(campaign.id.clone()), points, Kind::Earned);
                self.credit(who, &Currency::Coins, rule.coins.0 * units, Kind::Earned);
                if let Some(stamps) = &rule.stamps {
                    self.stamp(who, &campaign.id, &stamps.punchcard_id, units as u64 * u64::from(stamps.per_unit));
                }
                if let Some(book) = &rule.coupon_book
                    && let Some(code) = self.next_code(book.as_str())
                {
                    self.assign(who, book.as_str(), &code);
                }
                if let Some(external) = &rule.external {
                    self.owe(who, &campaign.id, &external.reward_id, external.amount * units);
                }
            }
        }
        if qualifies.is_empty() {
            return;
        }
        self.touched.insert(who);
        if self.began.insert(card) {
            self.give(who, &campaign.id, campaign.programme.first_bonus);
        }
        let Some(referral) = &campaign.programme.referral else { return };
        if qualifies.iter().any(|rule| referral.rule_ids.is_empty() || referral.rule_ids.contains(rule)) {
            self.succeed(who, &campaign.id);
        }
    }

    /// The friend did what earns both a reward.
    fn succeed(&mut self, friend: MemberId, campaign: &CampaignId) {
        let Some((advocate, false)) = self.referrals.get(&(friend, campaign.clone())).copied() else { return };
        self.referrals.insert((friend, campaign.clone()), (advocate, true));
        let referral = self.campaigns[campaign].programme.referral.clone().expect("it was asked for");
        self.prize(friend, campaign, referral.friend.bonus, referral.friend.reward_id.as_ref());
        // Whoever is gone, blocked or has no card gets nothing.
        if self.may_earn(advocate) && self.people[&advocate].cards.contains(campaign) {
            self.prize(advocate, campaign, referral.advocate.bonus, referral.advocate.reward_id.as_ref());
        }
    }

    pub fn prize(&mut self, who: MemberId, campaign: &CampaignId, bonus: Bonus, reward: Option<&RewardId>) {
        self.give(who, campaign, bonus);
        if let Some(reward) = reward {
            self.owe(who, campaign, reward, 1);
        }
    }

    pub fn may_earn(&self, who: MemberId) -> bool {
        !self.people[&who].blocked && self.people[&who].merged.is_none()
    }
}
