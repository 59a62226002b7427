//! `EventService.Consume`: one connection of a named consumer.
//!
//! ```text
//! start ──▶ subscription without an URL ──▶ Connection ──▶ events out, acks and nacks in
//! ```
//!
//! # What is absent on purpose
//!
//! - A cursor here: the consumer is a subscription, and its worker keeps it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use punchline_engine::command::{Action, Command};
use punchline_engine::dispatch::subscription::IN_FLIGHT_MAX;
use punchline_engine::dispatch::{BreakerPolicy, EventSelection, RetrySchedule, Subscription};
use punchline_engine::filter::Filter;
use punchline_engine::id::{ConsumerName, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::SubscriptionEntry;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_runtime::committer::Refusal;
use punchline_runtime::dispatch::consumer::{Connection, Pushed, Verdict};
use punchline_runtime::dispatch::target::SIGNING_SECRET;
use punchline_runtime::ids;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Status, Streaming};
use v1::consume_request::Kind as Asked;
use v1::consume_response::Kind;
use v1::consume_start::Start;

use super::event::first_at;
use super::{Api, Authorized};
use crate::convert::{self, instant, optional_id, timestamp};
use crate::refuse::Refused;

/// Messages that wait for a slow client; its events are bounded by what it asked for.
pub(super) const WAITING_MAX: usize = 64;
/// Events under way on one connection, where nothing is said.
const IN_FLIGHT_DEFAULT: u64 = 64;
/// Longest piece of a reason that is kept, in bytes.
const REASON_MAX: usize = 500;
/// Longest that a new consumer's worker takes to be there.
const WORKER_SLACK: Duration = Duration::from_secs(5);
/// How often it is looked for.
const WORKER_POLL: Duration = Duration::from_millis(5);

/// What a connection asked for, checked.
pub(super) struct Wanted {
    name: ConsumerName,
    places: usize,
    heartbeat: Duration,
    settings: Subscription,
    start: Option<Start>,
}

