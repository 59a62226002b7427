//! Lanes against a second opinion: random offers, outcomes, restarts; order and completeness checked.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use punchline_engine::dispatch::{AttemptLog, DeliveryRow, OnDeadLetter, Ordering, RowState};
use punchline_engine::id::{KeySlot, MemberId, Sequence};
use punchline_engine::time::UnixMillis;
use punchline_runtime::dispatch::lanes::{Lanes, Rules, Settled, Task};
use uuid::Uuid;

#[derive(Debug, Clone)]
enum Step {
    Offer(u8),
    Take,
    /// Which of those in flight, and how it ends.
    Settle(usize, u8),
    Pass(i64),
    Report,
    /// A dead letter that the journal knows of is put back, or given up.
    Redrive(usize),
    Drop(usize),
    /// Any event is asked for again, whatever became of it.
    Replay(usize),
    /// Something happens, and is not looked at yet.
    Happen(u8),
    /// Everything in memory is lost; the last report is what is known.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4).prop_map(Step::Offer),
        6 => Just(Step::Take),
        6 => (any::<usize>(), 0u8..10).prop_map(|(which, how)| Step::Settle(which, how)),
        2 => (0i64..50).prop_map(Step::Pass),
        2 => Just(Step::Report),
        1 => any::<usize>().prop_map(Step::Redrive),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => any::<usize>().prop_map(Step::Replay),
        1 => (0u8..4).prop_map(Step::Happen),
        1 => Just(Step::Crash),
    ]
}

fn member(n: u8) -> Option<MemberId> {
    (n > 0).then(|| MemberId(Uuid::from_u128(u128::from(n))))
}

fn log() -> AttemptLog {
    AttemptLog {
        number: 1,
        at: UnixMillis(0),
        latency_ms: 0,
        status: None,
        error: String::new(),
        response: Vec::new(),
        key_slot: KeySlot::NONE,
    }
}

/// What the journal would know, and what the receiver saw.
#[derive(Default)]
struct Auditor {
    /// All that was ever offered: position to member.
    owed: BTreeMap<u64, u8>,
    cursor: u64,
    rows: BTreeMap<u64, DeliveryRow>,
    /// Delivered or dead, for good.
    settled: BTreeSet<u64>,
    /// Put back although nothing had gone wrong.
    replayed: BTreeSet<u64>,
    in_flight: Vec<Task>,
    /// Looked at up to here.
    read_to: u64,
    now: i64,
    rules: Rules,
}

impl Auditor {
    fn restart(&mut self) -> Lanes {
        self.in_flight.clear();
        let rows: Vec<DeliveryRow> = self.rows.values().cloned().collect();
        // What was settled but is not in the journal is owed again.
        let holds = self.holds();
        let is_open = |row: &DeliveryRow| match row.state {
            RowState::Waiting { .. } | RowState::Held => true,
            RowState::Dead => holds,
            RowState::Delivered | RowState::Dropped => false,
        };
        let (rows_now, cursor) = (&self.rows, self.cursor);
        self.settled.retain(|s| rows_now.get(s).map_or(*s <= cursor, |row| !is_open(row)));
        let mut lanes = Lanes::new(self.rules, Sequence(self.cursor), rows);
        self.read_to = self.cursor;
        self.catch_up(&mut lanes);
        lanes
    }

    fn holds(&self) -> bool {
        self.rules.on_dead_letter == OnDeadLetter::Hold
    }

    /// A dead letter in the journal, as a command would find it.
    fn dead(&mut self, which: usize) -> Option<&mut DeliveryRow> {
        let dead: Vec<u64> = self.rows.values().filter(|r| r.state == RowState::Dead).map(|r| r.sequence.0).collect();
        let sequence = dead.get(which % dead.len().max(1))?;
        self.rows.get_mut(sequence)
    }

    fn redrive(&mut self, lanes: &mut Lanes, which: usize) {
        let due = UnixMillis(self.now);
        let Some(row) = self.dead(which) else { return };
        row.state = RowState::Waiting { step: 0, due };
        let row = row.clone();
        self.settled.remove(&row.sequence.0);
        lanes.put_back(row);
    }

    fn replay(&mut self, lanes: &mut Lanes, which: usize) {
        // What was not looked at yet is owed anyway.
        let past: Vec<_> = self.owed.range(..=self.read_to).collect();
        let Some((sequence, of)) = past.get(which % past.len().max(1)).copied() else { return };
        let (sequence, member, due) = (Sequence(*sequence), member(*of), UnixMillis(self.now));
        let blank = DeliveryRow { sequence, member, state: RowState::Dropped, attempts: 0, log: Vec::new() };
        let row = self.rows.entry(sequence.0).or_insert(blank);
        // As the views do: what waits or is held is left as it is.
        if !matches!(row.state, RowState::Waiting { .. } | RowState::Held) {
            row.state = RowState::Waiting { step: 0, due };
            self.settled.remove(&sequence.0);
            self.replayed.insert(sequence.0);
            lanes.put_back(row.clone());
        }
    }

    /// All that has happened and was not looked at yet.
    fn catch_up(&mut self, lanes: &mut Lanes) {
        for (sequence, of) in self.owed.range(self.read_to + 1..) {
            lanes.offer(Sequence(*sequence), member(*of));
            self.read_to = *sequence;
        }
    }

    fn drop_dead(&mut self, lanes: &mut Lanes, which: usize) {
        let Some(row) = self.dead(which) else { return };
        row.state = RowState::Dropped;
        let sequence = row.sequence;
        self.settled.insert(sequence.0);
        lanes.drop_dead(sequence);
    }

