//! Rate limits: so many consumptions, or wrong secrets, a minute for each tenant.
//!
//! A window begins with the first call after the last one's end and lasts a minute. Within it the limit
//! is exact: of 301 calls the 301st is refused, and `remaining` and `reset` say what will happen.
//!
//! # Invariants
//!
//! - There are at most as many windows as there are tenants: only callers who are known are counted.
//!
//! # What is absent on purpose
//!
//! - A leaky bucket (governor's GCRA): with 300 a minute it would let the 301st call in after 200 ms, and
//!   has no instant at which the whole limit is there again, which is what `X-RateLimit-Reset` names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use punchline_engine::id::Tenant;
use punchline_engine::time::UnixMillis;

/// Length of a window.
const WINDOW_MS: i64 = 60_000;

/// Counts calls.
#[derive(Debug)]
pub struct RateLimiter {
    per_minute: AtomicU32,
    windows: Mutex<HashMap<Tenant, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends_at: UnixMillis,
    used: u32,
}

/// What the limiter says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Calls allowed in a window.
    pub limit: u32,
    /// Calls left in this window.
    pub remaining: u32,
    /// When the window ends, in seconds since 1970, rounded up.
    pub reset_unix_s: i64,
    /// Whether a call is refused, and in how many milliseconds it would not be.
    pub retry_after_ms: Option<u64>,
}

impl RateLimiter {
    /// A limiter of `per_minute` calls; 0 lets everything pass.
    pub fn new(per_minute: u32) -> RateLimiter {
        RateLimiter { per_minute: per_minute.into(), windows: Mutex::default() }
    }

    /// Counts `calls` of `tenant`, all of them or none; `None` where there is no limit.
    pub fn take(&self, tenant: Tenant, calls: u32, now: UnixMillis) -> Option<Allowance> {
        self.count(tenant, calls, now, |remaining| if calls <= remaining { calls } else { 0 })
    }

    /// Counts as many of `calls` as fit; gives their number.
    pub fn take_some(&self, tenant: Tenant, calls: u32, now: UnixMillis) -> (u32, Option<Allowance>) {
        let mut granted = calls;
        let allowance = self.count(tenant, calls, now, |remaining| {
            granted = calls.min(remaining);
            granted
        });
        (granted, allowance)
    }

    /// In how many milliseconds a call would be let in, where now none is; counts nothing.
    pub fn closed_for_ms(&self, tenant: Tenant, now: UnixMillis) -> Option<u64> {
        self.count(tenant, 1, now, |_| 0).filter(|allowance| allowance.remaining == 0)?.retry_after_ms
    }

    /// Calls allowed in a window; 0: no limit.
    pub fn per_minute(&self) -> u32 {
        self.per_minute.load(Relaxed)
    }

    /// From now on `per_minute` calls; what was used in a window stays used.
    pub fn set_per_minute(&self, per_minute: u32) {
        self.per_minute.store(per_minute, Relaxed);
    }

    fn count(&self, tenant: Tenant, calls: u32, now: UnixMillis, grant: impl FnOnce(u32) -> u32) -> Option<Allowance> {
        let limit = self.per_minute();
        if limit == 0 {
            return None;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Window { ends_at: now.plus_ms(WINDOW_MS), used: 0 };
        let window = windows.entry(tenant).or_insert(fresh);
        // A clock that was set back must not keep a caller out for longer than a window.
        if window.ends_at <= now || window.ends_at > fresh.ends_at {
            *window = fresh;
        }
        // A limit that was lowered may have been used up by more than there is of it.
        let granted = grant(limit.saturating_sub(window.used));
        window.used += granted;
        let left_ms = window.ends_at.0 - now.0;
        Some(Allowance {
            limit,
            remaining: limit.saturating_sub(window.used),
            reset_unix_s: window.ends_at.0.div_euclid(1_000) + i64::from(window.ends_at.0.rem_euclid(1_000) > 0),
            retry_after_ms: (granted < calls).then_some(left_ms.unsigned_abs()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::id::{AdvertiserId, Environment};

    const TENANT: Tenant = Tenant { advertiser: AdvertiserId(1), environment: Environment::Production };

    #[test]
    fn the_limit_is_exact() {
        let limiter = RateLimiter::new(300);
        let start = 1_705_320_000_250;
        for i in 0..300 {
            let at = UnixMillis(start + i * 199);
            let allowance = limiter.take(TENANT, 1, at).expect("there is a limit");
            let expected =
                Allowance { limit: 300, remaining: 299 - i as u32, reset_unix_s: 1_705_320_061, retry_after_ms: None };
            assert_eq!(allowance, expected);
        }
        let other = Tenant { environment: Environment::Staging, ..TENANT };
        for (tenant, calls, after_ms, remaining, retry_after_ms) in [
            (TENANT, 1, 59_999, 0, Some(1)),
            (other, 1, 59_999, 299, None),
            (TENANT, 1, 60_000, 299, None),
            (TENANT, 300, 60_001, 299, Some(59_999)),
            (TENANT, 299, 60_002, 0, None),
            // The clock was set back by an hour: a window of its own.
            (TENANT, 1, -3_600_000, 299, None),
        ] {
            let allowance = limiter.take(tenant, calls, UnixMillis(start + after_ms)).expect("there is a limit");
            let got = (allowance.remaining, allowance.retry_after_ms);
            assert_eq!(got, (remaining, retry_after_ms), "{calls} calls of {tenant} after {after_ms} ms");
        }
    }

    #[test]
    fn what_fits_is_taken() {
        let limiter = RateLimiter::new(300);
        let now = UnixMillis(0);
        assert_eq!(limiter.closed_for_ms(TENANT, now), None);
        for (calls, granted, remaining, refused) in [(256, 256, 44, false), (256, 44, 0, true), (1, 0, 0, true)] {
            let (taken, allowance) = limiter.take_some(TENANT, calls, now);
            let allowance = allowance.expect("there is a limit");
            let got = (taken, allowance.remaining, allowance.retry_after_ms.is_some());
            assert_eq!(got, (granted, remaining, refused), "{calls} calls");
        }
        assert_eq!(limiter.closed_for_ms(TENANT, UnixMillis(10_000)), Some(50_000));
        assert_eq!(limiter.closed_for_ms(TENANT, UnixMillis(60_000)), None);
        assert_eq!(RateLimiter::new(0).take_some(TENANT, 256, now), (256, None));
    }

    #[test]
    fn a_limit_can_be_changed() {
        let limiter = RateLimiter::new(3);
        for (limit, granted, remaining) in [(3, 2, 1), (1, 0, 0), (5, 2, 1), (0, 2, 0)] {
            limiter.set_per_minute(limit);
            let (taken, allowance) = limiter.take_some(TENANT, 2, UnixMillis(0));
            assert_eq!((taken, allowance.map_or(0, |a| a.remaining)), (granted, remaining), "a limit of {limit}");
        }
    }

    #[test]
    fn no_limit() {
        assert_eq!(RateLimiter::new(0).take(TENANT, 1_000_000, UnixMillis(0)), None);
    }
}
