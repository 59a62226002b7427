//! The one door to the time.

use std::time::{SystemTime, UNIX_EPOCH};

use punchline_engine::time::UnixMillis;
use tokio::time::Instant;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> UnixMillis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one door to the wall clock")]
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Measures how long something takes, for metrics and latencies. By tokio's clock, which is the machine's unless
/// a simulation holds it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }

    /// Seconds since the start, as histograms want them.
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

/// A clock for tests that follows tokio's, so that paused time moves it, for threads of our own too.
#[derive(Debug, Clone)]
pub struct TokioClock {
    runtime: tokio::runtime::Handle,
    base: UnixMillis,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `base` now. To be made inside the runtime that it follows.
    pub fn starting_at(base: UnixMillis) -> TokioClock {
        let runtime = tokio::runtime::Handle::current();
        TokioClock { runtime, base, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> UnixMillis {
        // Outside of the runtime tokio's time is the machine's, paused or not.
        let _inside = self.runtime.enter();
        self.base.plus_ms(self.started.elapsed().as_millis() as i64)
    }
}
