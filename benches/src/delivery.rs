//! Delivering: rate to one receiver, latency, and that a bad receiver delays nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_runtime::clock::{Clock, Stopwatch, SystemClock};
use tokio::net::TcpListener;

use crate::load::Load;
use crate::report::{figure, line, percentile};

/// What one path of the receiver does.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    Hangs,
    Fails,
}

/// A receiver that counts, and takes down how long each event was under way.
#[derive(Clone)]
struct Sink {
    port: u16,
    paths: Arc<Mutex<BTreeMap<String, Manner>>>,
    /// From commit to receipt in milliseconds, of paths that answer.
    delays_ms: Arc<Mutex<Vec<f64>>>,
}

impl Sink {
    async fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let sink = Sink { port, paths: Arc::default(), delays_ms: Arc::default() };
        let serving = sink.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("connections come");
                drop(socket.set_nodelay(true));
                let sink = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| sink.clone().receive(request));
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        sink
    }

    async fn receive(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let manner = self.paths.lock().expect("unpoisoned").get(request.uri().path()).copied();
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let mut response = Response::new(Full::default());
        match manner {
            Some(Manner::Hangs) => std::future::pending().await,
            Some(Manner::Fails) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            _ => {
                let delay = SystemClock.now().0 - committed_at(&body);
                self.delays_ms.lock().expect("unpoisoned").push(delay as f64);
            }
        }
        Ok(response)
    }

    fn url(&self, path: &str, manner: Manner) -> String {
        self.paths.lock().expect("unpoisoned").insert(path.into(), manner);
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn received(&self) -> usize {
        self.delays_ms.lock().expect("unpoisoned").len()
    }

    fn take_delays(&self) -> Vec<f64> {
        let mut delays = std::mem::take(&mut *self.delays_ms.lock().expect("unpoisoned"));
        delays.sort_by(f64::total_cmp);
        delays
    }
}

/// The event's own time: `{"type":…,"timestamp":"…",…}`.
fn committed_at(body: &[u8]) -> i64 {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let after = text.split_once(r#""timestamp":""#).map_or("", |(_, after)| after);
    let time = after.split_once('"').and_then(|(time, _)| UnixMillis::parse(time));
    time.expect("a webhook has a timestamp").0
}

async fn subscribe(load: &Load, url: String) -> String {
    let subscription = v1::Subscription { url, event_types: vec!["points.credited".into()], ..Default::default() };
    load.api.new_subscription(subscription).await.0
}

async fn until_received(sink: &Sink, count: usize) {
    let watch = Stopwatch::start();
    while sink.received() < count {
        assert!(watch.elapsed() < Duration::from_secs(300), "{} of {count} were received", sink.received());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A steady rate of unary calls for a while; gives how many were made.
async fn steady(load: &Load, every: Duration, run: Duration) -> usize {
    let (watch, mut ticks, mut calls) = (Stopwatch::start(), tokio::time::interval(every), tokio::task::JoinSet::new());
    while watch.elapsed() < run {
        ticks.tick().await;
        let (mut client, source) = (load.client(), load.source());
        calls.spawn(async move {
            let request = v1::RecordConsumptionRequest { consumption: Some(source.next()) };
            client.record_consumption(request).await.expect("accepted");
        });
    }
    calls.join_all().await.len()
}

/// A backlog of 150 000 events to one fast receiver.
pub async fn throughput() {
    const EVENTS: usize = 150_000;
    let (load, sink) = (Load::start(10_000).await, Sink::start().await);
    let id = subscribe(&load, sink.url("/fast", Manner::Answers)).await;
    let mut subscriptions = load.api.subscriptions();
    let pause = v1::PauseSubscriptionRequest { subscription_id: id.clone(), reason: "a backlog is made".into() };
    subscriptions.pause_subscription(pause).await.expect("it pauses");
    let (mut client, source) = (load.client(), load.source());
    for _ in 0..EVENTS / 500 {
        let consumptions = (0..500).map(|_| source.next()).collect();
        client.batch_record_consumptions(v1::BatchRecordConsumptionsRequest { consumptions }).await.expect("accepted");
    }
    let watch = Stopwatch::start();
    subscriptions.resume_subscription(v1::ResumeSubscriptionRequest { subscription_id: id }).await.expect("it resumes");
    until_received(&sink, EVENTS).await;
    figure("delivery to one fast receiver", EVENTS as f64 / watch.seconds(), "webhooks/s", ">= 15000");
}

/// 500 consumptions a second, each a webhook: from commit to receipt.
pub async fn latency() {
    let (load, sink) = (Load::start(10_000).await, Sink::start().await);
    subscribe(&load, sink.url("/fast", Manner::Answers)).await;
    let sent = steady(&load, Duration::from_millis(2), Duration::from_secs(10)).await;
    until_received(&sink, sent).await;
    let delays = sink.take_delays();
    figure("commit to receipt at 500/s, median", percentile(&delays, 50.0), "ms", "-");
    figure("commit to receipt at 500/s, p99", percentile(&delays, 99.0), "ms", "<= 50");
}

/// 100 subscriptions, 20 events a second to each: all healthy, then one that hangs and one that fails.
pub async fn isolation() {
    let mut medians = Vec::new();
    for bad in [false, true] {
        let (load, sink) = (Load::start(1_000).await, Sink::start().await);
        for n in 0..100 {
            let manner = match n {
                0 if bad => Manner::Hangs,
                1 if bad => Manner::Fails,
                _ => Manner::Answers,
            };
            subscribe(&load, sink.url(&format!("/{n}"), manner)).await;
        }
        let healthy = if bad { 98 } else { 100 };
        let sent = steady(&load, Duration::from_millis(50), Duration::from_secs(15)).await;
        until_received(&sink, sent * healthy).await;
        let delays = sink.take_delays();
        let name = if bad { "healthy beside one that hangs, one that fails" } else { "100 healthy subscriptions" };
        line(&format!("{name}: p50 {:.1} ms, p99 {:.1} ms", percentile(&delays, 50.0), percentile(&delays, 99.0)));
        medians.push(percentile(&delays, 99.0).max(1.0));
    }
    figure("p99 of the healthy ones, ratio", medians[1] / medians[0], "times", "<= 2");
}
