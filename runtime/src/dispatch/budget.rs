//! What deliveries that are not settled may take of memory, over all subscriptions.
//!
//! While there is plenty a subscription may have as much as the lanes ask for, so that a member whose
//! deliveries fail does not hold up the others. When many receivers are ill at once each subscription is
//! left its share, and what it is owed beyond that stays where it is anyway: in the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Deliveries taken in and not settled, over all subscriptions, at which each is held to its share. What one
/// takes is mostly what its last attempts answered.
pub const TAKEN_IN_MAX: usize = 65_536;
/// What a subscription may take in however many there are.
pub const SHARE_MIN: usize = 64;

/// Counts what all have taken in.
#[derive(Debug, Default)]
pub struct Budget {
    taken_in: AtomicUsize,
    sharers: AtomicUsize,
}

/// One subscription's part, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    taken_in: usize,
}

impl Share {
    /// Of a subscription that has taken in nothing yet.
    pub fn of(budget: Arc<Budget>) -> Share {
        budget.sharers.fetch_add(1, Relaxed);
        Share { budget, taken_in: 0 }
    }

    /// Takes down how much it has taken in now.
    pub fn set(&mut self, taken_in: usize) {
        // Wraps around where it is less than before, and the sum comes out right.
        self.budget.taken_in.fetch_add(taken_in.wrapping_sub(self.taken_in), Relaxed);
        self.taken_in = taken_in;
    }

    /// How much it may have taken in: what all leave free, but never less than its share.
    pub fn most(&self) -> usize {
        let free = TAKEN_IN_MAX.saturating_sub(self.budget.taken_in.load(Relaxed));
        let share = TAKEN_IN_MAX / self.budget.sharers.load(Relaxed).max(1);
        (self.taken_in + free).min(TAKEN_IN_MAX).max(share).max(SHARE_MIN)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.budget.sharers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_has_what_is_free_and_nobody_less_than_the_share() {
        let budget = Arc::new(Budget::default());
        let mut first = Share::of(budget.clone());
        assert_eq!(first.most(), TAKEN_IN_MAX);
        first.set(TAKEN_IN_MAX - 100);
        let mut second = Share::of(budget.clone());
        assert_eq!(second.most(), TAKEN_IN_MAX / 2, "more than the 100 that are free");
        second.set(TAKEN_IN_MAX / 2);
        assert_eq!((first.most(), second.most()), (TAKEN_IN_MAX - 100, TAKEN_IN_MAX / 2), "no more than they have");
        first.set(10);
        assert_eq!(first.most(), TAKEN_IN_MAX / 2, "both fit in");
        drop(second);
        assert_eq!(first.most(), TAKEN_IN_MAX, "what was dropped is given back");
    }

    #[test]
    fn however_many_there_are_each_may_go_on() {
        let budget = Arc::new(Budget::default());
        let shares: Vec<Share> = (0..TAKEN_IN_MAX).map(|_| Share::of(budget.clone())).collect();
        assert!(shares.iter().all(|share| share.most() >= SHARE_MIN));
        let mut full = Share::of(budget.clone());
        full.set(TAKEN_IN_MAX);
        assert_eq!(shares[0].most(), SHARE_MIN);
    }
}
