//! What the machine gives at most, measured beside what is made of it.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use punchline_proto::v1;
use punchline_proto::v1::ingest_service_client::IngestServiceClient;
use punchline_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use punchline_runtime::clock::Stopwatch;
use punchline_storage::block::BlockBuilder;
use punchline_storage::data_dir::{DataDir, DataDirOptions};
use punchline_storage::journal::Journal;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

struct Echo;

#[tonic::async_trait]
impl IngestService for Echo {
    async fn publish_fact(
        &self,
        _: Request<v1::PublishFactRequest>,
    ) -> Result<Response<v1::PublishFactResponse>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }

    async fn batch_publish_facts(
        &self,
        _: Request<v1::BatchPublishFactsRequest>,
    ) -> Result<Response<v1::BatchPublishFactsResponse>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }

    async fn register_fact_type(
        &self,
        _: Request<v1::RegisterFactTypeRequest>,
    ) -> Result<Response<v1::RegisterFactTypeResponse>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }

    async fn get_fact_type(
        &self,
        _: Request<v1::GetFactTypeRequest>,
    ) -> Result<Response<v1::GetFactTypeResponse>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }

    async fn list_fact_types(
        &self,
        _: Request<v1::ListFactTypesRequest>,
    ) -> Result<Response<v1::ListFactTypesResponse>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
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
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }

    type StreamConsumptionsStream = tokio_stream::Empty<Result<v1::StreamConsumptionsResponse, Status>>;

    async fn stream_consumptions(
        &self,
        _: Request<Streaming<v1::StreamConsumptionsRequest>>,
    ) -> Result<Response<Self::StreamConsumptionsStream>, Status> {
        Err(Status::unimplemented("only unary calls have this ceiling"))
    }
}

const ECHO: &str = "127.0.0.1:52051";

/// The server of the ceiling, in a process of its own: it answers and does nothing else.
pub async fn serve_echo() {
    let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(IngestServiceServer::new(Echo));
    server.serve(ECHO.parse().expect("a constant address")).await.expect("the echo server serves");
}

/// A bare tonic server; ends when dropped.
pub struct EchoServer(Child);

impl EchoServer {
    pub async fn start() -> (EchoServer, IngestServiceClient<Channel>) {
        let program = std::env::current_exe().expect("this program has a path");
        let server = EchoServer(Command::new(program).arg("echo-server").spawn().expect("this program starts"));
        let channel = Channel::from_static("http://127.0.0.1:52051");
        loop {
            match channel.connect().await {
                Ok(channel) => return (server, IngestServiceClient::new(channel)),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
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
    (crate::report::percentile(&times, 50.0), crate::report::percentile(&times, 99.0))
}
