//! `EventService`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use punchline_engine::command::Action;
use punchline_engine::dispatch::EventSelection;
use punchline_engine::event::Recorded;
use punchline_engine::filter::Filter;
use punchline_engine::id::{Sequence, Tenant};
use punchline_engine::loyalty::tenant::{Scope, SubscriptionEntry};
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_proto::v1::event_service_server::EventService;
use punchline_runtime::clock::Clock;
use punchline_runtime::feed::{Feed, Follower, Page, ReadError, Wanted};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use v1::subscribe_request::Start;
use v1::subscribe_response::Kind;

use super::{Answer, Api, Authorized, consume};
use crate::convert::{self, instant, optional_id, timestamp};
use crate::refuse::Refused;

/// Blocks of the journal looked at for one page: a filter that lets little through gets a short page,
/// and goes on where that ends.
const BLOCKS_A_PAGE_MAX: usize = 256;
/// Messages that wait for one slow subscriber; beyond that it falls behind, and nobody else does.
const WAITING_MAX: usize = 64;
/// Events taken from the feed at once.
const FEED_PAGE: usize = 256;
/// Between heartbeats, where nothing is said.
const HEARTBEAT_MS_DEFAULT: u64 = 10_000;
/// Shortest between heartbeats.
const HEARTBEAT_MS_MIN: u64 = 100;
/// Longest between heartbeats.
const HEARTBEAT_MS_MAX: u64 = 3_600_000;

/// What a reader asked for: what the feed can tell apart, and what only a look into the event can.
struct Selected {
    wanted: Wanted,
    types: EventSelection,
    filter: Option<Filter>,
}

impl Selected {
    fn of(tenant: Tenant, filter: Option<v1::EventFilter>) -> Result<Selected, Refused> {
        let filter = filter.unwrap_or_default();
        let types = if filter.event_types.is_empty() { vec!["*".to_owned()] } else { filter.event_types };
        let types = EventSelection::parse("filter.event_types", types)?;
        let member = optional_id("filter.member_id", &filter.member_id)?;
        let wanted = Wanted { tenant, types: types.mask(), member };
        Ok(Selected { wanted, types, filter: Filter::parse(&filter.expression)? })
    }

    fn passes(&self, recorded: &Recorded<'_>) -> bool {
        self.types.selects(recorded.event) && self.filter.as_ref().is_none_or(|filter| filter.passes(recorded))
    }
}

#[tonic::async_trait]
impl EventService for Api {
    type SubscribeStream = BoxStream<'static, Result<v1::SubscribeResponse, Status>>;
    type ConsumeStream = BoxStream<'static, Result<v1::ConsumeResponse, Status>>;

    async fn consume(&self, request: Request<Streaming<v1::ConsumeRequest>>) -> Answer<Self::ConsumeStream> {
        let (metadata, _, mut asked) = request.into_parts();
        let caller = Authorized { api: self.clone(), metadata, scope: Scope::Manage };
        let tenant = caller.tenant()?;
        let first = asked.next().await.transpose()?.and_then(|request| request.kind);
        let Some(v1::consume_request::Kind::Start(start)) = first else {
            return Err(Refused::field("start", "", "must be the first message").into());
        };
        let wanted = consume::Wanted::of(start)?;
        let entry = self.consumer_as(tenant, &wanted).await?;
        let connection = self.connected(entry.definition.id, &wanted).await?;
        let (to, messages) = mpsc::channel(consume::WAITING_MAX);
        let consuming = consume::Consuming::new(caller, &wanted, connection, asked, to);
        tokio::spawn(consuming.run(entry));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn list_consumers(&self, request: Request<v1::ListConsumersRequest>) -> Answer<v1::ListConsumersResponse> {
        let (tenant, _) = self.tenant(request, Scope::Read)?;
        let dispatcher = self.state.node.dispatcher();
        let to_wire = |entry: &SubscriptionEntry| {
            let (id, definition) = (entry.definition.id, &entry.definition);
            let stats = dispatcher.stats(id).unwrap_or_default();
            v1::Consumer {
                name: definition.consumer.clone(),
                subscription_id: id.to_string(),
                filter: Some(v1::EventFilter {
                    event_types: definition.event_types.patterns().to_vec(),
                    member_id: String::new(),
                    expression: definition.filter.clone(),
                }),
                cursor: stats.cursor.load(Relaxed).max(entry.owed_after.0),
                head_sequence: self.head().0,
                pending: stats.pending.load(Relaxed),
                parked: stats.dead.load(Relaxed),
                connections: u32::try_from(dispatcher.connections(id)).unwrap_or(u32::MAX),
                created_at: Some(timestamp(entry.created_at)),
            }
        };
        let config = self.config(tenant)?;
        let consumers = config.subscriptions.values().filter(|entry| !entry.definition.consumer.is_empty());
        Ok(Response::new(v1::ListConsumersResponse { consumers: consumers.map(to_wire).collect() }))
    }

    async fn delete_consumer(&self, request: Request<v1::DeleteConsumerRequest>) -> Answer<v1::DeleteConsumerResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let name = convert::id("consumer", &request.consumer)?;
        let gone = || Refused::not_found("CONSUMER_NOT_FOUND", "consumer", &request.consumer);
        let subscription_id = self.consumer(tenant, &name)?.ok_or_else(gone)?.definition.id;
        self.submit(tenant, "", Action::DeleteSubscription { subscription_id }).await?;
        Ok(Response::new(v1::DeleteConsumerResponse {}))
    }

