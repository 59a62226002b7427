//! The sequencer: the single writer. One thread decides every command, in the order of arrival.
//!
//! ```text
//! queue ──▶ decide, apply to the views ──▶ batch ──▶ committer (append, sync, answer)
//! ```
//!
//! While the committer syncs one batch the next one is decided, and grows until the disk is free: the
//! slower the disk, the larger the batch.
//!
//! # Invariants
//!
//! - What was decided is applied at once, so the next command sees it, in the same batch or a later one.
//! - Reads run here too and are answered with the batch, so nobody ever sees what a crash could undo.
//! - The views' overlay goes to disk only when everything in it is in the journal.
//! - Times in the journal never decrease, whatever the clock does and across restarts.
//! - An erasure is answered once the views are written behind, which destroys the key.
//! - After a failed append the working set is thrown away and folded anew from what is on disk.
//!
//! # What is absent on purpose
//!
//! - Unbounded anything: callers hold a permit for each command until it is answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, select};
use punchline_engine::command::{Action, Command};
use punchline_engine::decide::{Decision, WorkingSet, decide, resolve, used_up};
use punchline_engine::event::{CommandKey, Event, Record};
use punchline_engine::id::{AdvertiserId, Environment, KeySlot, MemberId, Sequence, Tenant};
use punchline_engine::loyalty::ledger::House;
use punchline_engine::loyalty::tenant::Directory;
use punchline_engine::planted::{Bug, is_planted};
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_storage::block::{BlockBuilder, BlockHash, RECORD_BYTES_MAX};
use punchline_storage::codec::{self, TraceBytes};
use punchline_storage::journal::Journal;
use punchline_storage::member_keys::{KeysError, MemberKeys};
use punchline_storage::rows::{Rows, RowsError};
use punchline_storage::views::{Overlay, Views, ViewsError, write_behind};
use tokio::sync::oneshot;

use crate::actor::Asked;
use crate::clock::{Clock, Stopwatch};
use crate::committer::{Answer, Batch, Health, Outcome, Place, Reply, Unavailable};
use crate::feed::{self, ReadError, Stored};
use crate::pulse::Pulse;
use around::Around;
use stopped::Stopped;
mod around;
mod stopped;

/// Commands decided before the committer is asked again whether it is free.
const DECIDED_AT_ONCE: usize = 64;
/// A batch is closed at this many records: about a megabyte, and a few milliseconds of deciding.
const BATCH_RECORDS_MAX: usize = 4_096;
/// How often the clock-driven parts are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long after a full disk the next try is made.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// The overlay is frozen when this many rows wait, whatever the interval: bounds memory and recovery.
const WAITING_ROWS_MAX: usize = 12_000;
/// Commands wait where the overlay has grown to this many times its bound before the last was written.
const WAITING_ROWS_STALL: usize = 2;

/// Rows gathered in memory before they are written, where much of the journal is folded. Above what a crash
/// leaves to fold, which the bounds above hold down: then nothing is written, and a full disk starts too.
pub(crate) const FOLDED_ROWS_MAX: usize = 50_000;

/// Longest that writing an overlay may take when the node closes or stops.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// Something for the sequencer.
pub(crate) enum Job {
    /// Boxed, since it is handed on several times.
    One(Box<Command>, Asked, oneshot::Sender<Answer>, Option<Place>),
    Many(Vec<Command>, Asked, oneshot::Sender<Vec<Answer>>, Option<Place>),
    Read(Read),
    Simulate(Command, oneshot::Sender<Simulated>, Place),
    /// Write the views behind as soon as that can be.
    Checkpoint,
    /// Commit what there is, write the views behind, and end.
    Stop(oneshot::Sender<()>),
}

/// What a command would come to, where that can be said.
pub(crate) type Simulated = Result<Result<Decision, Rejection>, Unavailable>;

/// Reads the views and gives back how to answer.
pub(crate) type Read = Box<dyn FnOnce(&mut Views) -> Box<dyn FnOnce(Result<(), Unavailable>) + Send> + Send>;

/// What the sequencer works with.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) keys: Arc<MemberKeys>,
    pub(crate) health: Arc<Health>,
    pub(crate) free_bytes: Box<dyn Fn() -> Option<u64> + Send>,
    pub(crate) reserve_bytes: u64,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) members_cached: usize,
    pub(crate) commit: Sender<Batch>,
    pub(crate) write_behind: Sender<Arc<Overlay>>,
    pub(crate) written: Receiver<Result<(), RowsError>>,
}

