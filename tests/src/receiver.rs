//! A subscriber's web server: checks every signature with its own code, keeps what came, answers as it is told.
//!
//! It outlives the server under test: what it has seen is the evidence. Each path is a receiver of its own,
//! with its secrets, its script and its record.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::signature;

/// How far a webhook's timestamp may be from this machine's clock, as receivers are advised to check.
const TOLERANCE_SECONDS: u64 = 300;

/// Webhooks of a path that are kept whole; of further ones headers and body are looked at and forgotten, so that
/// millions fit into memory.
const WHOLE_MAX: usize = 1_000;

/// How a path answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// 200.
    #[default]
    Ok,
    /// This status.
    Status(u16),
    /// 503 to every n-th request, 200 to the others.
    FailEvery(u64),
    /// Takes the request and says nothing, until the script changes.
    Hang,
    /// Closes the connection without an answer.
    Drop,
    /// 200, after so many milliseconds.
    Slow(u64),
    /// 429 with `Retry-After: 1` to every n-th request, 200 to the others.
    Throttle(u64),
    /// A redirect elsewhere.
    Redirect,
    /// 200 with a body of so many bytes.
    Huge(usize),
    /// Promises a body, and breaks off in the middle of it.
    Reset,
}

/// A webhook whose signature was right.
#[derive(Clone, Debug)]
pub struct Received {
    /// `webhook-id`.
    pub webhook_id: String,
    /// `punchline-sequence`.
    pub sequence: u64,
    /// `punchline-attempt`.
    pub attempt: u32,
    /// The body's `type`.
    pub event_type: String,
    /// The body's `data.member_id`.
    pub member_id: Option<String>,
    /// Which secrets, by index, signed it.
    pub signers: Vec<usize>,
    /// What was answered; 0: nothing.
    pub answered: u16,
    /// All headers; none beyond the first [`WHOLE_MAX`] of a path.
    pub headers: http::HeaderMap,
    /// As it came; empty beyond the first [`WHOLE_MAX`] of a path.
    pub body: Bytes,
    /// Digest of the body, to tell repeats with.
    pub digest: u64,
    /// When.
    pub at: std::time::Instant,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a webhook's body is JSON")
    }
}

#[derive(Debug, Default)]
struct Path {
    secrets: Vec<String>,
    script: watch::Sender<Script>,
    requests: u64,
    received: Vec<Received>,
    delivered: BTreeSet<u64>,
    faults: Vec<String>,
}

/// The web server.
#[derive(Clone, Debug)]
pub struct Receiver {
    address: SocketAddr,
    paths: Arc<Mutex<BTreeMap<String, Path>>>,
}

impl Receiver {
    /// Listens on loopback, for as long as the test's runtime lives.
    ///
    /// # Panics
    ///
    /// If there is no port left.
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let receiver = Receiver { address: listener.local_addr().expect("an address"), paths: Arc::default() };
        tokio::spawn(receiver.clone().accept(listener));
        receiver
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let receiver = self.clone();
            let service = hyper::service::service_fn(move |request| receiver.clone().answer(request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // Connections break when the server is killed, and when the script says so.
                let _ = connection.await;
            });
        }
    }

    fn paths(&self) -> MutexGuard<'_, BTreeMap<String, Path>> {
        self.paths.lock().expect("no task panics while it holds the lock")
    }

    /// The URL of a path, as `http://127.0.0.1:40001/shop`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A further secret that may sign for `path`; the first has index 0.
    pub fn secret(&self, path: &str, secret: &str) {
        self.paths().entry(path.into()).or_default().secrets.push(secret.into());
    }

    /// From now on `path` answers so. Requests that hang are answered by it too.
    pub fn script(&self, path: &str, script: Script) {
        self.paths().entry(path.into()).or_default().script.send_replace(script);
    }

    /// What came to `path`, in order of arrival.
    ///
    /// # Panics
    ///
    /// If anything came that was not as it should be: unsigned, stale, or unreadable.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let mut paths = self.paths();
        let path = paths.entry(path.into()).or_default();
        assert_eq!(path.faults, Vec::<String>::new(), "webhooks that a receiver must refuse");
        path.received.clone()
    }

    /// How many requests came to `path`, right or wrong.
    pub fn requests(&self, path: &str) -> u64 {
        self.paths().get(path).map_or(0, |path| path.requests)
    }

    /// Sequences of the events that `path` has answered with 200.
    pub fn delivered(&self, path: &str) -> BTreeSet<u64> {
        self.paths().get(path).map(|path| path.delivered.clone()).unwrap_or_default()
    }

    /// How many there are of them.
    pub fn delivered_count(&self, path: &str) -> usize {
        self.paths().get(path).map_or(0, |path| path.delivered.len())
    }

    /// What `look` makes of what came to `path`, without copying it.
    pub fn look<T>(&self, path: &str, look: impl FnOnce(&[Received]) -> T) -> T {
        let mut paths = self.paths();
        look(&paths.entry(path.into()).or_default().received)
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<Answer>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let name = parts.uri.path().to_owned();
        let (index, mut script, number) = {
            let mut paths = self.paths();
            let path = paths.entry(name.clone()).or_default();
            path.requests += 1;
            match read(&path.secrets, parts.headers, body) {
                Ok(mut received) => {
                    if path.received.len() >= WHOLE_MAX {
                        (received.headers, received.body) = (http::HeaderMap::new(), Bytes::new());
                    }
                    path.received.push(received);
                }
                Err(fault) => {
                    path.faults.push(fault);
                    return Ok(response(401));
                }
            }
            (path.received.len() - 1, path.script.subscribe(), path.requests)
        };
        let decided = script.wait_for(|script| *script != Script::Hang).await.map_err(io::Error::other)?.clone();
        if let Script::Slow(ms) = decided {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        }
        let status = match decided {
            Script::Ok | Script::Slow(_) | Script::Huge(_) | Script::Reset => 200,
            Script::Status(status) => status,
            Script::Redirect => 302,
            Script::Throttle(n) if number.is_multiple_of(n) => 429,
            Script::Throttle(_) => 200,
            Script::FailEvery(n) if number.is_multiple_of(n) => 503,
            Script::FailEvery(_) => 200,
            Script::Hang | Script::Drop => return Err(io::Error::other("as scripted")),
        };
        if let Some(path) = self.paths().get_mut(&name) {
            path.received[index].answered = status;
            // An answer that breaks off may be taken for none.
            if status == 200 && decided != Script::Reset {
                let sequence = path.received[index].sequence;
                path.delivered.insert(sequence);
            }
        }
        let mut answer = response(status);
        let headers = answer.headers_mut();
        match decided {
            Script::Throttle(_) if status == 429 => drop(headers.insert("retry-after", "1".parse().expect("a value"))),
            Script::Redirect => drop(headers.insert("location", "http://127.0.0.1:9/".parse().expect("a value"))),
            Script::Huge(bytes) => *answer.body_mut() = whole(Bytes::from_static(&HUGE[..bytes.min(HUGE.len())])),
            Script::Reset => {
                let part = Ok(hyper::body::Frame::data(Bytes::from_static(b"the beginning")));
                let end = Err(io::Error::other("as scripted"));
                *answer.body_mut() = BodyExt::boxed(StreamBody::new(tokio_stream::iter([part, end])));
            }
            _ => {}
        }
        Ok(answer)
    }
}

