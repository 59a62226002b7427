//! A second fold of the journal, event by event: each is applied twice, and after each the books must balance.

use std::collections::{BTreeMap, BTreeSet};

use punchline_engine::event::{Event, Record, Recorded};
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::loyalty::account::{Account, sum};
use punchline_engine::loyalty::item::{self, Item, ItemKey};
use punchline_engine::loyalty::ledger::{Currency, House};
use punchline_engine::loyalty::member::Member;

use super::programme;
use crate::support::World;

#[derive(Default)]
pub struct Shadow {
    members: BTreeMap<MemberId, Member>,
    house: House,
    items: BTreeMap<ItemKey, Item>,
    records: usize,
}

impl Shadow {
    /// Folds in what came to the world's journal since, and compares.
    pub fn follow(&mut self, world: &World) -> Result<(), String> {
        for (first, record) in &world.journal[self.records..] {
            self.fold(*first, record)?;
        }
        self.records = world.journal.len();
        let same = self.members == world.members && self.house == world.house && self.items == world.items;
        if same { Ok(()) } else { Err("the journal folded again gives another world".into()) }
    }

    fn fold(&mut self, first: Sequence, record: &Record) -> Result<(), String> {
        for recorded in record.all_recorded(first) {
            if let Event::CouponAssigned(e) = recorded.event {
                let key = ItemKey::Coupon(e.coupon_book.coupon_book_id.clone(), e.code.clone());
                let owner = self.items.get(&key).and_then(Item::member);
                if owner.is_some() {
                    return Err(format!("coupon {} is of {owner:?} and goes to {}", e.code, e.member_id));
                }
            }
            self.apply(&recorded);
            let (members, house, items) = (self.members.clone(), self.house.clone(), self.items.clone());
            self.apply(&recorded);
            if (&members, &house, &items) != (&self.members, &self.house, &self.items) {
                return Err(format!("{} applied twice is not as applied once", recorded.sequence));
            }
            self.check().map_err(|why| format!("after {} {:?}: {why}", recorded.sequence, recorded.event))?;
        }
        Ok(())
    }

    fn apply(&mut self, recorded: &Recorded<'_>) {
        for (nth, key) in item::keys(recorded.event).into_iter().enumerate() {
            if let Some(item) = item::apply((nth, &key), self.items.get(&key).cloned(), recorded) {
                self.items.insert(key, item);
            }
        }
        self.house.apply(recorded);
        if let Some(member) = Member::created_by(recorded) {
            self.members.entry(member.id).or_insert(member);
        } else if let Some(member) = recorded.member.and_then(|id| self.members.get_mut(&id)) {
            member.apply(recorded);
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut totals: BTreeMap<Currency, i64> = BTreeMap::new();
        for member in self.members.values() {
            for (campaign, account) in member.accounts() {
                sound(account).map_err(|why| format!("{campaign:?} of {}: {why}: {account:?}", member.id))?;
                let currency = campaign.map_or(Currency::Coins, |id| Currency::Points(id.clone()));
                *totals.entry(currency).or_default() += account.balance;
            }
        }
        for (currency, total) in &totals {
            let account = self.house.accounts.get(currency).copied().unwrap_or_default();
            if account.house + total != 0 || account.members != *total {
                return Err(format!("{currency}: members have {total}, the house says {account:?}"));
            }
        }
        if self.house.imbalance() != 0 {
            return Err(format!("imbalance {}", self.house.imbalance()));
        }
        for reward in programme::rewards() {
            let given = self.house.redeemed.get(&reward.reward_id).copied().unwrap_or(0);
            if reward.stock.is_some_and(|stock| given > stock) {
                return Err(format!("{given} {} were given", reward.reward_id));
            }
        }
        for (book, _) in programme::books() {
            let state = self.house.books.get(&book.coupon_book_id).copied().unwrap_or_default();
            let coupons = self.items.values().filter_map(Item::coupon);
            let of_book: Vec<_> = coupons.filter(|c| c.coupon_book_id == book.coupon_book_id).collect();
            let assigned = of_book.iter().filter(|c| c.member_id.is_some()).count() as u64;
            let used: usize = of_book.iter().map(|c| c.usage_ids.len()).sum();
            let places: BTreeSet<u64> = of_book.iter().map(|c| c.place).collect();
            let uses_kept = of_book.iter().all(|c| c.usage_ids.len() <= book.uses_max as usize);
            let counts = (state.codes, state.assigned, state.used);
            if counts != (of_book.len() as u64, assigned, used as u64) || places.len() != of_book.len() || !uses_kept {
                return Err(format!("book {}: {state:?}, but {of_book:?}", book.coupon_book_id));
            }
        }
        Ok(())
    }
}

/// What an account promises of itself.
fn sound(account: &Account) -> Result<(), &'static str> {
    let debt = (-account.available()).max(0);
    if sum(&account.lots) + account.held() - debt != account.balance {
        return Err("lots + held − debt is not the balance");
    }
    if debt > 0 && !account.lots.is_empty() {
        return Err("there are lots and a debt");
    }
    if account.lots.iter().chain(account.holds.iter().flat_map(|h| &h.lots)).any(|lot| lot.amount < 1) {
        return Err("a lot is empty");
    }
    let order = |at: usize| account.lots[at].expires_at.map_or((1, 0), |at| (0, at.0));
    if (1..account.lots.len()).any(|at| order(at - 1) >= order(at)) {
        return Err("lots are not in order");
    }
    Ok(())
}
