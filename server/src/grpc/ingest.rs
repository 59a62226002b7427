//! `IngestService`.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::consumption::{Consumption, Receipt};
use punchline_engine::loyalty::fact::FactReceipt;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::{InvalidField, Rejection};
use punchline_proto::v1;
use punchline_proto::v1::ingest_service_server::IngestService;
use punchline_runtime::committer::Refusal;
use tonic::{Request, Response, Status, Streaming};
use v1::consumption_result::Outcome as Wire;
use v1::fact_result::Outcome as FactOutcome;

use super::{Answer, Api, Authorized};
use crate::refuse::Refused;
use crate::{convert, facts, ingest};

/// Where the consumption stands in a message of one.
const ONE: &str = "consumption";
/// Most consumptions of one batch.
const BATCH_MAX: usize = 1_000;
/// Messages of a stream that are taken in at once: what has arrived, up to so many.
const CHUNK_MAX: usize = 256;
/// Lines of these messages, which bound the bytes of a chunk: some 2 MiB, where all are as long as may be.
const CHUNK_LINES_MAX: usize = 4_096;
/// Chunks of one stream under way at once: one syncs, one is decided, and two arrive.
const CHUNKS_MAX: usize = 4;

impl Api {
    /// Counts consumptions against the tenant's limit, all of them or none.
    fn within_limit(&self, tenant: Tenant, count: usize) -> Result<(), Refused> {
        let limit = &self.state.grpc_limit;
        let allowance = limit.take(tenant, u32::try_from(count).unwrap_or(u32::MAX), self.state.node.clock().now());
        let Some(retry_after_ms) = allowance.and_then(|allowance| allowance.retry_after_ms) else { return Ok(()) };
        ingest::count_refused("RATE_LIMIT_EXCEEDED", count);
        Err(Refused::batch_rate_limited(retry_after_ms, count, limit.per_minute()))
    }

    /// Counts as many consumptions as fit into the tenant's limit; gives their number, and what the others
    /// are told.
    fn within_limit_some(&self, tenant: Tenant, count: usize) -> (usize, Option<Refused>) {
        let calls = u32::try_from(count).unwrap_or(u32::MAX);
        let (granted, allowance) = self.state.grpc_limit.take_some(tenant, calls, self.state.node.clock().now());
        let refused = allowance.and_then(|allowance| allowance.retry_after_ms).map(|retry_after_ms| {
            ingest::count_refused("RATE_LIMIT_EXCEEDED", count - granted as usize);
            Refused::rate_limited(retry_after_ms)
        });
        (granted as usize, refused)
    }
}

#[tonic::async_trait]
impl IngestService for Api {
    type StreamConsumptionsStream = BoxStream<'static, Result<v1::StreamConsumptionsResponse, Status>>;

