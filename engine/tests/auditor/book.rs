//! An account as the auditor keeps it: plain maps from the instant of expiry to an amount.

use std::collections::BTreeMap;

/// Amounts by the millisecond of their expiry; [`NEVER`] for those that stay.
pub type Lots = BTreeMap<i64, i64>;

/// Later than any expiry.
pub const NEVER: i64 = i64::MAX;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    pub free: Lots,
    /// By id: what is in it, and until when.
    pub holds: BTreeMap<String, (Lots, i64)>,
    pub debt: i64,
}

pub fn total(lots: &Lots) -> i64 {
    lots.values().sum()
}

/// Takes from the earliest on, as much as there is.
pub fn take(lots: &mut Lots, mut amount: i64) -> Lots {
    let mut taken = Lots::new();
    for (at, there) in lots.iter_mut() {
        let part = amount.min(*there);
        amount -= part;
        *there -= part;
        *taken.entry(*at).or_default() += part;
    }
    lots.retain(|_, amount| *amount != 0);
    taken.retain(|_, amount| *amount != 0);
    taken
}

impl Book {
    pub fn held(&self) -> i64 {
        self.holds.values().map(|(lots, _)| total(lots)).sum()
    }

    pub fn balance(&self) -> i64 {
        total(&self.free) + self.held() - self.debt
    }

    pub fn available(&self) -> i64 {
        total(&self.free) - self.debt
    }

    /// What comes in pays the debt, and what is left is free.
    pub fn credit(&mut self, lots: Lots) {
        for (at, amount) in lots {
            let paid = amount.min(self.debt);
            self.debt -= paid;
            if amount > paid {
                *self.free.entry(at).or_default() += amount - paid;
            }
        }
    }

    pub fn debit(&mut self, amount: i64) -> Lots {
        let taken = take(&mut self.free, amount);
        self.debt += amount - total(&taken);
        taken
    }

    pub fn place(&mut self, id: &str, amount: i64, until: i64) {
        let lots = take(&mut self.free, amount);
        self.holds.insert(id.into(), (lots, until));
    }

    /// Takes `amount` of a hold away for good; the rest is free.
    pub fn post(&mut self, id: &str, amount: i64) {
        let (mut lots, _) = self.holds.remove(id).expect("it was looked up");
        drop(take(&mut lots, amount));
        self.credit(lots);
    }

    pub fn release(&mut self, id: &str) {
        self.post(id, 0);
    }

    /// What ended by `at` goes; how much that was.
    pub fn expire(&mut self, at: i64) -> i64 {
        let later = self.free.split_off(&(at + 1));
        total(&std::mem::replace(&mut self.free, later))
    }
}
