//! Connections of named consumers: a delivery goes to one of them and waits for its verdict.
//!
//! ```text
//! worker ──attempt──▶ Hub ──▶ connection of the member ──▶ client
//!                      ▲──────────── verdict ────────────────┘
//! ```
//!
//! # Invariants
//!
//! - A member's events go to the same connection as long as the set of connections does not change.
//! - A connection has at most as many events under way as it asked for.
//! - A connection that is full holds up its own members only.
//! - Whatever ends an attempt (a verdict, its time, the connection, the worker), its place is free again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome};
use punchline_engine::id::Sequence;
use tokio::sync::{Notify, mpsc, oneshot};

use super::worker::Control;
use crate::feed::EventRef;

/// What a client says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// Send it again, not before this wait is over.
    Retry {
        /// Milliseconds.
        after_ms: u64,
        /// Why, for people.
        reason: String,
    },
    /// Put it aside.
    Park {
        /// Why, for people.
        reason: String,
    },
    /// It was not looked at: another connection may have it.
    Untouched,
}

/// An event on its way to a client.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The event.
    pub event: EventRef,
    /// From 1.
    pub attempt: u32,
}

/// All connections of one consumer.
#[derive(Debug, Default)]
pub struct Hub {
    inner: Mutex<Inner>,
    /// A place became free, or the connections changed.
    changed: Notify,
    /// An attempt waits for a place: others may begin in its stead.
    waits: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    connections: BTreeMap<u64, Connected>,
    next_id: u64,
    /// Attempts that wait for a place on the connection of their lane.
    waiting: usize,
}

#[derive(Debug)]
struct Connected {
    to: mpsc::UnboundedSender<Pushed>,
    places: usize,
    under_way: HashMap<Sequence, oneshot::Sender<Verdict>>,
    stopped: bool,
}

impl Inner {
    fn serving(&self) -> impl Iterator<Item = (&u64, &Connected)> {
        self.connections.iter().filter(|(_, connection)| !connection.stopped)
    }

    /// The connection of a lane: the highest of their hashes, so that few lanes move when one comes or goes.
    fn of(&self, lane: impl Hash + Copy) -> Option<u64> {
        let weight = |id: &u64| {
            let mut hasher = DefaultHasher::new();
            (lane, id).hash(&mut hasher);
            hasher.finish()
        };
        self.serving().map(|(id, _)| *id).max_by_key(weight)
    }
}

/// Frees the place of an attempt, however it ends.
struct Place<'a> {
    hub: &'a Hub,
    connection: u64,
    sequence: Sequence,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.hub.lock().connections.get_mut(&self.connection) {
            connection.under_way.remove(&self.sequence);
        }
        self.hub.changed.notify_waiters();
    }
}

/// Counts down when an attempt waits no more, however that ends.
struct Waiting<'a>(&'a Hub);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the connections")
    }

    /// Attempts that may be under way at once; 0 where nobody is connected. Those that wait for a connection
    /// that is full are not counted: they must not take the places of the others.
    pub fn places(&self) -> usize {
        let inner = self.lock();
        match inner.serving().map(|(_, connection)| connection.places).sum() {
            0 => 0,
            places => places + inner.waiting,
        }
    }

    /// Returns when an attempt has begun to wait for a place since the last time.
    pub(super) async fn waits(&self) {
        self.waits.notified().await;
    }

    /// Connections at present.
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// Sends an event to the connection of its lane and waits for the verdict; `None` where nobody took it.
    pub(super) async fn attempt(
        &self,
        lane: impl Hash + Copy,
        event: EventRef,
        attempt: u32,
        timeout: Duration,
    ) -> Option<AttemptReport> {
        let sequence = event.get().sequence;
        let mut waits = None;
        let (place, verdict) = loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut inner = self.lock();
                let id = inner.of(lane)?;
                let connection = inner.connections.get_mut(&id).expect("it was found among them");
                if connection.under_way.len() < connection.places {
                    let (answer, answered) = oneshot::channel();
                    connection.under_way.insert(sequence, answer);
                    // A receiver that is gone drops what is under way.
                    let _ = connection.to.send(Pushed { event, attempt });
                    break (Place { hub: self, connection: id, sequence }, answered);
                }
                if waits.is_none() {
                    inner.waiting += 1;
                    waits = Some(Waiting(self));
                    self.waits.notify_one();
                }
            }
            changed.await;
        };
        drop(waits);
        let verdict = tokio::time::timeout(timeout, verdict).await;
        drop(place);
        let nacked = |outcome, reason: &str| {
            let mut report = AttemptReport::failed(ErrorCode::Nacked, reason);
            report.outcome = outcome;
            report.response_snippet = reason.as_bytes().to_vec().into();
            report
        };
        Some(match verdict {
            Ok(Ok(Verdict::Untouched)) => return None,
            Ok(Ok(Verdict::Done)) => AttemptReport::accepted(),
            Ok(Ok(Verdict::Retry { after_ms, reason })) => {
                let mut report = nacked(Outcome::Retry, &reason);
                report.retry_after_ms = Some(after_ms);
                report
            }
            Ok(Ok(Verdict::Park { reason })) => nacked(Outcome::Refused, &reason),
            Ok(Err(_)) => AttemptReport::failed(ErrorCode::Closed, "the connection ended before the event was done"),
            Err(_) => AttemptReport::failed(ErrorCode::Timeout, format!("not done within {} ms", timeout.as_millis())),
        })
    }
}

