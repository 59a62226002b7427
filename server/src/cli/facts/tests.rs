//! A file against a server that answers as the ids tell it to.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};
use tonic_types::{ErrorDetails, pb};

use super::*;
use crate::cli::client::ClientOptions;

#[derive(Clone, Default)]
struct Scripted {
    seen: Arc<Mutex<Seen>>,
}

/// What came, in its order, and how often each id did.
#[derive(Default)]
struct Seen {
    order: Vec<v1::Fact>,
    times: HashMap<String, u32>,
    batches: Vec<usize>,
}

impl Scripted {
    /// `ok…` is published, `busy…` only the third time, `stranger…` and `cut…` never; a repeat is one.
    fn answer(&self, fact: v1::Fact) -> Result<v1::FactReceipt, Status> {
        let Seen { order, times, .. } = &mut *self.seen.lock().expect("no test panics with it");
        let id = fact.fact_id.clone();
        order.push(fact);
        let times = times.entry(id.clone()).or_default();
        *times += 1;
        let (code, reason) = match id.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "ok" if *times == 1 => return Ok(v1::FactReceipt::default()),
            "busy" if *times == 3 => return Ok(v1::FactReceipt::default()),
            "busy" => (Code::Unavailable, "QUEUE_FULL"),
            "stranger" => (Code::NotFound, "ACCOUNT_NOT_FOUND"),
            _ => (Code::AlreadyExists, EXISTS),
        };
        let details = ErrorDetails::with_error_info(reason, "punchline", []);
        Err(Status::with_error_details(code, "no", details))
    }
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
        request: Request<v1::BatchPublishFactsRequest>,
    ) -> Result<Response<v1::BatchPublishFactsResponse>, Status> {
        let facts = request.into_inner().facts;
        self.seen.lock().expect("no test panics with it").batches.push(facts.len());
        match facts.first().map(|fact| fact.fact_id.as_str()) {
            Some("cut") => return Err(Status::cancelled("gone")),
            // The whole call, as where the queue is full.
            Some("full") => {
                let details = ErrorDetails::with_error_info("RATE_LIMIT_EXCEEDED", "punchline", []);
                return Err(Status::with_error_details(Code::ResourceExhausted, "no", details));
            }
            _ => {}
        }
        let result = |fact| {
            let outcome = match self.answer(fact) {
                Ok(receipt) => Outcome::Receipt(receipt),
                Err(status) => Outcome::Error(pb::Status::decode(status.details()).expect("just encoded")),
            };
            v1::FactResult { outcome: Some(outcome) }
        };
        Ok(Response::new(v1::BatchPublishFactsResponse { results: facts.into_iter().map(result).collect() }))
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
        _: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Result<Response<Self::StreamConsumptionsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// A server, and a client of it.
async fn serve() -> (Scripted, Client, tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", socket.local_addr().expect("bound"));
    let scripted = Scripted::default();
    let server = tonic::transport::Server::builder().add_service(IngestServiceServer::new(scripted.clone()));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    let options =
        ClientOptions { endpoint, token: None, advertiser: None, environment: None, ca_file: None, timeout_s: 10 };
    let client = Client::connect(&options).await.expect("connected");
    (scripted, client, server)
}

/// Publishes a file, and shows the summary, whether it failed, and what came.
async fn publish_text(text: &str, stop_on_error: bool) -> (String, bool, Seen) {
    let (scripted, client, server) = serve().await;
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    let answer = publish(Some(file.path()), "shop".into(), stop_on_error, &client).await.expect("an answer");
    server.abort();

    let (answer, failed) = match answer {
        Answer::Although(answer, _) => (*answer, true),
        answer => (answer, false),
    };
    let Answer::Rows(_, rows) = answer else { panic!("no rows") };
    let shown = rows.iter().map(|row| format!("{} {}", row["outcome"].as_str().expect("text"), row["facts"]));
    let came = std::mem::take(&mut *scripted.seen.lock().expect("no test panics with it"));
    (shown.collect::<Vec<_>>().join(", "), failed, came)
}

fn lines_of(ids: &str) -> String {
    let line = |id: &str| if id == "!" { id.to_owned() } else { format!("{{\"factId\":\"{id}\"}}") };
    ids.split(' ').filter(|id| !id.is_empty()).map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_line_is_in_the_summary_once() {
    let many: Vec<String> = (0..1_000).map(|n| format!("ok{n}")).collect();
    let cases: &[(&str, bool, &str, bool)] = &[
        ("", false, "published 0", false),
        (&many.join(" "), false, "published 1000", false),
        ("ok1 ok2 ok1", false, "published 2, FACT_EXISTS 1", false),
        ("ok1 stranger ! ok2", false, "published 2, ACCOUNT_NOT_FOUND 1, MALFORMED_LINE 1", true),
        ("! ok1 ok2", true, "published 0, MALFORMED_LINE 1", true),
        ("ok1 busy ok2", false, "published 3", false),
        ("cut", false, "published 0, unanswered 1", true),
        ("full", false, "published 0, RATE_LIMIT_EXCEEDED 1", true),
        ("ok1 ! ok2", true, "published 1, MALFORMED_LINE 1", true),
    ];
    for (ids, stop_on_error, expected, fails) in cases {
        let (shown, failed, _) = publish_text(&lines_of(ids), *stop_on_error).await;
        assert_eq!((shown.as_str(), failed), (*expected, *fails), "{} bytes of lines", ids.len());
    }
}

#[tokio::test]
async fn what_is_there_to_read_goes_in_batches_that_fit() {
    let (scripted, client, server) = serve().await;
    let item = |n: usize, bytes: usize| {
        let what = v1::Fact { fact_id: format!("ok{n}"), properties_json: "x".repeat(bytes), ..v1::Fact::default() };
        Line::Item(Item { line: n + 1, end_bytes: 0, tries: 0, wait: Duration::ZERO, what })
    };
    let small = (0..300).map(|n| item(n, 2));
    let large = (300..400).map(|n| item(n, 30_000));
    let ingest = IngestServiceClient::new(client.service());
    let mut publisher = Publisher::new(ingest, "shop".into(), false, Progress::over(None));
    publisher.pass(futures_util::stream::iter(small.chain(large))).await.expect("sent");
    server.abort();
    assert_eq!(publisher.tally.published, 400);
    let Seen { order, batches, .. } = std::mem::take(&mut *scripted.seen.lock().expect("no test panics with it"));
    let came: Vec<&str> = order.iter().map(|fact| fact.fact_id.as_str()).collect();
    let expected: Vec<String> = (0..400).map(|n| format!("ok{n}")).collect();
    assert_eq!(came, expected, "in the file's order");
    // 256 at most, and with the line that makes it a MiB full.
    assert_eq!(batches, [256, 44 + 35, 35, 30]);
}

#[test]
fn a_line_is_a_fact() {
    let line = r#"{"source":"shop","factId":"f1","type":"wallet_pass.installed","identifiers":[{"key":"email","value":"a@b"}],"occurredAt":"2025-04-25T12:34:00Z","properties":{"n":1.50}}"#;
    let fact = parse(line.as_bytes()).expect("a fact");
    let expected = v1::Fact {
        source: "shop".into(),
        fact_id: "f1".into(),
        r#type: "wallet_pass.installed".into(),
        identifiers: vec![v1::Identifier { key: "email".into(), value: "a@b".into() }],
        occurred_at: "2025-04-25T12:34:00Z".into(),
        properties_json: r#"{"n":1.50}"#.into(),
    };
    assert_eq!(fact, expected);
    let told = parse(br#"{"factId":"f1","propertys":{}}"#).expect_err("a word that is not known");
    assert!(told.contains("propertys"), "{told}");
}
