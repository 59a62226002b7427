//! An account: a balance, the lots it is made of, and what of it is held.
//!
//! ```text
//! balance = lots + held − debt
//! ```
//!
//! # Invariants
//!
//! - Lots are sorted by expiry, nearest first and those without last, one for each instant, none empty.
//! - There are lots or there is a debt, never both: what comes in pays the debt first.
//! - What is spent comes from the lots that expire next.
//! - What is held is out of reach of expiry; given back after its expiry, it expires with the next run.

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// Most holds of one account at a time.
pub const HOLDS_MAX: usize = 100;

/// An amount that expires at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// When; never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
    /// More than 0.
    pub amount: i64,
}

/// An amount that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Unique within the tenant.
    pub id: String,
    /// What it was taken from; their sum is what is held.
    pub lots: Vec<Lot>,
    /// When it is given back if nobody posts it before.
    pub until: UnixMillis,
}

impl Hold {
    /// What is held.
    pub fn amount(&self) -> i64 {
        sum(&self.lots)
    }
}

/// What a member has of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// All that is there, what is held included.
    pub balance: i64,
    /// What is free, by expiry.
    pub lots: Vec<Lot>,
    /// What is held.
    pub holds: Vec<Hold>,
}

impl Account {
    /// What is held, in all.
    pub fn held(&self) -> i64 {
        self.holds.iter().map(Hold::amount).sum()
    }

    /// What may be spent; below 0 where there is a debt.
    pub fn available(&self) -> i64 {
        self.balance - self.held()
    }

    /// The hold of that id.
    pub fn hold(&self, id: &str) -> Option<&Hold> {
        self.holds.iter().find(|h| h.id == id)
    }

    /// The lots that spending `amount` would use up, nearest expiry first; less where there is less.
    pub fn next_lots(&self, amount: i64) -> Vec<Lot> {
        take(&mut self.lots.clone(), amount)
    }

    /// Something came in.
    pub(crate) fn credit(&mut self, amount: i64, expires_at: Option<UnixMillis>) {
        let debt = (-self.available()).clamp(0, amount);
        self.balance += amount;
        self.put(Lot { expires_at, amount: amount - debt });
    }

    /// Something left: from the hold named, or from what is free.
    pub(crate) fn debit(&mut self, amount: i64, hold: Option<&str>) {
        self.balance -= amount;
        match hold.and_then(|id| self.holds.iter().position(|h| h.id == id)) {
            Some(at) => {
                drop(take(&mut self.holds[at].lots, amount));
                self.free(at);
            }
            None => drop(take(&mut self.lots, amount)),
        }
    }

    /// What expires at `at` or did before.
    pub fn expired(&self, at: UnixMillis) -> impl Iterator<Item = &Lot> {
        self.lots.iter().take_while(move |lot| lot.expires_at.is_some_and(|expires| expires <= at))
    }

    pub(crate) fn place(&mut self, id: &str, amount: i64, until: UnixMillis) {
        let lots = take(&mut self.lots, amount);
        self.holds.push(Hold { id: id.into(), lots, until });
    }

    pub(crate) fn release(&mut self, id: &str) {
        if let Some(at) = self.holds.iter().position(|h| h.id == id) {
            self.free(at);
        }
    }

    /// Gives free what is left of a hold.
    fn free(&mut self, at: usize) {
        // A debt that came up meanwhile is paid first.
        let mut debt = (-self.available()).max(0);
        for mut lot in self.holds.remove(at).lots {
            let paid = debt.min(lot.amount);
            debt -= paid;
            lot.amount -= paid;
            self.put(lot);
        }
    }

    fn put(&mut self, lot: Lot) {
        if lot.amount == 0 {
            return;
        }
        let order = |l: &Lot| l.expires_at.map_or((1, UnixMillis(0)), |at| (0, at));
        match self.lots.binary_search_by_key(&order(&lot), order) {
            Ok(at) => self.lots[at].amount += lot.amount,
            Err(at) => self.lots.insert(at, lot),
        }
    }
}

/// Takes `amount` out of `lots`, nearest expiry first.
fn take(lots: &mut Vec<Lot>, mut amount: i64) -> Vec<Lot> {
    let mut taken = Vec::new();
    while amount > 0 && !lots.is_empty() {
        let part = lots[0].amount.min(amount);
        amount -= part;
        taken.push(Lot { amount: part, ..lots[0] });
        lots[0].amount -= part;
        if lots[0].amount == 0 {
            lots.remove(0);
        }
    }
    taken
}

/// The sum of lots.
pub fn sum(lots: &[Lot]) -> i64 {
    lots.iter().map(|lot| lot.amount).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Option<UnixMillis> {
        Some(UnixMillis(day * UnixMillis::DAY_MS))
    }

    fn told(account: &Account) -> String {
        let lot = |l: &Lot| match l.expires_at {
            Some(at) => format!("{}@{}", l.amount, at.0 / UnixMillis::DAY_MS),
            None => l.amount.to_string(),
        };
        let lots: Vec<String> = account.lots.iter().map(lot).collect();
        format!("{} = [{}] held {}", account.balance, lots.join(" "), account.held())
    }

    #[test]
    fn what_expires_next_is_spent_first() {
        let mut a = Account::default();
        a.credit(10, None);
        a.credit(5, at(9));
        a.credit(7, at(3));
        a.credit(1, at(9));
        assert_eq!(told(&a), "23 = [7@3 6@9 10] held 0");
        a.debit(8, None);
        assert_eq!(told(&a), "15 = [5@9 10] held 0");
        a.place("h", 7, UnixMillis(0));
        assert_eq!((told(&a).as_str(), a.available()), ("15 = [8] held 7", 8));
        a.release("h");
        assert_eq!(told(&a), "15 = [5@9 10] held 0");
        a.place("h", 7, UnixMillis(0));
        a.debit(6, Some("h"));
        assert_eq!(told(&a), "9 = [9] held 0");
    }

    #[test]
    fn a_debt_is_paid_first() {
        let mut a = Account::default();
        a.credit(5, at(1));
        a.place("h", 3, UnixMillis(0));
        a.debit(6, None);
        assert_eq!((told(&a).as_str(), a.available()), ("-1 = [] held 3", -4));
        a.release("h");
        assert_eq!((told(&a).as_str(), a.available()), ("-1 = [] held 0", -1));
        a.credit(4, at(2));
        assert_eq!(told(&a), "3 = [3@2] held 0");

        // Also where a part of what was held is posted.
        a.place("h", 3, UnixMillis(0));
        a.debit(4, None);
        a.debit(1, Some("h"));
        assert_eq!((told(&a).as_str(), a.available()), ("-2 = [] held 0", -2));
    }
}