/// How the others are waited for.
struct Waiting {
    /// At a time.
    longest: Duration,
    /// Called each time that was in vain: where they have no threads, they get their turn.
    in_vain: Box<dyn FnMut() + Send>,
}

/// Why the working set cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The journal.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The views.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// There is no key to seal with.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Opens the views and applies the journal after their checkpoint, writing them behind whenever
/// `waiting_rows_max` rows wait: the whole journal does not fit into memory. Gives also the number of
/// events applied.
///
/// # Errors
///
/// [`FoldError`] where either cannot be read, or the views not written.
pub fn fold(
    journal: &dyn Journal,
    rows: Arc<dyn Rows>,
    keys: &Arc<MemberKeys>,
    members_cached: usize,
    waiting_rows_max: usize,
) -> Result<(Views, u64), FoldError> {
    let mut views = Views::open(rows.clone(), keys.clone(), members_cached)?;
    let begun_at = views.checkpoint();
    let mut next = begun_at.next();
    while let Some(block) = journal.read(next.0).map_err(ReadError::from)? {
        for (first, _, bytes) in block.records() {
            if first >= next.0 {
                views.apply(Sequence(first), &feed::decode(first, bytes, keys)?)?;
            }
        }
        next = Sequence(block.last_sequence() + 1);
        if views.waiting_rows() >= waiting_rows_max {
            settle(&mut views, keys, &*rows).map_err(ViewsError::from)?;
        }
    }
    let applied = next.0 - 1 - begun_at.0;
    Ok((views, applied))
}

/// Writes everything that waits, at once: for whoever folds and has nobody to hold up.
pub(crate) fn settle(views: &mut Views, keys: &MemberKeys, rows: &dyn Rows) -> Result<(), RowsError> {
    if let Some(overlay) = views.freeze() {
        write_behind(rows, keys, &overlay, || {})?;
        // The members of the overlay are to be taken over, not copied: let go of it first.
        drop(overlay);
        views.written();
    }
    Ok(())
}

pub(crate) struct Sequencer {
    parts: Parts,
    views: Views,
    directory: Arc<Directory>,
    batch: Batch,
    builder: BlockBuilder,
    encoded: Vec<u8>,
    /// Position of the next event.
    next: Sequence,
    previous_hash: BlockHash,
    last_time: UnixMillis,
    /// Records that are decided but may not be on disk yet: a repeat is compared with them.
    recent: VecDeque<Arc<Stored>>,
    since_checkpoint: Stopwatch,
    checkpoint_asked: bool,
    since_disk_check: Stopwatch,
    disk_full: Option<Unavailable>,
    /// An overlay is frozen and not yet known to be written.
    writing: bool,
    /// The frozen overlay is with the write-behind thread: all in it is durable.
    handed_over: Arc<AtomicBool>,
    /// Answers to erasures, which leave once the keys are destroyed: with the next overlay that is written,
    /// and with the one that is being written.
    erasing: Vec<Reply>,
    erased: Vec<Reply>,
    stopped: Option<Stopped>,
    waiting: Waiting,
}

impl Sequencer {
    /// Continues a journal whose last record was decided at `last_time`.
    pub(crate) fn new(parts: Parts, views: Views, last_time: UnixMillis) -> Sequencer {
        let mut sequencer = Sequencer {
            directory: views.directory().clone(),
            views,
            batch: Batch::default(),
            builder: BlockBuilder::new(),
            encoded: Vec::new(),
            next: Sequence(0),
            previous_hash: BlockHash::NONE,
            last_time,
            recent: VecDeque::new(),
            since_checkpoint: Stopwatch::start(),
            checkpoint_asked: false,
            since_disk_check: Stopwatch::start(),
            disk_full: None,
            writing: false,
            handed_over: Arc::default(),
            erasing: Vec::new(),
            erased: Vec::new(),
            stopped: None,
            waiting: Waiting { longest: TICK, in_vain: Box::new(|| {}) },
            parts,
        };
        sequencer.continue_journal();
        sequencer.check_disk();
        sequencer
    }

    fn continue_journal(&mut self) {
        self.next = Sequence(self.parts.journal.head()).next();
        self.previous_hash = self.parts.journal.head_hash();
    }

