//! The committer: one batch after the other onto the disk, then its answers.
//!
//! # Invariants
//!
//! - An answer "accepted" leaves after the sync of the blocks that hold it: the answers travel with
//!   their batch, and nothing else sends them.
//! - After a failed append every later batch is refused until the sequencer has thrown its working set
//!   away: what was decided on top of what is lost must not be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::Receiver;
use metrics::{Counter, Gauge, Histogram};
use punchline_engine::loyalty::tenant::Directory;
use punchline_engine::planted::{Bug, is_planted};
use punchline_engine::rejection::Rejection;
use punchline_storage::block::EncodedBlock;
use punchline_storage::journal::{Journal, JournalError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::clock::Stopwatch;
use crate::feed::{Feed, Stored};
use punchline_engine::id::Sequence;

/// Why nothing is taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// More commands wait than may; come back.
    #[error("the queue is full, try again")]
    QueueFull,
    /// Too little space on disk.
    #[error("the disk is full: {what}")]
    DiskFull {
        /// What was found.
        what: String,
    },
    /// The journal failed; nothing is taken in before a restart.
    #[error("the journal is stopped: {what}")]
    Stopped {
        /// What failed.
        what: String,
    },
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The business said no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing is taken in now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What a command came to. On disk.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its events.
    Accepted(Arc<Stored>),
    /// It was so already, by the event at this position (0 where that is not known).
    Already(Sequence),
}

/// What a command is answered.
pub type Answer = Result<Outcome, Refusal>;

/// A place in the queue, held until the answer is sent.
#[expect(dead_code, reason = "dropping it is what it is for")]
pub(crate) struct Place(pub(crate) OwnedSemaphorePermit);

/// An answer that waits for its batch.
#[expect(dead_code, reason = "a place is held, not read")]
pub(crate) enum Reply {
    One(oneshot::Sender<Answer>, Answer, Option<Place>),
    Many(oneshot::Sender<Vec<Answer>>, Vec<Answer>, Option<Place>),
    /// Called once what was read is on disk, or with why it never will be.
    Call(Box<dyn FnOnce(Result<(), Unavailable>) + Send>),
}

impl Reply {
    pub(crate) fn send(self, committed: &Result<(), Unavailable>) {
        // The caller may have gone: then nobody wants to know.
        match (self, committed) {
            (Reply::One(to, answer, _), Ok(())) => drop(to.send(answer)),
            (Reply::Many(to, answers, _), Ok(())) => drop(to.send(answers)),
            (Reply::Call(call), committed) => call(committed.clone()),
            (Reply::One(to, _, _), Err(why)) => drop(to.send(Err(why.clone().into()))),
            (Reply::Many(to, answers, _), Err(why)) => {
                drop(to.send(answers.iter().map(|_| Err(why.clone().into())).collect()));
            }
        }
    }
}

/// What is committed at once.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) blocks: Vec<EncodedBlock>,
    pub(crate) records: Vec<Arc<Stored>>,
    pub(crate) replies: Vec<Reply>,
    /// The directory, where the batch changes it.
    pub(crate) directory: Option<Arc<Directory>>,
}

/// Whether commands are taken, and why not.
#[derive(Default)]
pub struct Health {
    stopped: AtomicBool,
    why: Mutex<Option<Unavailable>>,
    /// The journal is well, but what is free on its disk is held in reserve.
    full: Mutex<Option<Unavailable>>,
}

impl Health {
    /// Why nothing is taken in; `None` where all is well.
    pub fn stopped(&self) -> Option<Unavailable> {
        if !self.stopped.load(Ordering::Acquire) {
            return None;
        }
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why commands are refused, be it that the journal stopped or that the disk is nearly full.
    pub fn refusing(&self) -> Option<Unavailable> {
        self.stopped().or_else(|| self.full.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(crate) fn set_full(&self, full: Option<Unavailable>) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
    }

    pub(crate) fn stop(&self, why: Unavailable) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.stopped.store(true, Ordering::Release);
    }

    pub(crate) fn resume(&self) {
        self.stopped.store(false, Ordering::Release);
    }
}

pub(crate) struct Committer {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) health: Arc<Health>,
    /// Where answers are sent from: each one sent from here would wake a thread there.
    pub(crate) answering: Handle,
    pub(crate) metrics: Metrics,
}

impl Committer {
    /// Commits until the sequencer hangs up.
    pub(crate) fn run(self, batches: &Receiver<Batch>) {
        batches.iter().for_each(|batch| self.commit(batch));
    }

    /// Commits one batch.
    pub(crate) fn commit(&self, mut batch: Batch) {
        let is_call = |reply: &Reply| matches!(reply, Reply::Call(_));
        let (calls, mut answers): (Vec<Reply>, Vec<Reply>) =
            std::mem::take(&mut batch.replies).into_iter().partition(is_call);
        if is_planted(Bug::AckBeforeSync) {
            self.answer(std::mem::take(&mut answers), Ok(()));
        }
        let committed = match self.health.stopped() {
            Some(why) => Err(why),
            None => self.append(&batch),
        };
        if committed.is_ok() {
            if let Some(directory) = batch.directory {
                self.directory.send_replace(directory);
            }
            self.feed.publish(batch.records);
        }
        // What else is done once all this is on disk does not wait for a runtime that may be ending.
        calls.into_iter().for_each(|call| call.send(&committed));
        self.answer(answers, committed);
    }

    fn answer(&self, answers: Vec<Reply>, committed: Result<(), Unavailable>) {
        if !answers.is_empty() {
            self.answering.spawn(async move { answers.into_iter().for_each(|answer| answer.send(&committed)) });
        }
    }

    fn append(&self, batch: &Batch) -> Result<(), Unavailable> {
        let metrics = &self.metrics;
        let (Some(first), Some(last)) = (batch.blocks.first(), batch.blocks.last()) else { return Ok(()) };
        let watch = Stopwatch::start();
        if let Err(error) = self.journal.append(first.first_sequence, &batch.blocks) {
            tracing::error!(%error, sequence = first.first_sequence, "the journal stopped");
            let why = why_stopped(&error);
            self.health.stop(why.clone());
            return Err(why);
        }
        metrics.sync.record(watch.seconds());
        let events = last.last_sequence + 1 - first.first_sequence;
        metrics.batch_events.record(events as f64);
        metrics.events.increment(events);
        metrics.head.set(last.last_sequence as f64);
        Ok(())
    }
}

/// Sorts a journal's failure into what passes and what does not.
pub(crate) fn why_stopped(error: &JournalError) -> Unavailable {
    let what = error.to_string();
    if error.is_storage_full() { Unavailable::DiskFull { what } } else { Unavailable::Stopped { what } }
}

pub(crate) struct Metrics {
    sync: Histogram,
    batch_events: Histogram,
    events: Counter,
    head: Gauge,
}

impl Metrics {
    /// Of a journal that ends here.
    pub(crate) fn new(journal: &dyn Journal) -> Metrics {
        let head = metrics::gauge!("punchline_log_head_sequence");
        head.set(journal.head() as f64);
        Metrics {
            sync: metrics::histogram!("punchline_log_sync_duration_seconds"),
            batch_events: metrics::histogram!("punchline_log_commit_batch_events"),
            events: metrics::counter!("punchline_log_appended_events_total"),
            head,
        }
    }
}
