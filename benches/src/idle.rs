//! A server with nothing to do: what it does all the same.

use std::time::Duration;

use punchline_runtime::clock::Stopwatch;

use crate::load::Load;
use crate::options::{Sizes, short};
use crate::process::sleeps;
use crate::scenario::{Measured, Target};
use crate::sink::{Manner, Sink};

/// What is left to be written behind is, by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// CPU is told in hundredths of a second: half a per cent of this is fifteen of them.
const WINDOWS: u32 = 4;

/// Without a subscription, and with as many as `--subscriptions` names at most.
pub async fn idle(sizes: &Sizes) -> Measured {
    let mut measured = Measured::default();
    let most = sizes.subscriptions.iter().copied().max().unwrap_or(0);
    let mut first = None;
    for count in [0, most] {
        let (load, sink) = (Load::start(1_000).await, Sink::start(1).await);
        load.subscribe(count as usize, |n| sink.subscription(n, Manner::Counts)).await;
        tokio::time::sleep(SETTLES_WITHIN).await;
        let (watch, cpu, slept) = (Stopwatch::start(), load.cpu_seconds(), sleeps(load.server.pid()));
        tokio::time::sleep(sizes.window() * WINDOWS).await;
        let seconds = watch.seconds();
        let wakes = (sleeps(load.server.pid()) - slept) as f64 / seconds;
        let name = format!("with {} subscriptions", short(count));
        measured
            .figure(format!("CPU {name}"), 100.0 * (load.cpu_seconds() - cpu) / seconds, "% of a core")
            .target(Target::AtMost(0.5));
        // Each subscription that looked by itself would be seen here.
        measured.figure(format!("threads woken {name}"), wakes, "times/s").against(
            "with none",
            &mut first,
            Target::ShareAtMost(2.0),
        );
        measured.figure(format!("memory {name}"), load.resident_mb(), "MB");
    }
    measured
}
