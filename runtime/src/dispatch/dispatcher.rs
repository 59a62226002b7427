//! The dispatcher: a worker for each subscription, started, told of changes, and started again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram};
use punchline_delivery::courier::{AttemptRequest, Courier};
use punchline_delivery::outcome::AttemptReport;
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::{
    BreakerState, DeliveryJob, DeliveryRow, JobState, OnDeadLetter, RowState, SubscriptionState,
};
use punchline_engine::event::Recorded;
use punchline_engine::id::{Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::{Directory, SubscriptionEntry};
use punchline_engine::time::UnixMillis;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::budget::Budget;
use super::consumer::{Connection, Hub};
use super::log::DeliveryLog;
use super::target::{Rulebook, Target, TargetError, Via};
use super::worker::{CURSOR_STEP, Control, Ended, Loaded, Worker, rules_of};
use crate::clock::{Clock, Stopwatch};
use crate::committer::{Refusal, Unavailable};
use crate::feed::Feed;
use crate::node::Submitter;
use crate::pulse::{Pulse, Pulsing};

/// Rows read at once when a worker starts.
const ROWS_PAGE: usize = 1_024;
/// How often it is looked whether workers have something to take down.
const LOOKED_AFTER: Duration = Duration::from_secs(5);
/// Wait before a worker that failed is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What all workers share.
pub struct Shared {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Committed events.
    pub feed: Arc<Feed>,
    /// Makes attempts.
    pub couriers: Couriers,
    /// What targets are checked by.
    rulebook: RwLock<Arc<Rulebook>>,
    /// Places for attempts, over all subscriptions.
    pub in_flight: Semaphore,
    /// How many places there are.
    pub in_flight_max: usize,
    /// What all subscriptions together may have taken in.
    pub(super) budget: Arc<Budget>,
    /// The way to the sequencer.
    pub submitter: Submitter,
    hubs: Mutex<HashMap<SubscriptionId, Arc<Hub>>>,
    pub(super) metrics: Metrics,
    pub(super) log: Arc<DeliveryLog>,
}

impl Shared {
    /// What targets are checked by, as of now.
    pub fn rulebook(&self) -> Arc<Rulebook> {
        self.rulebook.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connections of a consumer.
    pub(super) fn hub(&self, id: SubscriptionId) -> Arc<Hub> {
        self.hubs.lock().expect("nothing panics while it holds the hubs").entry(id).or_default().clone()
    }

    /// The rows of these deliveries as they stand now; those that have none are left out.
    pub(super) async fn rows(
        &self,
        id: SubscriptionId,
        sequences: Vec<Sequence>,
    ) -> Result<Vec<DeliveryRow>, Unavailable> {
        let rows = (self.submitter)
            .read(move |views| {
                let rows = sequences.iter().map(|sequence| views.delivery_row(id, *sequence));
                rows.collect::<Result<Vec<_>, _>>()
            })
            .await?
            .map_err(|error| Unavailable::Stopped { what: error.to_string() })?;
        Ok(rows.into_iter().flatten().collect())
    }
}

/// What a worker tells about itself.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// All settled or in a row up to here.
    pub cursor: AtomicU64,
    /// Taken in and not settled, rows included.
    pub pending: AtomicU64,
    /// Waiting for a retry, or held behind one.
    pub waiting: AtomicU64,
    /// Attempts under way.
    pub in_flight: AtomicU64,
    /// Dead letters.
    pub dead: AtomicU64,
    /// The oldest event that is not settled, dead letters left out; 0 where there is none.
    pub(super) oldest: AtomicU64,
    /// The breaker: 0 closed, 1 open, 2 half-open.
    breaker: AtomicU64,
    breaker_open_until: AtomicI64,
    pulse: Arc<Pulse>,
}

impl WorkerStats {
    /// The oldest event that is not settled, dead letters left out.
    pub fn oldest(&self) -> Option<Sequence> {
        Some(Sequence(self.oldest.load(Relaxed))).filter(|oldest| oldest.0 > 0)
    }

    /// How the breaker stands, without its times.
    pub fn breaker(&self) -> &'static str {
        ["closed", "open", "half_open"][self.breaker.load(Relaxed) as usize]
    }

    pub(super) fn set_breaker(&self, state: BreakerState) {
        let number = match state {
            BreakerState::Closed => 0,
            BreakerState::Open { .. } => 1,
            BreakerState::HalfOpen { .. } => 2,
        };
        let until = if let BreakerState::Open { until, .. } = state { until.0 } else { 0 };
        self.breaker_open_until.store(until, Relaxed);
        self.breaker.store(number, Relaxed);
    }

    /// Until when the breaker is open, where it is.
    pub fn breaker_open_until(&self) -> Option<UnixMillis> {
        Some(self.breaker_open_until.load(Relaxed)).filter(|until| *until > 0).map(UnixMillis)
    }
}

