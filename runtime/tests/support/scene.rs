//! One subscription on the simulated clock: a receiver that answers by a rule, kills and restarts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use punchline_delivery::courier::{AttemptFuture, AttemptRequest, Courier};
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use punchline_delivery::scripted::ScriptedCourier;
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::{
    DeliveryJob, DeliveryRow, DeliveryState, EventSelection, JobKind, JobState, RowState, Subscription,
    SubscriptionState,
};
use punchline_engine::event::Event;
use punchline_engine::id::{JobId, MemberId, Sequence, SubscriptionId};
use punchline_engine::time::UnixMillis;
use punchline_runtime::clock::{Clock, TokioClock};
use punchline_runtime::dispatch::dispatcher::{Couriers, WorkerStats};
use punchline_runtime::node::{Node, NodeOptions};
use punchline_storage::memory::MemoryDisk;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;

/// The subscription of every scene.
pub const SUBSCRIPTION: SubscriptionId = SubscriptionId(Uuid::from_u128(9));

/// Runs a part of a test in a runtime of its own: time can be stopped only once in each.
pub fn in_a_runtime<T>(part: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(part)
}

/// What the receiver does with an attempt.
#[derive(Debug, Clone)]
pub enum Play {
    /// Answers so.
    Status(u16),
    /// Says exactly this.
    Report(AttemptReport),
    /// Says nothing until [`Stage::release`], then 200.
    Hang,
}

/// An attempt, as the receiver saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub sequence: u64,
    pub attempt: u32,
    pub webhook_id: String,
    pub signatures: Vec<String>,
    /// The number that the member was registered under; 0: about nobody.
    pub member: u128,
    pub event_type: String,
    /// Since the stage was made.
    pub at: Duration,
    /// Whether it was taken.
    pub taken: bool,
}

type Rule = Box<dyn FnMut(&Seen) -> Play + Send>;

/// The receiver. It outlives the nodes: what it has seen is the evidence.
pub struct Stage {
    rule: Mutex<Rule>,
    seen: Mutex<Vec<Seen>>,
    released: watch::Sender<u64>,
    began: tokio::time::Instant,
}

impl Stage {
    pub fn new() -> Arc<Stage> {
        Arc::new(Stage {
            rule: Mutex::new(Box::new(|_| Play::Status(200))),
            seen: Mutex::default(),
            released: watch::Sender::new(0),
            began: tokio::time::Instant::now(),
        })
    }

