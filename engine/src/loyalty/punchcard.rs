//! Punchcards: buy nine coffees, get the tenth for nothing.
//!
//! ```text
//! units × stamps a unit ──add──▶ stamps kept and discarded, steps and rows completed
//! ```
//!
//! # Invariants
//!
//! - After every [`add`] that keeps a stamp, `stamps < row_length`: a full row is exchanged in the decision
//!   that filled it. Only a row that was shortened since shows more, until the next stamp.
//! - Where no stamp is kept, nothing changes.
//! - With carry-over on a repeatable card stamps are conserved: `stamps + rows * row_length` grows by
//!   exactly what was added, however it is split.
//!
//! # What is absent on purpose
//!
//! - No clock. A row that expires will be closed by a command that the jobs loop writes to the journal.

use crate::loyalty::campaign::{Overflow, Punchcard};
use crate::quantity::Stamps;

/// What came of adding stamps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Added {
    /// Stamps in the row afterwards.
    pub stamps: u64,
    /// Rows completed afterwards, in all.
    pub rows_completed: u64,
    /// Stamps that found a place.
    pub kept: u64,
    /// Stamps that found none.
    pub discarded: u64,
    /// Milestones reached, with how many rows reached each, in ascending order of the milestone.
    pub steps: Vec<(u32, u64)>,
}

/// Adds `more` stamps to a card that has `stamps` in its row and `rows` full ones.
pub fn add(card: &Punchcard, (stamps, rows): (Stamps, u64), more: u64) -> Added {
    let length = u64::from(card.row_length);
    // A row that was shortened may hold more than it has room for. Where nothing carries over, it lacks one stamp.
    let shortened = stamps.0.min(length - 1);
    let (before, kept) = match (card.repeatable, card.overflow) {
        (false, _) if rows > 0 => (stamps.0, 0),
        (false, _) | (true, Overflow::Discard) => (shortened, more.min(length - shortened)),
        (true, Overflow::CarryOver) => (stamps.0, more),
    };
    if kept == 0 {
        return Added { stamps: stamps.0, rows_completed: rows, discarded: more, ..Added::default() };
    }
    let total = before + kept;
    let filled = total / length;
    let steps = (card.steps.iter())
        .map(|&step| {
            let at = u64::from(step);
            // How many of the marks step, step + length, … lie in (before, total].
            let passed = |upto: u64| if upto < at { 0 } else { (upto - at) / length + 1 };
            (step, passed(total) - passed(before))
        })
        .filter(|&(_, times)| times > 0)
        .collect();
    Added { stamps: total % length, rows_completed: rows + filled, kept, discarded: more - kept, steps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PunchcardId;
    use proptest::prelude::*;

    fn card(row_length: u32, overflow: Overflow, repeatable: bool, steps: &[u32]) -> Punchcard {
        let id: PunchcardId = "coffee".parse().expect("a slug");
        Punchcard { id, name: String::new(), row_length, steps: steps.to_vec(), overflow, repeatable }
    }

    /// Each line: `stamps/rows + more => stamps/rows, kept, discarded, steps`.
    fn check(card: &Punchcard, story: &str) {
        for line in story.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (given, expected) = line.split_once("=>").expect("=>");
            let n: Vec<u64> = given.split(['/', '+']).map(|n| n.trim().parse().expect("a number")).collect();
            let a = add(card, (Stamps(n[0]), n[1]), n[2]);
            let got = format!("{}/{} kept {} lost {} {:?}", a.stamps, a.rows_completed, a.kept, a.discarded, a.steps);
            assert_eq!(got, expected.trim(), "{given}");
        }
    }

    #[test]
    fn stamps_become_rows() {
        check(
            &card(10, Overflow::CarryOver, true, &[5]),
            "
            0/0 + 9  => 9/0 kept 9 lost 0 [(5, 1)]
            9/0 + 1  => 0/1 kept 1 lost 0 []
            9/0 + 25 => 4/3 kept 25 lost 0 [(5, 2)]
            4/3 + 1  => 5/3 kept 1 lost 0 [(5, 1)]
            5/3 + 1  => 6/3 kept 1 lost 0 []
            ",
        );
        check(
            &card(10, Overflow::Discard, true, &[]),
            "
            9/0 + 25 => 0/1 kept 1 lost 24 []
            0/1 + 3  => 3/1 kept 3 lost 0 []
            ",
        );
        check(
            &card(10, Overflow::CarryOver, false, &[3, 7]),
            "
            0/0 + 12 => 0/1 kept 10 lost 2 [(3, 1), (7, 1)]
            0/1 + 1  => 0/1 kept 0 lost 1 []
            ",
        );
        check(&card(1, Overflow::CarryOver, true, &[]), "0/0 + 3 => 0/3 kept 3 lost 0 []");
    }

    /// The row had ten stamps when it was filled so far, and has five now.
    #[test]
    fn a_shortened_row_is_completed_once() {
        check(
            &card(5, Overflow::Discard, true, &[3]),
            "
            9/0 + 1 => 0/1 kept 1 lost 0 []
            9/0 + 7 => 0/1 kept 1 lost 6 []
            9/2 + 1 => 0/3 kept 1 lost 0 []
            9/2 + 0 => 9/2 kept 0 lost 0 []
            0/1 + 3 => 3/1 kept 3 lost 0 [(3, 1)]
            ",
        );
        check(
            &card(5, Overflow::CarryOver, false, &[3]),
            "
            9/0 + 7 => 0/1 kept 1 lost 6 []
            0/1 + 7 => 0/1 kept 0 lost 7 []
            9/1 + 7 => 9/1 kept 0 lost 7 []
            ",
        );
        check(
            &card(5, Overflow::CarryOver, true, &[3]),
            "
            9/0 + 1 => 0/2 kept 1 lost 0 []
            9/0 + 0 => 9/0 kept 0 lost 0 []
            ",
        );
        check(&card(1, Overflow::Discard, true, &[]), "9/0 + 3 => 0/1 kept 1 lost 2 []");
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            length in 2u32..30, step in 1u32..29, parts in prop::collection::vec(0u64..100, 1..20),
        ) {
            let step = step.min(length - 1);
            let card = card(length, Overflow::CarryOver, true, &[step]);
            let whole = add(&card, (Stamps(0), 0), parts.iter().sum());
            let mut at = (Stamps(0), 0);
            let mut steps = 0;
            for part in &parts {
                let added = add(&card, at, *part);
                prop_assert!(added.stamps < u64::from(length));
                at = (Stamps(added.stamps), added.rows_completed);
                steps += added.steps.iter().map(|s| s.1).sum::<u64>();
            }
            prop_assert_eq!((at.0.0, at.1), (whole.stamps, whole.rows_completed));
            prop_assert_eq!(steps, whole.steps.iter().map(|s| s.1).sum::<u64>());
            prop_assert_eq!(at.0.0 + at.1 * u64::from(length), parts.iter().sum::<u64>());
        }
    }
}
