//! The way to the delivery log: a bounded channel, and the one thread that writes.
//!
//! ```text
//! workers ──record, never waiting──▶ channel ──every 512 attempts or 500 ms──▶ block ──▶ storage::attempts
//! ```
//!
//! # Invariants
//!
//! - Nobody who delivers waits for the log: what finds no room is counted and forgotten.
//! - What waits is bounded in attempts and in bytes of answers.
//! - An answer to an event about a member is sealed under that member's key before it is written. It is opened
//!   by whoever shows it.
//!
//! # What is absent on purpose
//!
//! - Waking the thread for each attempt: 25 000 wake-ups a second cost more than all the rest. It sleeps, and
//!   is woken once a block is full.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use metrics::Counter;
use punchline_storage::attempts::{
    AttemptLimits, Attempts, BLOCK_ATTEMPTS_MAX, LoggedAttempt, RESPONSE_KEPT_BYTES_MAX, Scan, Scanned,
};
use punchline_storage::member_keys::MemberKeys;

use crate::clock::{Clock, Stopwatch};

/// Attempts that wait: a third of a second at 25 000 a second, while the disk stalls.
const QUEUE_MAX: usize = 8_192;
/// Bytes of answers that wait.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Longest that an attempt waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// How often old segments are looked for, and free space.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest that a reader waits for what is on its way.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Readers that may wait for it; further ones read what is there.
const FLUSHES_MAX: usize = 64;

/// The delivery log of a node.
pub struct DeliveryLog {
    queue: Sender<LoggedAttempt>,
    flushes: Sender<Sender<()>>,
    shared: Arc<Shared>,
    writer: OnceLock<Thread>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    attempts: Attempts,
    /// Whether there is a log at all.
    kept: bool,
    bytes_waiting: AtomicUsize,
    /// Whether the thread was woken and has not looked yet.
    woken: AtomicBool,
    stopping: AtomicBool,
    dropped: Counter,
}

impl DeliveryLog {
    /// A log that keeps nothing.
    pub fn none() -> DeliveryLog {
        DeliveryLog::with(Attempts::new(PathBuf::new(), AttemptLimits::default()), false).0
    }

    /// A log in the directory `dir`, and its thread. With less free space than `reserve_bytes`, nothing is
    /// logged; with a limit of 0 bytes there is none, and what an earlier process left is removed.
    pub fn start(
        dir: PathBuf,
        limits: AttemptLimits,
        clock: Arc<dyn Clock>,
        reserve_bytes: u64,
        keys: Arc<MemberKeys>,
    ) -> DeliveryLog {
        let attempts = Attempts::new(dir, limits);
        if limits.bytes_max == 0 {
            attempts.load();
            return DeliveryLog::none();
        }
        let (log, queue, flushes) = DeliveryLog::with(attempts, true);
        let shared = log.shared.clone();
        let writer = Writer { queue, flushes, shared, clock, reserve_bytes, keys, failing: false };
        let thread = std::thread::Builder::new().name("delivery-log".into()).spawn(move || writer.run());
        let thread = thread.expect("the system has room for a thread");
        log.writer.get_or_init(|| thread.thread().clone());
        *log.thread.lock().expect("nobody else has it yet") = Some(thread);
        log
    }

    fn with(attempts: Attempts, kept: bool) -> (DeliveryLog, Receiver<LoggedAttempt>, Receiver<Sender<()>>) {
        let (queue, queued) = crossbeam_channel::bounded(if kept { QUEUE_MAX } else { 1 });
        let (flushes, flushing) = crossbeam_channel::bounded(FLUSHES_MAX);
        let shared = Shared {
            attempts,
            kept,
            bytes_waiting: AtomicUsize::new(0),
            woken: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            dropped: metrics::counter!("punchline_delivery_log_dropped_total"),
        };
        let (writer, thread) = (OnceLock::new(), Mutex::new(None));
        (DeliveryLog { queue, flushes, shared: Arc::new(shared), writer, thread }, queued, flushing)
    }

