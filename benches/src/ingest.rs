//! Taking consumptions in: rates, latency, memory, restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use tokio::task::JoinSet;

use crate::ceiling::{EchoServer, bare_sync, raw_journal};
use crate::load::Load;
use crate::report::{ceiling, figure, line, percentile};

const MEMBERS: u64 = 10_000;
const RUN: Duration = Duration::from_secs(8);
const IN_FLIGHT: usize = 256;
const BATCH: usize = 500;

/// Unary calls, 256 in flight, beside a bare tonic server.
pub async fn unary() {
    let load = Load::start(MEMBERS).await;
    let (source, clients): (_, Vec<_>) = (load.source(), (0..4).map(|_| load.client()).collect());
    let rate = closed_loop(|worker| {
        let (mut client, source) = (clients[worker % clients.len()].clone(), source.clone());
        async move {
            let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
            client.record_consumption(request).await.expect("accepted");
        }
    })
    .await;
    figure("unary, durable, 256 in flight", rate, "consumptions/s", ">= 15000");
    drop(load);
    let (_echo, client) = EchoServer::start().await;
    let echo = closed_loop(|_| {
        let (mut client, source) = (client.clone(), source.clone());
        async move {
            let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
            client.record_consumption(request).await.expect("answered");
        }
    })
    .await;
    ceiling("bare tonic unary, same message", rate, echo);
}

async fn closed_loop<F: Future<Output = ()> + Send + 'static>(call: impl Fn(usize) -> F) -> f64 {
    // Futures are made here, one ahead for each place, so that `call` need not be shared.
    let (done, watch) = (Arc::new(AtomicU64::new(0)), Stopwatch::start());
    let mut running = JoinSet::new();
    for worker in 0..IN_FLIGHT {
        running.spawn(call(worker));
    }
    let mut worker = 0;
    while let Some(finished) = running.join_next().await {
        finished.expect("calls do not fail");
        done.fetch_add(1, Ordering::Relaxed);
        if watch.elapsed() < RUN {
            worker += 1;
            running.spawn(call(worker));
        }
    }
    done.load(Ordering::Relaxed) as f64 / watch.seconds()
}

/// Batches of 500, eight in flight, beside the raw journal.
pub async fn batch() {
    let load = Load::start(MEMBERS).await;
    let rate = batches(&load, RUN, u64::MAX).await;
    figure("batch of 500, durable", rate, "consumptions/s", ">= 40000");
    drop(load);
    let dir = tempfile::tempdir().expect("a temporary directory");
    ceiling("raw journal, 1024 records a sync", rate, raw_journal(dir.path(), 1_024));
}

async fn batches(load: &Load, run: Duration, most: u64) -> f64 {
    let (watch, done) = (Stopwatch::start(), Arc::new(AtomicU64::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..8 {
        let (mut client, source, done) = (load.client(), load.source(), done.clone());
        senders.spawn(async move {
            while watch.elapsed() < run && done.load(Ordering::Relaxed) < most {
                let consumptions = (0..BATCH).map(|_| source.next()).collect();
                let request = v1::BatchRecordConsumptionsRequest { consumptions };
                let results = client.batch_record_consumptions(request).await.expect("answered").into_inner().results;
                let accepted =
                    |r: &&v1::ConsumptionResult| matches!(r.outcome, Some(v1::consumption_result::Outcome::Receipt(_)));
                assert_eq!(results.iter().filter(accepted).count(), BATCH, "all are accepted");
                done.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender.expect("senders do not fail");
    }
    done.load(Ordering::Relaxed) as f64 / watch.seconds()
}

/// Four streams as fast as they go, beside the raw journal.
pub async fn stream() {
    let load = Load::start(MEMBERS).await;
    let watch = Stopwatch::start();
    let mut streams = JoinSet::new();
    for _ in 0..4 {
        let (mut client, source) = (load.client(), load.source());
        streams.spawn(async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(1_024);
            tokio::spawn(async move {
                while watch.elapsed() < RUN {
                    let request = v1::StreamConsumptionsRequest { consumption: Some(source.next()) };
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let mut results = client.stream_consumptions(requests).await.expect("a stream").into_inner();
            let mut accepted = 0_u64;
            while let Some(result) = results.message().await.expect("results come") {
                let outcome = result.result.and_then(|r| r.outcome);
                assert!(matches!(outcome, Some(v1::consumption_result::Outcome::Receipt(_))), "{outcome:?}");
                accepted += 1;
            }
            accepted
        });
    }
    let mut accepted = 0;
    while let Some(stream) = streams.join_next().await {
        accepted += stream.expect("streams do not fail");
    }
    let rate = accepted as f64 / watch.seconds();
    figure("stream, durable, four streams", rate, "consumptions/s", ">= 40000");
    drop(load);
    let dir = tempfile::tempdir().expect("a temporary directory");
    ceiling("raw journal, 1024 records a sync", rate, raw_journal(dir.path(), 1_024));
}

/// A steady 1 000 unary calls a second: from call to durable answer.
pub async fn ack_latency() {
    let load = Load::start(MEMBERS).await;
    let watch = Stopwatch::start();
    let times = steady(&load, || watch.elapsed() < RUN).await;
    let (sync_median, sync_p99) = bare_sync(load.server.scratch_dir());
    let rate = times.len() as f64 / watch.seconds();
    line(&format!("{:<44} {rate:>12.1} calls/s", "ack latency at"));
    figure("ack latency, median", percentile(&times, 50.0), "ms", "-");
    figure(
        "ack latency, p99",
        percentile(&times, 99.0),
        "ms",
        &format!("<= {:.1} (10 + bare sync p99)", 10.0 + sync_p99),
    );
    line(&format!("  bare append and fdatasync: median {sync_median:.2} ms, p99 {sync_p99:.2} ms"));
}

/// Calls once a millisecond for as long as `goes_on`: how long each took, in milliseconds, sorted.
pub async fn steady(load: &Load, goes_on: impl Fn() -> bool) -> Vec<f64> {
    let (mut every, mut calls) = (tokio::time::interval(Duration::from_millis(1)), JoinSet::new());
    while goes_on() {
        every.tick().await;
        let (mut client, source) = (load.client(), load.source());
        calls.spawn(async move {
            let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
            let watch = Stopwatch::start();
            client.record_consumption(request).await.expect("accepted");
            watch.seconds() * 1_000.0
        });
    }
    let mut times = calls.join_all().await;
    times.sort_by(f64::total_cmp);
    times
}

/// A million consumptions of a hundred thousand members: memory, disk, restart after SIGKILL.
pub async fn memory() {
    const CONSUMPTIONS: u64 = 1_000_000;
    let mut load = Load::start(100_000).await;
    let rate = batches(&load, Duration::from_secs(600), CONSUMPTIONS).await;
    figure("1M consumptions of 100k members, batches", rate, "consumptions/s", "-");
    figure("memory after them", load.server.resident_bytes() as f64 / 1e6, "MB", "<= 300");
    let status = load.api.status().await;
    figure("journal on disk", status.journal_bytes as f64 / 1e6, "MB", "-");
    figure("views on disk", status.views_bytes as f64 / 1e6, "MB", "-");
    load.server.kill();
    let watch = Stopwatch::start();
    load.server.restart().await;
    figure("restart after SIGKILL until ready", watch.seconds(), "s", "<= 5");
    figure("memory after the restart", load.server.resident_bytes() as f64 / 1e6, "MB", "<= 300");
    assert!(load.api.status().await.consumptions >= CONSUMPTIONS, "nothing is lost");
}
