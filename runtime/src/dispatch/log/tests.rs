use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use punchline_engine::id::{KeySlot, Sequence, SubscriptionId};
use punchline_storage::attempts::LoggedOutcome;

use super::*;
use crate::clock::SystemClock;

const LIMITS: AttemptLimits = AttemptLimits { bytes_max: 64 << 20, keep_ms: 3_600_000 };

fn id(n: u128) -> SubscriptionId {
    SubscriptionId(uuid::Uuid::from_u128(n))
}

fn attempt(sequence: u64, response: usize) -> LoggedAttempt {
    LoggedAttempt {
        subscription_id: id(1),
        sequence: Sequence(sequence),
        event_type: "points.credited".into(),
        number: 1,
        at: SystemClock.now(),
        latency_ms: 1,
        status: Some(200),
        error: "".into(),
        outcome: LoggedOutcome::Delivered,
        response: Bytes::from(vec![b'x'; response]),
        key_slot: KeySlot::NONE,
    }
}

fn keys() -> Arc<MemberKeys> {
    Arc::new(punchline_storage::memory::MemoryDisk::new().member_keys())
}

fn start(dir: &Path, reserve_bytes: u64) -> DeliveryLog {
    DeliveryLog::start(dir.join("attempts"), LIMITS, Arc::new(SystemClock), reserve_bytes, keys())
}

fn logged(log: &DeliveryLog) -> usize {
    let scan =
        Scan { subscription_id: id(1), sequence: None, before: None, attempts_max: usize::MAX, bytes_max: u64::MAX };
    log.scan(&scan, |_| true).attempts.len()
}

#[test]
fn a_reader_sees_what_was_recorded_just_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = start(dir.path(), 0);
    for n in 1..=1_300 {
        log.record(|| attempt(n, 10));
        if u64::is_multiple_of(n, 100) {
            assert_eq!(logged(&log), n as usize);
        }
    }
    log.stop();
    log.record(|| attempt(1_301, 0));
    let log = start(dir.path(), 0);
    assert_eq!(logged(&log), 1_300, "what came before the stop");
}

#[test]
fn a_node_that_is_dropped_leaves_what_was_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = start(dir.path(), 0);
    log.record(|| attempt(1, 0));
    assert_eq!(logged(&log), 1);
    drop(log);
    assert_eq!(logged(&start(dir.path(), 0)), 1);
}

/// Without a thread nothing leaves the channel.
#[test]
fn a_full_channel_drops_and_never_waits() {
    for (response, room) in [(0, QUEUE_MAX), (4_096, QUEUE_BYTES_MAX / 4_096)] {
        let attempts = Attempts::new(std::path::PathBuf::new(), LIMITS);
        let (log, queue, _flushes) = DeliveryLog::with(attempts, true);
        let watch = Stopwatch::start();
        (0..room as u64 + 500).for_each(|n| log.record(|| attempt(n, response)));
        assert!(watch.elapsed() < Duration::from_secs(5));
        assert_eq!(queue.len(), room, "{response}");
        assert_eq!(log.shared.bytes_waiting.load(Relaxed), room * response);
        assert_eq!(
            queue.try_iter().last().map(|last| last.sequence.0),
            Some(room as u64 - 1),
            "the newest are dropped"
        );
    }
}

#[test]
fn a_nearly_full_disk_gets_no_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = start(dir.path(), u64::MAX);
    log.record(|| attempt(1, 0));
    assert_eq!(logged(&log), 0);
    log.stop();
    assert!(!dir.path().join("attempts").exists());
}

#[test]
fn no_log_asks_for_nothing() {
    let log = DeliveryLog::none();
    log.record(|| unreachable!("nothing is recorded"));
    assert_eq!(logged(&log), 0);
    log.stop();
    let dir = tempfile::tempdir().expect("a directory");
    let before = start(dir.path(), 0);
    before.record(|| attempt(1, 0));
    before.stop();
    let limits = AttemptLimits { bytes_max: 0, ..LIMITS };
    drop(DeliveryLog::start(dir.path().join("attempts"), limits, Arc::new(SystemClock), 0, keys()));
    assert_eq!(std::fs::read_dir(dir.path().join("attempts")).expect("there").count(), 0, "it is removed");
}