    /// Logs an attempt, if there is room. Never waits.
    pub fn record(&self, attempt: impl FnOnce() -> LoggedAttempt) {
        let shared = &self.shared;
        if !shared.kept {
            return;
        }
        let attempt = attempt();
        let bytes = attempt.response.len();
        let waiting = shared.bytes_waiting.fetch_add(bytes, Relaxed) + bytes;
        let sent = waiting <= QUEUE_BYTES_MAX
            && match self.queue.try_send(attempt) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            };
        if !sent {
            shared.bytes_waiting.fetch_sub(bytes, Relaxed);
            shared.dropped.increment(1);
        }
        if self.queue.len() >= BLOCK_ATTEMPTS_MAX && !shared.woken.swap(true, Relaxed) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Looks for attempts, newest first, those on their way to the disk included. Waits and reads files: not
    /// for async tasks.
    pub fn scan(&self, scan: &Scan, wanted: impl FnMut(&LoggedAttempt) -> bool) -> Scanned {
        if !self.shared.kept {
            return Scanned::default();
        }
        let (done, flushed) = crossbeam_channel::bounded(1);
        // What is older than the place to go on from is on disk.
        if scan.before.is_none() && self.flushes.try_send(done).is_ok() {
            self.wake();
            let _ = flushed.recv_timeout(FLUSH_MAX);
        }
        self.shared.attempts.scan(scan, wanted)
    }

    /// Writes down what waits and ends the thread. Waits: not for async tasks.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Relaxed);
        self.wake();
        let thread = self.thread.lock().map(|mut thread| thread.take()).unwrap_or_default();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the delivery log failed: this is a bug");
        }
    }
}

impl Drop for DeliveryLog {
    fn drop(&mut self) {
        // The thread ends by itself.
        self.shared.stopping.store(true, Relaxed);
        self.wake();
    }
}

struct Writer {
    queue: Receiver<LoggedAttempt>,
    flushes: Receiver<Sender<()>>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    reserve_bytes: u64,
    keys: Arc<MemberKeys>,
    /// Whether the last block could not be written: said once.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        self.shared.attempts.load();
        let (mut looked, mut has_space) = (None::<Stopwatch>, true);
        let (queue, mut batch) = (self.queue.clone(), Vec::with_capacity(BLOCK_ATTEMPTS_MAX));
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                self.shared.attempts.trim(self.clock.now());
                has_space = self.has_space();
                looked = Some(Stopwatch::start());
            }
            let stopping = self.shared.stopping.load(Relaxed);
            self.shared.woken.store(false, Relaxed);
            // Who asks is answered when all that was there before is written.
            let asked: Vec<Sender<()>> = self.flushes.try_iter().collect();
            // No more than waits now: others may go on recording.
            for mut attempt in queue.try_iter().take(QUEUE_MAX) {
                self.shared.bytes_waiting.fetch_sub(attempt.response.len(), Relaxed);
                let kept = &attempt.response[..attempt.response.len().min(RESPONSE_KEPT_BYTES_MAX)];
                attempt.response = self.keys.seal_response(attempt.key_slot, kept).into();
                batch.push(attempt);
                if batch.len() == BLOCK_ATTEMPTS_MAX {
                    self.write(&mut batch, has_space);
                }
            }
            self.write(&mut batch, has_space);
            asked.iter().for_each(|asked| {
                let _ = asked.send(());
            });
            if stopping {
                return;
            }
            if self.queue.len() < BLOCK_ATTEMPTS_MAX && self.flushes.is_empty() {
                std::thread::park_timeout(GATHER);
            }
        }
    }

    fn has_space(&self) -> bool {
        let dir = self.shared.attempts.dir();
        let free = punchline_storage::sync::free_bytes(dir.parent().unwrap_or(dir)).ok();
        free.is_none_or(|free| free >= self.reserve_bytes)
    }

    fn write(&mut self, batch: &mut Vec<LoggedAttempt>, has_space: bool) {
        if batch.is_empty() {
            return;
        }
        let written =
            if has_space { self.shared.attempts.append(batch).map_err(Some) } else { Err(None::<std::io::Error>) };
        if let Err(why) = &written {
            self.shared.dropped.increment(batch.len() as u64);
            if !self.failing {
                let why = why.as_ref().map_or_else(|| "the disk is nearly full".to_owned(), ToString::to_string);
                let dir = self.shared.attempts.dir().display();
                tracing::warn!(%dir, why, "attempts are not logged; deliveries go on");
            }
        }
        self.failing = written.is_err();
        batch.clear();
        metrics::gauge!("punchline_delivery_log_size_bytes").set(self.shared.attempts.size_bytes() as f64);
    }
}

#[cfg(test)]
mod tests;
