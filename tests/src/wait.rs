//! Waiting for conditions, with deadlines.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that ought to take milliseconds. Generous: machines are shared.
pub const SOON: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at `condition` until it answers `Ok`, and returns what it answered.
///
/// # Panics
///
/// After `deadline`, with `what` and the last `Err`.
pub async fn until<T, E: Debug>(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(why) if Instant::now() >= end => panic!("{what}: not within {deadline:?}: {why:?}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
