//! Bugs on purpose, each a mistake that somebody could make: the simulator has to find every one.
//!
//! Without the feature `planted-bugs` there are none, and asking costs nothing: the answer is known when compiled.
//!
//! # What is absent on purpose
//!
//! - A way to plant one but from the program that looks for it: no setting, no environment.

/// A bug on purpose. Where it is, its name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The answer leaves before the block is on disk.
    AckBeforeSync = 1,
    /// Now and then an id that was used up is not taken down.
    ForgottenIndexRow,
    /// The cursor passes deliveries that are under way.
    CursorTooFar,
    /// What is folded depends on when it is folded.
    ApplyReadsClock,
    /// After a failed append the working set is kept, with what is not on disk.
    KeepsWhatIsLost,
    /// The checkpoint is written before the rows that it vouches for.
    CheckpointFirst,
    /// A member's events do not wait for each other.
    NoOrder,
    /// A delivery that died is taken off the lanes, and its row is not written.
    ForgottenDeadLetter,
    /// The clock is believed when it goes back.
    TimeGoesBack,
    /// What is transferred grows on the way.
    MoneyFromNowhere,
    /// A block's checksum is not looked at.
    UncheckedBlock,
    /// Each attempt has an id of its own on the wire.
    NewIdEachAttempt,
    /// An erasure is answered before the key is destroyed.
    ErasedInName,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 13] = [
        Bug::AckBeforeSync,
        Bug::ForgottenIndexRow,
        Bug::CursorTooFar,
        Bug::ApplyReadsClock,
        Bug::KeepsWhatIsLost,
        Bug::CheckpointFirst,
        Bug::NoOrder,
        Bug::ForgottenDeadLetter,
        Bug::TimeGoesBack,
        Bug::MoneyFromNowhere,
        Bug::UncheckedBlock,
        Bug::NewIdEachAttempt,
        Bug::ErasedInName,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static READINGS: Cell<i64> = const { Cell::new(0) };
    }

    /// From now on this thread has this bug, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        READINGS.set(0);
    }

    /// Whether this thread has this bug.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// What somebody would find who read a clock: never the same twice.
    pub fn reading() -> i64 {
        READINGS.set(READINGS.get() + 1);
        READINGS.get()
    }
}

#[cfg(not(feature = "planted-bugs"))]
mod switch {
    use super::Bug;

    /// No.
    #[inline(always)]
    pub const fn is_planted(_: Bug) -> bool {
        false
    }

    /// Nothing: nobody asks.
    #[inline(always)]
    pub const fn reading() -> i64 {
        0
    }
}

pub use switch::*;
