//! The node: a data directory, opened, served, and closed.
//!
//! ```text
//! open:  lock ▶ views ▶ journal (checked from the checkpoint) ▶ fold ▶ threads
//! close: couriers ▶ last reports ▶ last commit ▶ views written ▶ lock
//! ```

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use punchline_delivery::dialect::Dialects;
use punchline_engine::command::Command;
use punchline_engine::decide::Decision;
use punchline_engine::id::{CampaignId, KeySlot, LeaderboardId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::job as engine_job;
use punchline_engine::loyalty::tenant::Directory;
use punchline_engine::rejection::Rejection;
use punchline_engine::time::UnixMillis;
use punchline_storage::attempts::AttemptLimits;
use punchline_storage::data_dir::{DataDir, DataDirError, DataDirOptions};
use punchline_storage::journal::{Journal, JournalError};
use punchline_storage::member_keys::{KeysError, MemberKeys};
use punchline_storage::memory::MemoryDisk;
use punchline_storage::rows::{Rows, RowsError};
use punchline_storage::sled_rows::{CACHE_BYTES_DEFAULT, SledRows};
use punchline_storage::views::{BaseError, Views, checkpoint, load_base, write_behind};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::task::JoinHandle as JoinTask;

use crate::actor::Asked;
use crate::clock::{Clock, Stopwatch};
use crate::committer::{Answer, Committer, Health, Metrics, Place, Unavailable};
use crate::dispatch::dispatcher::{Couriers, Dispatcher};
use crate::dispatch::log::DeliveryLog;
use crate::dispatch::target::{self, Rulebook, TargetError};
use crate::feed::{self, Feed};
use crate::ids;
use crate::jobs::{JobError, JobStatus, Jobs, Progress, Standing};
use crate::pulse::Pulsing;
use crate::seal::Sealer;
use crate::sequencer::{FOLDED_ROWS_MAX, FoldError, Job, Parts, Sequencer, fold};
use crate::threads::{Blocking, Stepped, Threads, WriteBehind};
use crate::trace;
use crate::verify::{Verified, VerifyError};

/// Permits for reads that wait for the sequencer.
const READS_MAX: usize = 1_024;
/// How often a verification looks whether the checkpoint was made.
const VERIFY_POLL: Duration = Duration::from_millis(100);

/// How to run a node.
pub struct NodeOptions {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes attempts.
    pub couriers: Couriers,
    /// The runtime that deliveries are made on, if another than the current one, on which callers are answered:
    /// these wait less then, however much there is to deliver.
    pub delivering: Option<Handle>,
    /// What subscriptions are checked by.
    pub rulebook: Rulebook,
    /// Commands that may wait; further ones are refused.
    pub queue_max: usize,
    /// Attempts under way at once, over all subscriptions.
    pub in_flight_max: usize,
    /// Below this much free space commands are refused, so that what runs can still be written down.
    pub reserve_bytes: u64,
    /// Longest between two checkpoints under load.
    pub checkpoint_interval: Duration,
    /// Members kept in memory beyond those that wait to be written.
    pub members_cached: usize,
    /// How much of each attempt's course is kept; a node without a data directory keeps nothing.
    pub delivery_log: AttemptLimits,
}

/// What a node stands on.
pub struct Stores {
    /// The truth.
    pub journal: Arc<dyn Journal>,
    /// The views.
    pub rows: Arc<dyn Rows>,
    /// What personal fields are sealed under.
    pub keys: Arc<MemberKeys>,
    /// Tells how much space is free; `None` where that is not known.
    pub free_bytes: Box<dyn Fn() -> Option<u64> + Send>,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Last durable position.
    pub head: Sequence,
    /// Events applied to the views after their checkpoint.
    pub events_applied: u64,
    /// How long that took.
    pub took: Duration,
    /// A tail that was never acknowledged and was cut off.
    pub cut_off: Option<String>,
    /// The views did not open, or did not go with the journal, and were folded anew.
    pub views_rebuilt: bool,
}

/// Why a node does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal. Nothing is touched: restore it from a backup.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The views' store.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The members' keys. Nothing is touched: restore them from a backup.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// What a journal that was trimmed goes on from.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The views cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// The way to the sequencer.
#[derive(Clone)]
pub struct Submitter {
    jobs: Sender<Job>,
    permits: Arc<Semaphore>,
    queue_max: usize,
    reads: Arc<Semaphore>,
    health: Arc<Health>,
}

impl Submitter {
    /// Whether nothing can be written down at present.
    pub fn is_stopped(&self) -> bool {
        self.health.stopped().is_some()
    }

    fn gone(&self) -> Unavailable {
        self.health.stopped().unwrap_or(Unavailable::ShuttingDown)
    }

    /// Carries out one command; answers once it is on disk.
    ///
    /// # Errors
    ///
    /// The rejection, or why nothing is taken in; [`Unavailable::QueueFull`] at once where too many wait.
    pub async fn submit(&self, command: Command) -> Answer {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Unavailable::QueueFull)?;
        let (answer, answered) = oneshot::channel();
        let commit = trace::commit();
        let one = Job::One(Box::new(command), Asked::within(commit.as_ref()), answer, Some(Place(permit)));
        self.jobs.send(one).map_err(|_| self.gone())?;
        answered.await.unwrap_or_else(|_| Err(self.gone().into()))
    }

    /// Carries out commands in their order, each on its own; answers once all are on disk. More than the
    /// queue holds take all of it.
    ///
    /// # Errors
    ///
    /// [`Unavailable::QueueFull`] where too many wait and `patient` is false; a patient caller waits its turn.
    pub async fn submit_all(&self, commands: Vec<Command>, patient: bool) -> Result<Vec<Answer>, Unavailable> {
        // More places than there are would never be free, and whoever comes later waits behind.
        let count = u32::try_from(commands.len().min(self.queue_max)).unwrap_or(u32::MAX);
        let permit = if patient {
            self.permits.clone().acquire_many_owned(count).await.map_err(|_| self.gone())?
        } else {
            self.permits.clone().try_acquire_many_owned(count).map_err(|_| Unavailable::QueueFull)?
        };
        let (answer, answered) = oneshot::channel();
        let commit = trace::commit();
        let many = Job::Many(commands, Asked::within(commit.as_ref()), answer, Some(Place(permit)));
        self.jobs.send(many).map_err(|_| self.gone())?;
        answered.await.map_err(|_| self.gone())
    }

    /// What a command would come to now, as if it were carried out; nothing is changed.
    ///
    /// # Errors
    ///
    /// Why that cannot be said; [`Unavailable::QueueFull`] at once where too many commands wait.
    pub async fn simulate(&self, command: Command) -> Result<Result<Decision, Rejection>, Unavailable> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Unavailable::QueueFull)?;
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Simulate(command, answer, Place(permit))).map_err(|_| self.gone())?;
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Carries out a command of the server's own, which the queue's bound does not hold back: its sender
    /// never has more than one under way.
    pub(crate) fn submit_internal(&self, command: Command) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        // Where the sequencer has gone, dropping the sender is the answer.
        drop(self.jobs.send(Job::One(Box::new(command), Asked::default(), answer, None)));
        answered
    }

    /// Reads the views between two commands; answers once what was read is on disk.
    ///
    /// # Errors
    ///
    /// Why it never will be.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Views) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let permit = self.reads.clone().acquire_owned().await.map_err(|_| self.gone())?;
        let (answer, answered) = oneshot::channel();
        let job = Job::Read(Box::new(move |views| {
            let value = read(views);
            Box::new(move |committed: Result<(), Unavailable>| {
                drop(permit);
                drop(answer.send(committed.map(|()| value)));
            })
        }));
        self.jobs.send(job).map_err(|_| self.gone())?;
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }
}

