//! A job of one subscription at work: it looks for deliveries to put back, a page at a time, writes down
//! what it found, and hands the rows to the lanes.
//!
//! # Invariants
//!
//! - The rows that are put back and how far the job has come are one record: a restart neither skips a
//!   delivery nor puts it back twice.
//! - A job waits while the lanes have much to do: it never fills the memory.
//! - A replay never gets ahead of the lanes: what they have not come to yet is owed anyway, and would
//!   overtake what is before it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::{DeliveryJob, DeliveryRow, JobKind, PutBack, RowState};
use punchline_engine::id::{JobId, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::time::UnixMillis;

use super::dispatcher::Shared;
use super::lanes::Lanes;
use super::pace::Pace;
use super::target::Target;
use crate::committer::Unavailable;
use crate::feed::Wanted;

/// Deliveries put back in one record.
const PAGE_MAX: usize = 256;
/// Rows in the lanes from which on a job waits.
const ROWS_BUSY: usize = 2_048;
/// Rows or blocks looked at before it is written down how far the job has come.
const LOOKS_A_PAGE: usize = 64;
/// Wait after something failed.
const AFTER_ERROR_MS: i64 = 1_000;

/// What a step of a job gave.
pub(super) enum Advanced {
    /// Rows that wait for their attempt now, and how many of them were dead letters.
    PutBack(Vec<DeliveryRow>, u64),
    /// The job is at its end.
    Ended(JobId),
}

struct Step {
    next_sequence: Sequence,
    rows: Vec<DeliveryRow>,
    were_dead: u64,
    ended: bool,
}

/// A job at work.
pub(super) struct JobRun {
    tenant: Tenant,
    subscription_id: SubscriptionId,
    job: DeliveryJob,
    pace: Pace,
    not_before: UnixMillis,
    step: Option<BoxFuture<'static, Result<Step, String>>>,
}

impl JobRun {
    pub(super) fn new(tenant: Tenant, subscription_id: SubscriptionId, job: DeliveryJob) -> JobRun {
        let pace = Pace::new(job.per_second);
        JobRun { tenant, subscription_id, job, pace, not_before: UnixMillis::MIN, step: None }
    }

    /// Whether it is this job, still running.
    pub(super) fn is_of(&self, job: &DeliveryJob) -> bool {
        self.job.id == job.id && job.state == self.job.state
    }

    /// Whether a step is under way: the journal is ahead of the lanes then.
    pub(super) fn is_at_work(&self) -> bool {
        self.step.is_some()
    }

    /// When it may go on, where that is a matter of time.
    pub(super) fn next_due(&self, now: UnixMillis) -> Option<UnixMillis> {
        let due = self.pace.next_due(now).unwrap_or(UnixMillis::MIN).max(self.not_before);
        (self.step.is_none() && due > now).then_some(due)
    }

    /// Begins the next step, if it is time and the lanes have room.
    pub(super) fn advance(&mut self, shared: &Arc<Shared>, target: &Arc<Target>, lanes: &Lanes) {
        let now = shared.clock.now();
        let is_due = self.pace.next_due(now).is_none() && self.not_before <= now;
        let upto = match self.job.kind {
            JobKind::Replay => self.job.to_sequence.min(lanes.read_to()),
            JobKind::Redrive => self.job.to_sequence,
        };
        let is_ahead = self.job.next_sequence > upto && upto < self.job.to_sequence;
        if self.step.is_some() || !is_due || is_ahead || lanes.waiting() >= ROWS_BUSY {
            return;
        }
        // A paced job puts back what one tenth of a second allows.
        let most = if self.job.per_second == 0 { PAGE_MAX } else { (self.job.per_second as usize / 10).max(1) };
        let most = most.min(PAGE_MAX).min(usize::try_from(self.job.left()).unwrap_or(usize::MAX));
        let step = Looking {
            tenant: self.tenant,
            subscription_id: self.subscription_id,
            job: self.job.clone(),
            upto,
            most,
            shared: shared.clone(),
            target: target.clone(),
        };
        self.step = Some(Box::pin(step.run()));
        // What it finds is taken down when it has found it.
        self.not_before = now;
    }

    /// Waits for the step that is under way; for ever where there is none.
    pub(super) async fn advanced(run: &mut Option<JobRun>) -> Advanced {
        let Some(run) = run else { return std::future::pending().await };
        let Some(step) = &mut run.step else { return std::future::pending().await };
        let done = step.await;
        run.step = None;
        match done {
            Ok(step) if step.ended && step.rows.is_empty() => Advanced::Ended(run.job.id),
            Ok(step) => {
                run.job.next_sequence = step.next_sequence;
                run.job.put_back += step.rows.len() as u64;
                if let Some(at) = step.rows.first().map(|row| row.state)
                    && let RowState::Waiting { due, .. } = at
                {
                    run.pace.take(step.rows.len() as u32, due);
                }
                Advanced::PutBack(step.rows, step.were_dead)
            }
            Err(error) => {
                tracing::warn!(subscription = %run.subscription_id, job = %run.job.id, error, "a job waits");
                run.not_before = run.not_before.plus_ms(AFTER_ERROR_MS);
                Advanced::PutBack(Vec::new(), 0)
            }
        }
    }
}

/// One step: what it needs, owned, since it outlives the turn of the worker that began it.
struct Looking {
    tenant: Tenant,
    subscription_id: SubscriptionId,
    job: DeliveryJob,
    /// Nothing beyond is looked at now.
    upto: Sequence,
    most: usize,
    shared: Arc<Shared>,
    target: Arc<Target>,
}

impl Looking {
    async fn run(self) -> Result<Step, String> {
        let (next_sequence, found) = if self.job.left() == 0 || self.job.next_sequence > self.job.to_sequence {
            (self.job.next_sequence, Vec::new())
        } else {
            match self.job.kind {
                JobKind::Replay => self.events().await?,
                JobKind::Redrive => self.dead_letters().await?,
            }
        };
        if next_sequence == self.job.next_sequence && found.is_empty() {
            let action =
                Action::EndJob { subscription_id: self.subscription_id, job: self.job.clone(), cancelled: false };
            self.submit(action).await?;
            return Ok(Step { next_sequence, rows: Vec::new(), were_dead: 0, ended: true });
        }
        let put_back: Vec<PutBack> =
            found.iter().map(|(sequence, member)| PutBack { sequence: *sequence, member: *member }).collect();
        let (subscription_id, job_id) = (self.subscription_id, self.job.id);
        let sequences: Vec<Sequence> = found.iter().map(|(sequence, _)| *sequence).collect();
        let before = self.rows(sequences.clone()).await?;
        let were_dead = before.iter().filter(|row| row.state == RowState::Dead).count() as u64;
        self.submit(Action::AdvanceJob { subscription_id, job_id, next_sequence, put_back }).await?;
        // As they stand now: what was waiting already is left as it was.
        let mut rows = self.rows(sequences).await?;
        rows.retain(|row| matches!(row.state, RowState::Waiting { step: 0, .. }));
        Ok(Step { next_sequence, rows, were_dead, ended: false })
    }

    async fn rows(&self, sequences: Vec<Sequence>) -> Result<Vec<DeliveryRow>, String> {
        self.shared.rows(self.subscription_id, sequences).await.map_err(|error| error.to_string())
    }

    async fn submit(&self, action: Action) -> Result<(), String> {
        let command = Command { tenant: self.tenant, request_id: None, action };
        match self.shared.submitter.submit_internal(command).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(refusal.to_string()),
            Err(_) => Err("the server is stopping".into()),
        }
    }

    /// Past events that the subscription wants.
    async fn events(&self) -> Result<(Sequence, Vec<(Sequence, Option<MemberId>)>), String> {
        let wanted = Wanted { tenant: self.tenant, types: self.target.types(), member: None };
        let (mut position, mut found) = (self.job.next_sequence, Vec::new());
        for _ in 0..LOOKS_A_PAGE {
            let (feed, at) = (self.shared.feed.clone(), position);
            let page = feed.reading(move |feed| feed.read_block(&wanted, at)).await.map_err(|e| e.to_string())?;
            for event in &page.events {
                let recorded = event.get();
                if recorded.sequence > self.upto {
                    break;
                }
                let concerned = self.job.concerns(recorded.sequence, recorded.member)
                    && self.job.event_types.selects(recorded.event)
                    && self.target.wants(&recorded, &self.shared.feed);
                if concerned {
                    found.push((recorded.sequence, recorded.member));
                    if found.len() == self.most {
                        return Ok((recorded.sequence.next(), found));
                    }
                }
            }
            let nothing_more = page.next == position || page.next > self.upto;
            if nothing_more {
                return Ok((self.upto.next(), found));
            }
            position = page.next;
        }
        Ok((position, found))
    }

    /// Dead letters.
    async fn dead_letters(&self) -> Result<(Sequence, Vec<(Sequence, Option<MemberId>)>), String> {
        let (id, job) = (self.subscription_id, self.job.clone());
        let from = job.next_sequence;
        let rows = (self.shared.submitter)
            .read(move |views| views.delivery_rows(id, from, 8 * LOOKS_A_PAGE))
            .await
            .map_err(|error: Unavailable| error.to_string())?
            .map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        let last = rows.last().map(|row| row.sequence);
        for row in rows {
            if row.state != RowState::Dead || !job.concerns(row.sequence, row.member) {
                continue;
            }
            let sequence = row.sequence;
            let event = self.shared.feed.clone().reading(move |feed| feed.event_at(sequence)).await;
            let event = event.map_err(|e| e.to_string())?;
            if event.is_some_and(|event| job.event_types.selects(event.get().event)) {
                found.push((row.sequence, row.member));
                if found.len() == self.most {
                    return Ok((row.sequence.next(), found));
                }
            }
        }
        match last.filter(|last| *last < job.to_sequence) {
            Some(last) => Ok((last.next(), found)),
            None => Ok((job.to_sequence.next(), found)),
        }
    }
}
