//! What the machine gives at most, measured beside what is made of it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use punchline_proto::v1;
use punchline_proto::v1::event_service_server::{EventService, EventServiceServer};
use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use punchline_runtime::clock::Stopwatch;
use punchline_storage::block::BlockBuilder;
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::journal::Journal;
use punchline_tests::api::Api;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::report::{line, percentile};

/// `data_json` of an event, as long as that of a `points.credited`.
const DATA_JSON: &str = r#"{"sequence":4102,"cause_sequence":4100,"advertiser_id":"1000000001","environment":"production","member_id":"01966cf2-3c40-7000-8000-000000000001","campaign_id":"bench","amount":10,"previous_balance":120,"new_balance":130,"origin":{"kind":"consumption","consumption_id":"B000000000001234","line":0,"sku":"coffee","rule_id":"coffee"}}"#;

struct Echo;

fn only() -> Status {
    Status::unimplemented("this call is no ceiling")
}

#[tonic::async_trait]
impl IngestService for Echo {
    async fn publish_fact(
        &self,
        _: Request<v1::PublishFactRequest>,
    ) -> Result<Response<v1::PublishFactResponse>, Status> {
        Err(only())
    }

    async fn batch_publish_facts(
        &self,
        _: Request<v1::BatchPublishFactsRequest>,
    ) -> Result<Response<v1::BatchPublishFactsResponse>, Status> {
        Err(only())
    }

    async fn register_fact_type(
        &self,
        _: Request<v1::RegisterFactTypeRequest>,
    ) -> Result<Response<v1::RegisterFactTypeResponse>, Status> {
        Err(only())
    }

    async fn get_fact_type(
        &self,
        _: Request<v1::GetFactTypeRequest>,
    ) -> Result<Response<v1::GetFactTypeResponse>, Status> {
        Err(only())
    }

    async fn list_fact_types(
        &self,
        _: Request<v1::ListFactTypesRequest>,
    ) -> Result<Response<v1::ListFactTypesResponse>, Status> {
        Err(only())
    }

    async fn record_consumption(
        &self,
        _: Request<v1::RecordConsumptionRequest>,
    ) -> Result<Response<v1::RecordConsumptionResponse>, Status> {
        Ok(Response::new(v1::RecordConsumptionResponse { receipt: Some(v1::Receipt::default()) }))
    }

    async fn batch_record_consumptions(
        &self,
        _: Request<v1::BatchRecordConsumptionsRequest>,
    ) -> Result<Response<v1::BatchRecordConsumptionsResponse>, Status> {
        Err(only())
    }

    type StreamConsumptionsStream = tokio_stream::Empty<Result<v1::StreamConsumptionsResponse, Status>>;

    async fn stream_consumptions(
        &self,
        _: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Result<Response<Self::StreamConsumptionsStream>, Status> {
        Err(only())
    }
}

#[tonic::async_trait]
impl EventService for Echo {
    async fn read_events(&self, _: Request<v1::ReadEventsRequest>) -> Result<Response<v1::ReadEventsResponse>, Status> {
        Err(only())
    }

    type SubscribeStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::SubscribeResponse, Status>> + Send>>;

    /// As many events as `from_sequence` says.
    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let Some(v1::subscribe_request::Start::FromSequence(count)) = request.into_inner().start else {
            return Err(only());
        };
        let event = |sequence| v1::Event {
            sequence,
            cause_sequence: sequence,
            r#type: "points.credited".into(),
            time: Some(Default::default()),
            member_id: "01966cf2-3c40-7000-8000-000000000001".into(),
            data_json: DATA_JSON.into(),
        };
        let kind = move |n| Some(v1::subscribe_response::Kind::Event(event(n)));
        let events = (0..count).map(move |n| Ok(v1::SubscribeResponse { kind: kind(n) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    type ConsumeStream = tokio_stream::Empty<Result<v1::ConsumeResponse, Status>>;

    async fn consume(
        &self,
        _: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(only())
    }

    async fn list_consumers(
        &self,
        _: Request<v1::ListConsumersRequest>,
    ) -> Result<Response<v1::ListConsumersResponse>, Status> {
        Err(only())
    }

    async fn delete_consumer(
        &self,
        _: Request<v1::DeleteConsumerRequest>,
    ) -> Result<Response<v1::DeleteConsumerResponse>, Status> {
        Err(only())
    }
}

/// The server of the ceiling: it answers and does nothing else. Says where it listens.
pub async fn serve_echo() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    line(&listener.local_addr().expect("it has an address").to_string());
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(IngestServiceServer::new(Echo))
        .add_service(EventServiceServer::new(Echo));
    server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("the echo server serves");
}

/// A bare tonic server, in a process of its own; ends when dropped.
pub struct EchoServer {
    address: String,
    process: Child,
}

impl EchoServer {
    pub fn start() -> EchoServer {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        let mut process = command.arg("echo-server").stdout(Stdio::piped()).spawn().expect("this program starts");
        let mut said = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let address = said.next().expect("it says where it listens").expect("it can be read");
        EchoServer { address, process }
    }

    /// So many connections.
    pub fn lines(&self, count: usize) -> Vec<Api> {
        (0..count).map(|_| Api::new(&self.address, None)).collect()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Records of 300 bytes a second that the journal takes, `at_once` in each synced append, and nothing else.
pub fn raw_journal(dir: &Path, at_once: u64) -> f64 {
    let data_dir = DataDir::open(dir, DataDirOptions::default()).expect("the directory opens");
    let (journal, _) = data_dir.open_journal(0).expect("the journal opens");
    let (record, watch) = ([7; 300], Stopwatch::start());
    let (mut next, mut hash) = (1, journal.head_hash());
    while watch.elapsed() < Duration::from_secs(3) {
        let (mut blocks, mut builder, expected) = (Vec::new(), BlockBuilder::new(), next);
        for _ in 0..at_once {
            builder.push(&record, 1).expect("the record fits");
            if builder.is_full() {
                let block = builder.finish(next, journal.head(), hash);
                (next, hash) = (block.last_sequence + 1, block.hash);
                blocks.push(block);
            }
        }
        if !builder.is_empty() {
            let block = builder.finish(next, journal.head(), hash);
            (next, hash) = (block.last_sequence + 1, block.hash);
            blocks.push(block);
        }
        journal.append(expected, &blocks).expect("the journal appends");
    }
    (next - 1) as f64 / watch.seconds()
}

/// Milliseconds of a bare 4 KiB append and `fdatasync`: median and 99th percentile.
pub fn bare_sync(dir: &Path) -> (f64, f64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("bare-sync")).expect("a file is made");
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[7; 4096]).expect("it can be written");
        let watch = Stopwatch::start();
        file.sync_data().expect("it can be synced");
        times.push(watch.seconds() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    (percentile(&times, 50.0), percentile(&times, 99.0))
}