/// The ways an attempt can take.
#[derive(Clone)]
pub struct Couriers {
    /// A request each.
    pub http: Arc<dyn Courier>,
    /// Batches to Segment.
    pub segment: Arc<dyn Courier>,
}

impl Couriers {
    /// Makes one attempt; one that cannot be made gives its report at once.
    pub async fn attempt(&self, via: Via, request: Result<AttemptRequest, Box<AttemptReport>>) -> AttemptReport {
        match (via, request) {
            (_, Err(report)) => *report,
            (Via::Segment, Ok(request)) => self.segment.attempt(request).await,
            (Via::Http | Via::Consumer, Ok(request)) => self.http.attempt(request).await,
        }
    }
}

pub(super) struct Handle {
    pub(super) entry: SubscriptionEntry,
    controls: mpsc::UnboundedSender<Control>,
    pub(super) stats: Arc<WorkerStats>,
}

/// All workers.
pub struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    workers: Mutex<BTreeMap<SubscriptionId, Handle>>,
    /// Of what starts and tells the workers.
    pulse: Arc<Pulse>,
}

/// Why a delivery cannot be retried now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// It is delivered, under way, or comes after another one of its member.
    #[error("the delivery is not waiting for a retry, nor is it a dead letter")]
    NotWaiting,
    /// The subscription is not there.
    #[error("the subscription is not there")]
    NoSubscription,
}

impl Dispatcher {
    /// A dispatcher without workers; [`follow`](Self::follow) starts them.
    pub(crate) fn new(
        log: Arc<DeliveryLog>,
        clock: Arc<dyn Clock>,
        feed: Arc<Feed>,
        couriers: Couriers,
        rulebook: Rulebook,
        in_flight_max: usize,
        submitter: Submitter,
    ) -> Arc<Dispatcher> {
        let (in_flight, metrics) = (Semaphore::new(in_flight_max), Metrics::new());
        let shared = Shared {
            clock,
            feed,
            couriers,
            rulebook: RwLock::new(Arc::new(rulebook)),
            in_flight,
            in_flight_max,
            budget: Arc::default(),
            submitter,
            hubs: Mutex::default(),
            metrics,
            log,
        };
        Arc::new(Dispatcher { shared: Arc::new(shared), workers: Mutex::default(), pulse: Arc::default() })
    }

