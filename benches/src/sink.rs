//! The receiver of webhooks, as light as one can be: it counts, and only where it is asked also takes down how
//! long each event was under way.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use punchline_engine::time::UnixMillis;
use punchline_proto::v1;
use punchline_runtime::clock::{Clock, Stopwatch, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Longest that anything awaited may take to come.
const RECEIVED_WITHIN: Duration = Duration::from_secs(3_600);

/// Wait where a connection could not be taken.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What a path does; its name begins so.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Answers 200.
    Counts,
    /// The same, and takes down how long the event was under way.
    Times,
    /// Counted apart: of a subscription that is not among the live ones.
    Late,
    Hangs,
    Fails,
}

/// A receiver on one or many addresses.
#[derive(Clone)]
pub struct Sink {
    pub addresses: Vec<SocketAddr>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    received: AtomicU64,
    late: AtomicU64,
    connections: AtomicU64,
    /// From commit to receipt in milliseconds.
    delays_ms: Mutex<Vec<f64>>,
    sample: OnceLock<Bytes>,
    came: Notify,
}

impl Sink {
    /// Listens on `hosts` addresses of loopback: each is a receiver of its own to whoever sends.
    pub async fn start(hosts: usize) -> Sink {
        let (mut addresses, state) = (Vec::new(), Arc::<State>::default());
        for host in 0..hosts {
            let ip = if hosts == 1 {
                Ipv4Addr::LOCALHOST
            } else {
                Ipv4Addr::new(127, 1, (host / 250) as u8, (host % 250) as u8 + 1)
            };
            let listener = TcpListener::bind((ip, 0)).await.expect("a port is free");
            addresses.push(listener.local_addr().expect("it has an address"));
            tokio::spawn(accept(listener, state.clone()));
        }
        Sink { addresses, state }
    }

    /// Where host `n` is told of events in this manner.
    pub fn url(&self, n: usize, manner: Manner) -> String {
        let word = match manner {
            Manner::Counts => "counts",
            Manner::Times => "times",
            Manner::Late => "late",
            Manner::Hangs => "hangs",
            Manner::Fails => "fails",
        };
        format!("http://{}/{word}/{n}", self.addresses[n % self.addresses.len()])
    }

    /// A subscription to one kind of event, one of which each consumption causes.
    pub fn subscription(&self, n: usize, manner: Manner) -> v1::Subscription {
        v1::Subscription { url: self.url(n, manner), event_types: vec!["points.credited".into()], ..Default::default() }
    }

    /// Webhooks that were answered with 200, those that are late left out.
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Webhooks that came to [`Manner::Late`].
    pub fn late(&self) -> u64 {
        self.state.late.load(Ordering::Relaxed)
    }

    /// Waits for the very moment when so many were received: for few, since each wakes the waiting one.
    pub async fn has_received(&self, count: u64) {
        loop {
            let came = self.state.came.notified();
            if self.received() >= count {
                return;
            }
            came.await;
        }
    }

    /// A body that came.
    pub fn sample(&self) -> Bytes {
        self.state.sample.get().expect("something came").clone()
    }

    /// How long events were under way since this was asked last, sorted.
    pub fn take_delays(&self) -> Vec<f64> {
        let mut delays = std::mem::take(&mut *self.state.delays_ms.lock().expect("unpoisoned"));
        delays.sort_by(f64::total_cmp);
        delays
    }
}

/// Waits until a count is reached.
pub async fn until(what: &str, count: u64, counted: impl Fn() -> u64) {
    let watch = Stopwatch::start();
    while counted() < count {
        assert!(watch.elapsed() < RECEIVED_WITHIN, "{what}: {} of {count}", counted());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // No descriptor is left: connections wait, as they would before any receiver.
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        state.connections.fetch_add(1, Ordering::Relaxed);
        drop(socket.set_nodelay(true));
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| receive(state.clone(), request));
            drop(http1::Builder::new().serve_connection(TokioIo::new(socket), service).await);
        });
    }
}

async fn receive(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let manner = request.uri().path().as_bytes().get(1).copied();
    let mut body = request.into_body();
    let mut first = None;
    // A body must be read for its connection to serve again; it is not kept.
    while let Some(Ok(frame)) = body.frame().await {
        first = first.or(frame.into_data().ok());
    }
    let mut response = Response::new(Full::default());
    match manner {
        Some(b'h') => std::future::pending().await,
        Some(b'f') => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        Some(b'l') => {
            state.late.fetch_add(1, Ordering::Relaxed);
        }
        manner => {
            let body = first.unwrap_or_default();
            if manner == Some(b't') {
                let delay = SystemClock.now().0 - committed_at(&body);
                state.delays_ms.lock().expect("unpoisoned").push(delay as f64);
            }
            state.sample.get_or_init(|| body);
            state.received.fetch_add(1, Ordering::Relaxed);
            state.came.notify_waiters();
        }
    }
    Ok(response)
}

/// The event's own time: `{"type":…,"timestamp":"…",…}`.
fn committed_at(body: &[u8]) -> i64 {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let after = text.split_once(r#""timestamp":""#).map_or("", |(_, after)| after);
    let time = after.split_once('"').and_then(|(time, _)| UnixMillis::parse(time));
    time.expect("a webhook has a timestamp").0
}