fn bounded(field: &str, given: u64, default: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, Refused> {
    match given {
        0 => Ok(default),
        given if range.contains(&given) => Ok(given),
        given => {
            let rule = format!("must be {} to {}, or 0", range.start(), range.end());
            Err(Refused::field(field, given.to_string(), rule))
        }
    }
}

impl Wanted {
    pub(super) fn of(start: v1::ConsumeStart) -> Result<Wanted, Refused> {
        let name: ConsumerName = convert::id("start.consumer", &start.consumer)?;
        let filter = start.filter.unwrap_or_default();
        let types = if filter.event_types.is_empty() { vec!["*".to_owned()] } else { filter.event_types };
        let member: Option<MemberId> = optional_id("start.filter.member_id", &filter.member_id)?;
        Filter::parse(&filter.expression)?;
        // A consumer's filter is one expression, and so is one for a member.
        let of_member = member.map(|id| format!("event.member_id == '{id}'"));
        let expression = match (of_member, filter.expression.as_str()) {
            (Some(member), "") => member,
            (Some(member), expression) => format!("{member} && ({expression})"),
            (None, expression) => expression.to_owned(),
        };
        Filter::parse(&expression)?;
        let attempts = bounded("start.max_attempts", start.max_attempts.into(), 10, 1..=50)? as usize;
        let timeout_ms = bounded("start.ack_timeout_ms", start.ack_timeout_ms, 30_000, 1_000..=3_600_000)?;
        let places = u64::from(start.max_in_flight);
        let places = bounded("start.max_in_flight", places, IN_FLIGHT_DEFAULT, 1..=IN_FLIGHT_MAX.into())?;
        let heartbeat_ms = bounded("start.heartbeat_ms", start.heartbeat_ms, 10_000, 100..=3_600_000)?;
        let settings = Subscription {
            event_types: EventSelection::parse("start.filter.event_types", types)?,
            filter: expression,
            consumer: name.as_str().into(),
            // A nack says itself how long it waits.
            schedule: RetrySchedule { delays_ms: vec![0; attempts - 1] },
            timeout_ms,
            breaker: BreakerPolicy { failures: 0, ..BreakerPolicy::default() },
            ..Subscription::to(SubscriptionId(Default::default()), "")
        };
        Ok(Wanted {
            name,
            places: places as usize,
            heartbeat: Duration::from_millis(heartbeat_ms),
            settings,
            start: start.start,
        })
    }
}

impl Api {
    /// The consumer of that name.
    pub(super) fn consumer(&self, tenant: Tenant, name: &ConsumerName) -> Result<Option<SubscriptionEntry>, Refused> {
        let config = self.config(tenant)?;
        Ok(config.subscriptions.values().find(|entry| entry.definition.consumer == name.as_str()).cloned())
    }

    /// The consumer, made or changed to what is wanted of it.
    pub(super) async fn consumer_as(&self, tenant: Tenant, wanted: &Wanted) -> Result<SubscriptionEntry, Refused> {
        if self.consumer(tenant, &wanted.name)?.is_none() {
            let owed_after = match wanted.start {
                Some(Start::FromSequence(sequence)) => Some(Sequence(sequence.saturating_sub(1))),
                Some(Start::FromTime(time)) => {
                    let time = instant("start.from_time", time)?;
                    Some(Sequence(self.journal(move |feed| first_at(feed, time)).await?.0 - 1))
                }
                Some(Start::FromStart(_)) => Some(Sequence(0)),
                Some(Start::FromEnd(_)) | None => None,
            };
            if let Some(sequence) = owed_after.filter(|sequence| *sequence > self.head()) {
                let rule = format!("must not be beyond the head, which is {}", self.head());
                return Err(Refused::field("start.from_sequence", sequence.next().to_string(), rule));
            }
            let node = &self.state.node;
            let subscription = Subscription { id: ids::subscription_id(node.clock().now()), ..wanted.settings.clone() };
            let secret = node.sealer().seal(SIGNING_SECRET, &ids::random_bytes::<32>());
            let action = Action::CreateSubscription { subscription, secret, owed_after };
            match node.submitter().submit(Command { tenant, request_id: None, action }).await {
                // Another connection was first.
                Ok(_) | Err(Refusal::Rejected(Rejection::SubscriptionExists(_))) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let gone = || Refused::not_found("CONSUMER_NOT_FOUND", "consumer", wanted.name.as_str());
        let entry = self.consumer(tenant, &wanted.name)?.ok_or_else(gone)?;
        let current = &entry.definition;
        let settings = Subscription { id: current.id, version: current.version, ..wanted.settings.clone() };
        if settings != **current {
            self.submit(tenant, "", Action::UpdateSubscription { subscription: settings, etag: None }).await?;
        }
        self.consumer(tenant, &wanted.name)?.ok_or_else(gone)
    }

    /// Connects to a consumer's worker, which is there soon after the consumer is.
    pub(super) async fn connected(&self, id: SubscriptionId, wanted: &Wanted) -> Result<Connection, Refused> {
        let dispatcher = self.state.node.dispatcher();
        let connect = async {
            loop {
                if let Some(connection) = dispatcher.connect(id, wanted.places) {
                    return connection;
                }
                tokio::time::sleep(WORKER_POLL).await;
            }
        };
        let late = |_| Refused::not_found("CONSUMER_NOT_FOUND", "consumer", wanted.name.as_str());
        tokio::time::timeout(WORKER_SLACK, connect).await.map_err(late)
    }
}

/// One connection at work.
pub(super) struct Consuming {
    pub(super) caller: Authorized,
    pub(super) connection: Connection,
    pub(super) asked: Streaming<v1::ConsumeRequest>,
    pub(super) to: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
    pub(super) heartbeat: Interval,
}

/// The client has gone, or was told why it has to.
struct Ended;

impl Consuming {
    pub(super) fn new(
        caller: Authorized,
        wanted: &Wanted,
        connection: Connection,
        asked: Streaming<v1::ConsumeRequest>,
        to: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
    ) -> Consuming {
        let mut heartbeat = tokio::time::interval(wanted.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Consuming { caller, connection, asked, to, heartbeat }
    }

    pub(super) async fn run(mut self, entry: SubscriptionEntry) {
        let api = self.caller.api.clone();
        let mut down = api.down.clone();
        let id = entry.definition.id;
        let cursor = || api.state.node.dispatcher().stats(id).map_or(0, |stats| stats.cursor.load(Relaxed));
        let started = v1::ConsumeStarted { subscription_id: id.to_string(), cursor: cursor() };
        let mut going = self.send(Kind::Started(started)).await;
        while going.is_ok() {
            going = tokio::select! {
                biased;
                asked = self.asked.next() => match asked {
                    Some(Ok(request)) => self.take(request).await,
                    // A client that has said all may still read what it has to settle: nothing, so it ends.
                    Some(Err(_)) | None => Err(Ended),
                },
                () = async { drop(down.wait_for(|down| *down).await) } => self.refuse(Refused::shutting_down()).await,
                _ = self.heartbeat.tick() => self.beat(cursor()).await,
                pushed = self.connection.next() => self.push(pushed).await,
            };
        }
    }

    async fn send(&self, kind: Kind) -> Result<(), Ended> {
        self.to.send(Ok(v1::ConsumeResponse { kind: Some(kind) })).await.map_err(|_| Ended)
    }

    async fn refuse(&self, refused: Refused) -> Result<(), Ended> {
        let _ = self.to.send(Err(refused.into())).await;
        Err(Ended)
    }

    async fn push(&self, pushed: Pushed) -> Result<(), Ended> {
        let event = Some(convert::event(&pushed.event.get()));
        self.send(Kind::Event(v1::ConsumedEvent { event, attempt: pushed.attempt })).await
    }

    async fn beat(&self, sequence: u64) -> Result<(), Ended> {
        // A key that was revoked reads no more.
        if let Err(refused) = self.caller.tenant() {
            return self.refuse(refused).await;
        }
        let time = Some(timestamp(self.caller.api.state.node.clock().now()));
        self.send(Kind::Heartbeat(v1::Heartbeat { sequence, time })).await
    }

    async fn take(&self, request: v1::ConsumeRequest) -> Result<(), Ended> {
        let (sequences, verdict) = match request.kind {
            Some(Asked::Ack(ack)) => (ack.sequences, Verdict::Done),
            Some(Asked::Nack(mut nack)) => {
                let cut = (0..=REASON_MAX.min(nack.reason.len())).rev().find(|at| nack.reason.is_char_boundary(*at));
                nack.reason.truncate(cut.unwrap_or(0));
                let reason = nack.reason;
                let verdict = match v1::NackAction::try_from(nack.action) {
                    Ok(v1::NackAction::Unspecified | v1::NackAction::Retry) => {
                        Verdict::Retry { after_ms: nack.retry_after_ms, reason }
                    }
                    Ok(v1::NackAction::Park) => Verdict::Park { reason },
                    Ok(v1::NackAction::Skip) => Verdict::Done,
                    Ok(v1::NackAction::Stop) => {
                        self.connection.stop();
                        Verdict::Untouched
                    }
                    Err(_) => {
                        let action = nack.action.to_string();
                        return self.refuse(Refused::field("nack.action", action, "is not known")).await;
                    }
                };
                (nack.sequences, verdict)
            }
            Some(Asked::Start(_)) => {
                return self.refuse(Refused::field("start", "", "stands first, and only there")).await;
            }
            None => return self.refuse(Refused::body_required("start, ack or nack")).await,
        };
        for sequence in sequences {
            self.connection.settle(Sequence(sequence), verdict.clone());
        }
        Ok(())
    }
}
