//! The machine: one node after the other on one disk, given their turns in the order that the seed says.
//!
//! ```text
//! open ──▶ turns, time, faults ──▶ killed, or the power goes ──▶ audit ──▶ open …
//!                              └─▶ faults stop ──▶ everything drains ──▶ close ──▶ audit
//! ```
//!
//! # Invariants
//!
//! - All that a run does comes from its seed: one thread, time that is held, no randomness of the system's.
//! - Each node has a runtime of its own: with it dies what it had under way, as in a kill.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use punchline_delivery::dialect::Dialects;
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_runtime::committer::Unavailable;
use punchline_runtime::dispatch::dispatcher::Couriers;
use punchline_runtime::dispatch::target::Rulebook;
use punchline_runtime::node::{Node, NodeOptions, Recovery, Stores};
use punchline_runtime::seal::Sealer;
use punchline_runtime::threads::Stepped;
use punchline_storage::attempts::AttemptLimits;
use punchline_storage::journal::Journal;
use punchline_storage::memory::{AppendFault, Faults, MemoryDisk, ReadFault};
use punchline_storage::views::checkpoint;
use tokio::time::sleep;

use crate::clients;
use crate::operator;
use crate::random::Random;
use crate::receivers::{Mood, Network};
use crate::world::World;

/// Under which secrets are sealed.
pub const MASTER_KEY: [u8; 32] = [7; 32];

/// Simulated time within which everything has to drain once faults have stopped.
const DRAINED_WITHIN: Duration = Duration::from_secs(3 * 3_600);

/// Space below which commands are refused.
const RESERVE_BYTES: u64 = 1_000_000;

/// Longest that a client waits between two commands, as a rule.
pub const PACE_MS: u64 = 80;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Of the event log.
    pub digest: u64,
    /// The first thing that was wrong.
    pub fault: Option<String>,
    /// What happened, step by step.
    pub log: Vec<String>,
    /// Simulated.
    pub passed: Duration,
    /// Commands acknowledged.
    pub acknowledged: usize,
    /// Requests that came to receivers.
    pub arrivals: usize,
    /// Nodes that were started.
    pub starts: u64,
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    PowerCut,
    Closed,
}

/// Runs a seed for so many steps, and until everything has drained.
pub fn run(seed: u64, steps: u64) -> Outcome {
    watch_panics();
    let mut machine = Machine {
        world: World::new(seed),
        disk: MemoryDisk::new(),
        random: Random::new(seed, "machine"),
        step: 0,
        steps,
        starts: 0,
        faults: Faults::default(),
        ahead_most_ms: 0,
        rotten: None,
        is_low: Arc::default(),
    };
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| machine.run()));
    let panicked = first_panic();
    PANICS.set(None);
    let state = machine.world.lock();
    let wrong = ended.unwrap_or(Ok(())).err();
    Outcome {
        digest: state.log.digest(),
        fault: state.auditor.fault().map(str::to_owned).or(wrong).or(panicked),
        log: state.log.lines().to_vec(),
        passed: Duration::from_millis(machine.world.clock.passed_ms() as u64),
        acknowledged: state.auditor.acknowledged(),
        arrivals: state.receivers.arrivals(),
        starts: machine.starts,
    }
}

thread_local! {
    /// Of this thread's run, while there is one: tokio catches those of tasks.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| match panics {
                Some(panics) => panics.push(info.to_string()),
                None => before(info),
            });
        }));
    });
    PANICS.set(Some(Vec::new()));
}

fn first_panic() -> Option<String> {
    PANICS.with_borrow(|panics| panics.as_ref()?.first().map(|what| format!("a panic: {what}")))
}

struct Machine {
    world: Arc<World>,
    disk: MemoryDisk,
    random: Random,
    step: u64,
    steps: u64,
    starts: u64,
    faults: Faults,
    /// The furthest that the clock was ever ahead.
    ahead_most_ms: i64,
    /// The block that lost a bit, and where.
    rotten: Option<(u64, usize)>,
    /// Little space is left.
    is_low: Arc<AtomicBool>,
}

/// What is done in a step.
#[derive(Debug, Clone, Copy)]
enum Act {
    Decide,
    Commit,
    WriteBehind,
    Tasks,
    Time,
    LongTime,
    Mood,
    Operator,
    Clock,
    Kill,
    PowerCut,
    PowerCutAtSync,
    PowerCutAtWrite,
    Full,
    Room,
    FailedAppend,
    FailedSync,
    FailedReads,
    Rot,
    Supervise,
}

