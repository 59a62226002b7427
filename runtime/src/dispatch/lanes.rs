//! Lanes: the order of deliveries to one subscription. No IO, no clock: it is told what happened and
//! when, and says what to attempt next.
//!
//! ```text
//! offer ──▶ lane of the member ──take──▶ in flight ──settle──▶ delivered | waiting | dead
//! ```
//!
//! Which deliveries share a lane is the subscription's [`Ordering`]: those about one member, all, or none.
//!
//! # Invariants
//!
//! - Of one lane's deliveries at most one is in flight, and it is the lowest that is not settled (a
//!   dead letter that was put back excepted, where its successors have gone on without it).
//! - No delivery is before the cursor without being settled or having a row.
//! - First attempts never wait behind retries: retries have at most a quarter of the places.
//! - What is kept in memory is bounded: a window of deliveries without a row, a number of rows, and what
//!   all subscriptions together leave to this one.
//!
//! # What is absent on purpose
//!
//! - Events: only positions. Who attempts a delivery knows where to read its event.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use punchline_engine::dispatch::progress::ATTEMPTS_LOGGED_MAX;
use punchline_engine::dispatch::{AttemptLog, DeliveryProgress, DeliveryRow, OnDeadLetter, Ordering, RowState};
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::planted::{Bug, is_planted};
use punchline_engine::time::UnixMillis;

/// Deliveries without a row that are begun or waiting to begin, and settled ones that are not yet
/// reported: what a crash may repeat.
pub const WINDOW_MAX: usize = 1_024;
/// Rows that wait or are held. At this many nothing new is begun: then other members wait too, since
/// memory has an end. What is dead is not among them.
pub const ROWS_MAX: usize = 16_384;

/// Most bytes of rows in one report, as estimated: what is written at once has an end.
const REPORT_BYTES_MAX: usize = 256 * 1_024;

/// What shares a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum LaneKey {
    /// A member's events; those about no member share one.
    Member(Option<MemberId>),
    /// All.
    All,
    /// One event alone.
    Own(Sequence),
}

/// What waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Which deliveries share a lane.
    pub ordering: Ordering,
    /// Whether a lane goes on past a dead letter.
    pub on_dead_letter: OnDeadLetter,
}

impl Rules {
    fn lane(&self, sequence: Sequence, member: Option<MemberId>) -> LaneKey {
        match self.ordering {
            Ordering::PerMember if is_planted(Bug::NoOrder) => LaneKey::Own(sequence),
            Ordering::PerMember => LaneKey::Member(member),
            Ordering::Strict => LaneKey::All,
            Ordering::None => LaneKey::Own(sequence),
        }
    }
}

/// A delivery to be attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// The event.
    pub sequence: Sequence,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Again {
        /// Not before.
        due: UnixMillis,
    },
    /// It is not tried again.
    Dead,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Sequence>,
    state: LaneState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// The head can be attempted (and is listed so), or there is none.
    #[default]
    Open,
    /// An attempt is under way.
    InFlight,
    /// The head waits for its time.
    Waiting,
    /// The head is a dead letter, and what is behind it is held.
    Blocked,
}

/// The deliveries of one subscription that are not settled.
#[derive(Debug)]
pub struct Lanes {
    rules: Rules,
    lanes: HashMap<LaneKey, Lane>,
    member_of: HashMap<Sequence, Option<MemberId>>,
    fresh: VecDeque<LaneKey>,
    retries: VecDeque<LaneKey>,
    due: BTreeSet<(UnixMillis, Sequence)>,
    /// Not settled and without a row.
    unsettled: BTreeSet<Sequence>,
    taken_in_max: usize,
    rows: BTreeMap<Sequence, DeliveryRow>,
    changed: BTreeSet<Sequence>,
    finished: Vec<DeliveryRow>,
    retries_in_flight: usize,
    in_flight: HashMap<Sequence, bool>,
    /// Beyond the cursor at the start, and with a row: not to be taken in a second time.
    known: BTreeSet<Sequence>,
    read_to: Sequence,
    reported: Sequence,
    /// Delivered at the first attempt, and beyond the reported cursor.
    delivered: BTreeSet<Sequence>,
}

