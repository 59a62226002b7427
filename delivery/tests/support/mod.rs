//! A receiver on this machine that speaks just enough HTTP/1.1, plain or within TLS, to behave as a test
//! tells it to; and the requests that are sent to it.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use punchline_delivery::courier::{APPLICATION_JSON, AttemptRequest};
use punchline_delivery::endpoint::{Endpoint, EndpointPolicy};
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::resolver::{Lookup, LookupFuture};
use punchline_delivery::transport::{Transport, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Sun, 06 Nov 1994 08:48:37 GMT
pub const NOW_UNIX_S: i64 = 784_111_717;
/// Far above what anything here takes: a test that runs into it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// On which connection, counted from 0.
    pub connection: usize,
    /// The client's certificate, if the connection has one.
    pub certificate: Option<CertificateDer<'static>>,
    /// Request line and headers, names in lower case as hyper writes them.
    pub head: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What the receiver does.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Writes these bytes and goes on.
    Keep(Vec<u8>),
    /// Writes these bytes and closes.
    Close(Vec<u8>),
    /// Writes these bytes and resets the connection.
    Reset(Vec<u8>),
}

/// An answer with this status, these header lines and this body.
pub fn answer(status: u16, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Keep(format!("HTTP/1.1 {status} Because\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())
}

pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

pub struct Server {
    pub address: SocketAddr,
    scheme: &'static str,
    seen: Arc<watch::Sender<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Plain HTTP.
    pub async fn start(answering: impl Fn(Seen) -> Answering + Send + Sync + 'static) -> Server {
        Self::start_with(None, answering).await
    }

    /// Plain HTTP, the same answer each time.
    pub async fn always(answer: Answer) -> Server {
        Self::start(move |_| {
            let answer = answer.clone();
            Box::pin(async move { answer })
        })
        .await
    }

    /// HTTPS.
    pub async fn start_tls(
        config: ServerConfig,
        answering: impl Fn(Seen) -> Answering + Send + Sync + 'static,
    ) -> Server {
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config))), answering).await
    }

    async fn start_with(
        tls: Option<TlsAcceptor>,
        answering: impl Fn(Seen) -> Answering + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let server = Server {
            address: listener.local_addr().expect("bound"),
            scheme: if tls.is_some() { "https" } else { "http" },
            seen: Arc::new(watch::Sender::new(Vec::new())),
            connections: Arc::default(),
        };
        let (seen, connections, answering) =
            (Arc::clone(&server.seen), Arc::clone(&server.connections), Arc::new(answering));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                let (tls, seen, answering) = (tls.clone(), Arc::clone(&seen), Arc::clone(&answering));
                tokio::spawn(async move {
                    stream.set_zero_linger().expect("a socket that is open");
                    match tls {
                        None => serve(stream, connection, None, &seen, &*answering).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return; // not trusted by one side or the other
                            };
                            let certificate =
                                stream.get_ref().1.peer_certificates().map(|all| all[0].clone().into_owned());
                            serve(stream, connection, certificate, &seen, &*answering).await;
                        }
                    }
                });
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// With a name instead of the address.
    pub fn named_url(&self, name: &str, path: &str) -> String {
        format!("{}://{name}:{}{path}", self.scheme, self.address.port())
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests have come.
    pub async fn has_seen(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.seen.subscribe();
        let enough = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.len() >= count));
        enough.await.expect("in time").expect("the server lives").clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    certificate: Option<CertificateDer<'static>>,
    seen: &watch::Sender<Vec<Seen>>,
    answering: &(impl Fn(Seen) -> Answering + Send + Sync),
) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await {
        request.connection = connection;
        request.certificate.clone_from(&certificate);
        seen.send_modify(|all| all.push(request.clone()));
        let (bytes, goes_on, closes_well) = match answering(request).await {
            Answer::Keep(bytes) => (bytes, true, true),
            Answer::Close(bytes) => (bytes, false, true),
            Answer::Reset(bytes) => (bytes, false, false),
        };
        let written = stream.get_mut().write_all(&bytes).await;
        if closes_well && !goes_on {
            let _ = stream.get_mut().shutdown().await;
            // Until the client has read it all: the socket resets when it is dropped.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        if written.is_err() || !goes_on {
            let _ = stream.get_mut().flush().await;
            return;
        }
    }
}

