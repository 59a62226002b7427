//! Jobs that put many deliveries back into their lanes: a replay of past events, a redrive of dead letters.
//!
//! # Invariants
//!
//! - How far a job has come is in the journal, in one record with the deliveries that it put back: after a
//!   crash it goes on where it was.

use serde::{Serialize, Serializer};

use crate::dispatch::EventSelection;
use crate::id::{JobId, MemberId, Sequence};
use crate::rejection::InvalidField;
use crate::time::UnixMillis;

/// Most members or sequences that a job may name.
pub const JOB_NAMED_MAX: usize = 10_000;
/// Most jobs of one subscription that are not at their end.
pub const JOBS_RUNNING_MAX: usize = 10;
/// Most ended jobs of one subscription that are remembered.
pub const JOBS_ENDED_MAX: usize = 50;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Sends events again that the subscription selects, whatever became of them.
    Replay,
    /// Tries dead letters again.
    Redrive,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// At work, or waiting for another job of its subscription.
    Running,
    /// Everything in its range was looked at.
    Completed,
    /// Stopped by somebody; what it had put back stays put back.
    Cancelled,
}

/// A job on one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryJob {
    /// Its id.
    #[serde(rename = "job_id")]
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Positions from here on.
    pub from_sequence: Sequence,
    /// Up to and with this one.
    pub to_sequence: Sequence,
    /// Only these types.
    pub event_types: EventSelection,
    /// Only these members'; empty: all.
    #[serde(serialize_with = "count")]
    pub members: Vec<MemberId>,
    /// Only these positions, ascending; empty: all.
    #[serde(serialize_with = "count")]
    pub sequences: Vec<Sequence>,
    /// At most so many deliveries; 0: all.
    pub limit: u64,
    /// At most so many a second; 0: as fast as they are taken.
    pub per_second: u32,
    /// When it was asked for.
    pub started_at: UnixMillis,
    /// How it stands.
    pub state: JobState,
    /// Everything before was looked at.
    pub next_sequence: Sequence,
    /// Deliveries put back so far.
    pub put_back: u64,
}

/// Lists may be long: a subscriber is told how many.
fn count<T, S: Serializer>(list: &[T], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(list.len() as u64)
}

impl DeliveryJob {
    /// Checks bounds and order.
    ///
    /// # Errors
    ///
    /// The first field that contradicts another, or is too long.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.from_sequence > self.to_sequence {
            let rule = format!("must not be after to_sequence, which is {}", self.to_sequence);
            return Err(InvalidField::new("from_sequence", self.from_sequence.to_string(), rule));
        }
        for (field, count) in [("member_ids", self.members.len()), ("sequences", self.sequences.len())] {
            if count > JOB_NAMED_MAX {
                return Err(InvalidField::new(field, count.to_string(), "must be at most 10000"));
            }
        }
        Ok(())
    }

    /// Whether the job is about an event at this position, as far as its own filters go.
    pub fn concerns(&self, sequence: Sequence, member: Option<MemberId>) -> bool {
        (self.from_sequence..=self.to_sequence).contains(&sequence)
            && (self.members.is_empty() || member.is_some_and(|m| self.members.contains(&m)))
            && (self.sequences.is_empty() || self.sequences.binary_search(&sequence).is_ok())
    }

    /// How many deliveries it may still put back.
    pub fn left(&self) -> u64 {
        if self.limit == 0 { u64::MAX } else { self.limit.saturating_sub(self.put_back) }
    }

    /// How much of its range was looked at, from 0 to 1.
    pub fn progress(&self) -> f64 {
        let range = (self.to_sequence.0 - self.from_sequence.0) as f64 + 1.0;
        let done = self.next_sequence.0.saturating_sub(self.from_sequence.0) as f64;
        if self.state == JobState::Completed { 1.0 } else { (done / range).clamp(0.0, 1.0) }
    }
}

/// A delivery that a job puts back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutBack {
    /// The event.
    pub sequence: Sequence,
    /// The member it is about.
    pub member: Option<MemberId>,
}
