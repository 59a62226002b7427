//! Twice what the server can take.

use std::time::Duration;

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;
use punchline_tests::api::Refused;
use tokio::task::JoinSet;

use crate::load::{BATCH, Load, is_accepted};
use crate::options::Sizes;
use crate::report::percentile;
use crate::scenario::{Measured, Target};

const MEMBERS: u64 = 10_000;
/// How much more than at peak is sent.
const TIMES: f64 = 2.0;
/// What is looked at once it is over.
const SLICE: Duration = Duration::from_millis(500);
/// As good as at peak.
const BACK: f64 = 0.9;
/// Longest that it may take to be back.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Batches come twice as fast as they are taken in at peak, whatever becomes of them.
pub async fn overload(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let load = Load::start(MEMBERS).await;
    let (accepted, seconds) = load.batches(sizes.window(), u64::MAX).await;
    let (peak, memory) = (accepted as f64 / seconds, load.resident_mb());
    let (watch, mut ticks) = (Stopwatch::start(), tokio::time::interval(Duration::from_millis(5)));
    let (mut sent, mut calls, mut memory_max) = (0, JoinSet::new(), 0.0_f64);
    while watch.elapsed() < sizes.window() * 2 {
        ticks.tick().await;
        let due = (watch.seconds() * TIMES * peak / BATCH as f64) as usize;
        for n in sent..due {
            let (mut client, source) = (load.lines[n % load.lines.len()].ingest(), load.source());
            calls.spawn(async move {
                let consumptions = (0..BATCH).map(|_| source.next()).collect();
                let request = v1::BatchRecordConsumptionsRequest { consumptions };
                let watch = Stopwatch::start();
                match client.batch_record_consumptions(request).await {
                    Ok(answer) => {
                        let results = answer.into_inner().results;
                        let accepted = results.iter().filter(|result| is_accepted(result)).count();
                        (accepted > 0).then(|| (accepted, watch.seconds() * 1_000.0))
                    }
                    Err(status) => {
                        let refused = Refused::of(&status);
                        let as_it_is_to_be = refused.code == tonic::Code::Unavailable && refused.retry_info;
                        assert!(as_it_is_to_be, "{refused:?}");
                        None
                    }
                }
            });
        }
        sent = due;
        memory_max = memory_max.max(load.resident_mb());
    }
    let offered = sent as f64 * BATCH as f64 / watch.seconds();
    let answers = calls.join_all().await;
    let seconds = watch.seconds();
    let accepted: usize = answers.iter().flatten().map(|(accepted, _)| accepted).sum();
    let mut times: Vec<f64> = answers.iter().flatten().map(|(_, ms)| *ms).collect();
    times.sort_by(f64::total_cmp);
    let over = Stopwatch::start();
    while over.elapsed() < BACK_WITHIN {
        let (accepted, seconds) = load.batches(SLICE, u64::MAX).await;
        if accepted as f64 / seconds >= BACK * peak {
            break;
        }
    }
    measured.figure("peak, in batches", peak, "consumptions/s");
    measured.figure("sent under overload", offered, "consumptions/s").beside("peak", peak);
    measured
        .figure("taken in under overload", accepted as f64 / seconds, "consumptions/s")
        .beside("peak", peak)
        .target(Target::ShareAtLeast(0.5));
    measured.figure("of what is taken in, p99 from call to answer", percentile(&times, 99.0), "ms");
    measured
        .figure("memory under overload, at most", memory_max, "MB")
        .beside("after the peak", memory)
        .target(Target::AtMostAbove(200.0));
    measured.figure("until it is as fast as before", over.seconds(), "s").target(Target::AtMost(5.0));
    measured
}
