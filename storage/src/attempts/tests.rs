use std::fs;

use uuid::Uuid;

use super::*;

const HOUR_MS: i64 = 3_600_000;
const NOW: i64 = 1_790_000_000_000;
const KEPT: AttemptLimits = AttemptLimits { bytes_max: 64 << 20, keep_ms: 72 * HOUR_MS };

fn id(n: u128) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(n))
}

fn attempt(subscription: u128, sequence: u64) -> LoggedAttempt {
    LoggedAttempt {
        subscription_id: id(subscription),
        sequence: Sequence(sequence),
        event_type: if sequence.is_multiple_of(2) { "points.credited" } else { "coins.credited" }.into(),
        number: 1,
        at: UnixMillis(NOW + sequence as i64),
        latency_ms: 7,
        status: Some(200).filter(|_| !sequence.is_multiple_of(3)),
        error: if sequence.is_multiple_of(3) { "timeout" } else { "" }.into(),
        outcome: if sequence.is_multiple_of(3) { LoggedOutcome::Retry } else { LoggedOutcome::Delivered },
        response: Bytes::from(format!("answer {sequence}")),
        key_slot: KeySlot(sequence),
    }
}

/// As a start does.
fn opened(dir: &Path, limits: AttemptLimits) -> Attempts {
    let attempts = Attempts::new(dir.join("attempts"), limits);
    attempts.load();
    attempts
}

/// Appends the attempts of subscription 1 with these sequences, so many in a block.
fn append(log: &Attempts, sequences: std::ops::Range<u64>, at_once: usize) {
    let all: Vec<LoggedAttempt> = sequences.map(|sequence| attempt(1, sequence)).collect();
    all.chunks(at_once).for_each(|some| log.append(some).expect("written"));
}

fn scan_of(subscription: u128) -> Scan {
    Scan {
        subscription_id: id(subscription),
        sequence: None,
        before: None,
        attempts_max: 1_000_000,
        bytes_max: u64::MAX,
    }
}

fn sequences(log: &Attempts) -> Vec<u64> {
    log.scan(&scan_of(1), |_| true).attempts.iter().map(|attempt| attempt.sequence.0).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir.join("attempts")).map(|all| all.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
    files.sort();
    files
}

#[test]
fn what_was_logged_is_found_newest_first_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), KEPT);
    append(&log, 1..1_000, 7);
    log.append(&[attempt(2, 5), attempt(1, 1_000), attempt(2, 6)]).unwrap();
    for log in [log, opened(dir.path(), KEPT)] {
        assert_eq!(sequences(&log), (1..=1_000).rev().collect::<Vec<u64>>());
        let of_two = log.scan(&scan_of(2), |_| true);
        assert_eq!(of_two.attempts, [attempt(2, 6), attempt(2, 5)]);
        assert_eq!(of_two.next, None);
        let one = log.scan(&Scan { sequence: Some(Sequence(333)), ..scan_of(1) }, |_| true).attempts;
        assert_eq!(one, [attempt(1, 333)]);
        let failed = log.scan(&scan_of(1), |attempt| attempt.status.is_none()).attempts;
        assert_eq!(failed.len(), 333);
        assert!(log.scan(&scan_of(3), |_| true).attempts.is_empty());
    }
    // A process appends to a file of its own.
    let log = opened(dir.path(), KEPT);
    append(&log, 2_000..2_001, 1);
    assert_eq!((files(dir.path()).len(), sequences(&log)[0]), (2, 2_000));
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    // Segments of 64 KiB.
    let log = opened(dir.path(), AttemptLimits { bytes_max: 1 << 20, ..KEPT });
    append(&log, 1..6_000, 100);
    let expected = sequences(&log);
    assert!(files(dir.path()).len() > 3, "over several segments");
    for (attempts_max, bytes_max) in [(1, 1), (100, 1), (100, u64::MAX), (7, 20_000), (501, 40_000), (10_000, 1)] {
        let mut found = Vec::new();
        let mut before = None;
        let mut pages = 0;
        loop {
            let scan = Scan { before, attempts_max, bytes_max, ..scan_of(1) };
            let page = log.scan(&scan, |_| true);
            assert!(page.attempts.len() <= attempts_max);
            found.extend(page.attempts.iter().map(|attempt| attempt.sequence.0));
            pages += 1;
            let Some(next) = page.next else { break };
            assert!(before.is_none_or(|before| next < before), "{before:?} and then {next:?}");
            assert_eq!(next.to_string().parse(), Ok(next));
            before = Some(next);
        }
        assert_eq!(found, expected, "{attempts_max} attempts, {bytes_max} bytes, {pages} pages");
    }
    for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3", "1.2.99999999999999999999"] {
        assert!(text.parse::<Place>().is_err(), "{text}");
    }
}

