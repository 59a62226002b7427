//! The stopped mode: an append or a sync failed, and nothing can be written. Reads are served from what is on
//! disk, all else is refused; where the disk was full, the journal is opened again once there is room.

use crossbeam_channel::{Receiver, RecvTimeoutError};
use punchline_engine::planted::{Bug, is_planted};
use punchline_storage::block::BlockBuilder;

use super::{Job, REOPEN_AFTER, Sequencer, fold};
use crate::clock::Stopwatch;
use crate::committer::{Reply, Unavailable, why_stopped};

/// Nothing can be written.
pub(super) struct Stopped {
    why: Unavailable,
    /// The views are what is on disk.
    folded: bool,
    /// It was tried to open the journal again.
    tried: Stopwatch,
}

impl Sequencer {
    /// Nothing can be written: throws the working set away, and folds anew what is on disk.
    pub(super) fn throw_away(&mut self, why: Unavailable) -> Stopped {
        let lost = std::mem::take(&mut self.batch);
        let erasures = self.erased.drain(..).chain(self.erasing.drain(..));
        lost.replies.into_iter().chain(erasures).for_each(|reply| reply.send(&Err(why.clone())));
        // Whether it was written is read from the disk below.
        self.pulse().waits();
        drop(self.await_written());
        self.pulse().works();
        self.writing = false;
        self.builder = BlockBuilder::new();
        self.recent.clear();
        Stopped { why, folded: self.fold_anew(), tried: Stopwatch::start() }
    }

    /// Serves reads, refuses all else, and opens the journal again once that can be. False when it is time to end.
    pub(super) fn turn_stopped(&mut self, jobs: &Receiver<Job>, mut stopped: Stopped) -> bool {
        let why = &stopped.why;
        self.pulse().waits();
        let job = jobs.recv_timeout(self.waiting.longest);
        self.pulse().works();
        match job {
            Ok(Job::Stop(done)) => {
                let _ = done.send(());
                return false;
            }
            Ok(Job::One(_, _, to, permit)) => Reply::One(to, Err(why.clone().into()), permit).send(&Ok(())),
            Ok(Job::Many(commands, _, to, permit)) => {
                let answers = commands.iter().map(|_| Err(why.clone().into())).collect();
                Reply::Many(to, answers, permit).send(&Ok(()));
            }
            Ok(Job::Simulate(_, answer, _)) => drop(answer.send(Err(why.clone()))),
            Ok(Job::Checkpoint) => {}
            Ok(Job::Read(read)) if stopped.folded => read(&mut self.views)(Ok(())),
            Ok(Job::Read(read)) => read(&mut self.views)(Err(why.clone())),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let may_pass = matches!(stopped.why, Unavailable::DiskFull { .. });
        if may_pass && stopped.tried.elapsed() >= REOPEN_AFTER {
            stopped.tried = Stopwatch::start();
            if self.reopen(&mut stopped) {
                return true;
            }
        }
        self.stopped = Some(stopped);
        true
    }

    fn reopen(&mut self, stopped: &mut Stopped) -> bool {
        self.check_disk();
        if self.disk_full.is_some() {
            return false;
        }
        match self.parts.journal.reopen() {
            Ok(head) => {
                stopped.folded = self.fold_anew();
                if stopped.folded {
                    tracing::info!(head, "the journal is open again");
                    self.continue_journal();
                    self.parts.health.resume();
                }
                stopped.folded
            }
            Err(error) => {
                tracing::warn!(%error, why = %why_stopped(&error), "the journal does not open yet");
                false
            }
        }
    }

    fn fold_anew(&mut self) -> bool {
        if is_planted(Bug::KeepsWhatIsLost) {
            return true;
        }
        let journal = &*self.parts.journal;
        // Without writing: the overlay's bounds hold for what there is to fold, and others may be at the rows
        // (the write-behind thread, a verification).
        match fold(journal, self.parts.rows.clone(), &self.parts.keys, self.parts.members_cached, usize::MAX) {
            Ok((views, _)) => {
                self.directory = views.directory().clone();
                self.views = views;
                true
            }
            Err(error) => {
                tracing::error!(%error, "what is on disk cannot be read");
                false
            }
        }
    }
}
