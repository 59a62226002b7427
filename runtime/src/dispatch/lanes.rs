//! Lanes: the order of deliveries to one subscription. No IO, no clock: it is told what happened and
//! when, and says what to attempt next.
//!
//! ```text
//! offer ──▶ lane of the member ──take──▶ in flight ──settle──▶ delivered | waiting | dead
//! ```
//!
//! # Invariants
//!
//! - Of one member's deliveries at most one is in flight, and it is the lowest that is not settled (a
//!   dead letter that was put back excepted: its successors have gone on without it).
//! - No delivery is before the cursor without being settled or having a row.
//! - First attempts never wait behind retries: retries have at most a quarter of the places.
//! - What is kept in memory is bounded: a window of deliveries without a row, and a number of rows.
//!
//! # What is absent on purpose
//!
//! - Events: only positions. Who attempts a delivery knows where to read its event.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use punchline_engine::dispatch::progress::ATTEMPTS_LOGGED_MAX;
use punchline_engine::dispatch::{AttemptLog, DeliveryProgress, DeliveryRow, RowState};
use punchline_engine::id::{MemberId, Sequence};
use punchline_engine::time::UnixMillis;

/// Deliveries without a row that are begun or waiting to begin, and settled ones that are not yet
/// reported: what a crash may repeat.
pub const WINDOW_MAX: usize = 1_024;
/// Rows that wait or are held. At this many nothing new is begun: then other members wait too, since
/// memory has an end. What is dead is not among them.
pub const ROWS_MAX: usize = 16_384;

/// The lane of a member; events about no member share one.
type LaneKey = Option<MemberId>;

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
}

/// The deliveries of one subscription that are not settled.
#[derive(Debug)]
pub struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    lane_of: HashMap<Sequence, LaneKey>,
    fresh: VecDeque<LaneKey>,
    retries: VecDeque<LaneKey>,
    due: BTreeSet<(UnixMillis, Sequence)>,
    /// Not settled and without a row.
    unsettled: BTreeSet<Sequence>,
    rows: BTreeMap<Sequence, DeliveryRow>,
    changed: BTreeSet<Sequence>,
    finished: Vec<DeliveryRow>,
    retries_in_flight: usize,
    in_flight: HashMap<Sequence, bool>,
    /// Beyond the cursor at the start, and with a row: not to be taken in a second time.
    known: BTreeSet<Sequence>,
    read_to: Sequence,
    reported: Sequence,
    unreported: usize,
}

impl Lanes {
    /// Takes up where the cursor and the rows left off: those that wait or are held, and all beyond the
    /// cursor, whatever their state.
    pub fn new(cursor: Sequence, rows: Vec<DeliveryRow>) -> Lanes {
        let mut lanes = Lanes {
            lanes: HashMap::new(),
            lane_of: HashMap::new(),
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
            due: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            rows: BTreeMap::new(),
            changed: BTreeSet::new(),
            finished: Vec::new(),
            retries_in_flight: 0,
            in_flight: HashMap::new(),
            known: BTreeSet::new(),
            read_to: cursor,
            reported: cursor,
            unreported: 0,
        };
        for row in rows {
            if row.sequence > cursor {
                lanes.known.insert(row.sequence);
            }
            if matches!(row.state, RowState::Waiting { .. } | RowState::Held) {
                lanes.put_back(row);
            }
        }
        lanes
    }

    /// Takes a row that waits (or is to be tried again) into its lane.
    pub fn put_back(&mut self, row: DeliveryRow) {
        let (sequence, key) = (row.sequence, row.member);
        if self.lane_of.contains_key(&sequence) {
            return;
        }
        self.lane_of.insert(sequence, key);
        let state = row.state;
        self.rows.insert(sequence, row);
        let lane = self.lanes.entry(key).or_default();
        let at = lane.queue.partition_point(|s| *s < sequence);
        // A dead letter that was put back does not overtake what is under way.
        let at = if at == 0 && lane.state == LaneState::InFlight { 1 } else { at };
        if at == 0 {
            if let (LaneState::Waiting, Some(head)) = (lane.state, lane.queue.front().copied()) {
                self.due.retain(|(_, s)| *s != head);
            }
            lane.queue.push_front(sequence);
            lane.state = LaneState::Waiting;
            self.fresh.retain(|k| *k != key);
            self.retries.retain(|k| *k != key);
            let due = if let RowState::Waiting { due, .. } = state { due } else { UnixMillis::MIN };
            self.due.insert((due, sequence));
        } else {
            lane.queue.insert(at, sequence);
        }
    }

    /// Whether more may be offered.
    pub fn has_room(&self) -> bool {
        self.unsettled.len() + self.unreported < WINDOW_MAX && self.rows.len() < ROWS_MAX
    }

    /// How many more may be offered.
    pub fn room(&self) -> usize {
        if !self.has_room() {
            return 0;
        }
        (WINDOW_MAX - self.unsettled.len() - self.unreported).min(ROWS_MAX - self.rows.len())
    }

    /// Takes in the next event that matches, in order.
    pub fn offer(&mut self, sequence: Sequence, member: LaneKey) {
        debug_assert!(sequence > self.read_to, "events are offered in order");
        self.read_to = sequence;
        if self.known.remove(&sequence) {
            return;
        }
        self.lane_of.insert(sequence, member);
        let lane = self.lanes.entry(member).or_default();
        // After a crash rows may be ahead of what is taken in: it belongs before them.
        let at = lane.queue.partition_point(|s| *s < sequence);
        if at == 0 && lane.state == LaneState::Waiting {
            let head = lane.queue[0];
            self.due.retain(|(_, s)| *s != head);
            lane.state = LaneState::Open;
            lane.queue.push_front(sequence);
            self.unsettled.insert(sequence);
            self.fresh.push_back(member);
            return;
        }
        lane.queue.insert(at.max(usize::from(lane.state == LaneState::InFlight)), sequence);
        if lane.state == LaneState::Waiting {
            self.hold(sequence, member);
            return;
        }
        self.unsettled.insert(sequence);
        if lane.state == LaneState::Open && lane.queue.len() == 1 {
            self.fresh.push_back(member);
        }
    }