#[test]
fn a_torn_tail_is_skipped_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    append(&opened(dir.path(), KEPT), 1..31, 10);
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    for cut in (0..whole.len()).step_by(13) {
        fs::write(&file, &whole[..cut]).unwrap();
        let log = opened(dir.path(), KEPT);
        let found = sequences(&log);
        assert!(found.len().is_multiple_of(10) && found.len() < 30, "cut at {cut}: {found:?}");
        assert_eq!(found, (1..=found.len() as u64).rev().collect::<Vec<_>>(), "cut at {cut}: the blocks before it");
        append(&log, 100..101, 1);
        assert_eq!(sequences(&log)[0], 100, "cut at {cut}: it goes on");
        files(dir.path())[1..].iter().for_each(|other| fs::remove_file(other).unwrap());
    }
}

#[test]
fn a_damaged_byte_costs_no_more_than_what_stands_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    append(&opened(dir.path(), KEPT), 1..31, 10);
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let second = block::HEADER_BYTES + u32::from_be_bytes(whole[12..16].try_into().unwrap()) as usize;
    for at in (0..whole.len()).step_by(5) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&file, &damaged).unwrap();
        let log = opened(dir.path(), KEPT);
        let found = sequences(&log);
        assert!(found.len() <= 20 && found.iter().all(|s| (1..31).contains(s)), "{at}: {found:?}");
        let in_body = at > block::HEADER_BYTES && at < second;
        assert!(!in_body || found.len() == 20, "{at}: only its block is lost, {found:?}");
    }
    // Damage that comes after it was looked through, a file that goes, and one that is none of ours.
    fs::write(&file, &whole).unwrap();
    let log = opened(dir.path(), KEPT);
    let mut damaged = whole.clone();
    damaged[block::HEADER_BYTES + 3] ^= 1;
    fs::write(&file, &damaged).unwrap();
    assert_eq!(sequences(&log).len(), 20);
    fs::remove_dir_all(dir.path().join("attempts")).unwrap();
    assert_eq!(sequences(&log), [0; 0]);
    fs::create_dir(dir.path().join("attempts")).unwrap();
    fs::write(dir.path().join("attempts/notes.txt"), "mine").unwrap();
    fs::create_dir(dir.path().join("attempts/0000000000000007.log")).unwrap();
    let log = opened(dir.path(), KEPT);
    append(&log, 1..2, 1);
    assert_eq!(sequences(&log), [1]);
}

#[test]
fn the_files_never_outgrow_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limits = AttemptLimits { bytes_max: 1 << 20, ..KEPT };
    let log = opened(dir.path(), limits);
    let mut whole = attempt(1, 0);
    whole.response = Bytes::from(vec![b'x'; 5_000]);
    for n in 0..100 {
        let block: Vec<LoggedAttempt> =
            (0..50).map(|i| LoggedAttempt { sequence: Sequence(n * 50 + i), ..whole.clone() }).collect();
        log.append(&block).unwrap();
        let on_disk: u64 = files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(on_disk <= limits.bytes_max && on_disk == log.size_bytes(), "{on_disk}");
    }
    let kept = log.scan(&scan_of(1), |_| true).attempts;
    assert_eq!(kept[0].sequence, Sequence(4_999));
    assert!(kept.len() > 100 && kept.windows(2).all(|two| two[0].sequence > two[1].sequence), "{}", kept.len());
    assert!(kept.iter().all(|attempt| attempt.response.len() == RESPONSE_KEPT_BYTES_MAX));
    // A smaller limit holds from the next append on; none at all from the start.
    let log = opened(dir.path(), AttemptLimits { bytes_max: 1 << 19, ..KEPT });
    append(&log, 1..2, 1);
    assert!(log.size_bytes() <= 1 << 19);
    let log = opened(dir.path(), AttemptLimits { bytes_max: 0, ..KEPT });
    append(&log, 1..2, 1);
    assert_eq!((files(dir.path()), sequences(&log)), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_too_old_goes_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), AttemptLimits { keep_ms: 16 * HOUR_MS, ..KEPT });
    for hour in 0..48 {
        let at = UnixMillis(NOW + hour * HOUR_MS);
        log.append(&[LoggedAttempt { at, ..attempt(1, hour as u64 + 1) }]).unwrap();
        log.trim(at);
        let kept = sequences(&log);
        assert_eq!(kept[0], hour as u64 + 1);
        assert!(kept.len() as i64 >= (hour + 1).min(16) && kept.len() <= 19, "hour {hour}: {kept:?}");
    }
    log.trim(UnixMillis(NOW + 100 * HOUR_MS));
    assert_eq!((sequences(&log), log.size_bytes(), files(dir.path())), (Vec::new(), 0, Vec::new()));
    append(&log, 1..2, 1);
    assert_eq!(sequences(&log), [1]);
}

#[test]
fn a_log_that_cannot_be_written_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory should be: nobody, not even root, can write into it.
    fs::write(dir.path().join("attempts"), "").unwrap();
    let log = opened(dir.path(), KEPT);
    assert!(log.append(&[attempt(1, 1)]).is_err());
    assert_eq!(sequences(&log), [0; 0]);
    fs::remove_file(dir.path().join("attempts")).unwrap();
    append(&log, 2..3, 1);
    assert_eq!(sequences(&log), [2]);
}