impl Lanes {
    /// Takes up where the cursor and the rows left off: those that wait or are held, and all beyond the
    /// cursor, whatever their state.
    pub fn new(rules: Rules, cursor: Sequence, rows: Vec<DeliveryRow>) -> Lanes {
        let mut lanes = Lanes {
            rules,
            lanes: HashMap::new(),
            member_of: HashMap::new(),
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
            due: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            taken_in_max: usize::MAX,
            rows: BTreeMap::new(),
            changed: BTreeSet::new(),
            finished: Vec::new(),
            retries_in_flight: 0,
            in_flight: HashMap::new(),
            known: BTreeSet::new(),
            read_to: cursor,
            reported: cursor,
            delivered: BTreeSet::new(),
        };
        for row in rows {
            if row.sequence > cursor {
                lanes.known.insert(row.sequence);
            }
            let holds = row.state == RowState::Dead && rules.on_dead_letter == OnDeadLetter::Hold;
            if holds || matches!(row.state, RowState::Waiting { .. } | RowState::Held) {
                lanes.put_back(row);
            }
        }
        lanes
    }

    fn key(&self, sequence: Sequence) -> Option<LaneKey> {
        Some(self.rules.lane(sequence, *self.member_of.get(&sequence)?))
    }

    /// Takes a row that waits (or is to be tried again) into its lane.
    pub fn put_back(&mut self, row: DeliveryRow) {
        let (sequence, key) = (row.sequence, self.rules.lane(row.sequence, row.member));
        if self.member_of.contains_key(&sequence) {
            match self.rows.get(&sequence).map(|known| known.state) {
                // A dead letter that its lane is held by is in it already; something may have been put back
                // in front of it.
                Some(RowState::Dead) if row.state != RowState::Dead => {
                    self.rows.insert(sequence, row);
                    if self.lanes[&key].queue.front() == Some(&sequence) {
                        self.list(key);
                    }
                }
                Some(_) => {}
                // It is on its way for the first time, and has a row in the journal now, which is to say in
                // the end what became of it.
                None => {
                    self.unsettled.remove(&sequence);
                    self.rows.insert(sequence, row);
                }
            }
            return;
        }
        // How it ended before is not written down yet: it must not be written over what it is now.
        let row = match self.finished.iter().position(|finished| finished.sequence == sequence) {
            Some(at) => {
                self.changed.insert(sequence);
                DeliveryRow { state: row.state, ..self.finished.remove(at) }
            }
            None => row,
        };
        self.member_of.insert(sequence, row.member);
        self.rows.insert(sequence, row);
        let lane = self.lanes.entry(key).or_default();
        let at = lane.queue.partition_point(|s| *s < sequence);
        // A dead letter that was put back does not overtake what is under way.
        let at = if at == 0 && lane.state == LaneState::InFlight { 1 } else { at };
        lane.queue.insert(at, sequence);
        if at == 0 {
            self.unlist(key);
            self.list(key);
        }
    }

    /// Gives up a dead letter: its lane goes on, if it is held by it. The row is written by who asked.
    pub fn drop_dead(&mut self, sequence: Sequence) {
        let Some(key) = self.key(sequence) else { return };
        if self.rows.get(&sequence).is_some_and(|row| row.state == RowState::Dead) {
            self.rows.remove(&sequence);
            self.changed.remove(&sequence);
            let lane = self.lanes.get_mut(&key).expect("what is held by it is in a lane");
            if lane.queue.front() == Some(&sequence) {
                self.go_on(sequence, key);
            } else {
                lane.queue.retain(|s| *s != sequence);
                self.member_of.remove(&sequence);
            }
        }
    }

    /// Takes a lane that got another head off the lists.
    fn unlist(&mut self, key: LaneKey) {
        let lane = &self.lanes[&key];
        let Some(old_head) = lane.queue.get(1) else { return };
        match lane.state {
            LaneState::Open => {
                self.fresh.retain(|k| *k != key);
                self.retries.retain(|k| *k != key);
            }
            LaneState::Waiting => self.due.retain(|(_, s)| s != old_head),
            LaneState::InFlight | LaneState::Blocked => {}
        }
    }

    /// Lists a lane that is on no list by how its head stands.
    fn list(&mut self, key: LaneKey) {
        let lane = self.lanes.get_mut(&key).expect("the lane exists");
        let head = *lane.queue.front().expect("the lane has a head");
        match self.rows.get(&head).map(|row| row.state) {
            Some(RowState::Waiting { due, .. }) => {
                self.due.insert((due, head));
                lane.state = LaneState::Waiting;
            }
            Some(RowState::Dead) => lane.state = LaneState::Blocked,
            // What was held was never late by its own fault, but it must not crowd out the others.
            Some(_) => {
                lane.state = LaneState::Open;
                self.retries.push_back(key);
            }
            None => {
                lane.state = LaneState::Open;
                self.fresh.push_back(key);
            }
        }
        if matches!(lane.state, LaneState::Waiting | LaneState::Blocked) {
            self.hold_behind(key);
        }
    }

