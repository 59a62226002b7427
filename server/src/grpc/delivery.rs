//! `DeliveryService`.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Timestamp;
use punchline_engine::decide::REDRIVE_MAX;
use punchline_engine::dispatch::job::JOBS_RUNNING_MAX;
use punchline_engine::dispatch::{DeliveryJob, DeliveryRow, EventSelection, JobKind, JobState, RowState};
use punchline_engine::id::{JobId, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::{Scope, SubscriptionEntry};
use punchline_proto::v1;
use punchline_proto::v1::delivery_service_server::DeliveryService;
use punchline_runtime::clock::Stopwatch;
use punchline_runtime::dispatch::dispatcher::RetryError;
use punchline_runtime::dispatch::target::Target;
use punchline_runtime::feed::Wanted;
use punchline_runtime::ids;
use punchline_storage::attempts::{LoggedAttempt, Scan, Scanned};
use tonic::{Request, Response};

use super::event::first_at;
use super::{Answer, Api};
use crate::convert::delivery::{
    ATTEMPT_FIELDS, DELIVERY_FIELDS, attempt, departed, filter, job as job_to_wire, lets_attempt_through,
    lets_row_through, logged, plain, state,
};
use crate::convert::page::{self, List};
use crate::convert::{id, instant, optional_id};
use crate::filter::Filter;
use crate::refuse::Refused;

/// Rows looked at in one reading of the views: the writer waits meanwhile.
const ROWS_AT_ONCE: usize = 512;
/// Rows looked at for one page of a list: a page may be short then, and has a next one all the same.
const ROWS_A_PAGE_MAX: usize = 16 * ROWS_AT_ONCE;
/// Bytes of the delivery log that are read for one page: 700 000 attempts at the most, 0.2 s.
const LOG_BYTES_A_PAGE_MAX: u64 = 16 << 20;
/// Bytes of it that are read for the attempts of one delivery. Few pages may hold its sequence.
const LOG_BYTES_A_DELIVERY_MAX: u64 = 64 << 20;
/// Attempts of one delivery that are listed: those of ten schedules.
const ATTEMPTS_A_DELIVERY_MAX: usize = 500;
/// How often the views are asked whether an attempt has been taken down.
const ATTEMPT_POLL: Duration = Duration::from_millis(20);
/// Longest that an attempt takes beyond its own time-out: connecting, queueing, taking down.
const ATTEMPT_SLACK: Duration = Duration::from_secs(5);
/// Longest that a delivery which was answered takes to be taken down.
const REPORT_SLACK: Duration = Duration::from_secs(2);
/// Positions that the preview of a replay looks at.
const PREVIEW_POSITIONS_MAX: u64 = 1_000_000;

impl Api {
    async fn row(&self, id: SubscriptionId, sequence: Sequence) -> Result<Option<DeliveryRow>, Refused> {
        self.read(move |views| views.delivery_row(id, sequence)).await
    }

    /// A page of departed deliveries that `wanted` and the filter let through.
    async fn rows(
        &self,
        id: SubscriptionId,
        filter: &str,
        (page_size, page_token): (i32, &str),
        wanted: impl Fn(&DeliveryRow) -> bool,
    ) -> Result<(Vec<v1::Delivery>, String), Refused> {
        let filter = Filter::parse(filter, DELIVERY_FIELDS).map_err(|error| error.refused(filter))?;
        let size = page::size(page_size)?;
        let after: Option<u64> = page::after(List::Deliveries, page_token)?;
        let mut from = Sequence(after.map_or(0, |after| after.saturating_add(1)));
        let mut found = Vec::new();
        let (mut looked_at, mut next_page_token) = (0, String::new());
        loop {
            let rows = self.read(move |views| views.delivery_rows(id, from, ROWS_AT_ONCE)).await?;
            let (read, last) = (rows.len(), rows.last().map(|row| row.sequence));
            looked_at += read;
            let mut rows: Vec<DeliveryRow> = rows.into_iter().filter(&wanted).collect();
            if filter.names("event_type") {
                // Only the journal knows the type.
                let types = self.event_types(rows.iter().map(|row| row.sequence).collect()).await?;
                let mut types = types.iter().map(|event_type| event_type.as_deref().unwrap_or_default());
                rows.retain(|row| lets_row_through(&filter, types.next().unwrap_or_default(), row));
            } else {
                rows.retain(|row| lets_row_through(&filter, "", row));
            }
            found.extend(rows);
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
        let types = self.event_types(found.iter().map(|row| row.sequence).collect()).await?;
        let typed = found.iter().zip(types).filter_map(|(row, event_type)| Some(departed(id, &event_type?, row)));
        Ok((typed.collect(), next_page_token))
    }

    /// The types of events; `None` for one that the journal has no more.
    async fn event_types(&self, sequences: Vec<Sequence>) -> Result<Vec<Option<String>>, Refused> {
        let types = self.journal(move |feed| {
            let event_type = |sequence: &Sequence| {
                let event = feed.event_at(*sequence)?;
                Ok(event.map(|event| event.get().event.type_name().to_owned()))
            };
            sequences.iter().map(event_type).collect()
        });
        types.await
    }

    /// Looks through the delivery log, on the blocking pool.
    async fn logged(
        &self,
        scan: Scan,
        wanted: impl Fn(&LoggedAttempt) -> bool + Send + 'static,
    ) -> Result<Scanned, Refused> {
        let log = self.state.node.delivery_log().clone();
        let keys = self.state.node.member_keys().clone();
        let scanned = tokio::task::spawn_blocking(move || {
            let mut found = log.scan(&scan, wanted);
            for attempt in &mut found.attempts {
                attempt.response = keys.open_response(attempt.key_slot, &attempt.response).into();
            }
            found
        })
        .await;
        scanned.map_err(|error| Refused::internal("read the delivery log", &error))
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
        let event_type = recorded.event.type_name();
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
        let selects = |target: &Target| {
            recorded.event.event_type().is_public() && target.wants(&recorded, self.state.node.feed())
        };
        let selected = self.state.node.dispatcher().target(entry).is_ok_and(|target| selects(&target));
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

    /// A job as it is asked for, not begun.
    async fn new_job(&self, kind: JobKind, range: Range, event_types: &[String]) -> Result<DeliveryJob, Refused> {
        let clock = self.state.node.clock();
        let all = ["*".to_owned()];
        let patterns = if event_types.is_empty() { &all } else { event_types };
        let (from_sequence, to_sequence) = self.positions(range).await?;
        Ok(DeliveryJob {
            id: ids::job_id(clock.now()),
            kind,
            from_sequence,
            to_sequence,
            event_types: EventSelection::parse("event_types", patterns.to_vec())?,
            members: Vec::new(),
            sequences: Vec::new(),
            limit: 0,
            per_second: 0,
            started_at: clock.now(),
            state: JobState::Running,
            next_sequence: from_sequence,
            put_back: 0,
        })
    }

    /// The positions of a range; its end is never beyond the head.
    pub(super) async fn positions(&self, range: Range) -> Result<(Sequence, Sequence), Refused> {
        let from_time = range.from_time.map(|time| instant("from_time", time)).transpose()?;
        let to_time = range.to_time.map(|time| instant("to_time", time)).transpose()?;
        let head = self.head();
        let (first, last) = self
            .journal(move |feed| {
                let first = from_time.map_or(Ok(Sequence(1)), |time| first_at(feed, time))?;
                let end = to_time.map_or(Ok(head.next()), |time| first_at(feed, time))?;
                Ok((first, Sequence(end.0 - 1)))
            })
            .await?;
        let to = if range.to == 0 { last } else { last.min(Sequence(range.to)) };
        let from = first.max(Sequence(range.from));
        if from > to {
            let rule = format!("leaves nothing: the range would be {from} to {to}, and the head is {head}");
            // Whichever was given is at fault.
            let (field, value) = match (range.from, range.to, range.from_time, range.to_time) {
                (_, _, Some(_), _) => ("from_time", String::new()),
                (_, _, None, Some(_)) => ("to_time", String::new()),
                (0, to, None, None) => ("to_sequence", to.to_string()),
                (from, _, None, None) => ("from_sequence", from.to_string()),
            };
            return Err(Refused::field(field, value, rule));
        }
        Ok((from, to))
    }

    async fn redrive(&self, request: &v1::RedriveDeadLettersRequest) -> Result<DeliveryJob, Refused> {
        let range = Range { from: 0, to: 0, from_time: request.from_time, to_time: request.to_time };
        let job = self.new_job(JobKind::Redrive, range, &request.event_types).await?;
        let member = optional_id("member_id", &request.member_id)?;
        let job = DeliveryJob {
            members: member.into_iter().collect(),
            sequences: ascending(&request.sequences),
            limit: request.limit,
            per_second: request.max_per_second,
            ..job
        };
        job.validate()?;
        Ok(job)
    }

    async fn replay(&self, request: &v1::ReplayEventsRequest) -> Result<DeliveryJob, Refused> {
        let range = Range {
            from: request.from_sequence,
            to: request.to_sequence,
            from_time: request.from_time,
            to_time: request.to_time,
        };
        let job = self.new_job(JobKind::Replay, range, &request.event_types).await?;
        let member = |(i, text): (usize, &String)| id::<MemberId>(&format!("member_ids[{i}]"), text);
        let job = DeliveryJob {
            members: request.member_ids.iter().enumerate().map(member).collect::<Result<_, _>>()?,
            limit: request.limit,
            per_second: request.max_per_second,
            ..job
        };
        job.validate()?;
        Ok(job)
    }

    async fn start_job(
        &self,
        tenant: Tenant,
        id: SubscriptionId,
        job: DeliveryJob,
    ) -> Result<v1::DeliveryJob, Refused> {
        let running = self.jobs(id).await?.iter().filter(|job| job.state == JobState::Running).count();
        if running >= JOBS_RUNNING_MAX {
            let rule = format!("{running} jobs run on this subscription already, at most {JOBS_RUNNING_MAX} may");
            return Err(Refused::precondition("TOO_MANY_JOBS", rule));
        }
        let job_id = job.id;
        self.state.node.dispatcher().start_job(tenant, id, job).await?;
        Ok(job_to_wire(id, &self.job(id, &job_id.to_string()).await?))
    }

    async fn jobs(&self, id: SubscriptionId) -> Result<Vec<DeliveryJob>, Refused> {
        self.read(move |views| Ok(views.delivery_state(id).map(|state| state.jobs.clone()).unwrap_or_default())).await
    }

    async fn job(&self, subscription: SubscriptionId, job_id: &str) -> Result<DeliveryJob, Refused> {
        let wanted: JobId = id("job_id", job_id)?;
        let found = self.jobs(subscription).await?.into_iter().find(|job| job.id == wanted);
        found.ok_or_else(|| Refused::not_found("JOB_NOT_FOUND", "job", wanted))
    }

    /// Dead letters from `from` on that a job is about, and where to go on, if there may be more.
    async fn dead_letters(
        &self,
        id: SubscriptionId,
        from: Sequence,
        job: &DeliveryJob,
    ) -> Result<(Vec<Sequence>, Option<Sequence>), Refused> {
        let named = job.sequences.clone();
        let (rows, next) = if named.is_empty() {
            let rows = self.read(move |views| views.delivery_rows(id, from, ROWS_AT_ONCE)).await?;
            let next = rows.last().filter(|_| rows.len() == ROWS_AT_ONCE).map(|last| last.sequence.next());
            (rows, next)
        } else {
            let at = named.partition_point(|sequence| *sequence < from);
            let some: Vec<Sequence> = named[at..].iter().copied().take(REDRIVE_MAX).collect();
            let next = some.last().filter(|_| some.len() == REDRIVE_MAX).map(|last| last.next());
            let rows = self.read(move |views| {
                let rows = some.iter().map(|sequence| views.delivery_row(id, *sequence));
                Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>())
            });
            (rows.await?, next)
        };
        let concerns = |row: &DeliveryRow| row.state == RowState::Dead && job.concerns(row.sequence, row.member);
        let dead: Vec<Sequence> = rows.into_iter().filter(concerns).map(|row| row.sequence).collect();
        let types = job.event_types.clone();
        let typed = self.journal(move |feed| {
            let mut passing = Vec::new();
            for sequence in dead {
                if feed.event_at(sequence)?.is_some_and(|event| types.selects(event.get().event)) {
                    passing.push(sequence);
                }
            }
            Ok(passing)
        });
        Ok((typed.await?, next))
    }

    async fn count_dead_letters(&self, id: SubscriptionId, job: &DeliveryJob) -> Result<u64, Refused> {
        let (mut count, mut from) = (0, Some(job.from_sequence));
        while let Some(at) = from {
            let (dead, next) = self.dead_letters(id, at, job).await?;
            count += dead.len() as u64;
            from = next;
        }
        Ok(count.min(job.left()))
    }

    /// Past events that a replay would send again, and whether the count stopped early.
    async fn count_events(
        &self,
        tenant: Tenant,
        entry: &SubscriptionEntry,
        job: DeliveryJob,
    ) -> Result<(u64, bool), Refused> {
        let node = &self.state.node;
        let target = node.dispatcher().target(entry).map_err(Refused::from)?;
        let counted = self.journal(move |feed| {
            let wanted = Wanted { tenant, types: target.types(), member: None };
            let (mut count, mut position) = (0, job.from_sequence);
            while position <= job.to_sequence {
                if position.0 - job.from_sequence.0 > PREVIEW_POSITIONS_MAX {
                    return Ok((count, true));
                }
                let page = feed.read_block(&wanted, position)?;
                if page.next <= position {
                    break;
                }
                position = page.next;
                let concerned = page.events.iter().filter(|event| {
                    let recorded = event.get();
                    job.concerns(recorded.sequence, recorded.member)
                        && job.event_types.selects(recorded.event)
                        && target.wants(&recorded, feed)
                });
                count += concerned.count() as u64;
            }
            Ok((count.min(job.left()), false))
        });
        counted.await
    }
}

/// Part of the journal, as it was asked for; 0 and `None` leave it open.
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) from_time: Option<Timestamp>,
    pub(super) to_time: Option<Timestamp>,
}

