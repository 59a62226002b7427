//! A server for files of facts and consumptions, which answers as their ids tell it to.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use punchline_proto::v1;
use punchline_proto::v1::consumption_result::Outcome;
use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

use super::client::{Client, ClientOptions};
use super::failure::Failure;
use super::output::Answer;

#[derive(Clone, Default)]
struct Scripted {
    /// How often each id came.
    times: Arc<Mutex<HashMap<String, u32>>>,
    facts: Arc<Mutex<Vec<v1::Fact>>>,
}

impl Scripted {
    /// `ok…` is taken, `busy…` only the third time, `stranger…` and `cut…` never; a repeat is one.
    fn answer(&self, id: &str, exists: &str) -> Result<(), Status> {
        let mut times = self.times.lock().expect("no test panics with it");
        let times = times.entry(id.to_owned()).or_default();
        *times += 1;
        let (code, reason) = match id.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "ok" if *times == 1 => return Ok(()),
            "busy" if *times == 3 => return Ok(()),
            "busy" => (Code::Unavailable, "QUEUE_FULL"),
            "cut" => return Err(Status::cancelled("gone")),
            "stranger" => (Code::NotFound, "ACCOUNT_NOT_FOUND"),
            _ => (Code::AlreadyExists, exists),
        };
        let details = ErrorDetails::with_error_info(reason, "punchline", []);
        Err(Status::with_error_details(code, "no", details))
    }
}

#[tonic::async_trait]
impl IngestService for Scripted {
    async fn publish_fact(
        &self,
        request: Request<v1::PublishFactRequest>,
    ) -> Result<Response<v1::PublishFactResponse>, Status> {
        let fact = request.into_inner().fact.unwrap_or_default();
        let id = fact.fact_id.clone();
        // The earlier, the slower: answers come out of order unless somebody minds.
        let number: u64 = id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(20_u64.saturating_sub(number))).await;
        self.facts.lock().expect("no test panics with it").push(fact);
        self.answer(&id, "FACT_EXISTS").map(|()| Response::new(v1::PublishFactResponse::default()))
    }

    type StreamConsumptionsStream = Pin<Box<dyn Stream<Item = Result<v1::StreamConsumptionsResponse, Status>> + Send>>;

    async fn stream_consumptions(
        &self,
        request: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Result<Response<Self::StreamConsumptionsStream>, Status> {
        let scripted = self.clone();
        let answers = request.into_inner().map(move |message| {
            let consumption = message?.consumption.unwrap_or_default();
            let outcome = match scripted.answer(&consumption.consumption_id, "CONSUMPTION_EXISTS") {
                Ok(()) => Outcome::Receipt(v1::Receipt { points: 5, ..v1::Receipt::default() }),
                // Not about the one consumption: the stream is gone.
                Err(status) if status.details().is_empty() => return Err(status),
                Err(status) => Outcome::Error(pb::Status::decode(status.details()).expect("just encoded")),
            };
            let result = Some(v1::ConsumptionResult { outcome: Some(outcome) });
            Ok(v1::StreamConsumptionsResponse { result })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn record_consumption(
        &self,
        _: Request<v1::RecordConsumptionRequest>,
    ) -> Result<Response<v1::RecordConsumptionResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn batch_record_consumptions(
        &self,
        _: Request<v1::BatchRecordConsumptionsRequest>,
    ) -> Result<Response<v1::BatchRecordConsumptionsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// A file in which each line is an object with one of these ids; `!` is no JSON.
pub(super) fn lines_of(ids: &str, field: &str) -> String {
    let line = |id: &str| if id == "!" { id.to_owned() } else { format!("{{\"{field}\":\"{id}\"}}") };
    ids.split(' ').filter(|id| !id.is_empty()).map(line).collect::<Vec<_>>().join("\n")
}

/// Sends a file, and shows the summary (its outcomes with their `counts`), whether it failed, and the facts
/// that came, in their order.
pub(super) async fn send_text(
    text: &str,
    counts: &str,
    send: impl AsyncFnOnce(&Path, &Client) -> Result<Answer, Failure>,
) -> (String, bool, Vec<v1::Fact>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", socket.local_addr().expect("bound"));
    let scripted = Scripted::default();
    let server = tonic::transport::Server::builder().add_service(IngestServiceServer::new(scripted.clone()));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    let options =
        ClientOptions { endpoint, token: None, advertiser: None, environment: None, ca_file: None, timeout_s: 10 };
    let client = Client::connect(&options).await.expect("connected");

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    let answer = send(file.path(), &client).await.expect("an answer");
    server.abort();

    let (answer, failed) = match answer {
        Answer::Although(answer, _) => (*answer, true),
        answer => (answer, false),
    };
    let Answer::Rows(_, rows) = answer else { panic!("no rows") };
    let shown = rows.iter().map(|row| format!("{} {}", row["outcome"].as_str().expect("text"), row[counts]));
    let came = std::mem::take(&mut *scripted.facts.lock().expect("no test panics with it"));
    (shown.collect::<Vec<_>>().join(", "), failed, came)
}
