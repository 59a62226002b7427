//! `IngestService`.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::consumption::Receipt;
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::Rejection;
use punchline_proto::v1;
use punchline_proto::v1::ingest_service_server::IngestService;
use punchline_runtime::committer::Refusal;
use tonic::{Request, Response, Status, Streaming};
use v1::consumption_result::Outcome as Wire;

use super::{Answer, Api, Authorized};
use crate::convert;
use crate::ingest;
use crate::refuse::Refused;

/// Most consumptions of one batch.
const BATCH_MAX: usize = 1_000;
/// Messages of a stream that are taken in at once: what has arrived, up to so many.
const CHUNK_MAX: usize = 256;
/// Chunks of one stream under way at once: one syncs, one is decided, and two arrive.
const CHUNKS_MAX: usize = 4;

impl Api {
    /// Counts consumptions against the tenant's limit, all of them or none.
    fn within_limit(&self, tenant: Tenant, count: usize) -> Result<(), Refused> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let allowance = self.state.grpc_limit.take(tenant, count, self.state.node.clock().now());
        match allowance.and_then(|allowance| allowance.retry_after_ms) {
            Some(ms) => {
                ingest::count_refused("RATE_LIMIT_EXCEEDED");
                Err(Refused::rate_limited(ms))
            }
            None => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl IngestService for Api {
    type StreamConsumptionsStream = BoxStream<'static, Result<v1::StreamConsumptionsResponse, Status>>;

    async fn record_consumption(
        &self,
        request: Request<v1::RecordConsumptionRequest>,
    ) -> Answer<v1::RecordConsumptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest)?;
        self.within_limit(tenant, 1)?;
        let consumption = convert::required("consumption", request.consumption)?;
        let recorded = ingest::record(&self.state.node, tenant, convert::consumption(consumption)).await;
        let receipt = recorded.map_err(refused)?;
        Ok(Response::new(v1::RecordConsumptionResponse { receipt: Some(convert::receipt(receipt)) }))
    }

    async fn batch_record_consumptions(
        &self,
        request: Request<v1::BatchRecordConsumptionsRequest>,
    ) -> Answer<v1::BatchRecordConsumptionsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Ingest)?;
        let count = request.consumptions.len();
        if !(1..=BATCH_MAX).contains(&count) {
            return Err(Refused::field("consumptions", count.to_string(), "must be 1 to 1000").into());
        }
        self.within_limit(tenant, count)?;
        let raws = request.consumptions.into_iter().map(convert::consumption).collect();
        let results = ingest::record_all(&self.state.node, tenant, raws, false).await;
        // Where none was looked at, the call as a whole is to be tried again.
        if let Some(Err(Refusal::Unavailable(why))) = results.first()
            && results.iter().all(|result| matches!(result, Err(Refusal::Unavailable(_))))
        {
            return Err(Refused::from(why.clone()).into());
        }
        let results = results.into_iter().map(result).collect();
        Ok(Response::new(v1::BatchRecordConsumptionsResponse { results }))
    }

    async fn stream_consumptions(
        &self,
        request: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Answer<Self::StreamConsumptionsStream> {
        let (metadata, _, messages) = request.into_parts();
        let caller = Authorized { api: self.clone(), metadata, scope: Scope::Ingest };
        caller.tenant()?;
        let caller = Arc::new(caller);
        let mut down = self.down.clone();
        let going_down = async move { drop(down.wait_for(|down| *down).await) };
        let results = messages
            .take_until(going_down)
            .ready_chunks(CHUNK_MAX)
            .map(move |chunk| take_in(caller.clone(), chunk))
            .buffered(CHUNKS_MAX)
            .flat_map(stream::iter);
        Ok(Response::new(results.boxed()))
    }
}

type Results = Vec<Result<v1::StreamConsumptionsResponse, Status>>;

/// One result for each message; the end of the messages, if it is not a good one, comes last.
async fn take_in(caller: Arc<Authorized>, chunk: Vec<Result<v1::StreamConsumptionsRequest, Status>>) -> Results {
    let tenant = match caller.tenant() {
        Ok(tenant) => tenant,
        Err(refused) => return vec![Err(refused.into())],
    };
    let mut broken = None;
    let mut empty = Vec::with_capacity(chunk.len());
    let mut raws = Vec::with_capacity(chunk.len());
    for message in chunk {
        match message {
            Ok(v1::StreamConsumptionsRequest { consumption }) => {
                empty.push(consumption.is_none());
                raws.extend(consumption.map(convert::consumption));
            }
            Err(status) => broken = Some(Err(status)),
        }
    }
    if let Err(refused) = caller.api.within_limit(tenant, empty.len()) {
        let answer = |_| Ok(v1::StreamConsumptionsResponse { result: Some(error(refused.clone())) });
        return empty.into_iter().map(answer).chain(broken).collect();
    }
    let mut recorded = match raws.is_empty() {
        true => Vec::new(),
        false => ingest::record_all(&caller.api.state.node, tenant, raws, true).await,
    }
    .into_iter();
    let results = empty.into_iter().filter_map(|empty| match empty {
        true => Some(error(Refused::body_required("consumption"))),
        false => recorded.next().map(result),
    });
    let answer = |result| Ok(v1::StreamConsumptionsResponse { result: Some(result) });
    results.map(answer).chain(broken).collect()
}

/// A refusal with the fields' names as the proto files have them.
fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Rejected(Rejection::Invalid(invalid)) => convert::consumption_field(invalid).into(),
        other => other.into(),
    }
}

fn error(refused: Refused) -> v1::ConsumptionResult {
    v1::ConsumptionResult { outcome: Some(Wire::Error(refused.into_rpc_status())) }
}

fn result(recorded: Result<Receipt, Refusal>) -> v1::ConsumptionResult {
    match recorded {
        Ok(receipt) => v1::ConsumptionResult { outcome: Some(Wire::Receipt(convert::receipt(receipt))) },
        Err(refusal) => error(refused(refusal)),
    }
}
