//! The simulated time: tokio's, which is held, over all incarnations of the node; and how wrong the clock is.

use std::sync::Mutex;
use std::sync::PoisonError;

use punchline_engine::time::UnixMillis;
use punchline_runtime::clock::Clock;
use tokio::time::Instant;

/// When every run begins: 2026-09-21, 14:13 UTC.
pub const BEGIN: UnixMillis = UnixMillis(1_790_000_000_000);

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SimulatedClock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Passed before this incarnation.
    before_ms: i64,
    since: Option<Instant>,
    /// What the clock shows too much.
    ahead_ms: i64,
}

impl SimulatedClock {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An incarnation begins, on a runtime of its own.
    pub fn begin(&self) {
        self.state().since = Some(Instant::now());
    }

    /// It ends.
    pub fn end(&self) {
        let passed = self.passed_ms();
        let mut state = self.state();
        (state.before_ms, state.since) = (passed, None);
    }

    /// Since the beginning of the run.
    pub fn passed_ms(&self) -> i64 {
        let state = self.state();
        state.before_ms + state.since.map_or(0, |since| since.elapsed().as_millis() as i64)
    }

    /// Somebody sets the clock.
    pub fn set_ahead(&self, ahead_ms: i64) {
        self.state().ahead_ms = ahead_ms;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> UnixMillis {
        let passed_ms = self.passed_ms();
        BEGIN.plus_ms(passed_ms + self.state().ahead_ms)
    }
}