    /// From now on nothing is waited for but by calling `in_vain`.
    pub(crate) fn wait_by(&mut self, in_vain: Box<dyn FnMut() + Send>) {
        self.waiting = Waiting { longest: Duration::ZERO, in_vain };
    }

    /// Decides until told to stop, or until nobody is left who could ask.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        while self.turn(jobs) {}
    }

    /// Decides what waits, or hands over what was decided, or waits for either. False once it is at its end.
    pub(crate) fn turn(&mut self, jobs: &Receiver<Job>) -> bool {
        let stopped = self.stopped.take();
        if let Some(stopped) = stopped.or_else(|| Some(self.throw_away(self.parts.health.stopped()?))) {
            return self.turn_stopped(jobs, stopped);
        }
        self.pulse().works();
        self.tick();
        self.pulse().waits();
        let next = self.next_job(jobs);
        self.pulse().works();
        match next {
            Next::Idle => return true,
            Next::Job(Job::Stop(done)) => self.finish(done),
            Next::Job(job) => {
                self.take(job);
                match self.take_more(jobs) {
                    Some(done) => self.finish(done),
                    None => return true,
                }
            }
            Next::HungUp => self.finish(oneshot::channel().0),
        }
        false
    }

    fn pulse(&self) -> &Pulse {
        &self.parts.health.pulses.sequencer
    }

    /// Waits for a job, or hands the batch over when the committer is free.
    fn next_job(&mut self, jobs: &Receiver<Job>) -> Next {
        let stalled = self.views.waiting_rows() > WAITING_ROWS_STALL * WAITING_ROWS_MAX && self.writing;
        if self.batch.is_empty() && stalled {
            if let Ok(written) = self.parts.written.recv_timeout(self.waiting.longest) {
                self.written(written);
            }
            return Next::Idle;
        }
        if self.batch.is_empty() {
            return match jobs.recv_timeout(self.waiting.longest) {
                Ok(job) => Next::Job(job),
                Err(RecvTimeoutError::Timeout) => Next::Idle,
                Err(RecvTimeoutError::Disconnected) => Next::HungUp,
            };
        }
        // Between threads a batch goes from hand to hand, and there is never room for one to wait.
        let is_free = !self.parts.commit.is_full();
        if is_free || stalled || self.batch.records.len() >= BATCH_RECORDS_MAX {
            self.hand_over();
            return Next::Idle;
        }
        let commit = self.parts.commit.clone();
        select! {
            // The batch is taken only once the committer is there to receive it.
            send(commit, self.take_batch()) -> sent => {
                sent.expect("the committer outlives the sequencer");
                Next::Idle
            }
            recv(jobs) -> job => job.map_or(Next::HungUp, Next::Job),
            default(self.waiting.longest) => Next::Idle,
        }
    }

    /// Takes what is waiting, up to a bound, so that a batch is not handed over for each command.
    fn take_more(&mut self, jobs: &Receiver<Job>) -> Option<oneshot::Sender<()>> {
        for _ in 1..DECIDED_AT_ONCE {
            match jobs.try_recv() {
                Ok(Job::Stop(done)) => return Some(done),
                Ok(job) => self.take(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        None
    }

    fn take(&mut self, job: Job) {
        let reply = match job {
            Job::One(command, asked, to, permit) => {
                let answer = self.decide(&command, &asked);
                let erases = erases(&command, &answer);
                let reply = Reply::One(to, answer, permit);
                if erases {
                    return self.answer_once_erased(reply);
                }
                reply
            }
            Job::Many(commands, asked, to, permit) => {
                let answers: Vec<Answer> = commands.iter().map(|command| self.decide(command, &asked)).collect();
                let erases = commands.iter().zip(&answers).any(|(command, answer)| erases(command, answer));
                let reply = Reply::Many(to, answers, permit);
                if erases {
                    return self.answer_once_erased(reply);
                }
                reply
            }
            Job::Read(read) => Reply::Call(read(&mut self.views)),
            Job::Simulate(command, answer, place) => {
                let decision = self.simulate(&command);
                Reply::Call(Box::new(move |committed| {
                    drop(place);
                    drop(answer.send(committed.and(decision)));
                }))
            }
            Job::Checkpoint => {
                self.checkpoint_asked = true;
                return;
            }
            Job::Stop(_) => unreachable!("handled by the callers"),
        };
        self.batch.replies.push(reply);
    }

    fn answer_once_erased(&mut self, reply: Reply) {
        self.checkpoint_asked = true;
        self.erasing.push(reply);
    }

    fn decide(&mut self, command: &Command, asked: &Asked) -> Answer {
        // How far deliveries have come is small, and without it they would be repeated.
        let is_report = matches!(command.action, Action::ReportDeliveries { .. });
        if let Some(full) = self.disk_full.as_ref().filter(|_| !is_report) {
            return Err(full.clone().into());
        }
        match self.try_decide(command, asked) {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(rejection)) => Err(rejection.into()),
            Err(error) => Err(self.views_failed(&error, command.tenant).into()),
        }
    }

    /// What a command would come to.
    fn simulate(&mut self, command: &Command) -> Simulated {
        let considered = self.consider(command).map_err(|error| self.views_failed(&error, command.tenant))?;
        Ok(considered.decision)
    }

    fn views_failed(&self, error: &FoldError, tenant: Tenant) -> Unavailable {
        tracing::error!(%error, %tenant, "the views failed");
        let why = Unavailable::Stopped { what: error.to_string() };
        self.parts.health.stop(why.clone());
        why
    }

    fn try_decide(&mut self, command: &Command, asked: &Asked) -> Result<Result<Outcome, Rejection>, FoldError> {
        let Considered { tenant, now, key, member, key_slot, decision } = self.consider(command)?;
        let events = match decision {
            Ok(Decision::Events(events)) => events,
            Ok(Decision::Already(sequence)) => return Ok(Ok(Outcome::Already(sequence))),
            Err(rejection) => return Ok(Err(rejection)),
        };
        let member = match &events[0] {
            Event::MemberCreated(e) => Some(e.member_id),
            _ => member,
        };
        let is_fact = matches!(events[0], Event::FactPublished(_));
        let key_slot = match member {
            // The first event that the member's row takes in: a fact is none.
            Some(_) if key_slot == KeySlot::NONE && !is_fact => self.next_key_slot()?,
            _ => key_slot,
        };
        let record = Record { tenant, time: now, member, key_slot, key, quiet: command.is_quiet(), events };
        self.encoded.clear();
        codec::encode_record_into(&record, &self.parts.keys, &mut self.encoded)?;
        if let Some(actor) = &asked.actor {
            codec::encode_actor_into(actor, &mut self.encoded);
        }
        if let Some(trace) = &asked.trace {
            codec::encode_trace_into(trace, &mut self.encoded);
        }
        if self.encoded.len() > RECORD_BYTES_MAX {
            return Ok(Err(Rejection::RecordTooLarge { bytes: self.encoded.len(), max: RECORD_BYTES_MAX }));
        }
        self.last_time = now;
        Ok(Ok(Outcome::Accepted(self.append(record, asked.trace)?)))
    }

    /// Brings what a command names, and decides it. Changes nothing.
    fn consider(&mut self, command: &Command) -> Result<Considered, FoldError> {
        let last_time = if is_planted(Bug::TimeGoesBack) { UnixMillis::MIN } else { self.last_time };
        let now = self.parts.clock.now().max(last_time);
        // An advertiser that is taken on has no tenant of its own yet.
        let creates_advertiser = matches!(command.action, Action::CreateAdvertiser { .. });
        let tenant = if creates_advertiser { NOBODY } else { command.tenant };
        let key = command.key();
        let mut trimmed = None;
        let seen = match &key {
            Some(key) => match self.views.seen(tenant, key)? {
                // What it holds cannot be looked at: that the hash of the key is there counts.
                Some(sequence) if sequence.0 < self.parts.journal.first() => {
                    trimmed = Some(sequence);
                    None
                }
                Some(sequence) => self.record_at(sequence)?.filter(|s| s.record.key.as_ref() == Some(key)),
                None => None,
            },
            None => None,
        };
        let identifiers = command.identifiers();
        let mut owners: Vec<Option<MemberId>> = Vec::with_capacity(identifiers.len());
        for identifier in identifiers {
            owners.push(self.views.owner(command.tenant, identifier)?);
        }
        let by_identifiers = || resolve(identifiers, &owners).ok().flatten();
        let member_id = match command.names_by_identifiers() {
            true => by_identifiers(),
            false => match command.item() {
                Some(key) => self.views.item(command.tenant, &key)?.and_then(|item| item.member()),
                None => command.member_id(),
            },
        };
        let member = match member_id {
            Some(id) => {
                // Into the cache: below, it cannot change.
                self.views.member(command.tenant, id)?;
                self.views.peek_member(command.tenant, id)?
            }
            None => None,
        };
        let key_slot = member.as_deref().map_or(KeySlot::NONE, |member| member.key_slot);
        let nothing_yet = House::default();
        let around = Around { sequencer: self, tenant, failed: RefCell::default() };
        let set = WorkingSet {
            tenant,
            now,
            directory: &self.directory,
            seen: seen.as_ref().map(|s| (s.first, &s.record)),
            owners: &owners,
            member: member.as_deref(),
            house: self.views.houses().get(&tenant).filter(|_| !creates_advertiser).unwrap_or(&nothing_yet),
            next: self.next,
            world: &around,
            digest_key: self.parts.keys.digest_key(),
        };
        let decision = trimmed.map_or_else(|| decide(&set, command), |first| used_up(command, first));
        match around.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(Considered { tenant, now, key, member: member_id, key_slot, decision }),
        }
    }

    /// A key that nothing is sealed under. What was decided and lost may have been, and is not in the journal.
    fn next_key_slot(&self) -> Result<KeySlot, FoldError> {
        let next = KeySlot(self.views.key_slot().0 + 1);
        self.parts.keys.prepare(next)?;
        Ok(next)
    }

    fn append(&mut self, record: Record, trace: Option<TraceBytes>) -> Result<Arc<Stored>, FoldError> {
        let events = record.events.len() as u64;
        self.views.apply(self.next, &record)?;
        if !Arc::ptr_eq(&self.directory, self.views.directory()) {
            self.directory = self.views.directory().clone();
            self.batch.directory = Some(self.directory.clone());
        }
        if self.builder.push(&self.encoded, events as u32).is_err() {
            self.close_block();
            self.builder
                .push(&self.encoded, events as u32)
                .expect("a record that is not too large fits an empty block");
        }
        let stored = Arc::new(Stored::new(self.next, record, self.encoded.len()).traced(trace));
        self.next = Sequence(self.next.0 + events);
        self.batch.records.push(stored.clone());
        self.recent.push_back(stored.clone());
        if self.builder.is_full() {
            self.close_block();
        }
        Ok(stored)
    }

    /// Waits until the committer takes the batch.
    fn hand_over(&mut self) {
        let mut batch = self.take_batch();
        loop {
            batch = match self.parts.commit.send_timeout(batch, self.waiting.longest) {
                Ok(()) => return,
                Err(SendTimeoutError::Timeout(batch)) => batch,
                Err(SendTimeoutError::Disconnected(_)) => unreachable!("the committer outlives the sequencer"),
            };
            (self.waiting.in_vain)();
        }
    }

    fn take_batch(&mut self) -> Batch {
        self.close_block();
        std::mem::take(&mut self.batch)
    }

    fn close_block(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let first = self.next.0 - u64::from(self.builder.events());
        let block = self.builder.finish(first, self.parts.journal.head(), self.previous_hash);
        self.previous_hash = block.hash;
        self.batch.blocks.push(block);
    }

    fn record_at(&self, sequence: Sequence) -> Result<Option<Arc<Stored>>, ReadError> {
        let at = self.recent.partition_point(|s| s.last() < sequence);
        match self.recent.get(at).filter(|s| s.first <= sequence) {
            Some(stored) => Ok(Some(stored.clone())),
            None => feed::record_at(&*self.parts.journal, &self.parts.keys, sequence),
        }
    }

    /// What goes by the clock: forgetting what is on disk, checkpoints, the free space.
    fn tick(&mut self) {
        let durable = Sequence(self.parts.journal.head());
        while self.recent.front().is_some_and(|s| s.last() <= durable) {
            self.recent.pop_front();
        }
        if let Ok(written) = self.parts.written.try_recv() {
            self.written(written);
        }
        let due = self.checkpoint_asked || self.since_checkpoint.elapsed() >= self.parts.checkpoint_interval;
        if !self.writing && (due || self.views.waiting_rows() >= WAITING_ROWS_MAX) {
            self.since_checkpoint = Stopwatch::start();
            self.checkpoint_asked = false;
            self.checkpoint();
        }
        if self.since_disk_check.elapsed() >= REOPEN_AFTER {
            self.check_disk();
        }
    }

    /// Freezes the overlay. It travels with the batch, so that it is written once all of it is durable.
    fn checkpoint(&mut self) {
        // Where the node ends, an earlier one may not have been written in time.
        if self.writing {
            return;
        }
        let erasing = std::mem::take(&mut self.erasing);
        let Some(overlay) = self.views.freeze() else {
            // All is written, and their keys are destroyed.
            return self.batch.replies.extend(erasing);
        };
        self.erased = erasing;
        self.writing = true;
        self.handed_over.store(false, Ordering::Release);
        let (write_behind, handed_over) = (self.parts.write_behind.clone(), self.handed_over.clone());
        self.batch.replies.push(Reply::Call(Box::new(move |committed| {
            if committed.is_ok() {
                handed_over.store(write_behind.send(overlay).is_ok(), Ordering::Release);
            }
        })));
    }

    fn written(&mut self, written: Result<(), RowsError>) {
        self.writing = false;
        match written {
            Ok(()) => {
                self.views.written();
                self.batch.replies.append(&mut self.erased);
            }
            Err(error) => {
                tracing::error!(%error, "the views could not be written");
                let what = error.to_string();
                let full = error.is_storage_full();
                let why = if full { Unavailable::DiskFull { what } } else { Unavailable::Stopped { what } };
                self.parts.health.stop(why);
            }
        }
    }

    /// Waits for the overlay that is being written, unless its batch failed and it never will be.
    fn await_written(&mut self) -> Option<Result<(), RowsError>> {
        let watch = Stopwatch::start();
        while self.writing && watch.elapsed() < WRITTEN_WITHIN {
            match self.parts.written.recv_timeout(self.waiting.longest) {
                Ok(written) => return Some(written),
                Err(RecvTimeoutError::Timeout)
                    if self.parts.health.stopped().is_none() || self.handed_over.load(Ordering::Acquire) =>
                {
                    (self.waiting.in_vain)();
                }
                Err(_) => return None,
            }
        }
        None
    }

    fn check_disk(&mut self) {
        self.since_disk_check = Stopwatch::start();
        let Some(free) = (self.parts.free_bytes)() else { return };
        metrics::gauge!("punchline_disk_free_bytes").set(free as f64);
        metrics::gauge!("punchline_log_size_bytes").set(self.parts.journal.size_bytes() as f64);
        let lag = self.next.0 - 1 - self.views.checkpoint().0;
        metrics::gauge!("punchline_projection_lag_events", "projection" => "views").set(lag as f64);
        let imbalance: i64 = self.views.houses().values().map(|h| h.imbalance()).sum();
        metrics::gauge!("punchline_ledger_imbalance").set(imbalance as f64);
        let reserve = self.parts.reserve_bytes;
        let was_full = self.disk_full.is_some();
        self.disk_full = (free < reserve)
            .then(|| Unavailable::DiskFull { what: format!("{free} bytes are free, {reserve} are kept in reserve") });
        self.parts.health.set_full(self.disk_full.clone());
        match (&self.disk_full, was_full) {
            (Some(why), false) => tracing::error!(%why, "commands are refused until there is room"),
            (None, true) => tracing::info!(free, "there is room again, commands are taken"),
            _ => {}
        }
    }

    /// Commits what there is and writes the views behind, so that the next start has nothing to apply.
    fn finish(&mut self, done: oneshot::Sender<()>) {
        self.pulse().waits();
        self.hand_over();
        if let Some(written) = self.await_written() {
            self.written(written);
        }
        self.checkpoint();
        self.hand_over();
        if let Some(written) = self.await_written() {
            self.written(written);
            self.hand_over();
        }
        let _ = done.send(());
    }
}

/// Whether a key is to be destroyed before this is answered.
fn erases(command: &Command, answer: &Answer) -> bool {
    matches!(command.action, Action::EraseMember { .. }) && answer.is_ok() && !is_planted(Bug::ErasedInName)
}

/// What a command came to, and what of it goes into its record.
struct Considered {
    tenant: Tenant,
    now: UnixMillis,
    key: Option<CommandKey>,
    /// The member that it is about.
    member: Option<MemberId>,
    /// Where that one's key is.
    key_slot: KeySlot,
    decision: Result<Decision, Rejection>,
}

enum Next {
    Idle,
    Job(Job),
    HungUp,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.replies.is_empty()
    }
}

/// Whose the taking on of advertisers is.
const NOBODY: Tenant = Tenant { advertiser: AdvertiserId(0), environment: Environment::Production };
