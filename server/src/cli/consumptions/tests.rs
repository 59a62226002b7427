//! The fast lane against a server that answers as the ids tell it to.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};
use tonic_types::{ErrorDetails, pb};

use super::*;
use crate::cli::client::ClientOptions;

/// Counts how often each id came.
#[derive(Clone, Default)]
struct Scripted {
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

impl Scripted {
    /// `ok…` is accepted, `busy…` only the third time, `stranger…` never; a repeat is one.
    fn answer(&self, id: &str) -> Result<Outcome, Status> {
        let mut seen = self.seen.lock().expect("no test panics with it");
        let times = seen.entry(id.to_owned()).or_default();
        *times += 1;
        let (code, reason) = match id.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "ok" if *times == 1 => return Ok(accepted()),
            "busy" if *times == 3 => return Ok(accepted()),
            "busy" => (Code::Unavailable, "QUEUE_FULL"),
            "cut" => return Err(Status::unavailable("gone")),
            "stranger" => (Code::NotFound, "ACCOUNT_NOT_FOUND"),
            _ => (Code::AlreadyExists, EXISTS),
        };
        let details = ErrorDetails::with_error_info(reason, "punchline", []);
        let status = Status::with_error_details(code, "no", details);
        Ok(Outcome::Error(pb::Status::decode(status.details()).expect("just encoded")))
    }
}

fn accepted() -> Outcome {
    Outcome::Receipt(v1::Receipt { points: 5, ..v1::Receipt::default() })
}

#[tonic::async_trait]
impl IngestService for Scripted {
    async fn publish_fact(
        &self,
        _: Request<v1::PublishFactRequest>,
    ) -> Result<Response<v1::PublishFactResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn batch_publish_facts(
        &self,
        _: Request<v1::BatchPublishFactsRequest>,
    ) -> Result<Response<v1::BatchPublishFactsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn register_fact_type(
        &self,
        _: Request<v1::RegisterFactTypeRequest>,
    ) -> Result<Response<v1::RegisterFactTypeResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_fact_type(
        &self,
        _: Request<v1::GetFactTypeRequest>,
    ) -> Result<Response<v1::GetFactTypeResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_fact_types(
        &self,
        _: Request<v1::ListFactTypesRequest>,
    ) -> Result<Response<v1::ListFactTypesResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type StreamConsumptionsStream = Pin<Box<dyn Stream<Item = Result<v1::StreamConsumptionsResponse, Status>> + Send>>;

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

    async fn stream_consumptions(
        &self,
        request: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Result<Response<Self::StreamConsumptionsStream>, Status> {
        let scripted = self.clone();
        let answers = request.into_inner().map(move |message| {
            let consumption = message?.consumption.unwrap_or_default();
            let outcome = scripted.answer(&consumption.consumption_id)?;
            let result = Some(v1::ConsumptionResult { outcome: Some(outcome) });
            Ok(v1::StreamConsumptionsResponse { result })
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// Records a file whose lines are these ids (`!` is no JSON), and shows the summary.
async fn record_ids(ids: &[String], stop_on_error: bool) -> (String, bool) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", socket.local_addr().expect("bound"));
    let server = tonic::transport::Server::builder().add_service(IngestServiceServer::new(Scripted::default()));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    let options =
        ClientOptions { endpoint, token: None, advertiser: None, environment: None, ca_file: None, timeout_s: 10 };
    let client = Client::connect(&options).await.expect("connected");

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let lines: Vec<String> =
        ids.iter().map(|id| if id == "!" { id.clone() } else { format!("{{\"consumptionId\":\"{id}\"}}") }).collect();
    std::fs::write(file.path(), lines.join("\n")).expect("written");
    let answer = record(Some(file.path()), stop_on_error, &client).await.expect("an answer");
    server.abort();

    let (answer, failed) = match answer {
        Answer::Although(answer, _) => (*answer, true),
        answer => (answer, false),
    };
    let Answer::Rows(_, rows) = answer else { panic!("no rows") };
    let shown = rows.iter().map(|row| format!("{} {}", row["outcome"].as_str().expect("text"), row["consumptions"]));
    (shown.collect::<Vec<_>>().join(", "), failed)
}

#[tokio::test]
async fn every_line_is_in_the_summary_once() {
    let many: Vec<String> = (0..5_000).map(|n| format!("ok{n}")).collect();
    let story = |text: &str| text.split(' ').filter(|id| !id.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let cases: &[(Vec<String>, bool, &str, bool)] = &[
        (story(""), false, "accepted 0", false),
        (many, false, "accepted 5000", false),
        (story("ok1 ok2 ok1"), false, "accepted 2, CONSUMPTION_EXISTS 1", false),
        (story("ok1 stranger ! ok2"), false, "accepted 2, ACCOUNT_NOT_FOUND 1, MALFORMED_LINE 1", true),
        (story("! ok1 ok2"), true, "accepted 0, MALFORMED_LINE 1", true),
        (story("ok1 busy ok2"), false, "accepted 3", false),
        (story("cut"), false, "accepted 0, unanswered 1", true),
    ];
    for (ids, stop_on_error, expected, fails) in cases {
        let (shown, failed) = record_ids(ids, *stop_on_error).await;
        assert_eq!((shown.as_str(), failed), (*expected, *fails), "{} lines", ids.len());
    }
}