/// What huge bodies are made of, so that a receiver that sends them has little to do itself.
static HUGE: [u8; 64 << 20] = [0; 64 << 20];

type Answer = BoxBody<Bytes, io::Error>;

fn whole(body: Bytes) -> Answer {
    Full::new(body).map_err(|never| match never {}).boxed()
}

fn response(status: u16) -> http::Response<Answer> {
    let mut response = http::Response::new(whole(Bytes::from_static(b"noted")));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a script names a status");
    response
}

/// A webhook, if it is as a receiver may expect.
fn read(secrets: &[String], headers: http::HeaderMap, body: Bytes) -> Result<Received, String> {
    let header = |name: &str| {
        let value = headers.get(name).ok_or(format!("no header {name}"))?;
        value.to_str().map(str::to_owned).map_err(|_| format!("header {name} is no text"))
    };
    let number = |name: &str| header(name)?.parse::<u64>().map_err(|_| format!("header {name} is no number"));
    let webhook_id = header("webhook-id")?;
    let timestamp = header("webhook-timestamp")?;
    let signers = signature::signers(secrets, &header("webhook-signature")?, &webhook_id, &timestamp, &body);
    if signers.is_empty() {
        return Err(format!("{webhook_id} is signed by none of {} secrets", secrets.len()));
    }
    if number("webhook-timestamp")?.abs_diff(unix_seconds()) > TOLERANCE_SECONDS {
        return Err(format!("{webhook_id} has the stale timestamp {timestamp}"));
    }
    let json: Value = serde_json::from_slice(&body).map_err(|e| format!("{webhook_id} is no JSON: {e}"))?;
    let event_type = json["type"].as_str().ok_or(format!("{webhook_id} has no type"))?.to_owned();
    let member_id = json["data"]["member_id"].as_str().map(str::to_owned);
    let (sequence, attempt) = (number("punchline-sequence")?, number("punchline-attempt")? as u32);
    Ok(Received {
        webhook_id,
        sequence,
        attempt,
        event_type,
        member_id,
        signers,
        answered: 0,
        headers,
        digest: digest(&body),
        body,
        at: tokio::time::Instant::now().into_std(),
    })
}

fn digest(body: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hasher::write(&mut hasher, body);
    std::hash::Hasher::finish(&hasher)
}

/// Now, by the clock of who is outside.
///
/// # Panics
///
/// If it is before 1970.
#[allow(clippy::disallowed_methods, reason = "a receiver has a clock of its own")]
pub fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is later than 1970").as_secs()
}

/// What a receiver that drops repeats has at the end: one webhook for each id, in order of first arrival.
///
/// # Errors
///
/// If a repeat differs from the first, one event came under two ids, or a member's events came out of order.
pub fn exactly_once(received: &[Received]) -> Result<Vec<&Received>, String> {
    let mut by_id: BTreeMap<&str, &Received> = BTreeMap::new();
    let mut id_of: BTreeMap<u64, &str> = BTreeMap::new();
    let mut last_of_member: BTreeMap<&str, u64> = BTreeMap::new();
    let mut firsts = Vec::new();
    for one in received {
        if let Some(first) = by_id.get(one.webhook_id.as_str()) {
            if first.digest != one.digest {
                return Err(format!("{} came with two bodies", one.webhook_id));
            }
            continue;
        }
        by_id.insert(&one.webhook_id, one);
        firsts.push(one);
        if let Some(other) = id_of.insert(one.sequence, &one.webhook_id) {
            return Err(format!("{} came as {other} and as {}", one.sequence, one.webhook_id));
        }
        if let Some(member) = &one.member_id {
            let last = last_of_member.insert(member, one.sequence).unwrap_or(0);
            if last > one.sequence {
                return Err(format!("{} of member {member} came after {last}", one.sequence));
            }
        }
    }
    Ok(firsts)
}