    /// Bounds what may be taken in, with or without a row.
    pub fn set_taken_in_max(&mut self, most: usize) {
        self.taken_in_max = most;
    }

    /// Deliveries taken in and not settled, and rows of settled ones that are not yet reported: where many fail,
    /// what is written down must keep up with them.
    pub fn taken_in(&self) -> usize {
        self.member_of.len() + self.finished.len()
    }

    /// Whether more may be offered.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many more may be offered.
    pub fn room(&self) -> usize {
        let window = WINDOW_MAX.saturating_sub(self.unsettled.len() + self.delivered.len());
        let rows = ROWS_MAX.saturating_sub(self.rows.len() + self.finished.len());
        window.min(rows).min(self.taken_in_max.saturating_sub(self.taken_in()))
    }

    /// Takes in the next event that matches, in order.
    pub fn offer(&mut self, sequence: Sequence, member: Option<MemberId>) {
        debug_assert!(sequence > self.read_to, "events are offered in order");
        self.read_to = sequence;
        if self.known.remove(&sequence) || self.member_of.contains_key(&sequence) {
            return;
        }
        let key = self.rules.lane(sequence, member);
        self.member_of.insert(sequence, member);
        self.unsettled.insert(sequence);
        let lane = self.lanes.entry(key).or_default();
        // After a crash rows may be ahead of what is taken in: it belongs before them.
        let at = lane.queue.partition_point(|s| *s < sequence);
        let at = at.max(usize::from(lane.state == LaneState::InFlight));
        lane.queue.insert(at, sequence);
        if at == 0 {
            self.unlist(key);
            self.list(key);
        } else if matches!(lane.state, LaneState::Waiting | LaneState::Blocked) {
            self.hold(sequence);
        }
    }

    /// All positions up to this one were looked at.
    pub fn looked_at(&mut self, upto: Sequence) {
        self.read_to = self.read_to.max(upto);
    }

    /// Gives a delivery a row, so that the cursor can pass it.
    fn hold(&mut self, sequence: Sequence) {
        if self.unsettled.remove(&sequence) {
            let row = self.blank(sequence);
            self.rows.entry(sequence).or_insert(row);
            self.changed.insert(sequence);
        }
    }

    fn hold_behind(&mut self, key: LaneKey) {
        let behind: Vec<Sequence> = self.lanes[&key].queue.iter().skip(1).copied().collect();
        behind.into_iter().for_each(|sequence| self.hold(sequence));
    }

    fn blank(&self, sequence: Sequence) -> DeliveryRow {
        let member = self.member_of[&sequence];
        DeliveryRow { sequence, member, state: RowState::Held, attempts: 0, log: Vec::new() }
    }

    /// Where many have been delivered behind one that is still under way, it gets a row: else the cursor
    /// would stay before it, and a crash would repeat all of them.
    fn let_cursor_pass(&mut self) {
        while self.delivered.len() >= WINDOW_MAX / 2
            && let Some(first) = self.unsettled.first().copied()
            && self.delivered.last().is_some_and(|last| *last > first)
        {
            let key = self.key(first).expect("what is not settled is in a lane");
            if self.lanes[&key].state != LaneState::InFlight {
                return;
            }
            self.hold(first);
            if self.in_flight.contains_key(&first) {
                let row = self.rows.get_mut(&first).expect("it has one now");
                row.state = RowState::Waiting { step: 0, due: UnixMillis::MIN };
            }
        }
    }

    /// Whether nothing more can be offered because of what waits behind an attempt that is under way; gives
    /// that attempt's place.
    pub fn is_stuck_behind(&self) -> Option<Sequence> {
        let first = *self.unsettled.first().filter(|_| !self.has_room())?;
        self.in_flight.contains_key(&first).then_some(first)
    }

    /// Gives rows to all that wait behind attempts under way, so that others can be offered.
    pub fn make_room(&mut self) {
        let waits = |(key, lane): (&LaneKey, &Lane)| (lane.state == LaneState::InFlight).then_some(*key);
        let keys: Vec<LaneKey> = self.lanes.iter().filter_map(waits).collect();
        keys.into_iter().for_each(|key| self.hold_behind(key));
    }

