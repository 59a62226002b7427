//! The server: all services on one listener.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use punchline_proto::v1;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Api;
use super::connection;
use super::layer::Counting;
use crate::state::State;

/// Largest message that is taken: a batch of 1000 consumptions with a few lines each has some 300 KiB.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Open connections; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// Calls under way on one connection: further ones wait in the client. Twice what a busy one needs; each
/// may hold a message.
const STREAMS_MAX: u32 = 512;
/// Bytes under way to the server, of one call and of one connection: enough that neither waits for
/// windows at the speed of the fast lane.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest block of headers.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// How often a silent connection is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often the health service asks whether commands are taken.
const HEALTH_TICK: Duration = Duration::from_secs(1);
/// Longest that calls under way may take to end once the server goes down.
const GRACE: Duration = Duration::from_secs(10);

/// Every service of the API, for health.
const SERVICES: [&str; 9] = [
    "punchline.v1.IngestService",
    "punchline.v1.MemberService",
    "punchline.v1.LedgerService",
    "punchline.v1.CampaignService",
    "punchline.v1.RewardService",
    "punchline.v1.SubscriptionService",
    "punchline.v1.DeliveryService",
    "punchline.v1.EventService",
    "punchline.v1.AdminService",
];

/// Serves until `shutdown`, then lets what is under way end.
///
/// To be called after the metrics recorder is installed.
///
/// # Errors
///
/// What the listener says.
pub async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let (going_down, down) = watch::channel(false);
    let api = Arc::new(Api { state: state.clone(), down: down.clone() });
    let descriptors = [v1::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors[0])
        .register_encoded_file_descriptor_set(descriptors[1])
        .build_v1()
        .expect("descriptors are compiled in");
    let (reporter, health) = tonic_health::server::health_reporter();
    let health_ticks = report_health(reporter, state.clone());

    macro_rules! limited {
        ($service:path) => {{
            use $service as Service;
            Service::from_arc(api.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .accept_compressed(CompressionEncoding::Gzip)
        }};
    }
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(Counting::new(&descriptors, state))
        .add_service(limited!(v1::ingest_service_server::IngestServiceServer))
        .add_service(limited!(v1::member_service_server::MemberServiceServer))
        .add_service(limited!(v1::ledger_service_server::LedgerServiceServer))
        .add_service(limited!(v1::campaign_service_server::CampaignServiceServer))
        .add_service(limited!(v1::reward_service_server::RewardServiceServer))
        .add_service(limited!(v1::subscription_service_server::SubscriptionServiceServer))
        .add_service(limited!(v1::delivery_service_server::DeliveryServiceServer))
        .add_service(limited!(v1::event_service_server::EventServiceServer))
        .add_service(limited!(v1::admin_service_server::AdminServiceServer))
        .add_service(health)
        .add_service(reflection);
    let incoming = connection::accept(listener, CONNECTIONS_MAX, tls.map(|tls| for_grpc(&tls)));
    let mut told = down.clone();
    let graceful = router.serve_with_incoming_shutdown(incoming, async move {
        drop(told.wait_for(|down| *down).await);
    });
    let mut graceful = std::pin::pin!(graceful);
    let served = tokio::select! {
        served = &mut graceful => served,
        () = shutdown => {
            going_down.send_replace(true);
            // Clients that hold on to their connections are left behind.
            tokio::time::timeout(GRACE, graceful).await.unwrap_or(Ok(()))
        }
    };
    health_ticks.abort();
    served
}

/// gRPC is HTTP/2 and nothing else.
fn for_grpc(tls: &ServerConfig) -> TlsAcceptor {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(tls))
}

/// Says "serving" while commands are taken.
fn report_health(reporter: HealthReporter, state: Arc<State>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(HEALTH_TICK);
        let mut told = None;
        loop {
            tick.tick().await;
            let serving = state.node.stopped().is_none() && state.stuck().is_empty() && !state.is_closing();
            if told == Some(serving) {
                continue;
            }
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES.iter().chain(&[""]) {
                reporter.set_service_status(*service, status).await;
            }
            told = Some(serving);
        }
    })
}
