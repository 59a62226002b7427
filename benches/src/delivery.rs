//! Delivering: rate, latency, that a bad receiver delays nobody, and neither does one that catches up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;

use crate::ceiling::bare_sync;
use crate::load::{BATCH, Load, steady};
use crate::options::Sizes;
use crate::poster;
use crate::report::percentile;
use crate::scenario::{Measured, Target};
use crate::sink::{Manner, Sink, until};

/// Receivers that a backlog is delivered to.
const RECEIVERS: [u64; 3] = [1, 100, 1_000];
/// Of a steady load where latency is measured.
const PER_SECOND: u64 = 500;
/// Subscriptions that are live beside one that catches up.
const LIVE: usize = 10;
/// A backlog that is delivered in a few seconds.
const LITTLE_BEHIND: u64 = 100_000;
/// The least that a percentile of delays is taken for: webhooks tell their time in milliseconds.
const DELAY_MS_MIN: f64 = 1.0;

/// Records what causes so many webhooks to each subscription.
async fn record(load: &Load, consumptions: u64) {
    let (accepted, _) = load.batches(Duration::MAX, consumptions).await;
    assert_eq!(accepted, consumptions, "all are recorded");
}

/// A backlog to subscriptions with a receiver each, beside a bare client that posts the same.
pub async fn throughput(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    for receivers in RECEIVERS {
        let (load, sink) = (Load::start(10_000).await, Sink::start(receivers as usize).await);
        // As many under way as the bare client has: together what the server allows.
        let in_flight = poster::in_flight_per_host(receivers as usize);
        let subscription =
            |n| v1::Subscription { max_in_flight: in_flight as u32, ..sink.subscription(n, Manner::Counts) };
        let ids = load.subscribe(receivers as usize, subscription).await;
        // Its connections are open then, as the bare client's are.
        let warm_up = in_flight as u64;
        record(&load, warm_up).await;
        until("warm-up", warm_up * receivers, || sink.received()).await;
        load.pause(&ids).await;
        let each = sizes.deliveries.div_ceil(receivers);
        let (events, before) = (each * receivers, sink.received());
        record(&load, each).await;
        let (watch, cpu) = (Stopwatch::start(), load.cpu_seconds());
        load.resume(&ids).await;
        until("webhooks", before + events, || sink.received()).await;
        let (seconds, cpu, connections) = (watch.seconds(), load.cpu_seconds() - cpu, sink.connections());
        drop(load);
        let bare = poster::bare(&sink, events).await;
        let name = match receivers {
            1 => "one subscription".to_owned(),
            n => format!("{n} subscriptions"),
        };
        measured
            .figure(format!("webhooks to {name}"), events as f64 / seconds, "webhooks/s")
            .beside("bare hyper", bare.per_second)
            .target(Target::ShareAtLeast(0.6))
            .on("rate by subscriptions", receivers);
        measured
            .figure(format!("server CPU of one to {name}"), 1e6 * cpu / events as f64, "us")
            .beside("bare hyper", 1e6 * bare.cpu_seconds_each)
            .target(Target::ShareAtMost(1.6))
            .on("CPU by subscriptions", receivers);
        measured
            .figure(format!("connections to {name}"), connections as f64, "")
            .beside("bare hyper", (sink.connections() - connections) as f64);
    }
    measured
}

/// A steady load, each consumption a webhook: from commit to receipt.
pub async fn latency(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let (load, sink) = (Load::start(10_000).await, Sink::start(1).await);
    load.subscribe(1, |n| sink.subscription(n, Manner::Times)).await;
    let delays = delays_of(&load, &sink, PER_SECOND, 1, sizes.window()).await;
    let (sync_median, sync_p99) = bare_sync(load.server.scratch_dir());
    measured
        .figure("commit to receipt at 500/s, median", percentile(&delays, 50.0), "ms")
        .beside("bare sync, median", sync_median)
        .target(Target::AtMostAbove(5.0));
    measured
        .figure("commit to receipt at 500/s, p99", percentile(&delays, 99.0), "ms")
        .beside("bare sync, p99", sync_p99)
        .target(Target::AtMostAbove(20.0));
    measured
}