/// A running node.
pub struct Node {
    pub(crate) submitter: Submitter,
    feed: Arc<Feed>,
    directory: watch::Receiver<Arc<Directory>>,
    dispatcher: Arc<Dispatcher>,
    jobs: Arc<Jobs>,
    keeping_time: JoinTask<()>,
    log: Arc<DeliveryLog>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<dyn Clock>,
    sealer: Arc<Sealer>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) rows: Arc<dyn Rows>,
    pub(crate) keys: Arc<MemberKeys>,
    recovery: Recovery,
    /// Held while the views are written behind, and while they are verified.
    pub(crate) writing: Arc<std::sync::Mutex<()>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    blocking: Blocking,
    pub(crate) data_dir: Option<DataDir>,
}

impl Node {
    /// Opens the data directory at `path`, makes it where there is none, and starts; personal fields are sealed
    /// under `master_key`. To be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`OpenError`], with the path or position.
    pub fn open(path: PathBuf, master_key: &[u8; 32], options: NodeOptions) -> Result<Node, OpenError> {
        let data_dir = DataDir::open(&path, DataDirOptions::default())?;
        let (stores, recovery) = open_stores(&data_dir, master_key)?;
        Node::start(stores, recovery, options, Some(data_dir))
    }

    /// Starts on stores that are open.
    ///
    /// # Errors
    ///
    /// [`OpenError::Fold`] where the views cannot be folded, also not from the beginning.
    pub fn start(
        stores: Stores,
        recovery: Recovery,
        options: NodeOptions,
        data_dir: Option<DataDir>,
    ) -> Result<Node, OpenError> {
        let (mut node, threads) = Node::assemble(stores, recovery, options, data_dir, Blocking::Pool)?;
        *node.threads.get_mut() = threads.spawn(&node.health);
        Ok(node)
    }

