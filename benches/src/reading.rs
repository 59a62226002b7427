//! `Subscribe`: how many events readers get from the journal.

use std::time::Duration;

use punchline_proto::v1;
use punchline_proto::v1::subscribe_request::Start;
use punchline_proto::v1::subscribe_response::Kind;
use punchline_runtime::clock::Stopwatch;
use punchline_tests::api::Api;
use tokio::task::JoinSet;

use crate::ceiling::EchoServer;
use crate::load::Load;
use crate::options::Sizes;
use crate::scenario::{Measured, Target};

/// What many readers read together is so many times what one reads.
const TIMES: u64 = 5;
/// Consumptions recorded before it is looked again how many events there are.
const STEP: u64 = 10_000;

/// One reader and many, beside a bare tonic server that streams as many events of the same length.
pub async fn subscribe(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let load = Load::start(10_000).await;
    let imported = load.api.head().await;
    while load.api.head().await < imported + sizes.events {
        load.batches(Duration::MAX, STEP.min(sizes.events)).await;
    }
    let head = load.api.head().await;
    let echo = EchoServer::start();
    let bare = echo.lines(load.lines.len());
    for readers in [1, 100] {
        let each = if readers == 1 { head - imported } else { (head - imported) * TIMES / readers };
        let cpu = load.cpu_seconds();
        let (events, seconds) = read(&load.lines, readers, head - each + 1).await;
        let cpu = load.cpu_seconds() - cpu;
        let (echoed, echo_seconds) = read(&bare, readers, events / readers).await;
        assert_eq!(echoed, events / readers * readers, "as many from the bare server");
        let name = if readers == 1 { "one reader".into() } else { format!("{readers} readers") };
        measured
            .figure(format!("{name}, in all"), events as f64 / seconds, "events/s")
            .beside("bare tonic stream", echoed as f64 / echo_seconds)
            .target(Target::AtLeast(300_000.0));
        measured.figure(format!("server CPU of one event to {name}"), 1e6 * cpu / events as f64, "us");
    }
    measured
}

/// Lets so many read up to the head; gives the events in all, and the time that it took.
async fn read(lines: &[Api], readers: u64, from_sequence: u64) -> (u64, f64) {
    let (watch, mut reading) = (Stopwatch::start(), JoinSet::new());
    for n in 0..readers as usize {
        let mut client = lines[n % lines.len()].events();
        reading.spawn(async move {
            let start = Some(Start::FromSequence(from_sequence));
            let request = v1::SubscribeRequest { start, ..Default::default() };
            let mut answers = client.subscribe(request).await.expect("a stream").into_inner();
            let mut events = 0_u64;
            // The bare server's stream ends, ours goes on.
            while let Some(answer) = answers.message().await.expect("events come") {
                match answer.kind {
                    Some(Kind::Event(_)) => events += 1,
                    Some(Kind::CaughtUp(_)) => break,
                    _ => {}
                }
            }
            events
        });
    }
    let events = reading.join_all().await.into_iter().sum();
    (events, watch.seconds())
}