    /// From now on attempts are answered so.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Play + Send + 'static) {
        *self.rule.lock().expect("no rule panics") = Box::new(rule);
    }

    pub fn always(&self, status: u16) {
        self.rule(move |_| Play::Status(status));
    }

    /// Answers all that hang.
    pub fn release(&self) {
        self.released.send_modify(|n| *n += 1);
    }

    fn log(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().expect("no test panics here")
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log().clone()
    }

    pub fn count(&self) -> usize {
        self.log().len()
    }

    /// How often each event was taken.
    pub fn taken(&self) -> BTreeMap<u64, usize> {
        let mut taken = BTreeMap::new();
        for one in self.log().iter().filter(|one| one.taken) {
            *taken.entry(one.sequence).or_default() += 1;
        }
        taken
    }

    /// Positions of what came about a member, in order of arrival.
    pub fn of(&self, member: u128) -> Vec<u64> {
        self.log().iter().filter(|one| one.member == member).map(|one| one.sequence).collect()
    }

    pub fn forget(&self) {
        self.log().clear();
    }

    async fn play(&self, request: AttemptRequest) -> AttemptReport {
        let body: String = String::from_utf8_lossy(&request.body).into_owned();
        let after = |key: &str| {
            let (_, rest) = body.split_once(&format!("\"{key}\":\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let member = after("member_id").and_then(|id| Uuid::parse_str(&id).ok()).map_or(0, |id| id.as_u128());
        let seen = Seen {
            sequence: request.sequence,
            attempt: request.attempt,
            webhook_id: request.webhook_id.clone(),
            signatures: request.signature.iter().flat_map(|s| s.split(' ')).map(str::to_owned).collect(),
            member,
            event_type: after("type").unwrap_or_default(),
            at: self.began.elapsed(),
            taken: false,
        };
        let play = (self.rule.lock().expect("no rule panics"))(&seen);
        let index = {
            let mut log = self.log();
            log.push(seen);
            log.len() - 1
        };
        let answered = |status: u16| {
            let status = http::StatusCode::from_u16(status).expect("a status");
            AttemptReport::answered(status, &request.permanent_statuses)
        };
        let report = match play {
            Play::Status(status) => answered(status),
            Play::Report(report) => report,
            Play::Hang => {
                let mut released = self.released.subscribe();
                match tokio::time::timeout(request.timeout, released.changed()).await {
                    Ok(_) => answered(200),
                    Err(_) => AttemptReport::failed(ErrorCode::Timeout, "it hangs"),
                }
            }
        };
        if let Some(seen) = self.log().get_mut(index).filter(|_| report.outcome == Outcome::Delivered) {
            seen.taken = true;
        }
        report
    }
}

/// One node's way to the stage: cut when the node is killed.
struct Road {
    stage: Arc<Stage>,
    cut: watch::Sender<bool>,
}

impl Courier for Road {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(async move {
            let mut cut = self.cut.subscribe();
            let gone = || AttemptReport::failed(ErrorCode::Closed, "the node is dead");
            if *cut.borrow_and_update() {
                return gone();
            }
            tokio::select! {
                biased;
                report = self.stage.play(request) => report,
                _ = cut.changed() => gone(),
            }
        })
    }
}

pub struct Scene {
    pub time: StillTime,
    pub disk: MemoryDisk,
    pub stage: Arc<Stage>,
    pub clock: Arc<TokioClock>,
    node: Option<Node>,
    road: Arc<Road>,
}

impl Scene {
    /// A node with so many members who joined, and one subscription to `points.credited`, changed as wanted.
    pub async fn start(members: u128, change: impl FnOnce(&mut Subscription)) -> Scene {
        Scene::start_on(MemoryDisk::new(), members, change).await
    }

    pub async fn start_on(disk: MemoryDisk, members: u128, change: impl FnOnce(&mut Subscription)) -> Scene {
        let time = StillTime::hold();
        let stage = Stage::new();
        let clock = Arc::new(TokioClock::starting_at(UnixMillis(1_790_000_000_000)));
        let road = Arc::new(Road { stage: stage.clone(), cut: watch::Sender::new(false) });
        let mut scene = Scene { time, disk, stage, clock, node: None, road };
        scene.open().expect("the node starts");
        set_up(scene.node()).await;
        for n in 1..=members {
            accepted(scene.node(), register(n)).await;
        }
        accepted(scene.node(), scene.subscription(change)).await;
        scene
    }

    /// Without anything in it.
    pub fn bare(disk: MemoryDisk) -> Result<Scene, String> {
        let time = StillTime::hold();
        let stage = Stage::new();
        let clock = Arc::new(TokioClock::starting_at(UnixMillis(1_790_000_000_000)));
        let road = Arc::new(Road { stage: stage.clone(), cut: watch::Sender::new(false) });
        let mut scene = Scene { time, disk, stage, clock, node: None, road };
        scene.open().map(|()| scene)
    }

    pub fn subscription(&self, change: impl FnOnce(&mut Subscription)) -> Action {
        let mut action = subscribe(self.node(), 9, HOOK, &["points.credited"], &[1_000, 1_000, 1_000]);
        if let Action::CreateSubscription { subscription, .. } = &mut action {
            change(subscription);
        }
        action
    }

    fn open(&mut self) -> Result<(), String> {
        self.road = Arc::new(Road { stage: self.stage.clone(), cut: watch::Sender::new(false) });
        let couriers = Couriers { http: self.road.clone(), segment: self.road.clone() };
        let nobody = Arc::new(ScriptedCourier::new());
        let options = NodeOptions { clock: self.clock.clone(), couriers, ..options(&nobody) };
        self.node = Some(start_with(&self.disk, options)?);
        Ok(())
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    /// What was written stays; everything else is gone.
    pub async fn kill(&mut self) {
        let after = self.disk.after_kill();
        self.close().await;
        self.disk = after;
        self.open().expect("the node starts again");
    }

    /// What was synced stays; everything else is gone. To be called once the disk has lost its power.
    pub async fn power_returns(&mut self, seed: u64) {
        let after = self.disk.after_power_cut(seed);
        self.close().await;
        self.disk = after;
        self.open().expect("the node starts again");
    }

    /// An orderly stop and a new start.
    pub async fn restart(&mut self) {
        let node = self.node.take().expect("it runs");
        self.finish(node).await;
        self.open().expect("the node starts again");
    }

    /// Ends the node's threads; what it does from now on, nobody sees.
    pub async fn close(&mut self) {
        self.road.cut.send_replace(true);
        let node = self.node.take().expect("it runs");
        self.finish(node).await;
    }

    async fn finish(&self, node: Node) {
        let closing = tokio::spawn(async move { node.close().await });
        while !closing.is_finished() {
            tokio::time::advance(Duration::from_millis(5)).await;
            super::settle().await;
        }
    }

    pub async fn consume(&self, id: &str, member: u128) -> Sequence {
        accepted(self.node(), consume(id, member, "coffee", 1)).await
    }

    /// So many consumptions, of the members 1 to `members` in turn.
    pub async fn load(&self, name: &str, count: usize, members: u128) {
        let action = |n: usize| consume(&format!("{name}{n}"), n as u128 % members + 1, "coffee", 1);
        for from in (0..count).step_by(1_000) {
            let commands = (from..count.min(from + 1_000))
                .map(|n| Command { tenant: TENANT, request_id: None, action: action(n) })
                .collect();
            for answer in self.node().submitter().submit_all(commands, true).await.expect("it takes them") {
                answer.expect("accepted");
            }
        }
    }

    /// Lets time pass in steps of 20 ms, for ten minutes at the most, until `check` gives something.
    pub async fn until<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        self.time.pass_until(what, Duration::from_millis(20), Duration::from_secs(600), check).await
    }

    /// The same, in steps as wanted, with a look at the views.
    pub async fn until_views<T>(
        &self,
        what: &str,
        step: Duration,
        mut check: impl AsyncFnMut(&Scene) -> Option<T>,
    ) -> T {
        for _ in 0..3_000 {
            if let Some(found) = check(self).await {
                return found;
            }
            super::settle().await;
            tokio::time::advance(step).await;
        }
        panic!("{what}: never came true");
    }

    /// Lets so much time pass.
    pub async fn pass(&self, time: Duration) {
        let steps = 20;
        for _ in 0..steps {
            self.settle().await;
            tokio::time::advance(time / steps).await;
        }
        self.settle().await;
    }

    /// Until whatever was asked of the sequencer is on disk: held time must not pass meanwhile.
    pub async fn settle(&self) {
        super::settle().await;
        // A read is answered after what was submitted before it; a node that stopped answers too.
        drop(self.node().submitter().read(|_| ()).await);
        super::settle().await;
    }

    pub async fn taken(&self, count: usize) {
        self.until(&format!("{count} are taken"), || (self.stage.taken().len() >= count).then_some(())).await;
    }

    pub fn stats(&self) -> Option<Arc<WorkerStats>> {
        self.node().dispatcher().stats(SUBSCRIPTION)
    }

    pub fn waiting(&self) -> u64 {
        self.stats().map_or(0, |stats| stats.waiting.load(Relaxed))
    }

    /// Until all is settled, and the journal says so.
    pub async fn reported(&self) {
        let last = self.credited().last().copied().unwrap_or(0);
        self.until("all is settled", || self.stats().filter(|s| s.pending.load(Relaxed) == 0)).await;
        let written = async |scene: &Scene| {
            let is_open = |state: &RowState| matches!(state, RowState::Waiting { .. } | RowState::Held);
            let none_is_open = !scene.states().await.iter().any(|(_, state)| is_open(state));
            (none_is_open && scene.delivery_state().await.cursor.0 >= last).then_some(())
        };
        self.until_views("all is written down", Duration::from_millis(20), written).await;
    }

    pub async fn rows(&self) -> Vec<DeliveryRow> {
        let read = |views: &mut punchline_storage::views::Views| {
            views.delivery_rows(SUBSCRIPTION, Sequence(0), 100_000).expect("readable")
        };
        self.node().submitter().read(read).await.expect("reads are served")
    }

    pub async fn states(&self) -> Vec<(u64, RowState)> {
        self.rows().await.into_iter().map(|row| (row.sequence.0, row.state)).collect()
    }

    pub async fn delivery_state(&self) -> DeliveryState {
        let read = |views: &mut punchline_storage::views::Views| views.delivery_state(SUBSCRIPTION).cloned();
        // Where the power is gone nobody knows.
        self.node().submitter().read(read).await.ok().flatten().unwrap_or_default()
    }

    pub async fn job(&self, id: JobId) -> Option<DeliveryJob> {
        self.delivery_state().await.jobs.into_iter().find(|job| job.id == id)
    }

    pub async fn update(&self, change: impl FnOnce(&mut Subscription)) {
        let directory = self.node().directory();
        let (_, entry) = directory.subscription(SUBSCRIPTION).expect("it is there");
        let mut subscription = (*entry.definition).clone();
        change(&mut subscription);
        accepted(self.node(), Action::UpdateSubscription { subscription, etag: None }).await;
    }

    pub fn state(&self) -> SubscriptionState {
        self.node().directory().subscription(SUBSCRIPTION).expect("it is there").1.state
    }

    pub async fn set_state(&self, state: SubscriptionState) {
        let reason = "the test says so".to_owned();
        let action = Action::SetSubscriptionState { subscription_id: SUBSCRIPTION, state, reason };
        accepted(self.node(), action).await;
    }

    /// All events of the journal, with their positions.
    pub fn journal(&self) -> Vec<(u64, Event)> {
        let (mut at, mut events) = (Sequence(1), Vec::new());
        while let Some(stored) = self.node().feed().record_at(at).expect("readable") {
            let first = stored.first.0;
            events.extend(stored.record.events.iter().enumerate().map(|(i, event)| (first + i as u64, event.clone())));
            at = stored.last().next();
        }
        events
    }

    /// Positions of `points.credited` in the journal.
    pub fn credited(&self) -> Vec<u64> {
        let journal = self.journal();
        journal.iter().filter(|(_, e)| e.type_name() == "points.credited").map(|(s, _)| *s).collect()
    }

    /// Names of the operator events that begin so, in order.
    pub fn told(&self, prefix: &str) -> Vec<String> {
        let journal = self.journal();
        let names = journal.iter().map(|(_, event)| event.type_name());
        names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
    }

    pub fn new_job(&self, n: u128, kind: JobKind) -> DeliveryJob {
        DeliveryJob {
            id: JobId(Uuid::from_u128(n)),
            kind,
            from_sequence: Sequence(1),
            to_sequence: self.node().feed().head(),
            event_types: EventSelection::all(),
            members: Vec::<MemberId>::new(),
            sequences: Vec::new(),
            limit: 0,
            per_second: 0,
            started_at: self.clock.now(),
            state: JobState::Running,
            next_sequence: Sequence(1),
            put_back: 0,
        }
    }

    pub async fn start_job(&self, job: &DeliveryJob) {
        self.node().dispatcher().start_job(TENANT, SUBSCRIPTION, job.clone()).await.expect("it is taken");
    }

    /// Until the job is at its end; gives how many it put back.
    pub async fn job_ended(&self, id: JobId) -> (JobState, u64) {
        let ended = async |scene: &Scene| scene.job(id).await.filter(|job| job.state != JobState::Running);
        let job = self.until_views("the job ends", Duration::from_millis(20), ended).await;
        (job.state, job.put_back)
    }
}
