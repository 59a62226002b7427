//! The parts that do not await: sequencer, committer, and whoever writes the views behind. A thread each; or
//! stepped one by one, in whatever order a simulation likes.
//!
//! # Invariants
//!
//! - A thread does nothing but give its part one turn after the other: what is simulated is what runs.
//! - A bug that ends a thread stops the node, loudly. Stepped, it is the caller's.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use punchline_storage::member_keys::MemberKeys;
use punchline_storage::rows::{Rows, RowsError};
use punchline_storage::views::{Overlay, write_behind};

use crate::committer::{Batch, Committer, Health, Unavailable};
use crate::sequencer::{Job, Sequencer};

/// Pause between slices of write-behind: leaves the disk and the core to the commits.
const WRITE_BEHIND_PAUSE: Duration = Duration::from_micros(500);

/// Where work is done that may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's pool of threads.
    Pool,
    /// Where it is asked for: nothing else runs meanwhile, and a simulation finds the same each time.
    Here,
}

impl Blocking {
    /// Does `work`; `None` if the runtime ends before, or it panics.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self {
            Blocking::Pool => tokio::task::spawn_blocking(work).await.ok(),
            Blocking::Here => Some(work()),
        }
    }
}

/// Whoever writes the views behind.
pub(crate) struct WriteBehind {
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) keys: Arc<MemberKeys>,
    pub(crate) overlays: Receiver<Arc<Overlay>>,
    pub(crate) written: Sender<Result<(), RowsError>>,
    /// Held meanwhile: a verification waits for it.
    pub(crate) writing: Arc<Mutex<()>>,
    pub(crate) health: Arc<Health>,
}

impl WriteBehind {
    fn run(self) {
        for overlay in &self.overlays {
            if !self.write(overlay, || std::thread::sleep(WRITE_BEHIND_PAUSE)) {
                return;
            }
        }
    }

    /// Writes one overlay; false where nobody wants to know.
    fn write(&self, overlay: Arc<Overlay>, mut pause: impl FnMut()) -> bool {
        let guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let pulse = &self.health.pulses.write_behind;
        pulse.works();
        let pause = || {
            pause();
            pulse.works();
        };
        let written = write_behind(&*self.rows, &self.keys, &overlay, pause);
        drop(guard);
        pulse.waits();
        // The members of the overlay are to be taken over, not copied: let go of it first.
        drop(overlay);
        self.written.send(written).is_ok()
    }
}

/// The parts of a node, before they run.
pub(crate) struct Threads {
    pub(crate) sequencer: Sequencer,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) committer: Committer,
    pub(crate) batches: Receiver<Batch>,
    pub(crate) write_behind: WriteBehind,
}

impl Threads {
    /// A thread each.
    pub(crate) fn spawn(self, health: &Arc<Health>) -> Vec<JoinHandle<()>> {
        let Threads { sequencer, jobs, committer, batches, write_behind } = self;
        vec![
            spawn("committer", health, move || committer.run(&batches)),
            spawn("sequencer", health, move || sequencer.run(&jobs)),
            spawn("write-behind", health, move || write_behind.run()),
        ]
    }

    /// None: whoever has them gives them their turns.
    pub(crate) fn stepped(self) -> Stepped {
        let Threads { mut sequencer, jobs, committer, batches, write_behind } = self;
        let others = Arc::new(Others { committer, batches, write_behind });
        let meanwhile = others.clone();
        sequencer.wait_by(Box::new(move || {
            meanwhile.commit();
            meanwhile.write_behind();
        }));
        Stepped { sequencer: Some(sequencer), jobs, others }
    }
}

/// Those that the sequencer waits for now and then.
struct Others {
    committer: Committer,
    batches: Receiver<Batch>,
    write_behind: WriteBehind,
}

impl Others {
    fn commit(&self) -> bool {
        let batch = self.batches.try_recv();
        batch.map(|batch| self.committer.commit(batch)).is_ok()
    }

    fn write_behind(&self) -> bool {
        let overlay = self.write_behind.overlays.try_recv();
        overlay.map(|overlay| self.write_behind.write(overlay, || {})).is_ok()
    }
}

/// The parts of a node whose clock is held: nothing is decided, committed or written behind but by these calls.
/// Each gives whether there was something to do.
pub struct Stepped {
    sequencer: Option<Sequencer>,
    jobs: Receiver<Job>,
    others: Arc<Others>,
}

impl Stepped {
    /// The sequencer's turn: it decides what waits, or hands over what it decided. True until it has ended.
    pub fn decide(&mut self) -> bool {
        let goes_on = self.sequencer.as_mut().is_some_and(|sequencer| sequencer.turn(&self.jobs));
        if !goes_on {
            self.sequencer = None;
        }
        goes_on
    }

    /// The committer's turn: the batch that was handed over goes to disk, and its answers leave.
    pub fn commit(&self) -> bool {
        self.others.commit()
    }

    /// The turn of whoever writes the views behind.
    pub fn write_behind(&self) -> bool {
        self.others.write_behind()
    }

    /// Jobs, batches and overlays that wait for their turn.
    pub fn waiting(&self) -> (usize, usize, usize) {
        (self.jobs.len(), self.others.batches.len(), self.others.write_behind.overlays.len())
    }
}

/// A thread whose end by a bug stops the node, loudly.
fn spawn(name: &'static str, health: &Arc<Health>, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let health = health.clone();
    let run = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            let what = format!("the {name} failed: this is a bug, see the log");
            tracing::error!(what);
            health.stop(Unavailable::Stopped { what });
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(run).expect("the system has room for a thread")
}
