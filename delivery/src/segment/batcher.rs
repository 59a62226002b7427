//! Gathers single attempts into batches, by Nagle's rule: an item goes out at once if nothing is under
//! way to its destination, else with the next request, which leaves when one comes back, or as soon as
//! it is full. A quiet destination is served without delay, a busy one with few requests, and nobody
//! has to choose an interval.
//!
//! ```text
//! attempt ─▶ lane: waiting ──take, within limits──▶ flight: one POST ──▶ each attempt's report
//!            └──────────────────◀── landed: is anybody waiting? ◀──┘
//! ```
//!
//! # Invariants
//!
//! - A flight belongs to no attempt: one that is given up takes nothing from the others.
//! - An attempt that is over, answered or given up, is in no queue: what waits is bounded by the
//!   attempts under way, which the dispatcher bounds.
//! - Something waits only while a flight is under way that will look for it. A lane without either does
//!   not exist.
//! - Items leave in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{SegmentLimits, batch_body};
use crate::auth::Auth;
use crate::courier::{APPLICATION_JSON, AttemptFuture, AttemptRequest, Courier};
use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::headers::StaticHeaders;
use crate::identity::ClientIdentity;
use crate::outcome::{AttemptReport, ErrorCode, Outcome, PermanentStatuses};
use crate::transport::{Post, Transport, base_headers};

/// The courier for subscriptions whose destination is Segment.
///
/// Takes requests whose `endpoint` is a [`super::batch_endpoint`], whose `auth` is a
/// [`super::write_key`], and whose `body` is one [`super::track`] call. Of the rest it uses `headers`,
/// `identity`, `timestamp_unix_s`, `timeout` and `permanent_statuses`; a batch has no one message's id,
/// signature or number.
pub struct SegmentBatcher(Arc<Shared>);

struct Shared {
    transport: Transport,
    limits: SegmentLimits,
    /// Segment's only refusal.
    permanent: PermanentStatuses,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_destination: HashMap<Destination, Lane>,
    /// Over all lanes: a lane may go and come again while an attempt still remembers its ticket.
    last_ticket: u64,
}

impl SegmentBatcher {
    /// A batcher that sends through `transport`.
    #[must_use]
    pub fn new(transport: Transport, limits: SegmentLimits) -> Self {
        let permanent = PermanentStatuses::new([400]).expect("400 can be permanent");
        Self(Arc::new(Shared { transport, limits, permanent, lanes: Mutex::default() }))
    }

    /// Makes one attempt. See [`Courier::attempt`], which boxes this.
    pub async fn attempt(&self, request: AttemptRequest) -> AttemptReport {
        let (length_bytes, limit_bytes) = (request.body.len(), self.0.limits.item_bytes());
        if length_bytes > limit_bytes {
            let detail = format!("the event has {length_bytes} bytes as a track call, more than {limit_bytes}");
            return AttemptReport::failed(ErrorCode::TooLarge, detail);
        }
        let timeout = request.timeout;
        let permanent = Arc::clone(&request.permanent_statuses);
        let (place, answered) = self.0.enqueue(request);
        let report = match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(report)) => report,
            Ok(Err(_)) => AttemptReport::failed(ErrorCode::Closed, "the batch was given up"),
            Err(_) => {
                let detail = format!("no answer to the batch within {} ms", timeout.as_millis());
                AttemptReport::failed(ErrorCode::Timeout, detail)
            }
        };
        drop(place);
        of_subscription(report, &permanent)
    }

    /// How many destinations have something waiting or under way.
    #[must_use]
    pub fn busy_destinations(&self) -> usize {
        self.0.lanes().by_destination.len()
    }

    /// How many attempts wait for a request to leave.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lanes().by_destination.values().map(|lane| lane.waiting.len()).sum()
    }
}

impl Courier for SegmentBatcher {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(Self::attempt(self, request))
    }
}

/// The batch knows no subscription's own permanent statuses; they may differ within it.
fn of_subscription(mut report: AttemptReport, permanent: &PermanentStatuses) -> AttemptReport {
    if report.outcome == Outcome::Retry && report.status.is_some_and(|status| permanent.contains(status)) {
        report.outcome = Outcome::Refused;
        report.retry_after_ms = None;
    }
    report
}

/// What the items of one batch have in common.
#[derive(Clone, PartialEq, Eq)]
struct Destination {
    endpoint: Arc<Endpoint>,
    auth: Option<Digest>,
    identity: Option<Digest>,
    headers: StaticHeaders,
}

impl Destination {
    fn of(request: &AttemptRequest) -> Self {
        Self {
            endpoint: Arc::clone(&request.endpoint),
            auth: request.auth.as_deref().map(Auth::digest),
            identity: request.identity.as_deref().map(ClientIdentity::digest),
            headers: request.headers.clone(),
        }
    }
}

/// Without the headers, which have no hash and rarely differ.
impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
        self.auth.hash(state);
        self.identity.hash(state);
    }
}

#[derive(Default)]
struct Lane {
    /// In the order of their tickets.
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    flights: usize,
}

