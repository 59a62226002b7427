//! A file against a server that answers as the ids tell it to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Streaming};
use tonic_types::ErrorDetails;

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
}

impl Scripted {
    /// `ok…` is published, `busy…` only the third time, `stranger…` and `cut…` never; a repeat is one.
    fn answer(&self, fact: v1::Fact) -> Result<v1::PublishFactResponse, Status> {
        let Seen { order, times } = &mut *self.seen.lock().expect("no test panics with it");
        let id = fact.fact_id.clone();
        order.push(fact);
        let times = times.entry(id.clone()).or_default();
        *times += 1;
        let (code, reason) = match id.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "ok" if *times == 1 => return Ok(v1::PublishFactResponse::default()),
            "busy" if *times == 3 => return Ok(v1::PublishFactResponse::default()),
            "busy" => (Code::Unavailable, "QUEUE_FULL"),
            "cut" => return Err(Status::cancelled("gone")),
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
        request: Request<v1::PublishFactRequest>,
    ) -> Result<Response<v1::PublishFactResponse>, Status> {
        let fact = request.into_inner().fact.unwrap_or_default();
        // The earlier, the slower: answers come out of order unless somebody minds.
        let number: u64 = fact.fact_id.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(20_u64.saturating_sub(number))).await;
        self.answer(fact).map(Response::new)
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

/// Publishes a file, and shows the summary, whether it failed, and what came.
async fn publish_text(text: &str, stop_on_error: bool) -> (String, bool, Vec<v1::Fact>) {
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
    let answer = publish(Some(file.path()), "shop".into(), stop_on_error, &client).await.expect("an answer");
    server.abort();

    let (answer, failed) = match answer {
        Answer::Although(answer, _) => (*answer, true),
        answer => (answer, false),
    };
    let Answer::Rows(_, rows) = answer else { panic!("no rows") };
    let shown = rows.iter().map(|row| format!("{} {}", row["outcome"].as_str().expect("text"), row["facts"]));
    let Seen { order: came, .. } = std::mem::take(&mut *scripted.seen.lock().expect("no test panics with it"));
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
    ];
    for (ids, stop_on_error, expected, fails) in cases {
        let (shown, failed, _) = publish_text(&lines_of(ids), *stop_on_error).await;
        assert_eq!((shown.as_str(), failed), (*expected, *fails), "{} bytes of lines", ids.len());
    }
}

#[tokio::test]
async fn a_members_facts_are_told_in_order() {
    let line = |n: usize| {
        let member = n % 3;
        format!(r#"{{"factId":"ok{n}","identifiers":[{{"key":"email","value":"{member}@x"}}]}}"#)
    };
    let text: Vec<String> = (0..60).map(line).collect();
    let (shown, _, came) = publish_text(&text.join("\n"), false).await;
    assert_eq!(shown, "published 60");
    for member in 0..3 {
        let email = format!("{member}@x");
        let of_member = came.iter().filter(|fact| fact.identifiers[0].value == email);
        let ids: Vec<&str> = of_member.map(|fact| fact.fact_id.as_str()).collect();
        let expected: Vec<String> = (0..60).filter(|n| n % 3 == member).map(|n| format!("ok{n}")).collect();
        assert_eq!(ids, expected, "{email}");
    }
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