/// Delays under a steady load, each of whose consumptions reaches `healthy` receivers.
async fn delays_of(load: &Load, sink: &Sink, per_second: u64, healthy: u64, run: Duration) -> Vec<f64> {
    let (watch, before) = (Stopwatch::start(), sink.received());
    let sent = steady(load, per_second, || watch.elapsed() < run).await.len() as u64;
    until("webhooks", before + sent * healthy, || sink.received()).await;
    sink.take_delays()
}

/// 100 subscriptions, 20 events a second to each: all healthy, then one that hangs and one that fails.
pub async fn isolation(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let mut p99 = Vec::new();
    for bad in [false, true] {
        let (load, sink) = (Load::start(1_000).await, Sink::start(1).await);
        let manner = |n| match n {
            0 if bad => Manner::Hangs,
            1 if bad => Manner::Fails,
            _ => Manner::Times,
        };
        load.subscribe(100, |n| sink.subscription(n, manner(n))).await;
        let delays = delays_of(&load, &sink, 20, if bad { 98 } else { 100 }, sizes.window() * 2).await;
        let name = if bad { "98 beside one that hangs and one that fails" } else { "100 healthy" };
        measured.figure(format!("{name}, median"), percentile(&delays, 50.0), "ms");
        p99.push(percentile(&delays, 99.0).max(DELAY_MS_MIN));
    }
    measured
        .figure("98 beside one that hangs and one that fails, p99", p99[1], "ms")
        .beside("100 healthy, p99", p99[0])
        .target(Target::ShareAtMost(2.0));
    measured
}

/// A subscription that is far behind catches up: how fast, beside its own live rate, and what that does to live ones.
pub async fn backlog(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let (load, sink) = (Load::start(10_000).await, Sink::start(1).await);
    let late = load.subscribe(1, |n| sink.subscription(n, Manner::Late)).await;
    let live_rate = {
        let few = (sizes.backlog / 10).clamp(BATCH as u64, LITTLE_BEHIND);
        load.pause(&late).await;
        record(&load, few).await;
        let watch = Stopwatch::start();
        load.resume(&late).await;
        until("live webhooks", few, || sink.late()).await;
        few as f64 / watch.seconds()
    };
    load.pause(&late).await;
    record(&load, sizes.backlog).await;
    // The live ones come now: they are not owed the backlog.
    load.subscribe(LIVE, |n| sink.subscription(n, Manner::Times)).await;
    let quiet = delays_of(&load, &sink, PER_SECOND / 10, LIVE as u64, sizes.window()).await;

    let (before, watch, behind) = (sink.late(), Stopwatch::start(), AtomicBool::new(true));
    load.resume(&late).await;
    let catching_up = async {
        until("the backlog", before + sizes.backlog, || sink.late()).await;
        behind.store(false, Ordering::Release);
        watch.seconds()
    };
    let received = sink.received();
    let beside = async { steady(&load, PER_SECOND / 10, || behind.load(Ordering::Acquire)).await.len() as u64 };
    let (seconds, sent) = tokio::join!(catching_up, beside);
    until("live webhooks", received + sent * LIVE as u64, || sink.received()).await;
    let delays = sink.take_delays();
    measured
        .figure("catching up", sizes.backlog as f64 / seconds, "webhooks/s")
        .beside("the same subscription, little behind", live_rate)
        .target(Target::ShareAtLeast(0.8));
    for (name, percent) in [("median", 50.0), ("p99", 99.0)] {
        measured
            .figure(format!("live ones beside it, {name}"), percentile(&delays, percent).max(DELAY_MS_MIN), "ms")
            .beside("without it", percentile(&quiet, percent).max(DELAY_MS_MIN))
            .target(Target::ShareAtMost(2.0));
    }
    measured.figure("memory after it", load.resident_mb(), "MB");
    measured
}