pub async fn read_request(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Seen> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            _ if read == 0 => return None,
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut seen = Seen { connection: 0, certificate: None, head, body: Vec::new() };
    let length = seen.header("content-length").unwrap_or("0").parse().ok()?;
    seen.body.resize(length, 0);
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

/// Holds what waits at it until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Gate {
        Gate(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("the gate holds the sender");
    }
}

/// Answers in turn, the last one for ever.
pub fn in_turn(answers: Vec<Answer>) -> impl Fn(Seen) -> Answering + Send + Sync + 'static {
    let next = Mutex::new(0);
    move |_| {
        let mut next = next.lock().expect("no panic");
        let answer = answers[(*next).min(answers.len() - 1)].clone();
        *next += 1;
        Box::pin(async move { answer })
    }
}

/// A certificate for `name`, its key, and both as PEM.
pub struct Certified {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
}

pub fn certified(name: &str) -> Certified {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("certificate");
    Certified {
        certificate: made.cert.der().clone(),
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der())),
        certificate_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    }
}

pub fn roots<'a>(certificates: impl IntoIterator<Item = &'a Certified>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certified in certificates {
        roots.add(certified.certificate.clone()).expect("valid root");
    }
    roots
}

/// Serves as `own`; asks for one of `clients`' certificates if there are any.
pub fn tls_config(own: &Certified, clients: &[&Certified]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("default versions");
    let config = if clients.is_empty() {
        config.with_no_client_auth()
    } else {
        let clients = Arc::new(roots(clients.iter().copied()));
        let verifier = WebPkiClientVerifier::builder_with_provider(clients, provider).build().expect("roots");
        config.with_client_cert_verifier(verifier)
    };
    config.with_single_cert(vec![own.certificate.clone()], own.key.clone_key()).expect("key fits")
}

pub fn loopback_policy() -> EndpointPolicy {
    EndpointPolicy {
        allow_http: true,
        allow_private: ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("network")).to_vec(),
    }
}

pub fn transport() -> Transport {
    Transport::from_config(TransportConfig::new(loopback_policy()))
}

pub fn endpoint(url: &str) -> Arc<Endpoint> {
    Arc::new(Endpoint::parse(url, &loopback_policy()).expect("allowed"))
}

pub fn request(url: &str) -> AttemptRequest {
    AttemptRequest {
        endpoint: endpoint(url),
        headers: StaticHeaders::default(),
        extra_headers: Vec::new(),
        auth: None,
        identity: None,
        permanent_statuses: Arc::default(),
        webhook_id: "msg_1".to_owned(),
        timestamp_unix_s: NOW_UNIX_S,
        signature: Some("v1,AAAA".to_owned()),
        attempt: 1,
        sequence: 7,
        content_type: APPLICATION_JSON,
        body: Bytes::from_static(br#"{"type":"points.received","data":{}}"#),
        timeout: PATIENCE,
    }
}

/// Lets others run until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

/// Names by script: each lookup takes the next answer, the last one stays.
#[derive(Debug)]
pub struct ScriptedLookup {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl ScriptedLookup {
    pub fn new(answers: &[&[&str]]) -> Arc<ScriptedLookup> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().expect("address")).collect();
        Arc::new(ScriptedLookup { answers: Mutex::new(answers.iter().map(parse).collect()), asked: Mutex::default() })
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Lookup for ScriptedLookup {
    fn lookup(&self, name: &str) -> LookupFuture {
        self.asked.lock().expect("no panic").push(name.to_owned());
        let mut answers = self.answers.lock().expect("no panic");
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    }
}
