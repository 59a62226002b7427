//! `DeliveryService`.

use std::time::Duration;

use punchline_engine::decide::REDRIVE_MAX;
use punchline_engine::dispatch::{DeliveryRow, EventSelection, RowState};
use punchline_engine::event::EventType;
use punchline_engine::id::{MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::{Scope, SubscriptionEntry};
use punchline_proto::v1;
use punchline_proto::v1::delivery_service_server::DeliveryService;
use punchline_runtime::clock::Stopwatch;
use punchline_runtime::dispatch::dispatcher::RetryError;
use tonic::{Request, Response};

use super::{Answer, Api};
use crate::convert::delivery::{attempt, departed, filter, plain, state};
use crate::convert::optional_id;
use crate::convert::page::{self, List};
use crate::refuse::Refused;

/// Rows looked at in one reading of the views: the writer waits meanwhile.
const ROWS_AT_ONCE: usize = 512;
/// Rows looked at for one page of a list: a page may be short then, and has a next one all the same.
const ROWS_A_PAGE_MAX: usize = 16 * ROWS_AT_ONCE;
/// How often the views are asked whether an attempt has been taken down.
const ATTEMPT_POLL: Duration = Duration::from_millis(20);
/// Longest that an attempt takes beyond its own time-out: connecting, queueing, taking down.
const ATTEMPT_SLACK: Duration = Duration::from_secs(5);
/// Longest that a delivery which was answered takes to be taken down.
const REPORT_SLACK: Duration = Duration::from_secs(2);
/// Most sequences that one redrive may name.
const REDRIVE_NAMED_MAX: usize = 10_000;

impl Api {
    async fn row(&self, id: SubscriptionId, sequence: Sequence) -> Result<Option<DeliveryRow>, Refused> {
        self.read(move |views| views.delivery_row(id, sequence)).await
    }

    /// A page of departed deliveries that `wanted` lets through.
    async fn rows(
        &self,
        id: SubscriptionId,
        (page_size, page_token): (i32, &str),
        wanted: impl Fn(&DeliveryRow) -> bool,
    ) -> Result<(Vec<v1::Delivery>, String), Refused> {
        let size = page::size(page_size)?;
        let after: Option<u64> = page::after(List::Deliveries, page_token)?;
        let mut from = Sequence(after.map_or(0, |after| after.saturating_add(1)));
        let mut found = Vec::new();
        let (mut looked_at, mut next_page_token) = (0, String::new());
        loop {
            let rows = self.read(move |views| views.delivery_rows(id, from, ROWS_AT_ONCE)).await?;
            let (read, last) = (rows.len(), rows.last().map(|row| row.sequence));
            looked_at += read;
            found.extend(rows.into_iter().filter(&wanted));
            if found.len() > size {
                next_page_token = page::cut(List::Deliveries, &mut found, size, |row: &DeliveryRow| row.sequence);
                break;
            }
            let Some(last) = last.filter(|_| read == ROWS_AT_ONCE) else { break };
            if looked_at >= ROWS_A_PAGE_MAX {
                next_page_token = page::token(List::Deliveries, last);
                break;
            }
            from = last.next();
        }
        let deliveries = self.journal(move |feed| {
            let typed = |row: &DeliveryRow| {
                let event = feed.event_at(row.sequence)?;
                Ok(event.map(|event| departed(id, event.get().event.event_type(), row)))
            };
            found.iter().filter_map(|row| typed(row).transpose()).collect::<Result<Vec<_>, _>>()
        });
        Ok((deliveries.await?, next_page_token))
    }

    /// One delivery, whatever its state.
    async fn delivery(
        &self,
        tenant: Tenant,
        entry: &SubscriptionEntry,
        sequence: Sequence,
    ) -> Result<v1::Delivery, Refused> {
        let id = entry.definition.id;
        let event = self.journal(move |feed| feed.event_at(sequence)).await?;
        let of_tenant = event.as_ref().map(|event| event.get()).filter(|event| event.tenant == tenant);
        let recorded = of_tenant.ok_or_else(|| Refused::not_found("EVENT_NOT_FOUND", "event", sequence))?;
        let event_type = recorded.event.event_type();
        let event = (sequence, event_type, recorded.member);
        let (row, cursor) = self
            .read(move |views| {
                let cursor = views.delivery_state(id).map_or(Sequence(0), |state| state.cursor);
                Ok((views.delivery_row(id, sequence)?, cursor))
            })
            .await?;
        if let Some(row) = row {
            return Ok(departed(id, event_type, &row));
        }
        let selected = event_type.is_public() && entry.definition.event_types.selects(event_type);
        let state = if !selected || sequence <= entry.owed_after {
            v1::DeliveryState::NotSelected
        } else if sequence <= cursor {
            v1::DeliveryState::Delivered
        } else {
            v1::DeliveryState::Pending
        };
        Ok(plain(id, event, state))
    }

    /// Waits until one attempt more than `before` is taken down, at most `longest`.
    async fn attempt_after(
        &self,
        id: SubscriptionId,
        sequence: Sequence,
        before: u32,
        longest: Duration,
    ) -> Result<(), Refused> {
        let watch = Stopwatch::start();
        loop {
            let attempts = self.row(id, sequence).await?.map_or(u32::MAX, |row| row.attempts);
            if attempts > before || watch.elapsed() >= longest {
                return Ok(());
            }
            tokio::time::sleep(ATTEMPT_POLL).await;
        }
    }

    /// Dead letters from `from` on that pass, up to `limit`; and where to go on, if there may be more.
    async fn dead_letters(
        &self,
        id: SubscriptionId,
        from: Sequence,
        only: &Only,
        limit: usize,
    ) -> Result<(Vec<Sequence>, Option<Sequence>), Refused> {
        let rows = match &only.sequences {
            Some(named) => {
                let at = named.partition_point(|sequence| *sequence < from);
                let some: Vec<Sequence> = named[at..].iter().copied().take(ROWS_AT_ONCE).collect();
                let next = some.last().filter(|_| some.len() == ROWS_AT_ONCE).map(|last| last.next());
                let rows = self.read(move |views| {
                    let rows = some.iter().map(|sequence| views.delivery_row(id, *sequence));
                    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>())
                });
                (rows.await?, next)
            }
            None => {
                let rows = self.read(move |views| views.delivery_rows(id, from, ROWS_AT_ONCE)).await?;
                let next = rows.last().filter(|_| rows.len() == ROWS_AT_ONCE).map(|last| last.sequence.next());
                (rows, next)
            }
        };
        let (rows, next) = rows;
        let of_member = |row: &DeliveryRow| only.member.is_none_or(|member| row.member == Some(member));
        let dead = rows.into_iter().filter(|row| row.state == RowState::Dead && of_member(row));
        let dead: Vec<Sequence> = dead.map(|row| row.sequence).collect();
        let Some(types) = only.types.clone() else { return Ok((dead.into_iter().take(limit).collect(), next)) };
        let typed = self.journal(move |feed| {
            let mut passing = Vec::new();
            for sequence in dead {
                let event_type = feed.event_at(sequence)?.map(|event| event.get().event.event_type());
                if event_type.is_some_and(|t: EventType| types.selects(t)) {
                    passing.push(sequence);
                }
            }
            Ok(passing)
        });
        Ok((typed.await?.into_iter().take(limit).collect(), next))
    }
}

