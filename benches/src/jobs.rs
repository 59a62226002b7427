//! A daily job over all members, beside ingestion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;

use crate::ingest::steady;
use crate::load::Load;
use crate::report::{figure, percentile};

const MEMBERS: u64 = 1_000_000;
const QUIET: Duration = Duration::from_secs(8);

/// A recalculation over a million members, of whom one in sixteen enters a segment, beside 1 000 calls a second.
pub async fn daily() {
    let members = std::env::var("PUNCHLINE_BENCH_MEMBERS").ok().and_then(|n| n.parse().ok()).unwrap_or(MEMBERS);
    let watch = Stopwatch::start();
    let load = Load::start(members).await;
    figure("members imported, batches of 250", members as f64 / watch.seconds(), "members/s", "-");
    let watch = Stopwatch::start();
    let before = steady(&load, || watch.elapsed() < QUIET).await;
    let resident = load.server.resident_bytes() as f64 / 1e6;

    let condition = "member.id.endsWith('0')".into();
    let segment = v1::Segment { segment_id: "some".into(), name: "Some".into(), condition, ..Default::default() };
    let request = v1::CreateSegmentRequest { segment: Some(segment), ..Default::default() };
    load.api.campaigns().create_segment(request).await.expect("accepted");
    let running = Arc::new(AtomicBool::new(true));
    let (mut admin, ended) = (load.api.admin(), running.clone());
    let job = tokio::spawn(async move {
        let watch = Stopwatch::start();
        let ran = admin.run_job(v1::RunJobRequest { job: "recalculation".into() }).await;
        ended.store(false, Ordering::Release);
        (ran.expect("it runs").into_inner(), watch.seconds())
    });
    let beside = steady(&load, || running.load(Ordering::Acquire)).await;
    let (ran, took) = job.await.expect("no panic");
    figure("recalculation of all members", took, "s", "-");
    let concerned = ran.job.map_or(0, |job| job.last_concerned);
    figure("members it concerned", concerned as f64, "members", "-");
    let quiet = percentile(&before, 99.0);
    figure("ack latency at 1000/s before, p99", quiet, "ms", "-");
    figure("ack latency beside the job, median", percentile(&beside, 50.0), "ms", "-");
    let p99 = percentile(&beside, 99.0);
    figure("ack latency beside the job, p99", p99, "ms", &format!("<= {:.1} (twice)", 2.0 * quiet));
    figure("memory before the job", resident, "MB", "-");
    figure("memory after it", load.server.resident_bytes() as f64 / 1e6, "MB", "-");
}