const ACTS: [(u64, Act); 20] = [
    (3_000, Act::Decide),
    (2_500, Act::Commit),
    (400, Act::WriteBehind),
    (2_500, Act::Tasks),
    (1_500, Act::Time),
    (20, Act::LongTime),
    (40, Act::Mood),
    (40, Act::Operator),
    (5, Act::Clock),
    (5, Act::Kill),
    (5, Act::PowerCut),
    (4, Act::PowerCutAtSync),
    (6, Act::PowerCutAtWrite),
    (3, Act::Full),
    (20, Act::Room),
    (2, Act::FailedAppend),
    (2, Act::FailedSync),
    (1, Act::FailedReads),
    (3, Act::Rot),
    (30, Act::Supervise),
];

impl Machine {
    fn run(&mut self) -> Result<(), String> {
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
            let end = runtime.block_on(self.live());
            self.world.lock().is_off = true;
            drop(runtime);
            let end = end?;
            let tears = self.random.draw();
            self.disk = match end {
                End::Killed | End::Closed => self.disk.after_kill(),
                End::PowerCut => self.disk.after_power_cut(tears),
            };
            self.restore();
            self.is_low.store(false, Relaxed);
            let goes_again = self.random.chance(150).then(|| self.random.between(1, 5));
            let reorders = self.random.chance(500);
            self.faults = Faults { reorders, power_cut_at_sync: goes_again, ..Faults::default() };
            self.disk.set_faults(self.faults.clone());
            self.audit(end)?;
            if end == End::Closed {
                return self.check_rot();
            }
        }
    }

    fn audit(&self, end: End) -> Result<(), String> {
        let state = &mut *self.world.lock();
        let found = state.auditor.audit(&self.disk, &state.receivers, end == End::Closed)?;
        let (head, records, rows) = (found.head, found.records, found.rows);
        state.log.line(format_args!("{end:?}; audited: {records} records to {head}, {rows} rows"));
        Ok(())
    }

    async fn live(&mut self) -> Result<End, String> {
        self.world.clock.begin();
        let end = self.turns().await;
        self.world.clock.end();
        end
    }

    fn open(&mut self) -> Result<(Node, Stepped), String> {
        self.starts += 1;
        let (rows, keys) = (Arc::new(self.disk.rows()), Arc::new(self.disk.member_keys()));
        let checkpoint = checkpoint(&*rows).map_err(|e| format!("the views do not open: {e}"))?;
        let (journal, report) = self.disk.journal(checkpoint.0).map_err(|e| format!("the journal: {e}"))?;
        let cut = report.cut_off.map(|cut| format!(", cut off from {}", cut.from_sequence)).unwrap_or_default();
        self.line(format_args!("start {}: journal to {}{cut}, views to {checkpoint}", self.starts, report.head));
        let is_low = self.is_low.clone();
        let free_bytes = Box::new(move || Some(if is_low.load(Relaxed) { 0 } else { 2 * RESERVE_BYTES }));
        let stores = Stores { journal: Arc::new(journal), rows, keys, free_bytes };
        Node::start_stepped(stores, Recovery::default(), self.options()).map_err(|e| format!("the node: {e}"))
    }

    fn options(&mut self) -> NodeOptions {
        let network = Network::of(&self.world);
        NodeOptions {
            clock: self.world.clock.clone(),
            couriers: Couriers { http: network.clone(), segment: network },
            delivering: None,
            rulebook: Rulebook {
                sealer: Arc::new(Sealer::new(&MASTER_KEY)),
                policy: EndpointPolicy { allow_http: true, allow_private: Vec::new() },
                dialects: Arc::new(Dialects::builtin()),
            },
            queue_max: *self.random.pick(&[3, 20, 1_000]),
            in_flight_max: *self.random.pick(&[4, 100]),
            reserve_bytes: RESERVE_BYTES,
            checkpoint_interval: Duration::from_millis(*self.random.pick(&[50, 500, 10_000])),
            // None is ever thrown out, since which one would not be the same each time.
            members_cached: 10_000,
            delivery_log: AttemptLimits::default(),
        }
    }

    fn line(&self, what: std::fmt::Arguments<'_>) {
        self.world.lock().log.line(what);
    }

    async fn turns(&mut self) -> Result<End, String> {
        let opened = self.open();
        if self.disk.power_lost() {
            return Ok(End::PowerCut);
        }
        let (node, mut parts) = opened?;
        let node = Arc::new(node);
        let clients = {
            let mut state = self.world.lock();
            state.is_off = false;
            state.disk = self.disk.clone();
            state.clients.count()
        };
        for n in 0..clients {
            tokio::spawn(clients::live(self.world.clone(), n, node.submitter().clone()));
        }
        while self.step < self.steps {
            self.step += 1;
            self.world.lock().log.step = self.step;
            if let Some(end) = self.act(&node, &mut parts).await {
                return Ok(end);
            }
            if self.disk.power_lost() {
                return Ok(End::PowerCut);
            }
            self.look()?;
        }
        if !self.drain(&node, &mut parts).await? {
            return Ok(End::Killed);
        }
        self.close(node, &mut parts).await?;
        Ok(End::Closed)
    }

    /// Whether anything is wrong by now.
    fn look(&self) -> Result<(), String> {
        if let Some(panic) = first_panic() {
            return Err(panic);
        }
        let is_off = self.disk.power_lost();
        let mut state = self.world.lock();
        state.is_off = is_off;
        state.auditor.fault().map_or(Ok(()), |fault| Err(fault.to_owned()))
    }

    async fn act(&mut self, node: &Arc<Node>, parts: &mut Stepped) -> Option<End> {
        let act = self.random.weighted(&ACTS);
        match act {
            Act::Decide => drop(parts.decide()),
            Act::Commit => {
                parts.commit();
                // What was under way when the power went is not seen by anybody.
                self.world.lock().is_off = self.disk.power_lost();
            }
            Act::WriteBehind => {
                parts.write_behind();
                self.world.lock().is_off = self.disk.power_lost();
            }
            Act::Tasks => {
                for _ in 0..self.random.between(1, 10) {
                    tokio::task::yield_now().await;
                }
            }
            Act::Time => sleep(Duration::from_millis(self.random.between(1, 30))).await,
            Act::LongTime => {
                let (chunk, most) =
                    *self.random.pick(&[(10, 1_000), (100, 20_000), (1_000, 600_000), (20_000, 40_000_000)]);
                let total = self.random.between(chunk, most);
                self.line(format_args!("{total} ms pass"));
                self.world.lock().clients.pace_ms = chunk.max(PACE_MS);
                self.pass(parts, Duration::from_millis(total), Duration::from_millis(chunk)).await;
                self.world.lock().clients.pace_ms = PACE_MS;
            }
            Act::Mood => self.change_mood(),
            Act::Operator if self.world.lock().clients.is_set_up() => {
                let random = Random::new(self.random.draw(), "operator");
                tokio::spawn(operator::act(self.world.clone(), node.clone(), random));
            }
            Act::Clock => {
                let ahead_ms = self.random.below(7_200_000) as i64 - 3_600_000;
                self.line(format_args!("somebody sets the clock to {ahead_ms} ms ahead"));
                self.ahead_most_ms = self.ahead_most_ms.max(ahead_ms);
                self.world.clock.set_ahead(ahead_ms);
            }
            Act::Kill => {
                self.line(format_args!("kill"));
                return Some(End::Killed);
            }
            Act::PowerCut => {
                self.line(format_args!("power cut"));
                return Some(End::PowerCut);
            }
            Act::Supervise if matches!(node.stopped(), Some(Unavailable::Stopped { .. })) => {
                self.line(format_args!("the node has stopped and is started again"));
                return Some(End::Killed);
            }
            Act::Rot => self.rot(),
            Act::Operator | Act::Supervise => {}
            act => self.break_disk(act),
        }
        None
    }

    fn change_mood(&mut self) {
        let state = &mut *self.world.lock();
        let hosts = state.receivers.hosts();
        if !hosts.is_empty() {
            use Mood::{Away, Down, Flaky, Slow, Well};
            let host = self.random.pick(&hosts).clone();
            let mood = *self.random.pick(&[Well, Well, Flaky, Flaky, Flaky, Down, Away, Slow]);
            state.log.line(format_args!("{host} is {mood:?}"));
            state.receivers.set_mood(&host, mood);
        }
    }

    /// A bit of a block flips that nobody has any business with at present.
    fn rot(&mut self) {
        let blocks = self.disk.blocks();
        if let Some(cold) = blocks.len().checked_sub(3).filter(|cold| *cold > 0 && self.rotten.is_none()) {
            let (first, byte) = (blocks[self.random.below(cold as u64) as usize], self.random.draw() as usize);
            self.line(format_args!("a bit of the block at {first} flips"));
            self.disk.corrupt_block(first, byte);
            self.rotten = Some((first, byte));
        }
    }

    /// The block is brought back from a backup.
    fn restore(&mut self) {
        if let Some((first, byte)) = self.rotten.take() {
            self.line(format_args!("the block at {first} is restored"));
            self.disk.corrupt_block(first, byte);
        }
    }

    /// Whatever block loses a bit, it is refused by name.
    fn check_rot(&mut self) -> Result<(), String> {
        let blocks = self.disk.blocks();
        for _ in 0..3 {
            let first = *self.random.pick(&blocks);
            let rotten = self.disk.after_kill();
            rotten.corrupt_block(first, self.random.draw() as usize);
            let checkpoint = checkpoint(&rotten.rows()).map_err(|e| e.to_string())?;
            let named = |error: &str| match error.contains(&format!("sequence {first}")) {
                true => Ok(()),
                false => Err(format!("G9: the block at {first} is damaged, and what is said is: {error}")),
            };
            match rotten.journal(checkpoint.0) {
                Err(error) => named(&error.to_string())?,
                // Cut off as if it had never been acknowledged; but the views vouch for it, and nobody opens this.
                Ok((_, report)) if report.head < checkpoint.0 => {}
                Ok((journal, _)) => match journal.read(first) {
                    Err(error) => named(&error.to_string())?,
                    Ok(_) => return Err(format!("G9: the block at {first} is damaged and served")),
                },
            }
        }
        Ok(())
    }

    fn break_disk(&mut self, act: Act) {
        let soon = self.random.between(1, 5);
        let mut faults = self.faults.clone();
        match act {
            Act::PowerCutAtSync => faults.power_cut_at_sync = Some(self.disk.sync_count() + soon),
            Act::PowerCutAtWrite => faults.power_cut_at_write = Some(self.disk.write_count() + soon * soon * soon),
            Act::FailedAppend => {
                let how = *self.random.pick(&[AppendFault::Full, AppendFault::Io]);
                faults.appends = [(self.disk.append_count() + soon, how)].into();
            }
            Act::FailedSync => faults.syncs = [self.disk.sync_count() + soon].into(),
            Act::FailedReads => faults.reads = Some(*self.random.pick(&[ReadFault::Io, ReadFault::Short])),
            Act::Full if soon.is_multiple_of(2) => {
                self.line(format_args!("the disk is nearly full"));
                return self.is_low.store(true, Relaxed);
            }
            Act::Full => {
                self.line(format_args!("the disk is full"));
                return self.disk.set_full(true);
            }
            Act::Room => {
                faults.reads = None;
                self.is_low.store(false, Relaxed);
                self.disk.set_full(false);
                if faults == self.faults {
                    return;
                }
            }
            _ => unreachable!("no fault of the disk"),
        }
        self.line(format_args!("{act:?}: {faults:?}"));
        self.disk.set_faults(faults.clone());
        self.faults = faults;
    }

    /// Everybody gets a turn, and time passes.
    async fn pass(&mut self, parts: &mut Stepped, total: Duration, chunk: Duration) {
        let mut left = total;
        while !left.is_zero() && !self.disk.power_lost() {
            let step = left.min(chunk);
            left -= step;
            // More than one turn: what a task asks for, it may ask for again when it has its answer.
            for _ in 0..4 {
                parts.decide();
                parts.decide();
                parts.commit();
                parts.write_behind();
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
            sleep(step).await;
            self.world.lock().is_off = self.disk.power_lost();
        }
    }

    /// Faults have stopped: everything has to come to its end. False where the node had stopped before, and is to be
    /// started again.
    async fn drain(&mut self, node: &Arc<Node>, parts: &mut Stepped) -> Result<bool, String> {
        self.line(format_args!("faults stop"));
        self.disk.set_faults(Faults::default());
        self.disk.set_full(false);
        self.is_low.store(false, Relaxed);
        self.restore();
        self.world.clock.set_ahead(self.ahead_most_ms);
        {
            let state = &mut *self.world.lock();
            state.clients.content = true;
            for host in state.receivers.hosts() {
                state.receivers.set_mood(&host, Mood::Well);
            }
        }
        let mut passed = Duration::ZERO;
        loop {
            if let (true, Some(Unavailable::Stopped { .. })) = (passed.is_zero(), node.stopped()) {
                return Ok(false);
            }
            self.pass(parts, Duration::from_millis(200), Duration::from_millis(10)).await;
            self.pass(parts, Duration::from_secs(10), Duration::from_secs(1)).await;
            passed += Duration::from_secs(10);
            self.look()?;
            let waiting = self.world.lock().clients.waiting();
            let (pending, dead) = node.dispatcher().totals();
            if passed.as_secs().is_multiple_of(60) {
                tokio::spawn(operator::put_right(self.world.clone(), node.clone()));
            }
            if waiting == 0 && pending == 0 && dead == 0 && passed > Duration::from_secs(120) {
                self.line(format_args!("all is quiet after {} s", passed.as_secs()));
                return Ok(true);
            }
            if passed > DRAINED_WITHIN {
                return Err(format!(
                    "liveness: {waiting} commands and {pending} deliveries wait for ever, {dead} are dead"
                ));
            }
        }
    }

    async fn close(&mut self, node: Arc<Node>, parts: &mut Stepped) -> Result<(), String> {
        let closing = tokio::spawn(async move { node.close().await });
        for _ in 0..10_000 {
            self.pass(parts, Duration::from_millis(10), Duration::from_millis(10)).await;
            if closing.is_finished() {
                self.line(format_args!("closed"));
                return self.look();
            }
        }
        Err("liveness: the node does not close".into())
    }
}
