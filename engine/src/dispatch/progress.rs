//! The durable part of deliveries: a cursor, and a row for each that departs from "delivered in order
//! at the first attempt".
//!
//! # Invariants
//!
//! - Every matching event at or before the cursor is delivered, or has a row that is waiting or dead.
//! - Of one member's rows that wait, the lowest is tried and the others are held behind it.

use std::collections::VecDeque;

use crate::dispatch::job::JOBS_ENDED_MAX;
use crate::dispatch::{BreakerState, DeliveryJob, JobState};
use crate::id::{JobId, KeySlot, MemberId, Sequence};
use crate::time::UnixMillis;

/// Most finished rows kept for `ListAttempts`, a subscription.
pub const FINISHED_ROWS_MAX: usize = 1_000;
/// Most attempts that a row remembers, the newest ones.
pub const ATTEMPTS_LOGGED_MAX: usize = 16;
/// Longest piece of a response body that is kept with an attempt in the journal, in bytes.
pub const RESPONSE_KEPT_BYTES_MAX: usize = 512;

/// What changed since the last report of one subscription.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeliveryProgress {
    /// All settled or in a row up to here.
    pub cursor: Sequence,
    /// Rows that are new or changed.
    pub rows: Vec<DeliveryRow>,
}

/// One delivery that departed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryRow {
    /// The event.
    pub sequence: Sequence,
    /// The lane it is in.
    pub member: Option<MemberId>,
    /// Where it stands.
    pub state: RowState,
    /// Attempts made in all.
    pub attempts: u32,
    /// The newest attempts, in order.
    pub log: Vec<AttemptLog>,
}

/// Where a departed delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// Is tried again at `due`; `step` attempts of the schedule are used up.
    Waiting {
        /// Attempts used up since the schedule (re)started.
        step: u32,
        /// Not before.
        due: UnixMillis,
    },
    /// Comes after another delivery of the same member that is waiting.
    Held,
    /// All attempts failed; can be redriven.
    Dead,
    /// Delivered after all.
    Delivered,
    /// A dead letter that somebody gave up.
    Dropped,
}

impl RowState {
    /// Whether nothing more comes of it.
    pub fn is_settled(self) -> bool {
        matches!(self, RowState::Delivered | RowState::Dropped)
    }
}

/// One attempt, as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptLog {
    /// From 1.
    pub number: u32,
    /// When it began.
    pub at: UnixMillis,
    /// How long it took.
    pub latency_ms: u32,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong, as `timeout`; empty if nothing did.
    pub error: String,
    /// The beginning of the answer's body; sealed under the key in `key_slot` if there is one.
    pub response: Vec<u8>,
    /// Under which key `response` is sealed: that of the member that the event is about.
    pub key_slot: KeySlot,
}

/// The fold of one subscription's reports, less the rows, which are kept by position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryState {
    /// All settled or in a row up to here.
    pub cursor: Sequence,
    /// Positions of the rows that are settled, oldest finish first.
    pub finished: VecDeque<Sequence>,
    /// How the breaker of its endpoint stands.
    pub breaker: BreakerState,
    /// Its jobs, oldest first; of those at their end the newest.
    pub jobs: Vec<DeliveryJob>,
    /// Position of the last event applied.
    pub as_of: Sequence,
}

impl DeliveryState {
    /// Folds a report in and says which finished row is to be forgotten, if any.
    pub fn apply(&mut self, progress: &DeliveryProgress) -> Vec<Sequence> {
        self.cursor = self.cursor.max(progress.cursor);
        let mut forgotten = Vec::new();
        for row in progress.rows.iter().filter(|r| r.state.is_settled()) {
            self.finished.push_back(row.sequence);
            if self.finished.len() > FINISHED_ROWS_MAX {
                forgotten.extend(self.finished.pop_front());
            }
        }
        forgotten
    }

    /// Folds in what happened to a job.
    pub fn apply_job(&mut self, id: JobId, change: impl FnOnce(&mut DeliveryJob)) {
        // One that has ended stays as it ended.
        if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id && j.state == JobState::Running) {
            change(job);
        }
    }

    /// Folds a new job in.
    pub fn start_job(&mut self, job: DeliveryJob) {
        let ended = self.jobs.iter().filter(|j| j.state != JobState::Running).count();
        if ended >= JOBS_ENDED_MAX
            && let Some(oldest) = self.jobs.iter().position(|j| j.state != JobState::Running)
        {
            self.jobs.remove(oldest);
        }
        self.jobs.push(job);
    }
}
