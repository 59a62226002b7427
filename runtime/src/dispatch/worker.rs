//! One subscription's worker: reads the feed, keeps the lanes, makes attempts, reports. What an attempt's
//! outcome leads to is in `outcome`.
//!
//! # Invariants
//!
//! - An attempt's outcome is taken down before the next one of the same member begins.
//! - What is settled is reported within [`REPORT_AFTER`], sooner where much has changed; so a crash
//!   repeats at most what was in flight or settled in that time, never more than the window of the lanes.
//!
//! # What is absent on purpose
//!
//! - Shared state: everything is this task's own, others see counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::HeaderName;
use punchline_delivery::outcome::AttemptReport;
use punchline_engine::command::{Action, Command, Died};
use punchline_engine::dispatch::{
    Breaker, BreakerPolicy, BreakerState, DeliveryJob, DeliveryRow, JobState, RowState, SubscriptionState,
};
use punchline_engine::id::{Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::SubscriptionEntry;
use punchline_engine::time::UnixMillis;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::budget::Share;
use super::consumer::Hub;
use super::dispatcher::{Shared, WorkerStats};
use super::job::JobRun;
use super::lanes::{Lanes, Rules, Task};
use super::pace::Pace;
use super::target::{Target, Via};
use crate::clock::Stopwatch;
use crate::committer::Answer;
use crate::feed::{EventRef, Follower, ReadError, Wanted};
use crate::trace;

mod outcome;

/// The header that tells a receiver whose trace a request is part of.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest that a settled delivery stays unreported.
const REPORT_AFTER: Duration = Duration::from_millis(250);
/// How long changed rows are gathered into one report.
const GATHER_ROWS: Duration = Duration::from_millis(20);
/// Rows in one report: bounds the record.
const ROWS_REPORTED_MAX: usize = 256;
/// Positions looked at without a match that are worth a report, if as many events were told meanwhile:
/// reports are events too, and must not keep each other going.
pub(super) const CURSOR_STEP: u64 = 10_000;
/// How long a worker without room waits for others to leave it some.
const ROOM_AFTER: Duration = Duration::from_secs(5);
/// As good as for ever: whatever concerns an idle worker wakes it.
const UNTIL_WOKEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Pages taken in before attempts and reports have their turn.
const PAGES_AT_ONCE: usize = 8;
/// A subscription with so many attempts under way leaves the last quarter of all places to others.
const FAIR_SHARE: usize = 8;
/// How long one attempt may keep everything behind it from being taken in.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Wait after the journal could not be read.
const AFTER_READ_ERROR: Duration = Duration::from_secs(1);

/// What others ask of a worker.
pub(super) enum Control {
    /// The subscription changed.
    Configured(Box<SubscriptionEntry>),
    /// Rows that are to be tried (again).
    PutBack(Vec<DeliveryRow>),
    /// Dead letters that were given up.
    Dropped(Vec<Sequence>),
    /// Jobs were asked for or ended by somebody.
    Jobs(Vec<DeliveryJob>),
    /// One attempt now, beside the schedule; answered when it has ended, with false if it cannot be.
    RetryNow(Sequence, oneshot::Sender<bool>),
    /// Look again: the connections of its consumer changed.
    Wake,
    /// Report what there is and end.
    Stop(oneshot::Sender<()>),
}

/// An attempt that has ended.
struct Done {
    task: Task,
    event: Result<EventRef, Option<ReadError>>,
    at: UnixMillis,
    latency: Duration,
    /// Absent where no attempt was made: the event cannot be read, or no connection took it.
    report: Option<AttemptReport>,
}

pub(super) struct Worker {
    id: SubscriptionId,
    tenant: Tenant,
    shared: Arc<Shared>,
    stats: Arc<WorkerStats>,
    follower: Follower,
    lanes: Lanes,
    state: SubscriptionState,
    target: Option<Arc<Target>>,
    /// Events of deliveries that have no row; the others' are read when they are tried.
    events: HashMap<Sequence, EventRef>,
    attempts: FuturesUnordered<BoxFuture<'static, Done>>,
    died: Vec<Died>,
    disable: Option<String>,
    report: Option<oneshot::Receiver<Answer>>,
    report_due: Option<Instant>,
    reported: Sequence,
    told_at_report: u64,
    rules: Rules,
    breaker: Breaker,
    breaker_policy: BreakerPolicy,
    breaker_turned: Vec<BreakerState>,
    pace: Pace,
    job: Option<JobRun>,
    jobs: Vec<DeliveryJob>,
    hub: Arc<Hub>,
    asked: HashMap<Sequence, (oneshot::Sender<bool>, Option<RowState>)>,
    feed_is_empty: bool,
    share: Share,
    /// Nothing more can be taken in because of what waits behind this attempt, since then.
    stuck: Option<(Sequence, Instant)>,
}

impl Worker {
    pub(super) fn new(
        tenant: Tenant,
        entry: &SubscriptionEntry,
        shared: Arc<Shared>,
        stats: Arc<WorkerStats>,
        loaded: Loaded,
    ) -> Worker {
        let Loaded { cursor, rows, breaker, jobs } = loaded;
        let rules = rules_of(entry);
        let told_at_report = shared.feed.told();
        let wanted = Wanted { tenant, types: entry.definition.event_types.mask(), member: None };
        let follower = shared.feed.follow(wanted, cursor.next());
        let mut worker = Worker {
            id: entry.definition.id,
            tenant,
            stats,
            follower,
            lanes: Lanes::new(rules, cursor, rows),
            state: entry.state,
            target: None,
            events: HashMap::new(),
            attempts: FuturesUnordered::new(),
            died: Vec::new(),
            disable: None,
            report: None,
            report_due: None,
            reported: cursor,
            told_at_report,
            rules,
            breaker: Breaker::new(breaker),
            breaker_policy: entry.definition.breaker,
            breaker_turned: Vec::new(),
            pace: Pace::new(entry.definition.rate_per_second),
            job: None,
            jobs,
            hub: shared.hub(entry.definition.id),
            asked: HashMap::new(),
            feed_is_empty: false,
            share: Share::of(shared.budget.clone()),
            stuck: None,
            shared,
        };
        worker.configure(entry);
        worker
    }

    fn configure(&mut self, entry: &SubscriptionEntry) {
        if self.state == SubscriptionState::Disabled && entry.state == SubscriptionState::Active {
            // Who resumes it believes that the endpoint is back.
            let turned = self.breaker.succeeded();
            self.turned(turned);
        }
        self.state = entry.state;
        self.breaker_policy = entry.definition.breaker;
        if !self.pace.is(entry.definition.rate_per_second) {
            self.pace = Pace::new(entry.definition.rate_per_second);
        }
        let types = entry.definition.event_types.mask();
        self.follower.set_wanted(Wanted { tenant: self.tenant, types, member: None });
        self.target = match Target::new(entry, &self.shared.rulebook()) {
            Ok(target) => Some(Arc::new(target)),
            Err(error) => {
                tracing::error!(subscription = %self.id, %error, "nothing can be sent to this subscription");
                None
            }
        };
    }

    /// Serves until it is told to stop, or must be loaded anew.
    pub(super) async fn run(mut self, mut controls: mpsc::UnboundedReceiver<Control>) -> Ended {
        loop {
            self.share.set(self.lanes.taken_in());
            self.lanes.set_taken_in_max(self.share.most());
            if let Err(error) = self.fill().await {
                tracing::error!(subscription = %self.id, %error, "the journal cannot be read");
                tokio::time::sleep(AFTER_READ_ERROR).await;
            }
            self.start_attempts();
            self.relieve();
            self.start_report();
            self.start_job();
            self.count();
            let wait = self
                .next_due()
                .map(|due| Duration::from_millis((due.0.saturating_sub(self.shared.clock.now().0)).max(1) as u64));
            let wait = wait.unwrap_or(UNTIL_WOKEN).min(self.look_again_after());
            let can_read = self.is_serving() && self.lanes.has_room();
            tokio::select! {
                biased;
                Some(done) = self.attempts.next(), if !self.attempts.is_empty() => self.settle(done),
                control = controls.recv() => match control {
                    Some(Control::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return Ended::ToldTo;
                    }
                    Some(Control::Configured(entry)) if rules_of(&entry) != self.rules => {
                        // Other lanes: they are made anew from what is written down.
                        self.stop().await;
                        return Ended::Reload;
                    }
                    Some(control) => self.control(control),
                    None => return Ended::ToldTo,
                },
                answer = answered(&mut self.report) => {
                    self.report = None;
                    match answer {
                        Some(Ok(_)) => {}
                        Some(Err(refusal)) => {
                            tracing::warn!(subscription = %self.id, %refusal, "progress could not be written down");
                            return Ended::Refused;
                        }
                        None => return Ended::Refused,
                    }
                }
                advanced = JobRun::advanced(&mut self.job) => self.job_advanced(advanced),
                () = self.hub.waits() => {}
                () = self.follower.woken(), if can_read && self.feed_is_empty => self.feed_is_empty = false,
                () = sleep_until(self.report_due), if self.report.is_none() && !self.is_job_at_work() => {}
                () = tokio::task::yield_now(), if can_read && !self.feed_is_empty => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn is_serving(&self) -> bool {
        let Some(target) = self.target.as_ref().filter(|_| self.state == SubscriptionState::Active) else {
            return false;
        };
        target.via != Via::Consumer || self.hub.places() > 0
    }

    /// Takes in what is in the feed, as far as there is room.
    async fn fill(&mut self) -> Result<(), ReadError> {
        let mut pages = 0;
        while self.is_serving() && !self.feed_is_empty && self.lanes.room() > 0 && pages < PAGES_AT_ONCE {
            pages += 1;
            // A record's events come together, so a page may be larger than what was asked for.
            let Some(page) = self.follower.next(self.lanes.room().min(256)).await? else {
                self.feed_is_empty = true;
                break;
            };
            for event in page.events {
                let recorded = event.get();
                let (sequence, member) = (recorded.sequence, recorded.member);
                if !self.target.as_ref().is_some_and(|target| target.wants(&recorded, &self.shared.feed)) {
                    continue;
                }
                self.lanes.offer(sequence, member);
                // What is personal is read again, since its member may be erased until then.
                if self.lanes.is_without_row(sequence) && !recorded.event.is_personal() {
                    self.events.insert(sequence, event);
                }
            }
            self.lanes.looked_at(Sequence(page.next.0 - 1));
        }
        if self.feed_is_empty {
            // Asleep, the follower is moved along over what does not match.
            let position = self.follower.position();
            self.lanes.looked_at(Sequence(position.0 - 1));
        }
        if self.lanes.has_changed_rows() {
            self.report_within(GATHER_ROWS);
        }
        let told = self.shared.feed.told() - self.told_at_report;
        if self.lanes.cursor().0 >= self.reported.0 + CURSOR_STEP && told >= CURSOR_STEP {
            self.report_within(REPORT_AFTER);
        }
        Ok(())
    }

    fn start_attempts(&mut self) {
        let Some(target) = self.target.clone().filter(|_| self.is_serving()) else { return };
        let now = self.shared.clock.now();
        let turned = self.breaker.wake(now);
        self.turned(turned);
        self.lanes.wake(now);
        let most = if target.via == Via::Consumer { self.hub.places() } else { target.max_in_flight };
        let places = self.breaker.places(most);
        while self.pace.next_due(now).is_none() && self.has_fair_share() {
            let Some(task) = self.lanes.take(places) else { break };
            self.pace.take(1, now);
            self.attempt(task, target.clone());
        }
    }

    /// Hanging attempts of one subscription must not use up the places of all.
    fn has_fair_share(&self) -> bool {
        let is_consumer = self.target.as_ref().is_some_and(|target| target.via == Via::Consumer);
        is_consumer
            || self.lanes.in_flight() < FAIR_SHARE
            || self.shared.in_flight.available_permits() > self.shared.in_flight_max / 4
    }

    /// When to look again at what nobody tells of.
    fn look_again_after(&self) -> Duration {
        if self.stuck.is_some() {
            STUCK_AFTER
        } else if self.lanes.has_room() {
            UNTIL_WOKEN
        } else {
            ROOM_AFTER
        }
    }

    /// When there may be something to begin.
    fn next_due(&self) -> Option<UnixMillis> {
        if !self.is_serving() {
            return None;
        }
        let now = self.shared.clock.now();
        let lanes = if self.breaker.next_due().is_some() { None } else { self.lanes.next_due() };
        // A rate matters only where something waits for it.
        let pace = self.pace.next_due(now).filter(|_| self.lanes.is_ready());
        let job = self.job.as_ref().and_then(|job| job.next_due(now));
        [self.breaker.next_due(), lanes, pace, job].into_iter().flatten().min()
    }

    /// Goes on with the oldest job, once what it put back before is on its way.
    fn start_job(&mut self) {
        if self.job.is_none()
            && let Some(job) = self.jobs.iter().find(|job| job.state == JobState::Running)
        {
            self.job = Some(JobRun::new(self.tenant, self.id, job.clone()));
        }
        let Some(target) = self.target.clone().filter(|_| self.is_serving()) else { return };
        // What a report says and what a job puts back may be about the same delivery: one after the other.
        if let Some(job) = self.job.as_mut().filter(|_| self.report.is_none()) {
            job.advance(&self.shared, &target, &self.lanes);
        }
    }

    fn is_job_at_work(&self) -> bool {
        self.job.as_ref().is_some_and(JobRun::is_at_work)
    }

    /// Where nothing more can be taken in for a while because of what waits behind one slow attempt, that
    /// gets rows, so that other members do not wait for it.
    fn relieve(&mut self) {
        let Some(behind) = self.lanes.is_stuck_behind().filter(|_| !self.lanes.is_ready()) else {
            self.stuck = None;
            return;
        };
        match self.stuck {
            Some((sequence, since)) if sequence == behind => {
                if since.elapsed() >= STUCK_AFTER {
                    self.stuck = None;
                    self.lanes.make_room();
                    self.feed_is_empty = false;
                    self.report_within(GATHER_ROWS);
                }
            }
            _ => self.stuck = Some((behind, Instant::now())),
        }
    }

    fn job_advanced(&mut self, advanced: super::job::Advanced) {
        match advanced {
            super::job::Advanced::PutBack(rows, were_dead) => {
                self.put_back(rows, were_dead);
                self.let_go_of_job();
            }
            super::job::Advanced::Ended(id) => {
                self.jobs.retain(|job| job.id != id);
                self.job = None;
            }
        }
    }

    /// Drops a job that somebody ended, between two of its steps: what a step puts back in the journal belongs
    /// into the lanes as well.
    fn let_go_of_job(&mut self) {
        let is_over = |run: &JobRun| !run.is_at_work() && !self.jobs.iter().any(|job| run.is_of(job));
        if self.job.as_ref().is_some_and(is_over) {
            self.job = None;
        }
    }

    fn put_back(&mut self, rows: Vec<DeliveryRow>, were_dead: u64) {
        self.fewer_dead(were_dead);
        rows.into_iter().for_each(|row| self.lanes.put_back(row));
    }

    fn fewer_dead(&self, count: u64) {
        let dead = self.stats.dead.load(Relaxed);
        self.stats.dead.store(dead.saturating_sub(count), Relaxed);
    }

    fn attempt(&mut self, task: Task, target: Arc<Target>) {
        let shared = self.shared.clone();
        let event = self.events.get(&task.sequence).cloned();
        let event = event.or_else(|| self.shared.feed.event_in_memory(task.sequence));
        let hub = self.hub.clone();
        self.attempts.push(Box::pin(async move {
            let permit = match target.via {
                Via::Consumer => None,
                Via::Http | Via::Segment => Some(shared.in_flight.acquire().await),
            };
            let event = match event {
                Some(event) => Ok(event),
                None => match shared.feed.clone().reading(move |feed| feed.event_at(task.sequence)).await {
                    Ok(Some(event)) => Ok(event),
                    Ok(None) => Err(None),
                    Err(error) => Err(Some(error)),
                },
            };
            let at = shared.clock.now();
            let watch = Stopwatch::start();
            let report = match &event {
                Ok(event) if target.via == Via::Consumer => {
                    let lane = event.get().member;
                    hub.attempt(lane, event.clone(), task.attempt, target.timeout()).await
                }
                Ok(event) => {
                    let span = trace::attempt(event.trace(), target.id, task.sequence, task.attempt);
                    let mut request = target.request(&event.get(), task.attempt, at);
                    if let (Some(span), Ok(request)) = (&span, &mut request) {
                        let traceparent = trace::traceparent(span).parse().expect("hexadecimal digits and dashes");
                        request.extra_headers.push((TRACEPARENT, traceparent));
                    }
                    let report = shared.couriers.attempt(target.via, request).await;
                    if let Some(span) = &span {
                        trace::attempted(span, &report);
                    }
                    Some(report)
                }
                Err(_) => None,
            };
            drop(permit);
            Done { task, event, at, latency: watch.elapsed(), report }
        }));
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Configured(entry) => self.configure(&entry),
            Control::PutBack(rows) => {
                let were_dead = rows.len() as u64;
                self.put_back(rows, were_dead);
            }
            Control::Dropped(sequences) => {
                self.fewer_dead(sequences.len() as u64);
                sequences.into_iter().for_each(|sequence| self.lanes.drop_dead(sequence));
            }
            Control::Jobs(jobs) => {
                self.jobs = jobs;
                self.let_go_of_job();
            }
            Control::RetryNow(sequence, answer) => {
                let before = self.lanes.row(sequence).map(|row| row.state);
                let target = self.target.clone();
                match target.zip(self.lanes.take_now(sequence)) {
                    Some((target, task)) => {
                        self.asked.insert(sequence, (answer, before));
                        self.attempt(task, target);
                    }
                    None => {
                        let _ = answer.send(false);
                    }
                }
            }
            // The loop looks at everything again.
            Control::Wake => {}
            Control::Stop(_) => unreachable!("handled by the loop"),
        }
    }

    fn report_within(&mut self, wait: Duration) {
        let due = Instant::now() + wait;
        self.report_due = Some(self.report_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// One report at a time: the next one gathers what happens meanwhile.
    fn start_report(&mut self) {
        let waits = self.report.is_some() || self.is_job_at_work();
        if waits || self.report_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.report_due = None;
        let progress = self.lanes.report(ROWS_REPORTED_MAX);
        if self.lanes.has_changed_rows() {
            self.report_within(Duration::ZERO);
        }
        self.reported = progress.cursor;
        self.told_at_report = self.shared.feed.told();
        let action = Action::ReportDeliveries {
            subscription_id: self.id,
            progress,
            died: std::mem::take(&mut self.died),
            breaker: std::mem::take(&mut self.breaker_turned),
            disable: self.disable.take(),
        };
        let command = Command { tenant: self.tenant, request_id: None, action };
        self.report = Some(self.shared.submitter.submit_internal(command));
    }

    async fn stop(&mut self) {
        self.state = SubscriptionState::Paused;
        self.job = None;
        let last = Instant::now() + Duration::from_secs(5);
        while !self.attempts.is_empty() {
            match tokio::time::timeout_at(last, self.attempts.next()).await {
                Ok(Some(done)) => self.settle(done),
                _ => break,
            }
        }
        if let Some(report) = self.report.take() {
            drop(report.await);
        }
        while self.report_due.is_some() || self.lanes.cursor() > self.reported {
            self.report_within(Duration::ZERO);
            self.start_report();
            let Some(report) = self.report.take() else { break };
            if !report.await.is_ok_and(|answer| answer.is_ok()) {
                break;
            }
        }
    }

    fn count(&self) {
        self.stats.cursor.store(self.lanes.cursor().0, Relaxed);
        self.stats.waiting.store(self.lanes.waiting() as u64, Relaxed);
        self.stats.pending.store(self.lanes.pending() as u64, Relaxed);
        self.stats.in_flight.store(self.lanes.in_flight() as u64, Relaxed);
        self.stats.oldest.store(self.lanes.oldest_pending().map_or(0, |s| s.0), Relaxed);
    }
}

/// What a worker takes up where another left off.
pub(super) struct Loaded {
    /// All settled or in a row up to here.
    pub(super) cursor: Sequence,
    /// Open ones, and all beyond the cursor.
    pub(super) rows: Vec<DeliveryRow>,
    /// How the breaker stood.
    pub(super) breaker: BreakerState,
    /// Jobs.
    pub(super) jobs: Vec<DeliveryJob>,
}

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to, or its subscription is gone.
    ToldTo,
    /// It must be loaded anew: its lanes are others now.
    Reload,
    /// It must be loaded anew: what it believes to be written down is not.
    Refused,
}

pub(super) fn rules_of(entry: &SubscriptionEntry) -> Rules {
    Rules { ordering: entry.definition.ordering, on_dead_letter: entry.definition.on_dead_letter }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn answered(report: &mut Option<oneshot::Receiver<Answer>>) -> Option<Answer> {
    match report {
        Some(report) => report.await.ok(),
        None => std::future::pending().await,
    }
}
