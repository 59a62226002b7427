//! The demo's receiver: verifies every signature, fails now and then, and remembers what came.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use punchline_delivery::signature::{Secret, verify};
use punchline_runtime::clock::Clock;
use tokio::net::TcpListener;

/// One in so many deliveries fails at its first attempt, and one in so many at its first three.
const FAILS_ONCE_IN: u64 = 397;
const FAILS_THRICE_IN: u64 = 2_111;
const TOLERANCE_S: u32 = 300;

/// What came.
#[derive(Debug, Default, Clone)]
pub(super) struct Deliveries {
    /// Attempts that came, answered well or not.
    pub(super) attempts: u64,
    /// Attempts after the first of their delivery.
    pub(super) retries: u64,
    /// Attempts whose signature was wrong.
    pub(super) bad_signatures: u64,
    /// How often each event was taken in, by its id.
    pub(super) taken: BTreeMap<String, u64>,
    /// Positions taken in, by member, in the order of arrival.
    pub(super) order: BTreeMap<String, Vec<u64>>,
    /// From commit to receipt of deliveries that came at their first attempt, in milliseconds.
    pub(super) latencies_ms: Vec<u64>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    secret: Option<Secret>,
    deliveries: Deliveries,
}

/// A receiver on loopback; ends with the runtime.
#[derive(Clone)]
pub(super) struct Receiver {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Receiver {
    pub(super) async fn start(clock: Arc<dyn Clock>) -> std::io::Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let inner = Arc::new(Mutex::new(Inner { clock, secret: None, deliveries: Deliveries::default() }));
        let receiver = Receiver { address: listener.local_addr()?, inner };
        let router = Router::new().route("/", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds what was received")
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(super) fn trust(&self, secret: &str) -> Result<(), punchline_delivery::signature::SecretError> {
        self.lock().secret = Some(Secret::parse(secret)?);
        Ok(())
    }

    /// Events that were taken in.
    pub(super) fn received(&self) -> usize {
        self.lock().deliveries.taken.len()
    }

    pub(super) fn deliveries(&self) -> Deliveries {
        self.lock().deliveries.clone()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    let mut inner = receiver.lock();
    let now_ms = inner.clock.now().0;
    let id = text("webhook-id");
    let timestamp = text("webhook-timestamp").parse().unwrap_or(0);
    let secrets: Vec<&Secret> = inner.secret.iter().collect();
    let signature = text("webhook-signature");
    let genuine = verify(id, timestamp, &body, signature, &secrets, now_ms / 1_000, TOLERANCE_S).is_ok();
    let (sequence, attempt) = (number("punchline-sequence"), number("punchline-attempt"));
    let deliveries = &mut inner.deliveries;
    deliveries.attempts += 1;
    deliveries.retries += u64::from(attempt > 1);
    if !genuine {
        deliveries.bad_signatures += 1;
        return StatusCode::UNAUTHORIZED;
    }
    let fails = (sequence % FAILS_ONCE_IN == 0 && attempt <= 1) || (sequence % FAILS_THRICE_IN == 0 && attempt <= 3);
    if fails {
        return if attempt == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::SERVICE_UNAVAILABLE };
    }
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(&body) else { return StatusCode::BAD_REQUEST };
    *deliveries.taken.entry(id.to_owned()).or_default() += 1;
    let member = event["data"]["member_id"].as_str().unwrap_or_default();
    deliveries.order.entry(member.to_owned()).or_default().push(sequence);
    let committed = event["timestamp"].as_str().and_then(punchline_engine::time::UnixMillis::parse);
    if let Some(committed) = committed.filter(|_| attempt == 1) {
        deliveries.latencies_ms.push(u64::try_from(now_ms - committed.0).unwrap_or(0));
    }
    StatusCode::OK
}