    async fn publish_fact(&self, request: Request<v1::PublishFactRequest>) -> Answer<v1::PublishFactResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest)?;
        self.within_limit(tenant, 1)?;
        let fact = convert::fact::fact(convert::required("fact", request.fact)?);
        let published = facts::publish(&self.state, tenant, fact).await.map_err(Refused::from)?;
        let v1::FactReceipt { sequence, recorded_at, member_id } = convert::fact::receipt(&published);
        Ok(Response::new(v1::PublishFactResponse { sequence, recorded_at, member_id }))
    }

    async fn batch_publish_facts(
        &self,
        request: Request<v1::BatchPublishFactsRequest>,
    ) -> Answer<v1::BatchPublishFactsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest)?;
        let count = request.facts.len();
        if !(1..=facts::BATCH_MAX).contains(&count) {
            return Err(Refused::field("facts", count.to_string(), "must be 1 to 1000").into());
        }
        self.within_limit(tenant, count)?;
        let raw = request.facts.into_iter().map(|fact| Ok(convert::fact::fact(fact))).collect();
        let published = facts::publish_all(&self.state, tenant, raw).await;
        if let Some(why) = ingest::all_unavailable(&published) {
            return Err(Refused::from(why).into());
        }
        let results = published.into_iter().enumerate().map(|(i, published)| fact_result(i, published)).collect();
        Ok(Response::new(v1::BatchPublishFactsResponse { results }))
    }

    async fn register_fact_type(
        &self,
        request: Request<v1::RegisterFactTypeRequest>,
    ) -> Answer<v1::RegisterFactTypeResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let fact_type = self.register_type(tenant, convert::required("fact_type", request.fact_type)?).await?;
        Ok(Response::new(v1::RegisterFactTypeResponse { fact_type: Some(fact_type) }))
    }

    async fn get_fact_type(&self, request: Request<v1::GetFactTypeRequest>) -> Answer<v1::GetFactTypeResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let fact_type = self.fact_type(tenant, &request.name)?;
        Ok(Response::new(v1::GetFactTypeResponse { fact_type: Some(fact_type) }))
    }

    async fn list_fact_types(&self, request: Request<v1::ListFactTypesRequest>) -> Answer<v1::ListFactTypesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        self.fact_types(tenant, &request).map(Response::new).map_err(Status::from)
    }

    async fn record_consumption(
        &self,
        request: Request<v1::RecordConsumptionRequest>,
    ) -> Answer<v1::RecordConsumptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest).map_err(counted)?;
        self.within_limit(tenant, 1)?;
        let consumption = convert::required(ONE, request.consumption).map_err(counted)?;
        let recorded = ingest::record(&self.state.node, tenant, convert::consumption(consumption)).await;
        let receipt = recorded.map_err(|refusal| refused(ONE, refusal))?;
        Ok(Response::new(v1::RecordConsumptionResponse { receipt: Some(convert::receipt(receipt)) }))
    }

    async fn batch_record_consumptions(
        &self,
        request: Request<v1::BatchRecordConsumptionsRequest>,
    ) -> Answer<v1::BatchRecordConsumptionsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest).map_err(counted)?;
        let count = request.consumptions.len();
        if !(1..=BATCH_MAX).contains(&count) {
            let refused = Refused::field("consumptions", count.to_string(), "must be 1 to 1000");
            ingest::count_refused(refused.reason, count);
            return Err(refused.into());
        }
        self.within_limit(tenant, count)?;
        let node = &self.state.node;
        let check = |given| ingest::check(node, convert::consumption(given));
        let checked = request.consumptions.into_iter().map(check).collect();
        let results = ingest::record_all(node, tenant, checked, false).await;
        if let Some(why) = ingest::all_unavailable(&results) {
            return Err(Refused::from(why).into());
        }
        let results = results.into_iter().enumerate();
        let results = results.map(|(i, recorded)| result(&format!("consumptions[{i}]"), recorded)).collect();
        Ok(Response::new(v1::BatchRecordConsumptionsResponse { results }))
    }

    async fn stream_consumptions(
        &self,
        request: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Answer<Self::StreamConsumptionsStream> {
        let (metadata, _, messages) = request.into_parts();
        let caller = Authorized { api: self.clone(), metadata, scope: Scope::Ingest };
        caller.tenant().map_err(counted)?;
        let caller = Arc::new(caller);
        let mut down = self.down.clone();
        let going_down = async move { drop(down.wait_for(|down| *down).await) };
        let node = self.state.node.clone();
        // Checked one by one: decoded and unchecked, a message may take many times its bytes on the wire.
        let check = move |message: Result<v1::StreamConsumptionsRequest, Status>| {
            let given = message?.consumption;
            Ok(given.map(|given| ingest::check(&node, convert::consumption(given))))
        };
        let results = chunks(messages.take_until(going_down).map(check))
            .map(move |chunk| take_in(caller.clone(), chunk))
            .buffered(CHUNKS_MAX)
            .flat_map(stream::iter);
        Ok(Response::new(results.boxed()))
    }
}

/// A message of a stream, checked; `None` where nothing was in it.
type Message = Result<Option<Result<Consumption, InvalidField>>, Status>;

/// What has arrived, in chunks that are bounded in messages and in lines.
fn chunks(messages: impl Stream<Item = Message> + Send + 'static) -> impl Stream<Item = Vec<Message>> + Send {
    let lines = |message: &Message| match message {
        Ok(Some(Ok(consumption))) => consumption.lines.len(),
        _ => 0,
    };
    stream::unfold(Box::pin(messages.fuse()), move |mut messages| async move {
        let first = messages.next().await?;
        let mut lines_taken = lines(&first);
        let mut chunk = vec![first];
        while chunk.len() < CHUNK_MAX && lines_taken < CHUNK_LINES_MAX {
            let Some(Some(message)) = messages.next().now_or_never() else { break };
            lines_taken += lines(&message);
            chunk.push(message);
        }
        Some((chunk, messages))
    })
}

type Results = Vec<Result<v1::StreamConsumptionsResponse, Status>>;

