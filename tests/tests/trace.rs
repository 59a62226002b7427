//! Traces over OTLP: one consumption from its caller through the commit to each delivery, after a restart too.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use punchline_proto::v1;
use punchline_tests::api::consumption;
use punchline_tests::http;
use punchline_tests::receiver::Script;
use punchline_tests::server::Server;
use punchline_tests::wait::{SOON, until};
use punchline_tests::world::{PHONE, World};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Keeps every span.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.lock().expect("held").extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Collector, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Collector::default();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, endpoint)
    }

    fn spans(&self, trace: &str) -> Vec<Span> {
        self.0.lock().expect("held").iter().filter(|span| hex(&span.trace_id) == trace).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The one span of this name below `parent`.
fn child<'a>(spans: &'a [Span], parent: &str, name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|s| s.name == name && hex(&s.parent_span_id) == parent).collect();
    assert_eq!(found.len(), 1, "{name} below {parent} in {spans:#?}");
    found[0]
}

/// What the last request to `path` about its n-th event said in `traceparent`: trace, span, flags. After a kill there
/// may be repeats.
fn told(world: &World, path: &str, n: usize) -> Option<(String, String, String)> {
    let received = world.receiver.received(path);
    let sequence = *world.receiver.delivered(path).iter().nth(n).expect("it was delivered");
    let last = received.iter().rfind(|one| one.sequence == sequence).expect("it was delivered");
    let header = last.headers.get("traceparent")?.to_str().expect("text").to_owned();
    let parts: Vec<&str> = header.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{header}");
    Some((parts[1].into(), parts[2].into(), parts[3].into()))
}

async fn record_traced(world: &World, id: &str, flags: &str) {
    let one = consumption(id, PHONE, &[("article", 1)]);
    let mut request = Request::new(v1::RecordConsumptionRequest { consumption: Some(one) });
    let traceparent = format!("00-{TRACE}-{CALLER}-{flags}").parse().expect("a value");
    request.metadata_mut().insert("traceparent", traceparent);
    world.api.ingest().record_consumption(request).await.expect("accepted");
}

#[tokio::test]
async fn one_consumption_is_one_trace() {
    let (collector, endpoint) = Collector::start().await;
    let mut world = World::start(Server::setup().with("tracing.otlp_endpoint", endpoint)).await;
    for path in ["/a", "/b"] {
        world.subscribe(path, &["points.credited"], &[0, 10, 10]).await;
    }
    world.receiver.script("/b", Script::Status(500));
    record_traced(&world, "c-1", "01").await;
    world.delivered("/a", 1).await;
    until("the other receiver has failed", SOON, async || match world.receiver.requests("/b") {
        n if n >= 2 => Ok(()),
        n => Err(n),
    })
    .await;
    world.receiver.script("/b", Script::Ok);
    let id = world.api.subscriptions().list_subscriptions(v1::ListSubscriptionsRequest::default()).await;
    let listed = id.expect("listed").into_inner().subscriptions;
    let (trace, span, flags) = told(&world, "/a", 0).expect("it is part of the trace");
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));

    // The journal remembers it: a replay after a kill belongs to it as well.
    world.server.kill();
    world.server.restart().await;
    let a = listed.iter().find(|s| s.url.ends_with("/a")).expect("it is there").subscription_id.clone();
    let replay = v1::ReplayEventsRequest { subscription_id: a, from_sequence: 1, ..Default::default() };
    world.api.deliveries().replay_events(replay).await.expect("a job");
    until("it is sent again", SOON, async || match world.receiver.requests("/a") {
        n if n >= 2 => Ok(()),
        n => Err(n),
    })
    .await;
    let (trace, again, _) = told(&world, "/a", 0).expect("it is part of the trace");
    assert_eq!(trace, TRACE);
    assert_ne!(again, span, "each attempt is a span of its own");

    // Of its own a call is traced too, over HTTP as well; one whose caller says no is not.
    world.article("c-2").await;
    world.delivered("/a", 2).await;
    let (own, ..) = told(&world, "/a", 1).expect("every call is sampled");
    assert_ne!(own, TRACE);
    record_traced(&world, "c-3", "00").await;
    world.delivered("/a", 3).await;
    assert_eq!(told(&world, "/a", 2), None, "the caller decided");
    let token = world.token(&world.advertiser_id, &[v1::Scope::Ingest]).await;
    let body = format!(
        r#"{{"consumptionId":"c-4","consumptionDate":"20260915T12:34:00Z","identifiers":[{{"key":"phoneNumber","value":"{PHONE}"}}],"consumptionLines":[{{"sku":"article","quantity":1}}]}}"#
    );
    let (bearer, traceparent) = (format!("Bearer {token}"), format!("00-{TRACE}-{CALLER}-01"));
    let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("traceparent", &*traceparent)];
    let path = "/api/advertiser-integration/v1/consumption";
    let answer = http::post(&world.server.http_address(), path, &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    world.delivered("/a", 4).await;
    assert_eq!(told(&world, "/a", 3).expect("traced").0, TRACE);

    // What is left is sent at the end. The first life was killed: its spans were sent before, or are lost.
    assert!(world.server.stop().await.success());
    let spans = collector.spans(TRACE);
    let call = child(&spans, CALLER, &format!("POST {path}"));
    let commit = child(&spans, &hex(&call.span_id), "commit");
    let deliveries: Vec<&Span> = spans.iter().filter(|s| s.parent_span_id == commit.span_id).collect();
    assert_eq!(deliveries.len(), 2, "{spans:#?}");
    let sent: Vec<String> = deliveries.iter().map(|s| hex(&s.span_id)).collect();
    assert!(sent.contains(&told(&world, "/a", 3).expect("traced").1), "the receiver is told of its own attempt");
    assert!(deliveries.iter().all(|s| s.name == "deliver" && s.start_time_unix_nano >= call.start_time_unix_nano));
    let replayed = spans.iter().find(|s| hex(&s.span_id) == again).expect("the replay's attempt");
    assert_eq!(replayed.name, "deliver");
}

#[tokio::test]
async fn the_calls_of_one_life_hang_together() {
    let (collector, endpoint) = Collector::start().await;
    let mut world = World::start(Server::setup().with("tracing.otlp_endpoint", endpoint)).await;
    world.subscribe("/a", &["points.credited"], &[0, 10]).await;
    world.receiver.script("/a", Script::Status(500));
    record_traced(&world, "c-1", "01").await;
    until("two attempts", SOON, async || match world.receiver.requests("/a") {
        n if n >= 2 => Ok(()),
        n => Err(n),
    })
    .await;
    assert!(world.server.stop().await.success());
    let spans = collector.spans(TRACE);
    let call = child(&spans, CALLER, "punchline.v1.IngestService/RecordConsumption");
    let commit = child(&spans, &hex(&call.span_id), "commit");
    let attempts: Vec<&Span> = spans.iter().filter(|s| s.parent_span_id == commit.span_id).collect();
    assert!(attempts.len() >= 2, "{spans:#?}");
    assert!(attempts.iter().all(|s| s.status.as_ref().is_some_and(|status| status.code == 2)), "they failed");
}

#[tokio::test]
async fn off_unless_configured() {
    let world = World::start(Server::setup()).await;
    world.subscribe("/a", &["points.credited"], &[]).await;
    record_traced(&world, "c-1", "01").await;
    world.delivered("/a", 1).await;
    assert_eq!(told(&world, "/a", 0), None);
}
