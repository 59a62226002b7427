//! The bugs planted on purpose, each with a seed that finds it. The table is in `docs/testing.md`.

use punchline_engine::planted::Bug;

/// Seeds tried for one bug before it counts as not found.
pub const SEARCHED_MAX: u64 = 200;

/// A seed that finds a bug.
pub fn seed_for(bug: Bug) -> u64 {
    match bug {
        Bug::AckBeforeSync => 3,
        Bug::ForgottenIndexRow => 1,
        Bug::CursorTooFar => 2,
        Bug::ApplyReadsClock => 1,
        Bug::KeepsWhatIsLost => 10,
        Bug::CheckpointFirst => 2,
        Bug::NoOrder => 1,
        Bug::ForgottenDeadLetter => 1,
        Bug::TimeGoesBack => 1,
        Bug::MoneyFromNowhere => 1,
        Bug::UncheckedBlock => 1,
        Bug::NewIdEachAttempt => 1,
        Bug::ErasedInName => 1,
    }
}