struct Item {
    ticket: u64,
    body: Bytes,
    timestamp_unix_s: i64,
    timeout: Duration,
    auth: Option<Arc<Auth>>,
    identity: Option<Arc<ClientIdentity>>,
    answer: oneshot::Sender<AttemptReport>,
}

impl Lane {
    /// Takes what the next request holds: all that waits, or as much of it as the limits allow.
    fn take(&mut self, limits: &SegmentLimits) -> Vec<Item> {
        let (mut count, mut bytes) = (0, 0);
        for item in &self.waiting {
            if !limits.hold(count + 1, bytes + item.body.len()) {
                break;
            }
            count += 1;
            bytes += item.body.len();
        }
        debug_assert!(count > 0 || self.waiting.is_empty(), "every item fits alone");
        self.waiting_bytes -= bytes;
        self.waiting.drain(..count).collect()
    }

    /// Whether a request is as good as full: not all that waits fits into it, or not one item more.
    fn is_full(&self, limits: &SegmentLimits) -> bool {
        self.waiting.len() >= limits.batch_items_max || !limits.hold(self.waiting.len(), self.waiting_bytes)
    }

    fn remove(&mut self, ticket: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&ticket, |item| item.ticket)
            && let Some(item) = self.waiting.remove(at)
        {
            self.waiting_bytes -= item.body.len();
        }
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A lane is changed in one go, without anything that panics in between.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the request into its lane, and sends what is to leave because of it.
    fn enqueue(self: &Arc<Self>, request: AttemptRequest) -> (Place, oneshot::Receiver<AttemptReport>) {
        let destination = Destination::of(&request);
        let (answer, answered) = oneshot::channel();
        let mut lanes = self.lanes();
        lanes.last_ticket += 1;
        let ticket = lanes.last_ticket;
        let lane = lanes.by_destination.entry(destination.clone()).or_default();
        lane.waiting_bytes += request.body.len();
        lane.waiting.push_back(Item {
            ticket,
            body: request.body,
            timestamp_unix_s: request.timestamp_unix_s,
            timeout: request.timeout,
            auth: request.auth,
            identity: request.identity,
            answer,
        });
        if lane.flights == 0 || lane.is_full(&self.limits) {
            let batch = lane.take(&self.limits);
            lane.flights += 1;
            drop(lanes);
            let flight = Flight { shared: Arc::clone(self), destination: destination.clone(), has_landed: false };
            tokio::spawn(flight.fly(batch));
        }
        (Place { shared: Arc::clone(self), destination, ticket }, answered)
    }

    async fn send(&self, destination: &Destination, batch: Vec<Item>) {
        let first = batch.first().expect("a flight carries something");
        let (auth, identity) = (first.auth.clone(), first.identity.clone());
        // Each attempt also keeps its own time; the request serves the most patient.
        let timeout = batch.iter().map(|item| item.timeout).max().unwrap_or_default();
        let now_unix_s = batch.iter().map(|item| item.timestamp_unix_s).max().unwrap_or_default();
        let post = Post {
            endpoint: &destination.endpoint,
            headers: base_headers(&destination.headers, APPLICATION_JSON, 0),
            body: batch_body(batch.iter().map(|item| &item.body), now_unix_s),
            auth: auth.as_deref(),
            identity: identity.as_deref(),
            permanent_statuses: &self.permanent,
            now_unix_s,
            timeout,
        };
        let report = self.transport.post(post).await;
        for item in batch {
            let _ = item.answer.send(report.clone()); // whoever has gone needs none
        }
    }
}

/// An attempt's place in its lane, given up with the attempt.
struct Place {
    shared: Arc<Shared>,
    destination: Destination,
    ticket: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(lane) = self.shared.lanes().by_destination.get_mut(&self.destination) {
            lane.remove(self.ticket);
        }
    }
}

/// A request under way, which the lane counts.
struct Flight {
    shared: Arc<Shared>,
    destination: Destination,
    has_landed: bool,
}

impl Flight {
    async fn fly(mut self, mut batch: Vec<Item>) {
        while !batch.is_empty() {
            self.shared.send(&self.destination, batch).await;
            batch = self.next();
        }
    }

    /// Takes what has gathered in the meantime, or lands: in one step, so that nothing begins to wait
    /// for a flight that will not look again.
    fn next(&mut self) -> Vec<Item> {
        let mut lanes = self.shared.lanes();
        let lane = lanes.by_destination.get_mut(&self.destination).expect("a lane outlives its flights");
        let batch = lane.take(&self.shared.limits);
        if batch.is_empty() {
            lane.flights -= 1;
            if lane.flights == 0 {
                lanes.by_destination.remove(&self.destination);
            }
            self.has_landed = true;
        }
        batch
    }
}

/// A task that was cancelled, at shutdown: with its last flight a lane goes, and who waits in it is told
/// by that.
impl Drop for Flight {
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        let mut lanes = self.shared.lanes();
        if let Some(lane) = lanes.by_destination.get_mut(&self.destination) {
            lane.flights -= 1;
            if lane.flights == 0 {
                lanes.by_destination.remove(&self.destination);
            }
        }
    }
}
