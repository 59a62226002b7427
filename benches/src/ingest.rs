//! Taking consumptions in: rates and latency.

use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use tokio::task::JoinSet;

use crate::ceiling::{EchoServer, bare_sync, raw_journal};
use crate::load::{self, Load};
use crate::options::Sizes;
use crate::report::percentile;
use crate::scenario::{Measured, Target};

const MEMBERS: u64 = 10_000;
/// Consumptions on their way in one stream.
const STREAMED: usize = 1_024;
/// A stall that nobody is to see.
const STALL_MS: f64 = 50.0;

/// Single calls beside a bare tonic server that is sent the same.
pub async fn unary(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let load = Load::start(MEMBERS).await;
    let cpu = load.cpu_seconds();
    let (answered, seconds) = load::calls(&load.lines, &load.source(), sizes.window()).await;
    let cpu = load.cpu_seconds() - cpu;
    let source = load.source();
    let lines = load.lines.len();
    drop(load);
    let echo = EchoServer::start();
    let (echoed, echo_seconds) = load::calls(&echo.lines(lines), &source, sizes.window()).await;
    measured
        .figure("unary, durable, 256 in flight", answered as f64 / seconds, "consumptions/s")
        .beside("bare tonic unary", echoed as f64 / echo_seconds)
        .target(Target::ShareAtLeast(0.6));
    measured.figure("server CPU of one", 1e6 * cpu / answered as f64, "us");
    measured
}

/// Batches beside the raw journal.
pub async fn batch(sizes: &Sizes) -> Measured {
    let load = Load::start(MEMBERS).await;
    let (bytes, cpu) = (load.api.status().await.journal_bytes, load.cpu_seconds());
    let (accepted, seconds) = load.batches(sizes.window(), u64::MAX).await;
    beside_the_journal("batch, durable", load, accepted, seconds, bytes, cpu).await
}

/// Four streams beside the raw journal.
pub async fn stream(sizes: &Sizes) -> Measured {
    let load = Load::start(MEMBERS).await;
    let (bytes, cpu) = (load.api.status().await.journal_bytes, load.cpu_seconds());
    let (watch, run, mut streams) = (Stopwatch::start(), sizes.window(), JoinSet::new());
    for api in &load.lines {
        let (mut client, source) = (api.ingest(), load.source());
        streams.spawn(async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(STREAMED);
            tokio::spawn(async move {
                while watch.elapsed() < run {
                    let request = v1::StreamConsumptionsRequest { consumption: Some(source.next()) };
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let mut results = client.stream_consumptions(requests).await.expect("a stream").into_inner();
            let mut accepted = 0_u64;
            while let Some(answer) = results.message().await.expect("results come") {
                assert!(answer.result.as_ref().is_some_and(load::is_accepted), "{answer:?}");
                accepted += 1;
            }
            accepted
        });
    }
    let accepted = streams.join_all().await.into_iter().sum();
    beside_the_journal("stream, durable", load, accepted, watch.seconds(), bytes, cpu).await
}

async fn beside_the_journal(
    name: &str,
    load: Load,
    accepted: u64,
    seconds: f64,
    bytes_before: u64,
    cpu_before: f64,
) -> Measured {
    let mut measured = Measured::default();
    let cpu = load.cpu_seconds() - cpu_before;
    let bytes = load.api.status().await.journal_bytes - bytes_before;
    drop(load);
    let dir = tempfile::tempdir().expect("a temporary directory");
    measured
        .figure(name, accepted as f64 / seconds, "consumptions/s")
        .beside("raw journal, 1 024 records a sync", raw_journal(dir.path(), STREAMED as u64))
        .target(Target::AtLeastOrShare(100_000.0, 0.5));
    measured.figure("server CPU of one", 1e6 * cpu / accepted as f64, "us");
    measured.figure("journal on disk of one", bytes as f64 / accepted as f64, "bytes");
    measured
}

/// Steady rates: from call to durable answer.
pub async fn ack_latency(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let load = Load::start(MEMBERS).await;
    let (answered, seconds) = load::calls(&load.lines, &load.source(), sizes.window() / 2).await;
    let half = (answered as f64 / seconds / 2.0) as u64;
    // What the peak has left to be written behind is not part of it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (name, per_second) in [("1 000/s", 1_000), ("half of peak", half)] {
        let watch = Stopwatch::start();
        let times = load::steady(&load, per_second, || watch.elapsed() < sizes.window()).await;
        let rate = times.len() as f64 / watch.seconds();
        let (sync_median, sync_p99) = bare_sync(load.server.scratch_dir());
        let (median, p99) = (percentile(&times, 50.0), percentile(&times, 99.0));
        measured.figure(format!("ack at {name}: calls made"), rate, "calls/s");
        measured.figure(format!("ack at {name}, median"), median, "ms").beside("bare sync, median", sync_median);
        measured
            .figure(format!("ack at {name}, p99"), p99, "ms")
            .beside("bare sync, p99", sync_p99)
            .target(Target::AtMostAbove(5.0));
        measured
            .figure(format!("ack at {name}, p99.9"), percentile(&times, 99.9), "ms")
            .target(Target::AtMost(STALL_MS));
        measured.figure(format!("ack at {name}, longest"), percentile(&times, 100.0), "ms");
    }
    measured
}
