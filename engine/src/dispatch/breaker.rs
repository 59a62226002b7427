//! The circuit breaker of one endpoint: after so many failures in a row nothing is sent for a while, then
//! one event tries whether the endpoint is back.
//!
//! ```text
//! closed ──n failures in a row──▶ open ──its time is over──▶ half-open ──success──▶ closed
//!                                  ▲                              │
//!                                  └────────failure, for longer───┘
//! ```
//!
//! # Invariants
//!
//! - Nothing is attempted while it is open, so no attempts of the schedule are used up.
//! - What it did is in the journal: it stands after a restart as it stood before.

use serde::Serialize;

use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Longest that a breaker stays open at once, however often it has opened.
pub const OPEN_MS_MAX: u64 = 15 * 60_000;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BreakerPolicy {
    /// Failures in a row after which it opens; 0: never.
    pub failures: u32,
    /// How long it is open at first; doubled each time the endpoint is still not back.
    pub open_ms: u64,
    /// After so long of nothing but failure the subscription is disabled; 0: never.
    pub disable_after_ms: u64,
}

impl Default for BreakerPolicy {
    /// 20 failures, 30 s, never disabled.
    fn default() -> Self {
        BreakerPolicy { failures: 20, open_ms: 30_000, disable_after_ms: 0 }
    }
}

impl BreakerPolicy {
    /// Checks bounds.
    ///
    /// # Errors
    ///
    /// The field out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.failures > 0 && !(100..=OPEN_MS_MAX).contains(&self.open_ms) {
            return Err(InvalidField::new("breaker_open_ms", self.open_ms.to_string(), "must be from 100 to 900000"));
        }
        if self.failures == 0 && self.disable_after_ms > 0 {
            let rule = "needs a breaker: breaker_failures must not be 0";
            return Err(InvalidField::new("disable_after_ms", self.disable_after_ms.to_string(), rule));
        }
        Ok(())
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BreakerState {
    /// Attempts are made.
    #[default]
    Closed,
    /// None is made.
    Open {
        /// Since the first failure in a row.
        failing_since: UnixMillis,
        /// Until then.
        until: UnixMillis,
        /// How often it has opened in a row.
        round: u32,
    },
    /// One is made.
    HalfOpen {
        /// Since the first failure in a row.
        failing_since: UnixMillis,
        /// How often it has opened in a row.
        round: u32,
    },
}

/// A breaker at work: its state, and the failures that have not opened it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: BreakerState,
    failures: u32,
    failing_since: UnixMillis,
}

