//! How fast attempts may begin: so many a second, the first tenth of a second's worth at once. No clock.

use punchline_engine::time::UnixMillis;

/// A bucket that fills with time (GCRA): it knows when the next attempt may begin.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// 0: as fast as may be.
    per_second: u32,
    /// Microseconds: when the bucket would be full.
    full_at: i128,
}

impl Pace {
    /// A full bucket.
    pub fn new(per_second: u32) -> Pace {
        Pace { per_second, full_at: i128::MIN }
    }

    /// Whether it has this rate.
    pub fn is(&self, per_second: u32) -> bool {
        self.per_second == per_second
    }

    fn interval(&self) -> i128 {
        1_000_000 / i128::from(self.per_second)
    }

    fn burst(&self) -> i128 {
        i128::from((self.per_second / 10).max(1)) * self.interval()
    }

    /// When the next attempt may begin; `None`: now.
    pub fn next_due(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.per_second == 0 {
            return None;
        }
        let due = self.full_at.saturating_add(self.interval() - self.burst());
        let due_ms = due.saturating_add(999).div_euclid(1_000);
        (due_ms > i128::from(now.0)).then(|| UnixMillis(i64::try_from(due_ms).unwrap_or(i64::MAX)))
    }

    /// Takes down that `count` attempts begin now.
    pub fn take(&mut self, count: u32, now: UnixMillis) {
        if self.per_second > 0 {
            self.full_at = self.full_at.max(i128::from(now.0) * 1_000) + i128::from(count) * self.interval();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_rate() {
        for per_second in [1, 3, 10, 50, 999, 20_000] {
            let mut pace = Pace::new(per_second);
            let (mut now, mut begun) = (UnixMillis(1_000), 0u64);
            while now.0 < 11_000 {
                match pace.next_due(now) {
                    Some(due) => now = due,
                    None => {
                        pace.take(1, now);
                        begun += 1;
                    }
                }
            }
            let expected = u64::from(per_second) * 10;
            let burst = u64::from(per_second / 10).max(1);
            assert!((expected..=expected + expected / 100 + burst + 1).contains(&begun), "{per_second}/s gave {begun}");
        }
        assert_eq!(Pace::new(0).next_due(UnixMillis(0)), None);
    }
}
