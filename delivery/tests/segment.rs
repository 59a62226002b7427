//! Segment: what goes out in which request, and what each attempt is told.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use punchline_delivery::courier::AttemptRequest;
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome, PermanentStatuses};
use punchline_delivery::segment::{SegmentBatcher, SegmentLimits, Subject, Track, batch_endpoint, track, write_key};
use punchline_engine::time::UnixMillis;
use support::{Answer, Answering, Gate, NOW_UNIX_S, Seen, Server, answer, loopback_policy, request, transport, until};
use tokio::task::JoinHandle;

fn batcher(limits: SegmentLimits) -> Arc<SegmentBatcher> {
    Arc::new(SegmentBatcher::new(transport(), limits))
}

fn item(id: &str) -> Bytes {
    let properties = serde_json::json!({});
    let event = "points.received";
    let event =
        Track { message_id: id, event, subject: Subject::User("m1"), time: UnixMillis(NOW_UNIX_S * 1000), properties };
    track(&event).expect("valid")
}

/// An item of this length that holds nothing but its name.
fn sized(name: &str, length_bytes: usize) -> Bytes {
    let bare = format!(r#"{{"messageId":"{name}","x":""}}"#);
    let padding = "x".repeat(length_bytes - bare.len());
    format!(r#"{{"messageId":"{name}","x":"{padding}"}}"#).into()
}

fn attempt(server: &Server, key: &str, body: Bytes) -> AttemptRequest {
    let mut request = request(&server.url("/"));
    request.endpoint = Arc::new(batch_endpoint(&server.url(""), &loopback_policy()).expect("allowed"));
    request.auth = Some(Arc::new(write_key(key).expect("valid")));
    request.body = body;
    request
}

fn spawn(batcher: &Arc<SegmentBatcher>, request: AttemptRequest) -> JoinHandle<AttemptReport> {
    let batcher = Arc::clone(batcher);
    tokio::spawn(async move { batcher.attempt(request).await })
}

fn ids(seen: &Seen) -> Vec<String> {
    let body = seen.json();
    let batch = body["batch"].as_array().expect("batch").clone();
    batch.iter().map(|item| item["messageId"].as_str().expect("id").to_owned()).collect()
}

fn batches(server: &Server) -> Vec<Vec<String>> {
    server.seen().iter().map(ids).collect()
}

/// Holds every request that contains the item `held` until the gate opens.
fn holding(gate: &Gate, held: &'static str, with: Answer) -> impl Fn(Seen) -> Answering + Send + Sync + 'static {
    let gate = gate.clone();
    move |seen| {
        let (gate, with) = (gate.clone(), with.clone());
        Box::pin(async move {
            if ids(&seen).iter().any(|id| id == held) {
                gate.passed().await;
            }
            with
        })
    }
}

/// A batcher with `first` under way and held.
async fn with_one_under_way(
    server: &Server,
    limits: SegmentLimits,
) -> (Arc<SegmentBatcher>, JoinHandle<AttemptReport>) {
    let batcher = batcher(limits);
    let first = spawn(&batcher, attempt(server, "key", item("first")));
    server.has_seen(1).await;
    (batcher, first)
}

async fn outcomes(attempts: Vec<JoinHandle<AttemptReport>>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.expect("no panic").outcome);
    }
    outcomes
}

#[tokio::test]
async fn a_request_is_what_segment_expects() {
    let server = Server::always(answer(200, "", r#"{"success":true}"#)).await;
    let batcher = batcher(SegmentLimits::default());
    let report = batcher.attempt(attempt(&server, "key", item("msg_1"))).await;
    assert_eq!((report.outcome, report.status), (Outcome::Delivered, Some(200)), "{report:?}");
    assert_eq!(report.response_snippet, r#"{"success":true}"#);

    let seen = &server.seen()[0];
    assert_eq!(seen.head[0], "POST /v1/batch HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some("Basic a2V5Og=="));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert!(!seen.head.iter().any(|line| line.starts_with("webhook-") || line.starts_with("punchline-")));
    let item = String::from_utf8(item("msg_1").to_vec()).expect("text");
    assert_eq!(seen.text(), format!(r#"{{"batch":[{item}],"sentAt":"1994-11-06T08:48:37.000Z"}}"#));
    until("landed", || batcher.busy_destinations() == 0).await;
}

#[tokio::test]
async fn what_comes_while_one_is_under_way_goes_with_the_next() {
    let gate = Gate::closed();
    let server = Server::start(holding(&gate, "first", answer(200, "", ""))).await;
    let (batcher, first) = with_one_under_way(&server, SegmentLimits::default()).await;

    let mut later = attempt(&server, "key", item("a"));
    later.timestamp_unix_s += 60;
    let mut attempts = vec![first, spawn(&batcher, later)];
    until("a waits", || batcher.waiting() == 1).await;
    for id in ["b", "c"] {
        attempts.push(spawn(&batcher, attempt(&server, "key", item(id))));
    }
    until("all wait", || batcher.waiting() == 3).await;
    // Another write key is another destination, and waits for nobody.
    let other = batcher.attempt(attempt(&server, "other", item("other"))).await;
    assert_eq!(other.outcome, Outcome::Delivered);
    assert_eq!(batches(&server), [vec!["first"], vec!["other"]]);

    gate.open();
    assert_eq!(outcomes(attempts).await, [Outcome::Delivered; 4]);
    assert_eq!(batches(&server), [vec!["first"], vec!["other"], vec!["a", "b", "c"]]);
    assert_eq!(server.seen()[2].json()["sentAt"], "1994-11-06T08:49:37.000Z", "the latest attempt's instant");
    until("landed", || batcher.busy_destinations() == 0).await;
}

#[tokio::test]
async fn a_full_batch_waits_for_nobody() {
    let gate = Gate::closed();
    let server = Server::start(holding(&gate, "first", answer(200, "", ""))).await;
    let limits = SegmentLimits { batch_items_max: 3, ..SegmentLimits::default() };
    let (batcher, first) = with_one_under_way(&server, limits).await;
    let mut attempts = Vec::new();
    for id in ["a", "b", "c"] {
        attempts.push(spawn(&batcher, attempt(&server, "key", item(id))));
    }
    assert_eq!(outcomes(attempts).await, [Outcome::Delivered; 3]);
    assert_eq!(batches(&server), [vec!["first"], vec!["a", "b", "c"]]);
    gate.open();
    assert_eq!(first.await.expect("no panic").outcome, Outcome::Delivered);
}

#[tokio::test]
async fn a_batch_is_split_at_its_bytes() {
    let server_and_sizes = |limit: usize| async move {
        let gate = Gate::closed();
        let server = Server::start(holding(&gate, "first", answer(200, "", ""))).await;
        let limits = SegmentLimits { batch_bytes_max: limit, ..SegmentLimits::default() };
        let (batcher, first) = with_one_under_way(&server, limits).await;
        let mut attempts = vec![first];
        for id in ["a", "b"] {
            attempts.push(spawn(&batcher, attempt(&server, "key", sized(id, 400))));
        }
        // Either both wait, or they do not fit together and the first of them has left.
        until("settled", || batcher.waiting() == 2 || server.seen().len() == 2).await;
        gate.open();
        assert!(outcomes(attempts).await.iter().all(|outcome| *outcome == Outcome::Delivered));
        let mut lengths: Vec<usize> = server.seen().iter().skip(1).map(|seen| seen.body.len()).collect();
        lengths.sort_unstable();
        lengths
    };
    // 400 + 1 + 400 and the envelope.
    let exact = 801 + r#"{"batch":[],"sentAt":"1994-11-06T08:48:37.000Z"}"#.len();
    assert_eq!(server_and_sizes(exact).await, [exact]);
    assert_eq!(server_and_sizes(exact - 1).await, [exact - 401, exact - 401]);
}

#[tokio::test]
async fn segments_own_limits_hold_at_their_boundary() {
    let server = Server::always(answer(200, "", "")).await;
    let batcher = batcher(SegmentLimits::default());
    let largest = batcher.attempt(attempt(&server, "key", sized("largest", 32_000))).await;
    assert_eq!(largest.outcome, Outcome::Delivered);
    let larger = batcher.attempt(attempt(&server, "key", sized("larger", 32_001))).await;
    assert_eq!((larger.outcome, larger.error), (Outcome::Refused, Some(ErrorCode::TooLarge)), "{larger:?}");
    assert_eq!(batches(&server), [["largest"]]);
    until("landed", || batcher.busy_destinations() == 0).await;

    // 40 of 32 000 bytes and 2 600 small ones: no request exceeds anything, nothing is lost, and what is
    // too large harms nobody else.
    let gate = Gate::closed();
    let server = Server::start(holding(&gate, "first", answer(200, "", ""))).await;
    let (batcher, first) = with_one_under_way(&server, SegmentLimits::default()).await;
    let large = (0..40).map(|n| sized(&format!("large{n}"), 32_000));
    let small = (0..2_600).map(|n| sized(&format!("small{n}"), 40));
    let mut attempts = vec![first];
    attempts.extend(large.chain(small).map(|body| spawn(&batcher, attempt(&server, "key", body))));
    let too_large = spawn(&batcher, attempt(&server, "key", sized("larger", 33_000)));
    assert_eq!(too_large.await.expect("no panic").error, Some(ErrorCode::TooLarge));
    gate.open();
    assert_eq!(outcomes(attempts).await, [Outcome::Delivered; 2_641]);
    let batches = batches(&server);
    assert!(batches.iter().all(|batch| batch.len() <= 2_500));
    assert!(server.seen().iter().all(|seen| seen.body.len() <= 500_000));
    let mut all: Vec<String> = batches.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2_641);
    assert!(batches.len() < 10, "{} requests", batches.len());
}

#[tokio::test]
async fn every_attempt_is_told_what_became_of_its_batch() {
    use Outcome::{Delivered, Refused, Retry};
    let reset = Answer::Reset(Vec::new());
    let cut = Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_vec());
    let cases = [
        (answer(200, "", ""), (Delivered, Some(200), None, None)),
        (answer(400, "", ""), (Refused, Some(400), None, None)),
        (answer(429, "retry-after: 7\r\n", ""), (Retry, Some(429), None, Some(7_000))),
        (answer(500, "", ""), (Retry, Some(500), None, None)),
        (answer(503, "retry-after: Sun, 06 Nov 1994 08:48:47 GMT\r\n", ""), (Retry, Some(503), None, Some(10_000))),
        (answer(307, "location: /\r\n", ""), (Retry, Some(307), None, None)),
        (reset, (Retry, None, Some(ErrorCode::Closed), None)),
        (cut, (Retry, Some(200), Some(ErrorCode::Body), None)),
    ];
    for (with, expected) in cases {
        let gate = Gate::closed();
        let server = Server::start(holding(&gate, "first", with.clone())).await;
        let (batcher, first) = with_one_under_way(&server, SegmentLimits::default()).await;
        let mut attempts = vec![first];
        for id in ["a", "b", "c"] {
            attempts.push(spawn(&batcher, attempt(&server, "key", item(id))));
        }
        until("all wait", || batcher.waiting() == 3).await;
        gate.open();
        for attempt in attempts {
            let report = attempt.await.expect("no panic");
            let got = (report.outcome, report.status, report.error, report.retry_after_ms);
            assert_eq!(got, expected, "{with:?}: {report:?}");
        }
        assert_eq!(batches(&server), [vec!["first"], vec!["a", "b", "c"]]);
        until("landed", || batcher.busy_destinations() == 0).await;
    }
}

#[tokio::test]
async fn a_subscriptions_own_permanent_statuses_are_its_own() {
    let gate = Gate::closed();
    let server = Server::start(holding(&gate, "first", answer(403, "retry-after: 5\r\n", ""))).await;
    let (batcher, first) = with_one_under_way(&server, SegmentLimits::default()).await;
    let mut strict = attempt(&server, "key", item("a"));
    strict.permanent_statuses = Arc::new(PermanentStatuses::new([403]).expect("valid"));
    let attempts = vec![spawn(&batcher, strict), spawn(&batcher, attempt(&server, "key", item("b")))];
    until("both wait", || batcher.waiting() == 2).await;
    gate.open();
    assert_eq!(outcomes(attempts).await, [Outcome::Refused, Outcome::Retry]);
    assert_eq!(first.await.expect("no panic").retry_after_ms, Some(5_000));
}

#[tokio::test]
async fn an_attempt_that_is_given_up_harms_nobody() {
    let gate = Gate::closed();
    let server = Server::start(holding(&gate, "first", answer(200, "", ""))).await;
    let (batcher, first) = with_one_under_way(&server, SegmentLimits::default()).await;
    let stays = spawn(&batcher, attempt(&server, "key", item("stays")));
    let dropped = spawn(&batcher, attempt(&server, "key", item("dropped")));
    until("both wait", || batcher.waiting() == 2).await;

    // One runs out of time and one is dropped while they wait: neither is sent.
    let mut hasty = attempt(&server, "key", item("hasty"));
    hasty.timeout = Duration::from_millis(20);
    let report = batcher.attempt(hasty).await;
    assert_eq!((report.outcome, report.error), (Outcome::Retry, Some(ErrorCode::Timeout)), "{report:?}");
    dropped.abort();
    until("it has left the queue", || batcher.waiting() == 1).await;
    // The one that is under way goes on for the sake of those behind it, though nobody asks any more.
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    gate.open();
    assert_eq!(stays.await.expect("no panic").outcome, Outcome::Delivered);
    assert_eq!(batches(&server), [["first"], ["stays"]]);
    until("landed", || batcher.busy_destinations() == 0).await;
}

#[tokio::test]
async fn nobody_is_left_waiting_when_requests_come_and_go() {
    let server = Server::always(answer(200, "", "")).await;
    let batcher = batcher(SegmentLimits { batch_items_max: 5, ..SegmentLimits::default() });
    let mut attempts = Vec::new();
    for n in 0..500 {
        attempts.push(spawn(&batcher, attempt(&server, "key", item(&format!("n{n}")))));
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(outcomes(attempts).await, [Outcome::Delivered; 500]);
    let mut all = batches(&server).concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 500);
    until("landed", || batcher.busy_destinations() == 0).await;
}