/// Which dead letters a redrive is about.
struct Only {
    sequences: Option<Vec<Sequence>>,
    types: Option<EventSelection>,
    member: Option<MemberId>,
}

impl Only {
    fn of(request: &v1::RedriveDeadLettersRequest) -> Result<Only, Refused> {
        if request.sequences.len() > REDRIVE_NAMED_MAX {
            let count = request.sequences.len().to_string();
            return Err(Refused::field("sequences", count, "must be at most 10000"));
        }
        let mut sequences: Vec<Sequence> = request.sequences.iter().copied().map(Sequence).collect();
        sequences.sort();
        sequences.dedup();
        let types = request.event_types.clone();
        let types = (!types.is_empty()).then(|| EventSelection::parse("event_types", types)).transpose()?;
        let member = optional_id("member_id", &request.member_id)?;
        Ok(Only { sequences: Some(sequences).filter(|s| !s.is_empty()), types, member })
    }
}

#[tonic::async_trait]
impl DeliveryService for Api {
    async fn list_deliveries(&self, request: Request<v1::ListDeliveriesRequest>) -> Answer<v1::ListDeliveriesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let only = filter(request.state)?;
        let wanted = |row: &DeliveryRow| only.is_none_or(|only| state(row.state) == only);
        let (deliveries, next_page_token) = self.rows(id, (request.page_size, &request.page_token), wanted).await?;
        Ok(Response::new(v1::ListDeliveriesResponse { deliveries, next_page_token }))
    }

    async fn get_delivery(&self, request: Request<v1::GetDeliveryRequest>) -> Answer<v1::GetDeliveryResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let delivery = Some(self.delivery(tenant, &entry, Sequence(request.sequence)).await?);
        Ok(Response::new(v1::GetDeliveryResponse { delivery }))
    }

    async fn list_attempts(&self, request: Request<v1::ListAttemptsRequest>) -> Answer<v1::ListAttemptsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let sequence = Sequence(request.sequence);
        // Refuses what is no delivery at all.
        self.delivery(tenant, &entry, sequence).await?;
        let row = self.row(entry.definition.id, sequence).await?;
        let attempts = row.map(|row| row.log).unwrap_or_default().into_iter().map(attempt).collect();
        Ok(Response::new(v1::ListAttemptsResponse { attempts }))
    }

    async fn retry_delivery(&self, request: Request<v1::RetryDeliveryRequest>) -> Answer<v1::RetryDeliveryResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let (id, sequence) = (entry.definition.id, Sequence(request.sequence));
        let delivery = self.delivery(tenant, &entry, sequence).await?;
        let before = delivery.attempts;
        let dispatcher = self.state.node.dispatcher();
        if delivery.state == i32::from(v1::DeliveryState::DeadLettered) {
            dispatcher.redrive(tenant, id, vec![sequence]).await.map_err(Refused::from)?;
            let longest = Duration::from_millis(entry.definition.timeout_ms) + ATTEMPT_SLACK;
            self.attempt_after(id, sequence, before, longest).await?;
        } else {
            match dispatcher.retry_now(id, sequence).await {
                Ok(()) => self.attempt_after(id, sequence, before, REPORT_SLACK).await?,
                Err(error @ RetryError::NotWaiting) => {
                    return Err(Refused::precondition("DELIVERY_NOT_WAITING", error.to_string()).into());
                }
                Err(RetryError::NoSubscription) => {
                    return Err(Refused::not_found("SUBSCRIPTION_NOT_FOUND", "subscription", id).into());
                }
            }
        }
        let delivery = Some(self.delivery(tenant, &entry, sequence).await?);
        Ok(Response::new(v1::RetryDeliveryResponse { delivery }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Answer<v1::ListDeadLettersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let is_dead = |row: &DeliveryRow| row.state == RowState::Dead;
        let (dead_letters, next_page_token) = self.rows(id, (request.page_size, &request.page_token), is_dead).await?;
        Ok(Response::new(v1::ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Answer<v1::RedriveDeadLettersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let only = Only::of(&request)?;
        let mut left = if request.limit == 0 { u64::MAX } else { request.limit };
        let mut redriven = 0;
        let mut from = Some(Sequence(0));
        // What dies again while this runs is not put back twice: the positions only go up.
        while let Some(at) = from.filter(|_| left > 0) {
            let limit = usize::try_from(left).unwrap_or(usize::MAX).min(REDRIVE_MAX);
            let (dead, next) = self.dead_letters(id, at, &only, limit).await?;
            from = next;
            let count = match (dead.is_empty(), request.preview) {
                (true, _) => 0,
                (false, true) => dead.len() as u64,
                (false, false) => {
                    let redriven = self.state.node.dispatcher().redrive(tenant, id, dead).await;
                    redriven.map_err(Refused::from)?
                }
            };
            redriven += count;
            left -= count.min(left);
        }
        Ok(Response::new(v1::RedriveDeadLettersResponse { redriven }))
    }
}