    pub(super) fn workers(&self) -> MutexGuard<'_, BTreeMap<SubscriptionId, Handle>> {
        self.workers.lock().expect("nothing panics while it holds the workers")
    }

    /// Starts, tells and ends workers as the directory changes, until it changes no more.
    pub(crate) async fn follow(self: Arc<Self>, mut directory: watch::Receiver<Arc<Directory>>) {
        let mut told = self.shared.feed.told();
        loop {
            let current = directory.borrow_and_update().clone();
            self.reconcile(&current);
            loop {
                tokio::select! {
                    biased;
                    changed = directory.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(LOOKED_AFTER) => told = self.wake_all(told),
                }
            }
        }
    }

    /// Once many events were told, workers that wanted none of them take down that they have looked: one
    /// clock for all, so that an idle one costs nothing.
    fn wake_all(&self, told_before: u64) -> u64 {
        let told = self.shared.feed.told();
        if told < told_before + CURSOR_STEP {
            return told_before;
        }
        self.workers().values().for_each(|worker| drop(worker.controls.send(Control::Wake)));
        told
    }

    fn reconcile(self: &Arc<Self>, directory: &Directory) {
        let mut workers = self.workers();
        let wanted: BTreeMap<SubscriptionId, (Tenant, &SubscriptionEntry)> = (directory.tenants.iter())
            .flat_map(|(tenant, config)| config.subscriptions.iter().map(|(id, entry)| (*id, (*tenant, entry))))
            .collect();
        // Dropping its controls ends a worker.
        workers.retain(|id, _| wanted.contains_key(id));
        let mut hubs = self.shared.hubs.lock().expect("nothing panics while it holds the hubs");
        hubs.retain(|id, _| wanted.contains_key(id));
        drop(hubs);
        for (id, (tenant, entry)) in wanted {
            match workers.get_mut(&id) {
                Some(handle) if handle.entry == *entry => {}
                Some(handle) => {
                    handle.entry = entry.clone();
                    drop(handle.controls.send(Control::Configured(Box::new(entry.clone()))));
                }
                None => {
                    let (controls, receiver) = mpsc::unbounded_channel();
                    let stats = Arc::new(WorkerStats::default());
                    let handle = Handle { entry: entry.clone(), controls, stats: stats.clone() };
                    workers.insert(id, handle);
                    tokio::spawn(self.clone().keep_running(tenant, id, stats, receiver));
                }
            }
        }
    }

    /// Runs a worker, and runs it again from what is on disk should its report be refused, or should it
    /// fail: a bug in one must not end the deliveries to a subscriber for good.
    async fn keep_running(
        self: Arc<Self>,
        tenant: Tenant,
        id: SubscriptionId,
        stats: Arc<WorkerStats>,
        mut controls: mpsc::UnboundedReceiver<Control>,
    ) {
        loop {
            let entry = self.workers().get(&id).map(|handle| handle.entry.clone());
            let Some(entry) = entry else { return };
            // What cannot be written down would only be sent again and again.
            let worker = if self.shared.submitter.is_stopped() {
                None
            } else {
                let loaded = self.load(tenant, id, &entry, &stats).await;
                let warn = |why: &Unavailable| {
                    tracing::warn!(subscription = %id, %why, "the state of deliveries cannot be read yet");
                };
                loaded.inspect_err(warn).ok()
            };
            let Some(worker) = worker else {
                match tokio::time::timeout(RESTART_AFTER, controls.recv()).await {
                    Ok(None) => return,
                    Ok(Some(Control::Stop(done))) => {
                        let _ = done.send(());
                        return;
                    }
                    // Changes and rows put back are read from the views by the next try.
                    Ok(Some(_)) | Err(_) => continue,
                }
            };
            let (forward, receiver) = mpsc::unbounded_channel();
            let mut running = tokio::spawn(Pulsing::new(stats.pulse.clone(), worker.run(receiver)));
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = &mut running => break ended,
                    control = controls.recv() => match control {
                        Some(control) => drop(forward.send(control)),
                        None => return running.abort(),
                    },
                }
            };
            match ended {
                Ok(Ended::ToldTo) => return,
                Ok(Ended::Reload) => {}
                Ok(Ended::Refused) => tokio::time::sleep(RESTART_AFTER).await,
                Err(error) => {
                    tracing::error!(subscription = %id, %error, "a worker failed and is started again");
                    tokio::time::sleep(RESTART_AFTER).await;
                }
            }
        }
    }

    async fn load(
        &self,
        tenant: Tenant,
        id: SubscriptionId,
        entry: &SubscriptionEntry,
        stats: &Arc<WorkerStats>,
    ) -> Result<Worker, Unavailable> {
        let created = entry.owed_after;
        let holds = rules_of(entry).on_dead_letter == OnDeadLetter::Hold;
        let (mut rows, mut dead, mut from) = (Vec::new(), 0, Sequence(0));
        let state = loop {
            let (state, page) = (self.shared.submitter)
                .read(move |views| {
                    let state = views.delivery_state(id).cloned().unwrap_or_default();
                    views.delivery_rows(id, from, ROWS_PAGE).map(|rows| (state, rows))
                })
                .await?
                .map_err(|error| Unavailable::Stopped { what: error.to_string() })?;
            let Some(last) = page.last() else { break state };
            let cursor = state.cursor.max(created);
            from = last.sequence.next();
            dead += page.iter().filter(|row| row.state == RowState::Dead).count() as u64;
            let is_open = |row: &DeliveryRow| match row.state {
                RowState::Waiting { .. } | RowState::Held => true,
                RowState::Dead => holds,
                RowState::Delivered | RowState::Dropped => false,
            };
            rows.extend(page.into_iter().filter(|row| row.sequence > cursor || is_open(row)));
        };
        stats.dead.store(dead, Relaxed);
        stats.set_breaker(state.breaker);
        let mut jobs = state.jobs;
        jobs.retain(|job| job.state == JobState::Running);
        let loaded = Loaded { cursor: state.cursor.max(created), rows, breaker: state.breaker, jobs };
        Ok(Worker::new(tenant, entry, self.shared.clone(), stats.clone(), loaded))
    }

    /// What targets are checked by, as of now.
    pub(crate) fn rulebook(&self) -> Arc<Rulebook> {
        self.shared.rulebook()
    }

    /// From now on targets are checked by `rulebook`; those that are being sent to, too.
    pub(crate) fn set_rulebook(&self, rulebook: Rulebook) {
        *self.shared.rulebook.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rulebook);
        for worker in self.workers().values() {
            drop(worker.controls.send(Control::Configured(Box::new(worker.entry.clone()))));
        }
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The subscriptions whose workers have made no step of their work for `stuck_after`, as far as was looked.
    pub fn stuck(&self, stuck_after: Duration) -> Vec<SubscriptionId> {
        // Not waited for: who holds it may be stuck, and is seen by its own pulse.
        let Ok(workers) = self.workers.try_lock() else { return Vec::new() };
        workers.iter().filter(|(_, handle)| handle.stats.pulse.is_stuck(stuck_after)).map(|(id, _)| *id).collect()
    }

    /// The counters of a subscription's worker.
    pub fn stats(&self, id: SubscriptionId) -> Option<Arc<WorkerStats>> {
        self.workers().get(&id).map(|handle| handle.stats.clone())
    }

    /// Sets the gauges that are summed over all workers.
    pub fn measure(&self) {
        let (mut pending, mut waiting, mut oldest) = (0, 0, None);
        let states = ["active", "paused", "disabled", "breaker_open", "breaker_half_open"];
        let mut states = BTreeMap::from(states.map(|state| (state, 0)));
        for handle in self.workers().values() {
            pending += handle.stats.pending.load(Relaxed);
            waiting += handle.stats.waiting.load(Relaxed);
            oldest = handle.stats.oldest().into_iter().chain(oldest).min();
            let state = match (handle.entry.state, handle.stats.breaker()) {
                (SubscriptionState::Active, "open") => "breaker_open",
                (SubscriptionState::Active, "half_open") => "breaker_half_open",
                (SubscriptionState::Active, _) => "active",
                (SubscriptionState::Paused, _) => "paused",
                (SubscriptionState::Disabled, _) => "disabled",
            };
            *states.entry(state).or_insert(0) += 1;
        }
        let since = oldest.and_then(|oldest| self.time_of(oldest));
        let age_ms = since.map_or(0, |since| (self.shared.clock.now().0 - since.0).max(0));
        metrics::gauge!("punchline_delivery_queue_events", "state" => "ready")
            .set((pending - waiting.min(pending)) as f64);
        metrics::gauge!("punchline_delivery_queue_events", "state" => "waiting").set(waiting as f64);
        metrics::gauge!("punchline_delivery_oldest_pending_seconds").set(age_ms as f64 / 1_000.0);
        for (state, count) in states {
            metrics::gauge!("punchline_subscriptions", "state" => state).set(f64::from(count));
        }
    }

    /// When an event was decided. Reads a block, which as a rule is in memory.
    pub(super) fn time_of(&self, sequence: Sequence) -> Option<UnixMillis> {
        let event = self.shared.feed.event_at(sequence).ok().flatten();
        event.map(|event| event.get().time)
    }

    /// When the oldest event of a subscription that is not settled was decided, of those that are loaded; dead
    /// letters are settled.
    pub fn oldest_pending_at(&self, id: SubscriptionId) -> Option<UnixMillis> {
        self.time_of(self.stats(id)?.oldest()?)
    }

    /// Sums over all workers: deliveries taken in and not settled, dead letters.
    pub fn totals(&self) -> (u64, u64) {
        let workers = self.workers();
        let sum = |of: fn(&WorkerStats) -> &AtomicU64| workers.values().map(|h| of(&h.stats).load(Relaxed)).sum();
        (sum(|s| &s.pending), sum(|s| &s.dead))
    }

    /// Puts dead letters back into their lanes, durably; gives how many were dead.
    ///
    /// # Errors
    ///
    /// What the sequencer answers.
    pub async fn redrive(&self, tenant: Tenant, id: SubscriptionId, sequences: Vec<Sequence>) -> Result<u64, Refusal> {
        let action = Action::Redrive { subscription_id: id, sequences: sequences.clone() };
        self.shared.submitter.submit(Command { tenant, request_id: None, action }).await?;
        let rows = self.shared.rows(id, sequences).await?;
        let rows: Vec<DeliveryRow> =
            rows.into_iter().filter(|row| matches!(row.state, RowState::Waiting { step: 0, .. })).collect();
        let put_back = rows.len() as u64;
        self.control(id, Control::PutBack(rows));
        Ok(put_back)
    }

    /// Gives dead letters up, durably; gives how many were dead.
    ///
    /// # Errors
    ///
    /// What the sequencer answers.
    pub async fn drop_dead_letters(
        &self,
        tenant: Tenant,
        id: SubscriptionId,
        sequences: Vec<Sequence>,
        reason: String,
    ) -> Result<u64, Refusal> {
        let dead = self.shared.rows(id, sequences.clone()).await?;
        let dead: Vec<Sequence> =
            dead.iter().filter(|row| row.state == RowState::Dead).map(|row| row.sequence).collect();
        let action = Action::DropDeadLetters { subscription_id: id, sequences, reason };
        self.shared.submitter.submit(Command { tenant, request_id: None, action }).await?;
        let dropped = self.shared.rows(id, dead).await?;
        let dropped: Vec<Sequence> =
            dropped.iter().filter(|row| row.state == RowState::Dropped).map(|row| row.sequence).collect();
        let count = dropped.len() as u64;
        self.control(id, Control::Dropped(dropped));
        Ok(count)
    }

    /// Begins a replay or a redrive, durably.
    ///
    /// # Errors
    ///
    /// What the sequencer answers.
    pub async fn start_job(&self, tenant: Tenant, id: SubscriptionId, job: DeliveryJob) -> Result<(), Refusal> {
        let action = Action::StartJob { subscription_id: id, job };
        self.shared.submitter.submit(Command { tenant, request_id: None, action }).await?;
        self.tell_jobs(id).await
    }

    /// Stops a job, durably; what it has put back stays put back.
    ///
    /// # Errors
    ///
    /// What the sequencer answers.
    pub async fn cancel_job(&self, tenant: Tenant, id: SubscriptionId, job: DeliveryJob) -> Result<(), Refusal> {
        let action = Action::EndJob { subscription_id: id, job, cancelled: true };
        self.shared.submitter.submit(Command { tenant, request_id: None, action }).await?;
        self.tell_jobs(id).await
    }

    async fn tell_jobs(&self, id: SubscriptionId) -> Result<(), Refusal> {
        let jobs = self.shared.submitter.read(move |views| views.delivery_state(id).cloned().unwrap_or_default().jobs);
        let jobs = jobs.await?.into_iter().filter(|job| job.state == JobState::Running).collect();
        self.control(id, Control::Jobs(jobs));
        Ok(())
    }

    /// Makes one attempt now; returns when it has ended.
    ///
    /// # Errors
    ///
    /// [`RetryError`] where there is nothing to retry.
    pub async fn retry_now(&self, id: SubscriptionId, sequence: Sequence) -> Result<(), RetryError> {
        let (answer, answered) = oneshot::channel();
        if !self.control(id, Control::RetryNow(sequence, answer)) {
            return Err(RetryError::NoSubscription);
        }
        match answered.await {
            Ok(true) => Ok(()),
            _ => Err(RetryError::NotWaiting),
        }
    }

    fn control(&self, id: SubscriptionId, control: Control) -> bool {
        self.workers().get(&id).is_some_and(|handle| handle.controls.send(control).is_ok())
    }

    /// Connects a client to a consumer, with so many events under way at once; `None` where there is no such
    /// consumer.
    pub fn connect(&self, id: SubscriptionId, places: usize) -> Option<Connection> {
        let workers = self.workers();
        let worker = workers.get(&id)?.controls.downgrade();
        drop(workers);
        Some(Connection::open(self.shared.hub(id), places, worker))
    }

    /// Connections of a consumer at present.
    pub fn connections(&self, id: SubscriptionId) -> usize {
        self.shared.hub(id).connections()
    }

    /// A subscription made ready to be sent to.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where it cannot be.
    pub fn target(&self, entry: &SubscriptionEntry) -> Result<Target, TargetError> {
        Target::new(entry, &self.shared.rulebook())
    }

    /// Sends `example` to a subscription now: neither retried nor counted nor in order.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where the subscription cannot be sent to.
    pub async fn test(
        &self,
        entry: &SubscriptionEntry,
        example: &Recorded<'_>,
    ) -> Result<(AttemptReport, Duration, bytes::Bytes), TargetError> {
        let target = self.target(entry)?;
        let request = target.request(example, 1, self.shared.clock.now());
        let body = request.as_ref().map(|request| request.body.clone()).unwrap_or_default();
        let watch = Stopwatch::start();
        let report = self.shared.couriers.attempt(target.via, request).await;
        Ok((report, watch.elapsed(), body))
    }

    /// Lets every worker finish what is under way and report it.
    pub(crate) async fn stop(&self) {
        let mut stopping = Vec::new();
        for handle in self.workers().values() {
            let (done, stopped) = oneshot::channel();
            if handle.controls.send(Control::Stop(done)).is_ok() {
                stopping.push(stopped);
            }
        }
        for stopped in stopping {
            drop(stopped.await);
        }
    }
}