    /// Starts on stores that are open, without a thread: the caller gives the parts their turns. For simulations,
    /// on a runtime of one thread.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_stepped(
        stores: Stores,
        recovery: Recovery,
        options: NodeOptions,
    ) -> Result<(Node, Stepped), OpenError> {
        let (node, threads) = Node::assemble(stores, recovery, options, None, Blocking::Here)?;
        Ok((node, threads.stepped()))
    }

    fn assemble(
        stores: Stores,
        mut recovery: Recovery,
        options: NodeOptions,
        data_dir: Option<DataDir>,
        blocking: Blocking,
    ) -> Result<(Node, Threads), OpenError> {
        let Stores { journal, rows, keys, free_bytes } = stores;
        let watch = Stopwatch::start();
        let (rows, views) = recover(&*journal, rows, &keys, options.members_cached, data_dir.as_ref(), &mut recovery)?;
        // Rather now than when the first one is looked for.
        if views.key_slot() != KeySlot::NONE {
            keys.is_destroyed(views.key_slot())?;
        }
        recovery.took += watch.elapsed();
        let feed = Feed::new(journal.clone(), keys.clone(), blocking);
        let health = Arc::new(Health::default());
        let (directory_tx, directory) = watch::channel(views.directory().clone());
        let (jobs, jobs_rx) = crossbeam_channel::unbounded();
        // A batch is handed over only when the committer is free, and grows until then: stepped, it is as long as
        // nothing waits for its turn.
        let (commit, batches) = crossbeam_channel::bounded(usize::from(blocking == Blocking::Here));
        let (overlay_tx, overlays) = crossbeam_channel::bounded(1);
        let (written_tx, written) = crossbeam_channel::bounded(1);
        let committer = Committer {
            journal: journal.clone(),
            feed: feed.clone(),
            directory: directory_tx,
            health: health.clone(),
            answering: Handle::current(),
            metrics: Metrics::new(&*journal),
        };
        let parts = Parts {
            clock: options.clock.clone(),
            journal: journal.clone(),
            rows: rows.clone(),
            keys: keys.clone(),
            health: health.clone(),
            free_bytes,
            reserve_bytes: options.reserve_bytes,
            checkpoint_interval: options.checkpoint_interval,
            members_cached: options.members_cached,
            commit,
            write_behind: overlay_tx,
            written,
        };
        let last_time = last_time(&*parts.journal, &keys, &*parts.clock)?;
        let sequencer = Sequencer::new(parts, views, last_time);
        let writing = Arc::new(std::sync::Mutex::new(()));
        let (rows_behind, keys_behind, gate) = (rows.clone(), keys.clone(), writing.clone());
        let write_behind = WriteBehind {
            rows: rows_behind,
            keys: keys_behind,
            overlays,
            written: written_tx,
            writing: gate,
            health: health.clone(),
        };
        let threads = Threads { sequencer, jobs: jobs_rx, committer, batches, write_behind };
        let submitter = Submitter {
            jobs,
            permits: Arc::new(Semaphore::new(options.queue_max)),
            queue_max: options.queue_max,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            health: health.clone(),
        };
        let log = data_dir.as_ref().map_or_else(DeliveryLog::none, |data_dir| {
            let clock = options.clock.clone();
            let (path, keys) = (data_dir.attempts_path(), keys.clone());
            DeliveryLog::start(path, options.delivery_log, clock, options.reserve_bytes, keys)
        });
        let log = Arc::new(log);
        let dispatcher = Dispatcher::new(
            log.clone(),
            options.clock.clone(),
            feed.clone(),
            options.couriers,
            options.rulebook.clone(),
            options.in_flight_max,
            submitter.clone(),
        );
        let delivering = options.delivering.unwrap_or_else(Handle::current);
        delivering.spawn(Pulsing::new(dispatcher.pulse().clone(), dispatcher.clone().follow(directory.clone())));
        let jobs = Jobs::new(options.clock.clone(), submitter.clone(), directory.clone(), blocking);
        let keeping_time = tokio::spawn(jobs.clone().keep_time());
        let node = Node {
            submitter,
            feed,
            directory,
            dispatcher,
            jobs,
            keeping_time,
            log,
            health,
            clock: options.clock,
            sealer: options.rulebook.sealer,
            journal,
            rows,
            keys,
            recovery,
            writing,
            threads: Mutex::default(),
            blocking,
            data_dir,
        };
        Ok((node, threads))
    }

    /// The way to the sequencer.
    pub fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    /// Committed events.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Everything that is configured, as of the last commit.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.borrow().clone()
    }

    /// Deliveries.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// How the jobs of a tenant stand, or those of all.
    ///
    /// # Errors
    ///
    /// [`JobError`] where there is no such tenant, or nothing can be read.
    pub async fn jobs(&self, tenant: Option<Tenant>) -> Result<Vec<JobStatus>, JobError> {
        self.jobs.list(tenant).await
    }

    /// Does the last run of a job that was due, whether or not it was completed: a run has the same period each
    /// time, and what it does to a member it does once for a period. So a second one finds only who has come or
    /// changed since. Waits for the run that is under way, if there is one.
    ///
    /// # Errors
    ///
    /// [`JobError`] where there is no such tenant, or it did not come to its end; what it did stays done.
    pub async fn run_job(&self, tenant: Tenant, job: engine_job::Job) -> Result<Progress, JobError> {
        self.jobs.run(tenant, job).await
    }

    /// The best `n` of a leaderboard's round, best first: walks over all members.
    ///
    /// # Errors
    ///
    /// [`JobError`] where members cannot be read.
    pub async fn standings(
        &self,
        tenant: Tenant,
        campaign: &CampaignId,
        board: &LeaderboardId,
        round: i32,
        n: usize,
    ) -> Result<Vec<Standing>, JobError> {
        self.jobs.standings(tenant, campaign, board, round, n).await
    }

    /// Every attempt, for a while.
    pub fn delivery_log(&self) -> &Arc<DeliveryLog> {
        &self.log
    }

    /// The time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What personal fields are sealed under.
    pub fn member_keys(&self) -> &Arc<MemberKeys> {
        &self.keys
    }

    /// Seals and opens secrets.
    pub fn sealer(&self) -> &Arc<Sealer> {
        &self.sealer
    }

    /// What subscriptions are checked by.
    pub fn rulebook(&self) -> Arc<Rulebook> {
        self.dispatcher.rulebook()
    }

    /// From now on events are told in these dialects.
    ///
    /// # Errors
    ///
    /// The first subscription that could be sent to and could not be any more, and why; nothing is changed then.
    pub fn replace_dialects(&self, dialects: Arc<Dialects>) -> Result<(), (SubscriptionId, TargetError)> {
        let before = self.rulebook();
        let after = Rulebook { dialects, ..(*before).clone() };
        for (id, entry) in self.directory().tenants.values().flat_map(|config| &config.subscriptions) {
            if let Err(error) = target::check(&entry.definition, &after)
                && target::check(&entry.definition, &before).is_ok()
            {
                return Err((*id, error));
            }
        }
        self.dispatcher.set_rulebook(after);
        Ok(())
    }

    /// Why nothing is taken in; `None` where all is well.
    pub fn stopped(&self) -> Option<Unavailable> {
        self.health.refusing()
    }

    /// The loops that have made no step of their work for `stuck_after`, by name; see [`crate::pulse`]. They are
    /// seen only once somebody has looked for so long: to be asked every now and then.
    pub fn stuck(&self, stuck_after: Duration) -> Vec<&'static str> {
        let pulses = self.health.pulses.named().into_iter().chain([("dispatcher", &**self.dispatcher.pulse())]);
        let stuck = pulses.filter(|(_, pulse)| pulse.is_stuck(stuck_after)).map(|(name, _)| name);
        let mut stuck: Vec<&'static str> = stuck.collect();
        if !self.dispatcher.stuck(stuck_after).is_empty() && !stuck.contains(&"dispatcher") {
            stuck.push("dispatcher");
        }
        stuck
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Space taken by journal and views.
    pub fn size_bytes(&self) -> (u64, u64) {
        (self.journal.size_bytes(), self.rows.size_bytes())
    }

    /// Verifies the journal and the views, up to what is on disk when it begins at least; see [`crate::verify::verify`].
    /// While it runs the views are not written behind. Takes long: not for async tasks.
    ///
    /// # Errors
    ///
    /// What cannot be read.
    pub fn verify(&self) -> Result<Verified, VerifyError> {
        let _guard = self.settled()?;
        self.verify_settled()
    }

    /// Holds the views as they are, exactly as of a checkpoint that is not before the head of this moment.
    pub(crate) fn settled(&self) -> Result<MutexGuard<'_, ()>, VerifyError> {
        // Everything that is in the journal now is to be compared, so it must be written behind first. Also,
        // until the first checkpoint rows may be newer than it says: a crash came while they were written.
        let head = Sequence(self.journal.head());
        drop(self.submitter.jobs.send(Job::Checkpoint));
        while checkpoint(&*self.rows)? < head {
            if let Some(why) = self.health.stopped() {
                return Err(VerifyError::Stopped { why });
            }
            std::thread::sleep(VERIFY_POLL);
        }
        Ok(self.writing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`verify`](Self::verify), while the views are held.
    pub(crate) fn verify_settled(&self) -> Result<Verified, VerifyError> {
        let fresh = Scratch::new(self.data_dir.as_ref())?;
        if let Some(data_dir) = &self.data_dir {
            lay_base(data_dir, &*self.journal, &*fresh.rows, &self.keys)?;
        }
        crate::verify::verify(&*self.journal, &self.rows, &self.keys, &fresh.rows, &mut |_, _| {})
    }

    /// Finishes what is under way, writes everything down and ends the threads.
    pub async fn close(&self) {
        // A run that is cut off begins again with the next start.
        self.keeping_time.abort();
        self.dispatcher.stop().await;
        let (done, stopped) = oneshot::channel();
        if self.submitter.jobs.send(Job::Stop(done)).is_ok() {
            drop(stopped.await);
        }
        let threads = std::mem::take(&mut *self.threads.lock().await);
        let log = self.log.clone();
        let join = move || {
            threads.into_iter().for_each(|t| drop(t.join()));
            log.stop();
        };
        self.blocking.run(join).await;
    }
}

