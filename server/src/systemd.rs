//! What the service manager is told: that the server serves, reloads, stops, and that its loops make progress.
//!
//! Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! # Invariants
//!
//! - The watchdog is told of life only while no loop is stuck: then systemd ends and restarts the server, and
//!   what was acknowledged is on disk.
//!
//! # Sources
//!
//! `sd_notify(3)`; `Type=notify-reload` in `systemd.service(5)`.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::state::State;

/// How often loops are looked at, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// It serves, as `status` says.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration anew; [`ready`] is to follow.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(error) => tracing::warn!(%error, "the service manager cannot be told of the reload"),
    }
}

/// It goes down.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("shutting down")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Looks at the loops, for ever: tells the watchdog that they live, and the log when one is stuck.
pub async fn watch(state: Arc<State>) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half of its time, as sd_watchdog_enabled(3) has it, or less.
    let every = watchdog.map_or(LOOK_EVERY, |time| LOOK_EVERY.min(time / 2)).max(Duration::from_millis(1));
    let mut tick = tokio::time::interval(every);
    let mut told = Vec::new();
    loop {
        tick.tick().await;
        let stuck = state.stuck();
        metrics::gauge!("punchline_loops_stuck").set(stuck.len() as f64);
        metrics::gauge!("punchline_ready").set(f64::from(u8::from(state.is_ready())));
        if stuck.is_empty() && watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if stuck != told {
            log(&state, &stuck);
            told = stuck;
        }
    }
}

fn log(state: &State, stuck: &[&str]) {
    if stuck.is_empty() {
        tell(&[NotifyState::Status("serving")]);
        return tracing::info!("every loop makes progress again");
    }
    let loops = stuck.join(", ");
    tell(&[NotifyState::Status(&format!("no progress: {loops}"))]);
    let workers = state.node.dispatcher().stuck(state.stuck_after);
    tracing::error!(loops, subscriptions = ?workers, after = ?state.stuck_after, "loops make no progress");
}