pub(super) struct Metrics {
    duration: Histogram,
    first_delay: Histogram,
    end_to_end: Histogram,
    delivered: Counter,
}

impl Metrics {
    fn new() -> Metrics {
        Metrics {
            duration: metrics::histogram!("punchline_delivery_attempt_duration_seconds"),
            first_delay: metrics::histogram!("punchline_delivery_first_attempt_delay_seconds"),
            end_to_end: metrics::histogram!("punchline_delivery_end_to_end_seconds"),
            delivered: attempts("delivered", "2xx"),
        }
    }

    pub(super) fn attempt(&self, report: &AttemptReport, latency: Duration, first_delay_ms: Option<i64>) {
        self.duration.record(latency.as_secs_f64());
        if let Some(delay_ms) = first_delay_ms {
            self.first_delay.record(delay_ms.max(0) as f64 / 1_000.0);
        }
        match (report.outcome.as_str(), report.status_class()) {
            ("delivered", "2xx") => self.delivered.increment(1),
            (outcome, class) => attempts(outcome, class).increment(1),
        }
    }

    pub(super) fn end_to_end(&self, seconds: f64) {
        self.end_to_end.record(seconds);
    }

    pub(super) fn dead_letter(&self, reason: &str) {
        metrics::counter!("punchline_dead_letters_total", "reason" => reason.to_owned()).increment(1);
    }
}

fn attempts(outcome: &'static str, class: &'static str) -> Counter {
    metrics::counter!("punchline_delivery_attempts_total", "outcome" => outcome, "status_class" => class)
}