/// One result for each message; the end of the messages, if it is not a good one, comes last.
async fn take_in(caller: Arc<Authorized>, chunk: Vec<Message>) -> Results {
    let tenant = match caller.tenant() {
        Ok(tenant) => tenant,
        Err(refused) => {
            ingest::count_refused(refused.reason, chunk.iter().filter(|message| message.is_ok()).count());
            return vec![Err(refused.into())];
        }
    };
    let mut broken = None;
    let mut messages = Vec::with_capacity(chunk.len());
    for message in chunk {
        match message {
            Ok(consumption) => messages.push(consumption),
            Err(status) => broken = Some(Err(status)),
        }
    }
    let (granted, beyond) = caller.api.within_limit_some(tenant, messages.len());
    let limited = messages.drain(granted..).filter_map(|_| beyond.clone().map(error)).collect::<Vec<_>>();
    let empty: Vec<bool> = messages.iter().map(Option::is_none).collect();
    let checked: Vec<_> = messages.into_iter().flatten().collect();
    let mut recorded = match checked.is_empty() {
        true => Vec::new(),
        false => ingest::record_all(&caller.api.state.node, tenant, checked, true).await,
    }
    .into_iter();
    let results = empty.into_iter().filter_map(|empty| match empty {
        true => Some(error(counted(Refused::body_required(ONE)))),
        false => recorded.next().map(|recorded| result(ONE, recorded)),
    });
    let answer = |result| Ok(v1::StreamConsumptionsResponse { result: Some(result) });
    results.chain(limited).map(answer).chain(broken).collect()
}

/// Counts a refusal that came before the consumption was looked at.
fn counted(refused: Refused) -> Refused {
    ingest::count_refused(refused.reason, 1);
    refused
}

/// A refusal of the consumption at `at`, with the fields' names as the proto files have them.
fn refused(at: &str, refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Rejected(Rejection::Invalid(invalid)) => convert::consumption_field(at, invalid).into(),
        other => other.into(),
    }
}

/// The result of the fact at index `i` of a batch.
fn fact_result(i: usize, published: Result<FactReceipt, Refusal>) -> v1::FactResult {
    let refused = |refusal| match refusal {
        Refusal::Rejected(Rejection::Invalid(mut invalid)) => {
            invalid.field = format!("facts[{i}].{}", invalid.field);
            Refused::from(invalid)
        }
        other => Refused::from(other),
    };
    let outcome = match published {
        Ok(receipt) => FactOutcome::Receipt(convert::fact::receipt(&receipt)),
        Err(refusal) => FactOutcome::Error(refused(refusal).into_rpc_status()),
    };
    v1::FactResult { outcome: Some(outcome) }
}

fn error(refused: Refused) -> v1::ConsumptionResult {
    v1::ConsumptionResult { outcome: Some(Wire::Error(refused.into_rpc_status())) }
}

fn result(at: &str, recorded: Result<Receipt, Refusal>) -> v1::ConsumptionResult {
    match recorded {
        Ok(receipt) => v1::ConsumptionResult { outcome: Some(Wire::Receipt(convert::receipt(receipt))) },
        Err(refusal) => error(refused(at, refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchline_engine::loyalty::consumption::{RawConsumption, RawLine};
    use punchline_engine::time::UnixMillis;

    fn message(lines: usize) -> Message {
        let raw = RawConsumption {
            consumption_id: "I1".into(),
            consumed_at: "2025-04-25T12:34:00Z".into(),
            identifiers: vec![("email".into(), "user@example.com".into())],
            lines: vec![RawLine { sku: "review".into(), product_name: String::new(), quantity: 1.0 }; lines],
        };
        Ok(Some(raw.check(UnixMillis(1_790_000_000_000))))
    }

    #[tokio::test]
    async fn chunks_are_bounded() {
        for (messages, lines, expected) in [
            (300, 1, vec![256, 44]),
            (50, 200, vec![21, 21, 8]),
            // Invalid ones hold nothing.
            (300, 201, vec![256, 44]),
            (0, 1, vec![]),
        ] {
            let messages = stream::iter((0..messages).map(move |_| message(lines)));
            let sizes: Vec<usize> = chunks(messages).map(|chunk| chunk.len()).collect().await;
            assert_eq!(sizes, expected, "{lines} lines");
        }
        let pending = stream::iter([message(1), message(1)]).chain(stream::pending());
        let arrived = Box::pin(chunks(pending)).next().await.expect("some have arrived");
        assert_eq!(arrived.len(), 2, "what has arrived does not wait for more");
    }
}