    /// All positions up to this one were looked at.
    pub fn looked_at(&mut self, upto: Sequence) {
        self.read_to = self.read_to.max(upto);
    }

    fn hold(&mut self, sequence: Sequence, member: LaneKey) {
        let row = DeliveryRow { sequence, member, state: RowState::Held, attempts: 0, log: Vec::new() };
        self.rows.entry(sequence).or_insert(row);
        self.changed.insert(sequence);
    }

    /// Moves what is due to the lanes that can go on.
    pub fn wake(&mut self, now: UnixMillis) {
        while let Some((due, sequence)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            let key = self.lane_of[&sequence];
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
        let key = *self.lane_of.get(&sequence)?;
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
        let key = self.lane_of[&sequence];
        let delivered_at_once = how == Settled::Delivered && !self.rows.contains_key(&sequence);
        if delivered_at_once {
            self.unreported += 1;
        } else {
            let blank = DeliveryRow { sequence, member: key, state: RowState::Held, attempts: 0, log: Vec::new() };
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
        }
        self.unsettled.remove(&sequence);
        if let Settled::Again { due } = how {
            self.wait(sequence, key, due);
        } else {
            self.go_on(sequence, key);
        }
    }

    /// The head of a lane waits: those behind it are held, with rows, so that the cursor can pass them.
    fn wait(&mut self, sequence: Sequence, key: LaneKey, due: UnixMillis) {
        self.changed.insert(sequence);
        self.due.insert((due, sequence));
        let lane = self.lanes.get_mut(&key).expect("what was in flight is in a lane");
        lane.state = LaneState::Waiting;
        let behind: Vec<Sequence> = lane.queue.iter().skip(1).copied().collect();
        for held in behind {
            if self.unsettled.remove(&held) {
                self.hold(held, key);
            }
        }
    }

    /// The head of a lane is settled for good: the next one's turn.
    fn go_on(&mut self, sequence: Sequence, key: LaneKey) {
        if let Some(row) = self.rows.remove(&sequence) {
            self.changed.remove(&sequence);
            self.finished.push(row);
        }
        self.lane_of.remove(&sequence);
        let lane = self.lanes.get_mut(&key).expect("what was in flight is in a lane");
        lane.queue.retain(|s| *s != sequence);
        lane.state = LaneState::Open;
        let Some(next) = lane.queue.front() else {
            self.lanes.remove(&key);
            return;
        };
        match self.rows.get(next).map(|row| row.state) {
            // Put back behind what was in flight, with a time of its own.
            Some(RowState::Waiting { due, .. }) => {
                self.due.insert((due, *next));
                lane.state = LaneState::Waiting;
            }
            // What was held was never late by its own fault, but it must not crowd out the others.
            Some(_) => self.retries.push_back(key),
            None => self.fresh.push_back(key),
        }
    }

    /// Forgets an attempt that was never made: its delivery is tried again in its turn.
    pub fn abandon(&mut self, sequence: Sequence) {
        let Some(is_retry) = self.in_flight.remove(&sequence) else { return };
        self.retries_in_flight -= usize::from(is_retry);
        let key = self.lane_of[&sequence];
        self.lanes.get_mut(&key).expect("what was in flight is in a lane").state = LaneState::Open;
        if self.rows.contains_key(&sequence) { self.retries.push_front(key) } else { self.fresh.push_front(key) }
    }

    /// All settled or in a row up to here.
    pub fn cursor(&self) -> Sequence {
        match self.unsettled.first() {
            Some(first) => Sequence(first.0 - 1),
            None => self.read_to,
        }
    }

    /// Deliveries settled at the first attempt since the last [`report`](Self::report).
    pub fn unreported(&self) -> usize {
        self.unreported
    }

    /// Whether rows changed since the last report.
    pub fn has_changed_rows(&self) -> bool {
        !self.changed.is_empty() || !self.finished.is_empty()
    }

    /// What is to be written down, at most `rows_max` rows; taken as reported.
    pub fn report(&mut self, rows_max: usize) -> DeliveryProgress {
        let mut rows: Vec<DeliveryRow> = Vec::new();
        let finished = self.finished.len().min(rows_max);
        rows.extend(self.finished.drain(..finished));
        while rows.len() < rows_max
            && let Some(sequence) = self.changed.pop_first()
        {
            rows.push(self.rows[&sequence].clone());
        }
        // What has a row counts as passed only once its row is written; a change of one that was written
        // before does not bring the cursor back.
        let unwritten = self.changed.first().copied().into_iter().chain(self.finished.iter().map(|r| r.sequence)).min();
        let passed = unwritten.map_or(self.cursor(), |s| self.cursor().min(Sequence(s.0 - 1)));
        self.reported = self.reported.max(passed);
        self.unreported = 0;
        DeliveryProgress { cursor: self.reported, rows }
    }

    /// Deliveries that wait or are held.
    pub fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Deliveries taken in and not settled, rows included.
    pub fn pending(&self) -> usize {
        self.unsettled.len() + self.rows.len()
    }

    /// The first delivery that is not settled and has no row.
    pub fn oldest(&self) -> Option<Sequence> {
        self.unsettled.first().copied()
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