    async fn read_events(&self, request: Request<v1::ReadEventsRequest>) -> Answer<v1::ReadEventsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = convert::page::size(request.page_size)?;
        let selected = Selected::of(tenant, request.filter)?;
        let from = Sequence(request.from_sequence.max(1));
        let (events, next) = self.journal(move |feed| read_events(feed, &selected, from, size)).await?;
        let (next_sequence, head_sequence) = (next.0, self.head().0);
        Ok(Response::new(v1::ReadEventsResponse { events, next_sequence, head_sequence }))
    }

    async fn subscribe(&self, request: Request<v1::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let caller = Authorized { api: self.clone(), metadata: request.metadata().clone(), scope: Scope::Read };
        let (tenant, request) = (caller.tenant()?, request.into_inner());
        let selected = Selected::of(tenant, request.filter)?;
        let heartbeat_ms = match request.heartbeat_ms {
            0 => HEARTBEAT_MS_DEFAULT,
            ms @ HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX => ms,
            ms => return Err(Refused::field("heartbeat_ms", ms.to_string(), "must be 100 to 3600000, or 0").into()),
        };
        let position = match request.start {
            Some(Start::FromSequence(sequence)) => Sequence(sequence.max(1)),
            Some(Start::FromTime(time)) => {
                let time = instant("from_time", time)?;
                self.journal(move |feed| first_at(feed, time)).await?
            }
            Some(Start::FromStart(_)) => Sequence(1),
            // From the end as well where nothing is said: nobody asks for a whole journal by leaving out a field.
            Some(Start::FromEnd(_)) | None => self.head().next(),
        };
        let (to, messages) = mpsc::channel(WAITING_MAX);
        let mut heartbeat = tokio::time::interval(Duration::from_millis(heartbeat_ms));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let node = &self.state.node;
        let (feed, clock) = (node.feed().clone(), node.clock().clone());
        let sending = Sending { caller, feed, clock, to, heartbeat, down: self.down.clone() };
        tokio::spawn(sending.run(selected, position));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// A page of events, and where to go on.
fn read_events(
    feed: &Feed,
    selected: &Selected,
    from: Sequence,
    size: usize,
) -> Result<(Vec<v1::Event>, Sequence), ReadError> {
    let mut events = Vec::new();
    let mut next = from;
    for _ in 0..BLOCKS_A_PAGE_MAX {
        let page = feed.read_block(&selected.wanted, next)?;
        if page.next <= next {
            break;
        }
        next = page.next;
        for found in page.events.into_iter().filter(|event| selected.passes(&event.get())) {
            if events.len() == size {
                return Ok((events, found.get().sequence));
            }
            events.push(convert::event(&found.get()));
        }
        if events.len() == size {
            break;
        }
    }
    Ok((events, next))
}

/// The first position whose event happened at or after `time`; the one after the head where there is none.
/// Times never go back along the journal.
pub(super) fn first_at(feed: &Feed, time: UnixMillis) -> Result<Sequence, ReadError> {
    let (mut low, mut high) = (1, feed.head().0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        // Positions that are trimmed are before everything.
        let before = feed.event_at(Sequence(middle)).map(|event| event.is_none_or(|e| e.get().time < time));
        match before? {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(Sequence(low))
}

/// One subscriber's task.
struct Sending {
    caller: Authorized,
    feed: Arc<Feed>,
    clock: Arc<dyn Clock>,
    to: mpsc::Sender<Result<v1::SubscribeResponse, Status>>,
    heartbeat: Interval,
    down: watch::Receiver<bool>,
}

/// The subscriber has gone, or has been told why it must.
struct Gone;

impl Sending {
    async fn run(mut self, selected: Selected, position: Sequence) {
        let follower = self.feed.follow(selected.wanted, position);
        // The first tick comes at once.
        self.heartbeat.tick().await;
        let (mut live, mut told_behind) = (false, false);
        loop {
            if *self.down.borrow() {
                return drop(self.to.send(Err(Refused::shutting_down().into())).await);
            }
            if self.admitted().await.is_err() {
                return;
            }
            let sent = match follower.next(FEED_PAGE).await {
                Ok(Some(page)) => {
                    let behind = live && page.from_journal && !told_behind;
                    told_behind |= behind;
                    live &= !page.from_journal;
                    self.page(&selected, page, behind, follower.position()).await
                }
                Ok(None) => {
                    let at = before(follower.position());
                    let caught_up =
                        if live { Ok(()) } else { self.send(Kind::CaughtUp(v1::CaughtUp { sequence: at })).await };
                    (live, told_behind) = (true, false);
                    match caught_up {
                        Ok(()) => self.wait(&follower).await,
                        Err(gone) => Err(gone),
                    }
                }
                Err(error) => return drop(self.to.send(Err(Refused::from(error).into())).await),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Ends with the refusal where the token has expired or the key was revoked.
    async fn admitted(&self) -> Result<(), Gone> {
        let Err(refused) = self.caller.tenant() else { return Ok(()) };
        drop(self.to.send(Err(refused.into())).await);
        Err(Gone)
    }

    async fn send(&self, kind: Kind) -> Result<(), Gone> {
        self.to.send(Ok(v1::SubscribeResponse { kind: Some(kind) })).await.map_err(|_| Gone)
    }

    async fn page(&mut self, selected: &Selected, page: Page, behind: bool, position: Sequence) -> Result<(), Gone> {
        if behind {
            let (sequence, head_sequence) = (before(position), self.feed.head().0);
            self.send(Kind::FellBehind(v1::FellBehind { sequence, head_sequence })).await?;
        }
        for event in page.events.into_iter().filter(|event| selected.passes(&event.get())) {
            self.send(Kind::Event(convert::event(&event.get()))).await?;
        }
        // A long stretch without a match is a reason for a heartbeat too.
        if self.heartbeat.tick().now_or_never().is_some() {
            self.beat(before(page.next)).await?;
        }
        Ok(())
    }

    /// Waits for something that is wanted, with heartbeats.
    async fn wait(&mut self, follower: &Follower) -> Result<(), Gone> {
        let due = tokio::select! {
            () = follower.woken() => false,
            _ = self.heartbeat.tick() => true,
            _ = self.down.wait_for(|down| *down) => false,
            () = self.to.closed() => return Err(Gone),
        };
        if due { self.beat(before(follower.position())).await } else { Ok(()) }
    }

    async fn beat(&self, sequence: u64) -> Result<(), Gone> {
        self.admitted().await?;
        let time = Some(timestamp(self.clock.now()));
        self.send(Kind::Heartbeat(v1::Heartbeat { sequence, time })).await
    }
}

/// The last position that was looked at, where `next` is the next one.
fn before(next: Sequence) -> u64 {
    next.0.saturating_sub(1)
}
