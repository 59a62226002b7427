//! A daily job over all members, beside ingestion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;

use crate::load::{Load, steady};
use crate::options::Sizes;
use crate::report::percentile;
use crate::scenario::{Measured, Target};

/// Calls beside the job.
const PER_SECOND: u64 = 1_000;

/// A recalculation over all members, of whom one in sixteen enters a segment, beside a steady load.
pub async fn daily(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let watch = Stopwatch::start();
    let load = Load::start(sizes.job_members).await;
    measured.figure("members imported", sizes.job_members as f64 / watch.seconds(), "members/s");
    let watch = Stopwatch::start();
    let before = steady(&load, PER_SECOND, || watch.elapsed() < sizes.window()).await;
    let resident = load.resident_mb();

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
    let beside = steady(&load, PER_SECOND, || running.load(Ordering::Acquire)).await;
    let (ran, took) = job.await.expect("no panic");
    measured.figure("recalculation of all members", took, "s");
    measured.figure("members it concerned", ran.job.map_or(0, |job| job.last_concerned) as f64, "members");
    measured.figure("ack at 1 000/s beside the job, median", percentile(&beside, 50.0), "ms");
    measured
        .figure("ack at 1 000/s beside the job, p99", percentile(&beside, 99.0), "ms")
        .beside("without the job", percentile(&before, 99.0))
        .target(Target::ShareAtMost(2.0));
    measured.figure("memory before the job", resident, "MB");
    measured.figure("memory after it", load.resident_mb(), "MB");
    measured
}
