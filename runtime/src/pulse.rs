//! Pulses: what tells a loop that is stuck from one that works, and from one that has nothing to do.
//!
//! ```text
//! loop:      waits ── works ── works ── waits …        (a count: odd while it works, even while it waits)
//! observer:  look … look: odd, and the same as before ──▶ stuck for so long
//! ```
//!
//! # Invariants
//!
//! - A loop that waits for others is never stuck: whoever holds it up is.
//! - Who is said to be stuck for some time made no step in all of it, however seldom it was looked at.
//!
//! # What is absent on purpose
//!
//! - A clock in the loops: a step is a store. The observer measures.
//! - A loop that waits for what never comes: that is for whoever should have sent it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::Stopwatch;

/// The pulse of one loop, which alone sets it.
#[derive(Debug, Default)]
pub struct Pulse {
    steps: AtomicU64,
    /// What was seen last, since it was seen first.
    seen: Mutex<Option<(u64, Stopwatch)>>,
}

impl Pulse {
    /// The loop begins a piece of work, or comes to the next step of it.
    pub(crate) fn works(&self) {
        self.steps.store((self.steps.load(Relaxed) + 1) | 1, Relaxed);
    }

    /// The loop waits for somebody.
    pub(crate) fn waits(&self) {
        self.steps.store((self.steps.load(Relaxed) + 1) & !1, Relaxed);
    }

    /// Whether it has made no step of its work for `stuck_after`, as far as was looked.
    pub(crate) fn is_stuck(&self, stuck_after: Duration) -> bool {
        let steps = self.steps.load(Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((before, since)) if before == steps => steps % 2 == 1 && since.elapsed() >= stuck_after,
            _ => {
                *seen = Some((steps, Stopwatch::start()));
                false
            }
        }
    }
}

/// The loops that nothing goes on without.
#[derive(Debug, Default)]
pub(crate) struct Pulses {
    pub(crate) sequencer: Pulse,
    pub(crate) committer: Pulse,
    pub(crate) write_behind: Pulse,
}

impl Pulses {
    /// With their names.
    pub(crate) fn named(&self) -> [(&'static str, &Pulse); 3] {
        [("sequencer", &self.sequencer), ("committer", &self.committer), ("write-behind", &self.write_behind)]
    }
}

/// A task with a pulse: it works while it is polled.
pub(crate) struct Pulsing<F> {
    future: Pin<Box<F>>,
    pulse: Arc<Pulse>,
}

impl<F: Future> Pulsing<F> {
    pub(crate) fn new(pulse: Arc<Pulse>, future: F) -> Pulsing<F> {
        Pulsing { future: Box::pin(future), pulse }
    }
}

impl<F: Future> Future for Pulsing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.pulse.works();
        let polled = self.future.as_mut().poll(cx);
        self.pulse.waits();
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_steps_or_waits_is_not_stuck() {
        let pulse = Pulse::default();
        let is_stuck = || pulse.is_stuck(Duration::ZERO);
        assert!(!is_stuck() && !is_stuck(), "it has not begun");
        pulse.works();
        assert!(!is_stuck(), "nobody had looked");
        assert!(is_stuck());
        pulse.works();
        assert!(!is_stuck(), "a step");
        assert!(is_stuck());
        pulse.waits();
        assert!(!is_stuck() && !is_stuck());
        pulse.waits();
        pulse.works();
        assert!(!is_stuck(), "new work");
        assert!(is_stuck());
    }
}