/// A client's side of a connection. Dropping it ends it: what it had not settled goes to others.
#[derive(Debug)]
pub struct Connection {
    hub: Arc<Hub>,
    id: u64,
    events: mpsc::UnboundedReceiver<Pushed>,
    worker: mpsc::WeakUnboundedSender<Control>,
}

impl Connection {
    pub(super) fn open(hub: Arc<Hub>, places: usize, worker: mpsc::WeakUnboundedSender<Control>) -> Connection {
        let (to, events) = mpsc::unbounded_channel();
        let id = {
            let mut inner = hub.lock();
            inner.next_id += 1;
            let id = inner.next_id;
            let connected = Connected { to, places, under_way: HashMap::new(), stopped: false };
            inner.connections.insert(id, connected);
            id
        };
        let connection = Connection { hub, id, events, worker };
        connection.changed();
        connection
    }

    fn changed(&self) {
        self.hub.changed.notify_waiters();
        if let Some(worker) = self.worker.upgrade() {
            let _ = worker.send(Control::Wake);
        }
    }

    /// The next event; waits for it.
    pub async fn next(&mut self) -> Pushed {
        match self.events.recv().await {
            Some(pushed) => pushed,
            // The sender lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// Says what became of an event; of one that is not under way here, nothing.
    pub fn settle(&self, sequence: Sequence, verdict: Verdict) {
        let answer =
            self.hub.lock().connections.get_mut(&self.id).and_then(|connection| connection.under_way.remove(&sequence));
        if let Some(answer) = answer {
            let _ = answer.send(verdict);
        }
    }

    /// Takes nothing more.
    pub fn stop(&self) {
        if let Some(connection) = self.hub.lock().connections.get_mut(&self.id) {
            connection.stopped = true;
        }
        self.changed();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Dropping the answers tells the attempts.
        self.hub.lock().connections.remove(&self.id);
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_stay_where_they_are() {
        let hub = Arc::new(Hub::default());
        let (wake, _woken) = mpsc::unbounded_channel();
        let open = || Connection::open(hub.clone(), 1, wake.downgrade());
        let (a, b, c) = (open(), open(), open());
        let placed = |hub: &Hub| (0..300u64).map(|lane| hub.lock().of(lane)).collect::<Vec<_>>();
        let before = placed(&hub);
        for connection in [&a, &b, &c] {
            let share = before.iter().filter(|id| **id == Some(connection.id)).count();
            assert!((60..140).contains(&share), "{share} of 300");
        }
        let gone = b.id;
        drop(b);
        let after = placed(&hub);
        for (before, after) in before.iter().zip(&after).filter(|(before, _)| **before != Some(gone)) {
            assert_eq!(before, after, "only the lanes of the connection that ended move");
        }
        a.stop();
        assert!(placed(&hub).iter().all(|id| *id == Some(c.id)));
        assert_eq!((hub.places(), hub.connections()), (1, 2));
        drop((a, c));
        assert_eq!(placed(&hub)[0], None);
    }
}