/// Rows to fold into and throw away: on disk where there is one, so that memory stays bounded.
pub(crate) struct Scratch {
    pub(crate) rows: Arc<dyn Rows>,
    path: Option<PathBuf>,
}

impl Scratch {
    pub(crate) fn new(data_dir: Option<&DataDir>) -> Result<Scratch, RowsError> {
        let Some(data_dir) = data_dir else {
            return Ok(Scratch { rows: Arc::new(MemoryDisk::new().rows()), path: None });
        };
        let path = data_dir.path().join("views.verifying");
        drop(std::fs::remove_dir_all(&path));
        let rows = Arc::new(SledRows::open(&path, CACHE_BYTES_DEFAULT)?);
        Ok(Scratch { rows, path: Some(path) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays behind is removed before the next use.
            drop(std::fs::remove_dir_all(path));
        }
    }
}

/// Verifies a data directory that no server has open: recovers it as a start would, then compares.
/// `progress` is told the position reached and the head.
///
/// # Errors
///
/// [`OfflineError`], with the path or position.
pub fn verify_offline(
    data_dir: &DataDir,
    master_key: &[u8; 32],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Verified, Recovery), OfflineError> {
    let (stores, mut recovery) = open_stores(data_dir, master_key)?;
    let Stores { journal, rows, keys, .. } = stores;
    let (rows, mut views) = recover(&*journal, rows, &keys, 1_024, Some(data_dir), &mut recovery)?;
    if let Some(overlay) = views.freeze() {
        write_behind(&*rows, &keys, &overlay, || {}).map_err(OpenError::from)?;
    }
    let fresh = Scratch::new(Some(data_dir)).map_err(OpenError::from)?;
    lay_base(data_dir, &*journal, &*fresh.rows, &keys).map_err(OpenError::from)?;
    let verified = crate::verify::verify(&*journal, &rows, &keys, &fresh.rows, progress)?;
    Ok((verified, recovery))
}

/// Why a data directory could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens, but something in it cannot be read.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Opens journal, views and member keys of a data directory; views that are damaged are set aside.
///
/// # Errors
///
/// [`OpenError`], with the path or position.
pub fn open_stores(data_dir: &DataDir, master_key: &[u8; 32]) -> Result<(Stores, Recovery), OpenError> {
    let watch = Stopwatch::start();
    let keys = Arc::new(data_dir.member_keys(master_key, ids::fill_random)?);
    let mut opened = data_dir.open_views()?;
    let mut views_rebuilt = opened.rebuilt;
    let mut rows: Arc<dyn Rows> = Arc::new(opened.rows);
    let mut checkpoint = Views::open(rows.clone(), keys.clone(), 1).map(|views| views.checkpoint());
    if let Err(error) = &checkpoint {
        tracing::warn!(%error, "the views do not open, they are set aside and folded anew");
        drop(rows);
        data_dir.set_views_aside()?;
        opened = data_dir.open_views()?;
        rows = Arc::new(opened.rows);
        views_rebuilt = true;
        checkpoint = Ok(Sequence(0));
    }
    let checkpoint = checkpoint.expect("set above where it was an error");
    let (journal, report) = data_dir.open_journal(checkpoint.0)?;
    let cut_off = report.cut_off.map(|cut| {
        let text =
            format!("from sequence {}: {} blocks, {} bytes: {}", cut.from_sequence, cut.blocks, cut.bytes, cut.why);
        tracing::warn!(tail = text, "a tail that was never acknowledged was cut off");
        text
    });
    if report.head < checkpoint.0 {
        // Views never run ahead of the journal: this is another journal's, or one that lost its end.
        return Err(JournalError::Corrupt {
            path: data_dir.journal_path(),
            sequence: report.head + 1,
            what: punchline_storage::journal::Damage::Short { head: report.head, durable: checkpoint.0 },
        }
        .into());
    }
    let path = data_dir.path().to_owned();
    let free_bytes = Box::new(move || punchline_storage::sync::free_bytes(&path).ok());
    if checkpoint.0 + 1 < journal.first() {
        // What they would go on with is not there any more.
        if checkpoint.0 > 0 {
            drop(rows);
            data_dir.set_views_aside()?;
            rows = Arc::new(data_dir.open_views()?.rows);
        }
        lay_base(data_dir, &journal, &*rows, &keys)?;
        views_rebuilt = true;
    }
    let recovery = Recovery { took: watch.elapsed(), cut_off, views_rebuilt, ..Recovery::default() };
    Ok((Stores { journal: Arc::new(journal), rows, keys, free_bytes }, recovery))
}

/// Fills empty views with what a journal that was trimmed goes on from.
fn lay_base(data_dir: &DataDir, journal: &dyn Journal, rows: &dyn Rows, keys: &MemberKeys) -> Result<(), BaseError> {
    let first = journal.first();
    if first == 1 {
        return Ok(());
    }
    match data_dir.newest_base() {
        Some((upto, path)) if (first - 1..=journal.head()).contains(&upto) => {
            tracing::info!(upto, path = %path.display(), "the journal was trimmed: the views begin with its base");
            load_base(&path, rows, keys).map(drop)
        }
        _ => Err(BaseError::Missing { bases: data_dir.bases_path(), first }),
    }
}

/// Folds the journal into the views. Views that do not go with it are set aside and folded anew, like those
/// that do not open; where the fresh ones do no better the fault is not theirs, and they are put back.
fn recover(
    journal: &dyn Journal,
    rows: Arc<dyn Rows>,
    keys: &Arc<MemberKeys>,
    members_cached: usize,
    data_dir: Option<&DataDir>,
    recovery: &mut Recovery,
) -> Result<(Arc<dyn Rows>, Views), OpenError> {
    let fold = |rows: Arc<dyn Rows>| {
        let fold = move || {
            let (views, applied) = fold(journal, rows.clone(), keys, members_cached, FOLDED_ROWS_MAX)?;
            Ok((rows, views, applied))
        };
        // An event that does not continue what a row says panics: a bug of ours, or the row.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(fold))
    };
    let mut folded = fold(rows);
    let why = match &folded {
        Ok(Err(FoldError::Views(error))) if error.is_damage() => Some(error.to_string()),
        Ok(_) => None,
        Err(_) => Some("they contradict the journal, see the panic".into()),
    };
    if let (Some(why), Some(data_dir)) = (why, data_dir) {
        let aside = data_dir.set_views_aside()?;
        tracing::warn!(why, set_aside = %aside.display(), "the views do not fold, they are set aside and folded anew");
        let fresh: Arc<dyn Rows> = Arc::new(data_dir.open_views()?.rows);
        if let Err(error) = lay_base(data_dir, journal, &*fresh, keys) {
            drop(fresh);
            data_dir.put_views_back(&aside)?;
            return Err(error.into());
        }
        folded = fold(fresh);
        match &folded {
            Ok(Ok(_)) => recovery.views_rebuilt = true,
            _ => data_dir.put_views_back(&aside)?,
        }
    }
    let (rows, views, applied) = folded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    recovery.head = Sequence(journal.head());
    recovery.events_applied = applied;
    Ok((rows, views))
}

/// When the journal's last record was decided: the clock may have been set back since.
fn last_time(journal: &dyn Journal, keys: &MemberKeys, clock: &dyn Clock) -> Result<UnixMillis, OpenError> {
    let last = match journal.head() {
        0 => None,
        head => feed::record_at(journal, keys, Sequence(head)).map_err(FoldError::from)?,
    };
    let last_time = last.map_or(UnixMillis(0), |last| last.record.time);
    let behind_ms = last_time.0.saturating_sub(clock.now().0);
    if behind_ms > 0 {
        tracing::warn!(behind_ms, "the clock is behind the journal, whose time stands still until then");
    }
    Ok(last_time)
}