impl Breaker {
    /// Takes up where it stood.
    pub fn new(state: BreakerState) -> Breaker {
        let failing_since = match state {
            BreakerState::Closed => UnixMillis(0),
            BreakerState::Open { failing_since, .. } | BreakerState::HalfOpen { failing_since, .. } => failing_since,
        };
        Breaker { state, failures: 0, failing_since }
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Attempts that may be under way at once, of `most`.
    pub fn places(&self, most: usize) -> usize {
        match self.state {
            BreakerState::Closed => most,
            BreakerState::Open { .. } => 0,
            BreakerState::HalfOpen { .. } => 1,
        }
    }

    /// When [`wake`](Self::wake) has something to do.
    pub fn next_due(&self) -> Option<UnixMillis> {
        match self.state {
            BreakerState::Open { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Goes half-open if its time is over; returns the new state if it changed.
    pub fn wake(&mut self, now: UnixMillis) -> Option<BreakerState> {
        let BreakerState::Open { failing_since, until, round } = self.state else { return None };
        (until <= now).then(|| self.turn(BreakerState::HalfOpen { failing_since, round }))
    }

    /// Takes down that the endpoint answered; returns the new state if it changed.
    pub fn succeeded(&mut self) -> Option<BreakerState> {
        self.failures = 0;
        (self.state != BreakerState::Closed).then(|| self.turn(BreakerState::Closed))
    }

    /// Takes down that the endpoint did not answer, or with an error of its own; returns the new state
    /// if it changed. What was under way when it opened changes nothing any more.
    pub fn failed(&mut self, policy: &BreakerPolicy, now: UnixMillis) -> Option<BreakerState> {
        match self.state {
            BreakerState::Open { .. } => None,
            BreakerState::HalfOpen { round, .. } => Some(self.open(policy, round + 1, now)),
            BreakerState::Closed => {
                if self.failures == 0 {
                    self.failing_since = now;
                }
                self.failures = self.failures.saturating_add(1);
                (policy.failures > 0 && self.failures >= policy.failures).then(|| self.open(policy, 1, now))
            }
        }
    }

    /// Whether there was nothing but failure for as long as the policy bears.
    pub fn is_hopeless(&self, policy: &BreakerPolicy, now: UnixMillis) -> bool {
        self.state != BreakerState::Closed
            && policy.disable_after_ms > 0
            && now.0.saturating_sub(self.failing_since.0) >= policy.disable_after_ms.try_into().unwrap_or(i64::MAX)
    }

    fn open(&mut self, policy: &BreakerPolicy, round: u32, now: UnixMillis) -> BreakerState {
        let open_ms = policy.open_ms.saturating_mul(1 << (round - 1).min(16)).min(OPEN_MS_MAX);
        self.turn(BreakerState::Open { failing_since: self.failing_since, until: now.plus_ms(open_ms as i64), round })
    }

    fn turn(&mut self, state: BreakerState) -> BreakerState {
        self.failures = 0;
        self.state = state;
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BreakerPolicy = BreakerPolicy { failures: 3, open_ms: 1_000, disable_after_ms: 10_000 };

    #[test]
    fn opens_tries_and_closes() {
        let mut breaker = Breaker::new(BreakerState::Closed);
        let at = UnixMillis;
        assert_eq!(breaker.failed(&POLICY, at(1)), None);
        assert_eq!(breaker.failed(&POLICY, at(2)), None);
        assert_eq!(breaker.succeeded(), None, "the failures are no longer in a row");
        assert_eq!(breaker.failed(&POLICY, at(3)), None);
        assert_eq!(breaker.failed(&POLICY, at(4)), None);
        let open = BreakerState::Open { failing_since: at(3), until: at(1_005), round: 1 };
        assert_eq!(breaker.failed(&POLICY, at(5)), Some(open));
        assert_eq!(breaker.places(64), 0);
        assert_eq!(breaker.failed(&POLICY, at(6)), None, "what was under way changes nothing");
        assert_eq!(breaker.wake(at(1_004)), None);
        assert!(breaker.wake(at(1_005)).is_some());
        assert_eq!(breaker.places(64), 1);
        let longer = BreakerState::Open { failing_since: at(3), until: at(3_005), round: 2 };
        assert_eq!(breaker.failed(&POLICY, at(1_005)), Some(longer), "twice as long");
        let mut restarted = Breaker::new(breaker.state());
        assert!(restarted.wake(at(4_000)).is_some());
        assert!(!restarted.is_hopeless(&POLICY, at(10_002)));
        assert!(restarted.is_hopeless(&POLICY, at(10_003)));
        assert_eq!(restarted.succeeded(), Some(BreakerState::Closed));
        assert!(!restarted.is_hopeless(&POLICY, at(99_999)));
    }

    #[test]
    fn never_opens_without_a_threshold_and_is_never_open_for_ever() {
        let never = BreakerPolicy { failures: 0, ..POLICY };
        let mut breaker = Breaker::new(BreakerState::Closed);
        assert!((0..1_000).all(|t| breaker.failed(&never, UnixMillis(t)).is_none()));
        let mut now = UnixMillis(0);
        let mut breaker = Breaker::new(BreakerState::HalfOpen { failing_since: now, round: 1 });
        for _ in 0..100 {
            breaker.failed(&POLICY, now).expect("opens again");
            let due = breaker.next_due().expect("open");
            assert!(due.0 - now.0 <= OPEN_MS_MAX as i64);
            now = due;
            breaker.wake(now).expect("half-open");
        }
    }
}
