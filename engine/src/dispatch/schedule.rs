//! When a failed delivery is tried again: a pure function, so that a replay finds the same instant.
//!
//! # Sources
//!
//! Standard Webhooks 1.0.0, "Retry schedule"; `Retry-After`: RFC 9110, section 10.2.3.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::id::{Sequence, SubscriptionId};
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Most attempts that a schedule may ask for.
pub const ATTEMPTS_MAX: usize = 50;
/// Longest wait between two attempts, `Retry-After` included: 7 days.
pub const DELAY_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Waits before the second, third, … attempt, in milliseconds, each counted from the failure before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RetrySchedule {
    /// One less than there are attempts.
    pub delays_ms: Vec<u64>,
}

impl Default for RetrySchedule {
    /// Ten attempts: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
    fn default() -> Self {
        const HOUR: u64 = 3_600_000;
        let delays_ms = vec![5_000, 300_000, HOUR / 2, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        RetrySchedule { delays_ms }
    }
}

/// There is no further attempt in the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all attempts are used up")]
pub struct AttemptsExhausted;

impl RetrySchedule {
    /// Attempts in all, the first included.
    pub fn attempts_max(&self) -> u32 {
        self.delays_ms.len() as u32 + 1
    }

    /// Checks counts and bounds.
    ///
    /// # Errors
    ///
    /// The first wait out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.delays_ms.len() >= ATTEMPTS_MAX {
            let count = self.delays_ms.len().to_string();
            return Err(InvalidField::new("retry_delays_ms", count, "must have at most 49 entries"));
        }
        match self.delays_ms.iter().find(|d| **d > DELAY_MS_MAX) {
            Some(delay) => {
                Err(InvalidField::new("retry_delays_ms", delay.to_string(), "must be at most 604800000 (7 days)"))
            }
            None => Ok(()),
        }
    }

    /// Returns the instant at which a delivery is tried again, after its attempt number `attempt`
    /// (1-based) failed at `failed_at`.
    ///
    /// The delay is the schedule's step, lengthened (never shortened) by up to a fifth, so that
    /// receivers that broke together do not return together. The jitter is a function of the delivery
    /// and the attempt, never of a random source. `retry_after_ms` is what the receiver asked for; it
    /// lengthens the wait up to [`DELAY_MS_MAX`].
    ///
    /// # Errors
    ///
    /// [`AttemptsExhausted`] if `attempt` was the last one.
    pub fn next_attempt(
        &self,
        (subscription, sequence): (SubscriptionId, Sequence),
        attempt: u32,
        failed_at: UnixMillis,
        retry_after_ms: Option<u64>,
    ) -> Result<UnixMillis, AttemptsExhausted> {
        let step = (attempt as usize).checked_sub(1).and_then(|i| self.delays_ms.get(i));
        let delay = *step.ok_or(AttemptsExhausted)?;
        let mut digest = Sha256::new();
        digest.update(subscription.0.as_bytes());
        digest.update(sequence.0.to_be_bytes());
        digest.update(attempt.to_be_bytes());
        let digest = digest.finalize();
        let random = u64::from(u32::from_be_bytes(digest[..4].try_into().expect("32 bytes")));
        // 0 to 20 %, in steps of 2^-32.
        let jitter = ((u128::from(delay) * u128::from(random)) / (5 << 32)) as u64;
        let wait = (delay + jitter).max(retry_after_ms.unwrap_or(0)).min(DELAY_MS_MAX + DELAY_MS_MAX / 5);
        Ok(failed_at.plus_ms(wait as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn ten_attempts_by_default() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.attempts_max(), 10);
        let delivery = (SubscriptionId(Uuid::from_u128(7)), Sequence(42));
        let at = |attempt| schedule.next_attempt(delivery, attempt, UnixMillis(0), None);
        assert!((5_000..=6_000).contains(&at(1).expect("a second attempt").0));
        assert!((86_400_000..=103_680_000).contains(&at(9).expect("a tenth attempt").0));
        assert_eq!(at(10), Err(AttemptsExhausted));
        assert_eq!(at(1), at(1), "jitter is a function of the delivery");
    }

    proptest! {
        #[test]
        fn jitter_and_retry_after_only_lengthen(
            delay in 0..DELAY_MS_MAX, id: u128, sequence: u64, after in prop::option::of(0..DELAY_MS_MAX),
        ) {
            let schedule = RetrySchedule { delays_ms: vec![delay] };
            let delivery = (SubscriptionId(Uuid::from_u128(id)), Sequence(sequence));
            let at = schedule.next_attempt(delivery, 1, UnixMillis(0), after).expect("one retry").0 as u64;
            prop_assert!(at >= delay && at >= after.unwrap_or(0));
            prop_assert!(at <= (delay + delay / 5).max(after.unwrap_or(0)));
        }
    }
}