    fn report(&mut self, lanes: &mut Lanes, rows_max: usize) -> Result<(), TestCaseError> {
        let progress = lanes.report(rows_max);
        prop_assert!(progress.cursor.0 >= self.cursor, "the cursor never goes back");
        self.cursor = progress.cursor.0;
        for row in progress.rows {
            self.rows.insert(row.sequence.0, row);
        }
        for sequence in self.owed.range(..=self.cursor).map(|(s, _)| s) {
            let known = self.rows.contains_key(sequence) || self.settled.contains(sequence);
            prop_assert!(known, "{sequence} is before the cursor {}, neither settled nor in a row", self.cursor);
        }
        Ok(())
    }

    fn take(&mut self, lanes: &mut Lanes) -> Result<(), TestCaseError> {
        lanes.wake(UnixMillis(self.now));
        let Some(task) = lanes.take(3) else { return Ok(()) };
        let of = self.owed[&task.sequence.0];
        let waits_for = |other: u8| match self.rules.ordering {
            Ordering::PerMember => other == of,
            Ordering::Strict => true,
            Ordering::None => false,
        };
        let before = self.owed.range(..task.sequence.0).filter(|(_, o)| waits_for(**o)).map(|(s, _)| *s);
        for earlier in before {
            // What was put back comes after those that went on without it.
            let behind = self.replayed.contains(&earlier)
                || !self.holds() && self.rows.get(&earlier).is_some_and(|row| row.attempts > 0);
            let settled = self.settled.contains(&earlier) || behind;
            prop_assert!(settled, "{} overtakes {earlier}", task.sequence);
        }
        prop_assert!(!self.settled.contains(&task.sequence.0), "{} is settled already", task.sequence);
        self.in_flight.push(task);
        prop_assert!(self.in_flight.len() <= 3);
        Ok(())
    }

    fn settle(&mut self, lanes: &mut Lanes, which: usize, how: u8) {
        if self.in_flight.is_empty() {
            return;
        }
        let task = self.in_flight.swap_remove(which % self.in_flight.len());
        let (how, step) = match how {
            0 => (Settled::Dead, 1),
            1..4 => (Settled::Again { due: UnixMillis(self.now + 20) }, 1),
            _ => (Settled::Delivered, 0),
        };
        if how == Settled::Delivered || how == Settled::Dead && !self.holds() {
            self.settled.insert(task.sequence.0);
        }
        lanes.settle(task.sequence, how, step, log());
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let ordering = prop_oneof![2 => Just(Ordering::PerMember), 1 => Just(Ordering::Strict), 1 => Just(Ordering::None)];
    let on_dead_letter = prop_oneof![Just(OnDeadLetter::GoOn), Just(OnDeadLetter::Hold)];
    (ordering, on_dead_letter).prop_map(|(ordering, on_dead_letter)| Rules { ordering, on_dead_letter })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_overtakes(rules in rules(), steps in prop::collection::vec(step(), 1..120)) {
        let mut auditor = Auditor { rules, ..Auditor::default() };
        let mut lanes = Lanes::new(rules, Sequence(0), Vec::new());
        let mut next = 1;
        for step in steps {
            match step {
                Step::Offer(of) => {
                    auditor.owed.insert(next, of);
                    auditor.catch_up(&mut lanes);
                    next += 1;
                }
                Step::Happen(of) => {
                    auditor.owed.insert(next, of);
                    next += 1;
                }
                Step::Replay(which) => auditor.replay(&mut lanes, which),
                Step::Take => auditor.take(&mut lanes)?,
                Step::Settle(which, how) => auditor.settle(&mut lanes, which, how),
                Step::Pass(ms) => auditor.now += ms,
                Step::Report => auditor.report(&mut lanes, 2)?,
                Step::Redrive(which) => auditor.redrive(&mut lanes, which),
                Step::Drop(which) => auditor.drop_dead(&mut lanes, which),
                Step::Crash => lanes = auditor.restart(),
            }
        }
        // Left alone, everything comes to its end.
        auditor.catch_up(&mut lanes);
        for _ in 0..10 * next + 10 {
            auditor.now += 100;
            if auditor.holds() {
                auditor.redrive(&mut lanes, 0);
            }
            auditor.take(&mut lanes)?;
            auditor.settle(&mut lanes, 0, 9);
            auditor.report(&mut lanes, 2)?;
        }
        prop_assert_eq!(auditor.settled.len(), auditor.owed.len(), "all that is owed is settled: {:?} {:?} {:?}", auditor.settled, auditor.rows, lanes);
        prop_assert_eq!(lanes.pending(), 0);
        let open = auditor.rows.values().find(|row| matches!(row.state, RowState::Waiting { .. } | RowState::Held));
        prop_assert!(open.is_none(), "the journal does not know how it ended: {open:?}");
        prop_assert_eq!(auditor.cursor, next - 1);
    }
}

#[test]
fn what_is_settled_takes_room_until_it_is_reported() {
    let mut lanes = Lanes::new(Rules::default(), Sequence(0), Vec::new());
    lanes.set_taken_in_max(10);
    for n in 1..=10u8 {
        assert!(lanes.has_room(), "{n}");
        lanes.offer(Sequence(u64::from(n)), member(n));
    }
    assert_eq!(lanes.room(), 0);
    while let Some(task) = lanes.take(64) {
        lanes.settle(task.sequence, Settled::Dead, 1, log());
    }
    assert_eq!((lanes.waiting(), lanes.room()), (0, 0), "ten rows are not written down yet");
    assert_eq!(lanes.report(4).rows.len(), 4);
    assert_eq!(lanes.room(), 4);
}
