//! The courier for tests: answers by script, remembers what it was given, opens no socket.
//!
//! # Invariants
//!
//! - It obeys a request's time-out, so that a script that hangs behaves as a receiver that hangs.
//! - Given the same requests in the same order it answers the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::watch;

use crate::courier::{AttemptFuture, AttemptRequest, Courier};
use crate::outcome::{AttemptReport, ErrorCode, Outcome};

/// What the script does with one attempt.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status and `Retry-After`.
    RetryAfter {
        /// The status.
        status: u16,
        /// How long the receiver asks to be left alone.
        retry_after_ms: u64,
    },
    /// Answers with this status and body.
    Body(u16, Bytes),
    /// Fails.
    Fail(ErrorCode),
    /// Returns exactly this.
    Report(AttemptReport),
    /// Hangs until the gate is opened, then does the step. Runs into the time-out if it is not.
    Hang(Gate, Box<Step>),
}

/// Holds attempts until it is opened, and never again.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everything through that waits or will come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut is_open = self.0.subscribe();
        is_open.wait_for(|open| *open).await.expect("the gate that is waited at holds the sender");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}

/// Answers 200 to everything that no script says otherwise about.
#[derive(Debug, Default)]
pub struct ScriptedCourier {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By URL: steps for its next attempts, in order.
    next: HashMap<String, VecDeque<Step>>,
    /// By URL: the step once those are used up.
    always: HashMap<String, Step>,
    received: Vec<AttemptRequest>,
    in_flight: usize,
    in_flight_most: usize,
}

impl ScriptedCourier {
    /// A courier that answers 200.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `steps` to the script of `url` (as [`crate::endpoint::Endpoint`] writes it).
    pub fn next(&self, url: &str, steps: impl IntoIterator<Item = Step>) {
        let mut state = self.state();
        state.next.entry(url.to_owned()).or_default().extend(steps);
    }

    /// Sets what is done with attempts at `url` that have no step of their own.
    pub fn always(&self, url: &str, step: Step) {
        self.state().always.insert(url.to_owned(), step);
    }

    /// All requests so far, in the order in which they came.
    #[must_use]
    pub fn received(&self) -> Vec<AttemptRequest> {
        self.state().received.clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn received_count(&self) -> usize {
        self.state().received.len()
    }

    /// How many attempts are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// The most attempts that were under way at once.
    #[must_use]
    pub fn in_flight_most(&self) -> usize {
        self.state().in_flight_most
    }

    /// A test that panicked while it held the lock has failed already; the others go on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, request: &AttemptRequest) -> (Step, InFlight<'_>) {
        let url = request.endpoint.to_string();
        let mut state = self.state();
        state.received.push(request.clone());
        state.in_flight += 1;
        state.in_flight_most = state.in_flight_most.max(state.in_flight);
        let scripted = state.next.get_mut(&url).and_then(VecDeque::pop_front);
        let step = scripted.or_else(|| state.always.get(&url).cloned()).unwrap_or(Step::Status(200));
        (step, InFlight(self))
    }
}

/// Counts down also when an attempt is given up.
struct InFlight<'a>(&'a ScriptedCourier);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
    }
}

impl Courier for ScriptedCourier {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(async move {
            let (mut step, _in_flight) = self.begin(&request);
            let played = tokio::time::timeout(request.timeout, async {
                while let Step::Hang(gate, then) = step {
                    gate.passed().await;
                    step = *then;
                }
                step
            });
            match played.await {
                Ok(step) => answer(step, &request),
                Err(_) => AttemptReport::failed(ErrorCode::Timeout, "the script hangs"),
            }
        })
    }
}

fn answer(step: Step, request: &AttemptRequest) -> AttemptReport {
    let answered = |status: u16| {
        let status = StatusCode::from_u16(status).expect("the script names a valid status");
        AttemptReport::answered(status, &request.permanent_statuses)
    };
    match step {
        Step::Status(status) => answered(status),
        Step::RetryAfter { status, retry_after_ms } => {
            let mut report = answered(status);
            let is_retry = report.outcome == Outcome::Retry;
            report.retry_after_ms = is_retry.then_some(retry_after_ms);
            report
        }
        Step::Body(status, body) => {
            let mut report = answered(status);
            report.response_snippet = body;
            report
        }
        Step::Fail(code) => AttemptReport::failed(code, "the script says so"),
        Step::Report(report) => report,
        Step::Hang(..) => unreachable!("hanging steps are resolved before"),
    }
}
