//! One event at a time, to few subscriptions among many that do not want it.

use punchline_proto::v1;
use punchline_runtime::clock::Stopwatch;

use crate::load::Load;
use crate::options::{Sizes, short};
use crate::report::percentile;
use crate::scenario::{Measured, Target};
use crate::sink::{Manner, Sink};

/// Subscriptions that an event is for.
const MATCHING: usize = 10;
/// Events before those that are measured: connections are opened by them.
const WARM_UP: u64 = 20;

/// Why the others do not want it.
#[derive(Clone, Copy)]
enum Unwanted {
    /// It is of another type.
    ByType,
    /// Their filter does not let it through.
    ByFilter,
}

/// Time and CPU of one event, by how many subscriptions there are. One advertiser has as many as it may have;
/// further ones are others'.
pub async fn matching(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    for (unwanted, name) in [(Unwanted::ByType, "by type"), (Unwanted::ByFilter, "by filter")] {
        let (mut first_time, mut first_cpu) = (None, None);
        for &count in &sizes.subscriptions {
            let (time, cpu) = one(sizes, unwanted, count as usize).await;
            // A filter must be asked; that it costs something each is no fault, and is told.
            let target = match unwanted {
                Unwanted::ByType => Target::ShareAtMost(1.25),
                Unwanted::ByFilter => Target::None,
            };
            let (among, fewest) = (short(count), short(sizes.subscriptions[0]));
            measured
                .figure(format!("call to the last of 10 receipts, among {among} {name}"), time, "ms")
                .against(format!("among {fewest}"), &mut first_time, target)
                .on(&format!("time {name}"), count);
            measured
                .figure(format!("server CPU of one event, among {among} {name}"), cpu, "us")
                .against(format!("among {fewest}"), &mut first_cpu, target)
                .on(&format!("CPU {name}"), count);
        }
    }
    measured
}

/// Median time in milliseconds, and CPU of one event in microseconds.
async fn one(sizes: &Sizes, unwanted: Unwanted, count: usize) -> (f64, f64) {
    let (load, sink) = (Load::start(1_000).await, Sink::start(1).await);
    let matching = MATCHING.min(count);
    let subscription = |n: usize| {
        let wanting = sink.subscription(n, Manner::Counts);
        match unwanted {
            _ if n < matching => wanting,
            Unwanted::ByType => v1::Subscription { event_types: vec!["coupon.used".into()], ..wanting },
            Unwanted::ByFilter => {
                v1::Subscription { filter: format!("event.data.campaign_id == 'other-{n}'"), ..wanting }
            }
        }
    };
    load.subscribe(count, subscription).await;
    let (mut client, source) = (load.api.ingest(), load.source());
    let (mut times, mut watch, mut cpu) = (Vec::new(), Stopwatch::start(), load.cpu_seconds());
    let mut event = 0;
    while watch.elapsed() < sizes.window() / 2 {
        let (request, one) = (v1::RecordConsumptionRequest { consumption: Some(source.next()) }, Stopwatch::start());
        client.record_consumption(request).await.expect("accepted");
        event += 1;
        sink.has_received(event * matching as u64).await;
        times.push(one.seconds() * 1_000.0);
        if event == WARM_UP {
            times.clear();
            (watch, cpu) = (Stopwatch::start(), load.cpu_seconds());
        }
    }
    let cpu = (load.cpu_seconds() - cpu) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    (percentile(&times, 50.0), 1e6 * cpu)
}
