//! Holds the engine's world beside the auditor's books.

use std::collections::BTreeMap;

use punchline_engine::event::Event;
use punchline_engine::loyalty::account::{Account, Lot};
use punchline_engine::loyalty::item::Item;
use punchline_engine::loyalty::ledger::Currency;
use punchline_engine::rejection::Rejection;

use super::book::{Book, Lots, NEVER};
use super::model::{Auditor, Verdict, number};
use super::programme::{self, RICH, slug};
use crate::support::World;

/// Whether the answer is one that the verdict allows.
pub fn answer(verdict: &Verdict, outcome: &Result<Vec<Event>, Rejection>) -> Result<(), String> {
    let fits = match (verdict, outcome) {
        (Verdict::Yes, Ok(events)) => !events.is_empty(),
        (Verdict::Fine, Ok(_)) => true,
        (Verdict::Again, Ok(events)) => events.is_empty(),
        (Verdict::No(reasons), Err(rejection)) => reasons.contains(&rejection.reason()),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let told = outcome.as_ref().map(|events| events.iter().map(|e| e.type_name()).collect::<Vec<_>>());
    Err(format!("the auditor says {verdict:?}, the engine {told:?}"))
}

fn lots(lots: &[Lot]) -> Lots {
    lots.iter().map(|lot| (lot.expires_at.map_or(NEVER, |at| at.0), lot.amount)).collect()
}

fn book(account: &Account) -> Book {
    let holds = account.holds.iter().map(|hold| (hold.id.clone(), (lots(&hold.lots), hold.until.0))).collect();
    Book { free: lots(&account.lots), holds, debt: (-account.available()).max(0) }
}

fn same<T: PartialEq + std::fmt::Debug>(what: impl FnOnce() -> String, engine: T, auditor: T) -> Result<(), String> {
    if engine == auditor {
        return Ok(());
    }
    Err(format!("{}: the engine says {engine:?}, the auditor {auditor:?}", what()))
}

impl Auditor {
    /// Compares everything. Tiers and segments of members whom the command did not touch may have become out of
    /// date by time alone: there the engine's word is taken, where it is the old or the new one.
    pub fn compare(&mut self, world: &World) -> Result<(), String> {
        same(|| "members".into(), world.members.len(), self.people.len())?;
        for (id, member) in &world.members {
            let person = self.people[id].clone();
            same(|| format!("{id} blocked"), member.blocked.is_some(), person.blocked)?;
            same(|| format!("{id} merged"), member.merged_into, person.merged)?;
            same(|| format!("{id} coins"), member.coins.balance, self.read(*id, &Currency::Coins).balance())?;
            same(|| format!("{id} coins"), book(&member.coins), self.read(*id, &Currency::Coins))?;
            if person.merged.is_some() {
                let left: Vec<i64> = member.accounts().map(|(_, account)| account.balance).collect();
                same(|| format!("{id} is merged"), left.iter().sum(), 0)?;
                continue;
            }
            let cards: Vec<_> = member.cards.iter().map(|card| card.campaign_id.clone()).collect();
            same(|| format!("{id} cards"), cards, person.cards)?;
            for card in &member.cards {
                let campaign = card.campaign_id.clone();
                let points = Currency::Points(campaign.clone());
                let at = |what: &str| format!("{id} {campaign} {what}");
                same(|| at("points"), book(&card.points), self.read(*id, &points))?;
                same(|| at("balance"), card.points.balance, self.read(*id, &points).balance())?;
                for punchcard in &self.campaigns[&campaign].punchcards {
                    let (stamps, rows) = card.row(&punchcard.id);
                    let row = self.rows.get(&(*id, campaign.clone(), punchcard.id.clone())).copied();
                    same(|| at(punchcard.id.as_str()), (stamps.0, rows), row.unwrap_or_default())?;
                }
                for board in &self.campaigns[&campaign].programme.leaderboards {
                    let round = number(board.period, self.now);
                    let score = self.scores.get(&(*id, campaign.clone(), board.id.clone(), round)).copied();
                    same(|| at("score"), card.score(&board.id, round as i32), score.unwrap_or(0))?;
                }
                let key = (*id, campaign.clone());
                let (old, new) = (self.tiers.get(&key).cloned().flatten(), self.tier(*id, &campaign));
                if self.touched.contains(id) || card.tier != old {
                    same(|| at("tier"), &card.tier, &new)?;
                }
                self.tiers.insert(key, card.tier.clone());
            }
            let (is_rich, was_rich) = (member.segments.contains(&slug("rich")), self.rich.contains(id));
            if self.touched.contains(id) || is_rich != was_rich {
                let rich = self.read(*id, &Currency::Coins).balance() >= RICH;
                same(|| format!("{id} rich"), is_rich, rich)?;
            }
            if is_rich {
                self.rich.insert(*id)
            } else {
                self.rich.remove(id)
            };
        }
        self.compare_items(world)
    }

    fn compare_items(&self, world: &World) -> Result<(), String> {
        for reward in programme::rewards() {
            let given = world.house.redeemed.get(&reward.reward_id).copied().unwrap_or(0);
            let had = self.had.iter().filter(|((_, id), _)| *id == reward.reward_id).map(|(_, n)| u64::from(*n)).sum();
            same(|| format!("{} given", reward.reward_id), given, had)?;
        }
        let mut owed = BTreeMap::new();
        for item in world.items.values() {
            if let Some(redemption) = item.redemption() {
                let id = &redemption.redemption_id;
                let auditors = self.redemptions.get(id).map(|r| (r.who, r.state));
                same(|| format!("redemption {id}"), Some((redemption.member_id, redemption.state.as_str())), auditors)?;
            }
            if let Some(coupon) = item.coupon() {
                let auditors = &self.coupons[&(coupon.coupon_book_id.to_string(), coupon.code.clone())];
                let what = || format!("coupon {}", coupon.code);
                same(what, coupon.member_id, auditors.owner)?;
                same(what, &coupon.usage_ids, &auditors.uses)?;
            }
            if let Some(o) = Item::obligation(item) {
                *owed.entry((o.member_id, o.campaign_id.clone(), o.reward_id.clone())).or_default() += o.amount;
            }
        }
        let redemptions = world.items.values().filter(|item| item.redemption().is_some()).count();
        same(|| "redemptions".into(), redemptions, self.redemptions.len())?;
        same(|| "obligations".into(), &owed, &self.owed)
    }
}