    /// Moves what is due to the lanes that can go on.
    pub fn wake(&mut self, now: UnixMillis) {
        while let Some((due, sequence)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let key = self.key(sequence).expect("what is due is in a lane");
            self.lanes.get_mut(&key).expect("what is due is in a lane").state = LaneState::Open;
            self.retries.push_back(key);
        }
    }

    /// When [`wake`](Self::wake) has something to do.
    pub fn next_due(&self) -> Option<UnixMillis> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next delivery to attempt, if a place is free.
    pub fn take(&mut self, places: usize) -> Option<Task> {
        if self.in_flight.len() >= places {
            return None;
        }
        let (key, is_retry) = if self.retries_in_flight < places.div_ceil(4)
            && let Some(key) = self.retries.pop_front()
        {
            (key, true)
        } else {
            (self.fresh.pop_front()?, false)
        };
        let lane = self.lanes.get_mut(&key).expect("a listed lane exists");
        let sequence = *lane.queue.front().expect("a listed lane has a head");
        lane.state = LaneState::InFlight;
        self.in_flight.insert(sequence, is_retry);
        self.retries_in_flight += usize::from(is_retry);
        Some(Task { sequence, attempt: self.rows.get(&sequence).map_or(0, |row| row.attempts) + 1 })
    }

    /// Whether some delivery could be attempted now, were there a place.
    pub fn is_ready(&self) -> bool {
        !self.fresh.is_empty() || !self.retries.is_empty()
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Attempts of the running schedule that a delivery has used up.
    pub fn step(&self, sequence: Sequence) -> u32 {
        match self.rows.get(&sequence).map(|row| row.state) {
            Some(RowState::Waiting { step, .. }) => step,
            _ => 0,
        }
    }

    /// Whether this delivery can be attempted out of turn: it is the head of its lane and waits.
    pub fn take_now(&mut self, sequence: Sequence) -> Option<Task> {
        let key = self.key(sequence)?;
        let lane = self.lanes.get_mut(&key)?;
        if lane.state != LaneState::Waiting || lane.queue.front() != Some(&sequence) {
            return None;
        }
        self.due.retain(|(_, s)| *s != sequence);
        lane.state = LaneState::InFlight;
        self.in_flight.insert(sequence, true);
        self.retries_in_flight += 1;
        Some(Task { sequence, attempt: self.rows.get(&sequence).map_or(0, |row| row.attempts) + 1 })
    }

    /// Takes down how an attempt ended. `step` is how many attempts of the schedule are used up now.
    pub fn settle(&mut self, sequence: Sequence, how: Settled, step: u32, log: AttemptLog) {
        let Some(is_retry) = self.in_flight.remove(&sequence) else { return };
        self.retries_in_flight -= usize::from(is_retry);
        let key = self.key(sequence).expect("what was in flight is in a lane");
        self.lanes.get_mut(&key).expect("what was in flight is in a lane").state = LaneState::Open;
        self.unsettled.remove(&sequence);
        if how == Settled::Delivered && !self.rows.contains_key(&sequence) {
            self.delivered.insert(sequence);
            return self.go_on(sequence, key);
        }
        let blank = self.blank(sequence);
        let row = self.rows.entry(sequence).or_insert(blank);
        row.attempts += 1;
        if row.log.len() == ATTEMPTS_LOGGED_MAX {
            row.log.remove(0);
        }
        row.log.push(log);
        row.state = match how {
            Settled::Delivered => RowState::Delivered,
            Settled::Again { due } => RowState::Waiting { step, due },
            Settled::Dead => RowState::Dead,
        };
        let stays = matches!(how, Settled::Again { .. })
            || how == Settled::Dead && self.rules.on_dead_letter == OnDeadLetter::Hold;
        if how == Settled::Dead && is_planted(Bug::ForgottenDeadLetter) {
            self.rows.remove(&sequence);
            self.changed.remove(&sequence);
        }
        if stays {
            self.changed.insert(sequence);
            self.list(key);
        } else {
            self.go_on(sequence, key);
        }
    }

    /// A delivery of a lane is settled for good: the next one's turn.
    fn go_on(&mut self, sequence: Sequence, key: LaneKey) {
        if let Some(row) = self.rows.remove(&sequence) {
            self.changed.remove(&sequence);
            self.finished.push(row);
        }
        self.member_of.remove(&sequence);
        let lane = self.lanes.get_mut(&key).expect("what was in flight is in a lane");
        match lane.queue.front() {
            Some(head) if *head == sequence => drop(lane.queue.pop_front()),
            _ => lane.queue.retain(|s| *s != sequence),
        }
        if lane.queue.is_empty() {
            self.lanes.remove(&key);
        } else {
            self.list(key);
        }
    }

    /// Forgets an attempt that was never made: its delivery is tried again from `due` on.
    pub fn abandon(&mut self, sequence: Sequence, due: UnixMillis) {
        let Some(is_retry) = self.in_flight.remove(&sequence) else { return };
        self.retries_in_flight -= usize::from(is_retry);
        let key = self.key(sequence).expect("what was in flight is in a lane");
        self.lanes.get_mut(&key).expect("what was in flight is in a lane").state = LaneState::Waiting;
        self.due.insert((due, sequence));
        self.hold_behind(key);
    }

    /// All settled or in a row up to here.
    pub fn cursor(&self) -> Sequence {
        match self.unsettled.first() {
            Some(first) => Sequence(first.0 - 1),
            None => self.read_to,
        }
    }

    /// Deliveries settled at the first attempt and not passed by a reported cursor: what a crash repeats.
    pub fn unreported(&self) -> usize {
        self.delivered.len()
    }

    /// Whether rows changed since the last report.
    pub fn has_changed_rows(&self) -> bool {
        !self.changed.is_empty() || !self.finished.is_empty()
    }

    /// What is to be written down, at most `rows_max` rows; taken as reported.
    pub fn report(&mut self, rows_max: usize) -> DeliveryProgress {
        self.let_cursor_pass();
        let mut rows: Vec<DeliveryRow> = Vec::new();
        let mut bytes = 0;
        let finished = (self.finished.iter()).take(rows_max).take_while(|row| {
            bytes += row_bytes(row);
            bytes <= REPORT_BYTES_MAX
        });
        let finished = finished.count();
        rows.extend(self.finished.drain(..finished));
        while rows.len() < rows_max
            && bytes <= REPORT_BYTES_MAX
            && let Some(sequence) = self.changed.pop_first()
        {
            bytes += row_bytes(&self.rows[&sequence]);
            rows.push(self.rows[&sequence].clone());
        }
        // What has a row counts as passed only once its row is written; a change of one that was written
        // before does not bring the cursor back.
        let unwritten = self.changed.first().copied().into_iter().chain(self.finished.iter().map(|r| r.sequence)).min();
        let passed = unwritten.map_or(self.cursor(), |s| self.cursor().min(Sequence(s.0 - 1)));
        let passed = if is_planted(Bug::CursorTooFar) { self.read_to } else { passed };
        self.reported = self.reported.max(passed);
        self.delivered = self.delivered.split_off(&self.reported.next());
        DeliveryProgress { cursor: self.reported, rows }
    }

    /// All positions up to this one were looked at.
    pub fn read_to(&self) -> Sequence {
        self.read_to
    }

    /// Deliveries that wait or are held.
    pub fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Deliveries taken in and not settled, rows included, dead letters left out.
    pub fn pending(&self) -> usize {
        let holding = match self.rules.on_dead_letter {
            OnDeadLetter::GoOn => 0,
            OnDeadLetter::Hold => self.rows.values().filter(|row| row.state == RowState::Dead).count(),
        };
        self.unsettled.len() + self.rows.len() - holding
    }

    /// The first delivery that is not settled and has no row.
    pub fn oldest(&self) -> Option<Sequence> {
        self.unsettled.first().copied()
    }

    /// The first delivery that is not settled, with or without a row.
    pub fn oldest_pending(&self) -> Option<Sequence> {
        let with_row = self.rows.values().find(|row| row.state != RowState::Dead).map(|row| row.sequence);
        self.oldest().into_iter().chain(with_row).min()
    }

    /// Whether a delivery is in a lane and has no row: its event is worth keeping at hand.
    pub fn is_without_row(&self, sequence: Sequence) -> bool {
        self.unsettled.contains(&sequence)
    }

    /// How a delivery stands, where it is in a lane.
    pub fn row(&self, sequence: Sequence) -> Option<&DeliveryRow> {
        self.rows.get(&sequence)
    }
}

/// About as many bytes as a row has when written, and rather more.
fn row_bytes(row: &DeliveryRow) -> usize {
    let attempts = row.log.iter().map(|attempt| 64 + attempt.error.len() + attempt.response.len());
    128 + attempts.sum::<usize>()
}
