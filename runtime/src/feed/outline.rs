//! Which types of events are told where in the journal, as far as that is known: by what was published and by what
//! was read. Whoever has fallen behind passes over what it does not want, instead of reading it: with many behind,
//! each would else read what is written down of all the others' deliveries.
//!
//! A range may be said to tell more than it does, never less.

use std::collections::BTreeMap;

use punchline_engine::dispatch::subscription::TypeMask;
use punchline_engine::id::Sequence;

/// Positions, at least, that share a range, whatever is told in them: about what a small block has.
const POSITIONS_MIN: u64 = 64;
/// Ranges that are known; then the oldest are forgotten, and read again by whoever is that far behind.
const RANGES_MAX: usize = 131_072;
/// Ranges looked at in one go: the feed is held meanwhile.
const RANGES_AT_ONCE_MAX: usize = 4_096;

/// Ranges of positions, by their first; they do not overlap.
#[derive(Default)]
pub(super) struct Outline {
    ranges: BTreeMap<Sequence, Range>,
}

struct Range {
    last: Sequence,
    types: TypeMask,
}

impl Outline {
    /// From `first` to `last` nothing but these types is told. What is known already is left as it is.
    pub(super) fn add(&mut self, first: Sequence, last: Sequence, types: TypeMask) {
        if self.ranges.range(first..=last).next().is_some() {
            return;
        }
        if let Some((&from, before)) = self.ranges.range_mut(..first).next_back() {
            if before.last >= first {
                return;
            }
            let is_short = first.0 - from.0 < POSITIONS_MIN;
            if before.last.next() == first && (is_short || before.types == types) {
                before.last = last;
                before.types |= types;
                return;
            }
        }
        self.ranges.insert(first, Range { last, types });
        if self.ranges.len() > RANGES_MAX {
            self.ranges.pop_first();
        }
    }

    /// The first position from this one on at which one of these types may be told.
    pub(super) fn past(&self, position: Sequence, types: TypeMask) -> Sequence {
        let begin = self.ranges.range(..=position).next_back().map_or(position, |(from, _)| *from);
        let mut past = position;
        for (from, range) in self.ranges.range(begin..).take(RANGES_AT_ONCE_MAX) {
            if *from > past || range.types & types != 0 && range.last >= past {
                break;
            }
            past = past.max(range.last.next());
        }
        past
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Blocks of a journal, of which some are learned of, in any order and more than once.
        #[test]
        fn nothing_that_is_wanted_is_passed_over(
            blocks in proptest::collection::vec((1..100_u64, prop_oneof![3 => Just(0), 1 => 0..8_u64]), 1..40),
            learned in proptest::collection::vec(any::<proptest::sample::Index>(), 0..80),
        ) {
            let mut next = 1;
            let mut place = |(positions, types)| {
                next += positions;
                (Sequence(next - positions), Sequence(next - 1), TypeMask::from(types))
            };
            let blocks: Vec<_> = blocks.into_iter().map(&mut place).collect();
            let mut outline = Outline::default();
            let mut known = vec![false; blocks.len()];
            for index in learned {
                let at = index.index(blocks.len());
                known[at] = true;
                let (first, last, types) = blocks[at];
                outline.add(first, last, types);
            }
            for wanted in 0..8 {
                for position in 0..next + 2 {
                    let past = outline.past(Sequence(position), wanted).0;
                    let passed = |(first, last, _): &(Sequence, Sequence, _)| first.0 < past && last.0 >= position;
                    prop_assert!(past >= position);
                    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| passed(block)) {
                        prop_assert!(known[at] && block.2 & wanted == 0 || past == position, "{position}: {past}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_at_once() {
        let mut outline = Outline::default();
        // As they are published: a record that is told, then many that are not, and so on.
        let mut position = 1;
        for round in 0..100 {
            outline.add(Sequence(position), Sequence(position), if round == 50 { 2 } else { 1 });
            position += 1;
            for _ in 0..500 {
                outline.add(Sequence(position), Sequence(position), 0);
                position += 1;
            }
        }
        let of_type = |types, from| outline.past(Sequence(from), types).0;
        assert_eq!([of_type(4, 1), of_type(2, 1), of_type(1, 1)], [position, 1 + 50 * 501, 1]);
        assert_eq!(of_type(1, 1 + POSITIONS_MIN), 1 + 501);
        assert_eq!(outline.ranges.len(), 200);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut outline = Outline::default();
        let length = POSITIONS_MIN;
        for n in 0..=RANGES_MAX as u64 {
            outline.add(Sequence(1 + n * length), Sequence((n + 1) * length), TypeMask::from(n % 2));
        }
        assert_eq!(outline.ranges.len(), RANGES_MAX);
        assert_eq!(
            [outline.past(Sequence(1), 4).0, outline.past(Sequence(1 + length), 4).0],
            [1, 1 + length * (1 + RANGES_AT_ONCE_MAX as u64)]
        );
    }
}