#[tonic::async_trait]
impl DeliveryService for Api {
    async fn list_deliveries(&self, request: Request<v1::ListDeliveriesRequest>) -> Answer<v1::ListDeliveriesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let only = filter(request.state)?;
        let wanted = |row: &DeliveryRow| only.is_none_or(|only| state(row.state) == only);
        let page = (request.page_size, request.page_token.as_str());
        let (deliveries, next_page_token) = self.rows(id, &request.filter, page, wanted).await?;
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
        let event_type = self.delivery(tenant, &entry, sequence).await?.event_type;
        let id = entry.definition.id;
        let scan = Scan {
            subscription_id: id,
            sequence: Some(sequence),
            before: None,
            attempts_max: ATTEMPTS_A_DELIVERY_MAX,
            bytes_max: LOG_BYTES_A_DELIVERY_MAX,
        };
        let logged_attempts = self.logged(scan, |_| true).await?.attempts;
        let mut remembered = self.row(id, sequence).await?.map(|row| row.log).unwrap_or_default();
        let keys = self.state.node.member_keys();
        remembered.iter_mut().for_each(|log| log.response = keys.open_response(log.key_slot, &log.response));
        // What both know, the log knows better. After a replay numbers begin anew, times do not.
        let by_time: BTreeMap<_, _> = (remembered.into_iter())
            .map(|log| ((log.at, log.number), attempt(log, (sequence, &event_type))))
            .chain(logged_attempts.into_iter().map(|one| ((one.at, one.number), logged(one))))
            .collect();
        Ok(Response::new(v1::ListAttemptsResponse { attempts: by_time.into_values().collect() }))
    }

    async fn list_recent_attempts(
        &self,
        request: Request<v1::ListRecentAttemptsRequest>,
    ) -> Answer<v1::ListRecentAttemptsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let filter = Filter::parse(&request.filter, ATTEMPT_FIELDS).map_err(|error| error.refused(&request.filter))?;
        let scan = Scan {
            subscription_id: id,
            sequence: None,
            before: page::after(List::Attempts, &request.page_token)?,
            attempts_max: page::size(request.page_size)?,
            bytes_max: LOG_BYTES_A_PAGE_MAX,
        };
        let found = self.logged(scan, move |attempt| lets_attempt_through(&filter, attempt)).await?;
        let next_page_token = found.next.map_or_else(String::new, |next| page::token(List::Attempts, next));
        let attempts = found.attempts.into_iter().map(logged).collect();
        Ok(Response::new(v1::ListRecentAttemptsResponse { attempts, next_page_token }))
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
        let page = (request.page_size, request.page_token.as_str());
        let (dead_letters, next_page_token) = self.rows(id, &request.filter, page, is_dead).await?;
        Ok(Response::new(v1::ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<v1::RedriveDeadLettersRequest>,
    ) -> Answer<v1::RedriveDeadLettersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let job = self.redrive(&request).await?;
        if request.preview {
            let redriven = self.count_dead_letters(id, &job).await?;
            return Ok(Response::new(v1::RedriveDeadLettersResponse { redriven, job: None }));
        }
        // A few that are named need no job.
        if (1..=REDRIVE_MAX).contains(&job.sequences.len()) && job.per_second == 0 && job.limit == 0 {
            let (dead, _) = self.dead_letters(id, job.from_sequence, &job).await?;
            let redriven = self.state.node.dispatcher().redrive(tenant, id, dead).await.map_err(Refused::from)?;
            return Ok(Response::new(v1::RedriveDeadLettersResponse { redriven, job: None }));
        }
        let job = Some(self.start_job(tenant, id, job).await?);
        Ok(Response::new(v1::RedriveDeadLettersResponse { redriven: 0, job }))
    }

    async fn drop_dead_letters(
        &self,
        request: Request<v1::DropDeadLettersRequest>,
    ) -> Answer<v1::DropDeadLettersResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        if request.sequences.is_empty() {
            return Err(Refused::field("sequences", "", "must name at least one").into());
        }
        let sequences = ascending(&request.sequences);
        let dropped = self.state.node.dispatcher().drop_dead_letters(tenant, id, sequences, request.reason).await;
        let dropped = dropped.map_err(Refused::from)?;
        Ok(Response::new(v1::DropDeadLettersResponse { dropped }))
    }

    async fn replay_events(&self, request: Request<v1::ReplayEventsRequest>) -> Answer<v1::ReplayEventsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let job = self.replay(&request).await?;
        if request.preview {
            let (matching, incomplete) = self.count_events(tenant, &entry, job).await?;
            return Ok(Response::new(v1::ReplayEventsResponse { matching, incomplete, job: None }));
        }
        let job = Some(self.start_job(tenant, entry.definition.id, job).await?);
        Ok(Response::new(v1::ReplayEventsResponse { matching: 0, incomplete: false, job }))
    }

    async fn get_delivery_job(
        &self,
        request: Request<v1::GetDeliveryJobRequest>,
    ) -> Answer<v1::GetDeliveryJobResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let job = self.job(id, &request.job_id).await?;
        Ok(Response::new(v1::GetDeliveryJobResponse { job: Some(job_to_wire(id, &job)) }))
    }

    async fn list_delivery_jobs(
        &self,
        request: Request<v1::ListDeliveryJobsRequest>,
    ) -> Answer<v1::ListDeliveryJobsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let jobs = self.jobs(id).await?.iter().map(|job| job_to_wire(id, job)).collect();
        Ok(Response::new(v1::ListDeliveryJobsResponse { jobs }))
    }

    async fn cancel_delivery_job(
        &self,
        request: Request<v1::CancelDeliveryJobRequest>,
    ) -> Answer<v1::CancelDeliveryJobResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let id = self.subscription(tenant, &request.subscription_id)?.definition.id;
        let job = self.job(id, &request.job_id).await?;
        if job.state == JobState::Running {
            self.state.node.dispatcher().cancel_job(tenant, id, job).await.map_err(Refused::from)?;
        }
        let job = self.job(id, &request.job_id).await?;
        Ok(Response::new(v1::CancelDeliveryJobResponse { job: Some(job_to_wire(id, &job)) }))
    }
}

fn ascending(sequences: &[u64]) -> Vec<Sequence> {
    let mut sequences: Vec<Sequence> = sequences.iter().copied().map(Sequence).collect();
    sequences.sort();
    sequences.dedup();
    sequences
}
