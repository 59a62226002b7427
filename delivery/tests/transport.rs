//! The transport against a real server on this machine, which speaks just enough HTTP/1.1 to
//! misbehave in the ways that receivers do.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punchline_delivery::auth::{Auth, BasicAuth};
use punchline_delivery::courier::{AttemptRequest, Courier};
use punchline_delivery::endpoint::EndpointPolicy;
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::outcome::{AttemptReport, ErrorCode, Outcome, PermanentStatuses, SNIPPET_BYTES_MAX};
use punchline_delivery::scripted::{Gate, ScriptedCourier, Step};
use punchline_delivery::signature::{self, Secret};
use punchline_delivery::transport::{Transport, TransportLimits};
use support::{NOW_UNIX_S, transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const BODY: &[u8] = br#"{"type":"points.received","data":{}}"#;

/// One request as it arrived: on which connection, and its head in lower-case lines.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    head: Vec<String>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}

struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(serve(stream, connection, Arc::clone(&all)));
            }
        });
        Self { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// Answers by path until the client goes or the path says to hang up.
async fn serve(stream: TcpStream, connection: usize, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream, connection).await {
        let path = request.head[0].split([' ', '?']).nth(1);
        let path = path.expect("path").to_owned();
        seen.lock().expect("no panic").push(request);
        let socket = stream.get_mut();
        let written = match path.as_str() {
            "/hang" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
            "/hang-up" => return,
            "/204" => socket.write_all(b"HTTP/1.1 204 Nothing\r\n\r\n").await,
            "/garbage" => socket.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await,
            "/endless-head" => {
                let line = format!("x-long: {}\r\n", "a".repeat(8000));
                let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", line.repeat(20));
                socket.write_all(head.as_bytes()).await
            }
            "/huge" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n";
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(&vec![b'x'; 10_000_000]).await;
                return;
            }
            "/large" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\n";
                let _ = socket.write_all(head.as_bytes()).await;
                socket.write_all(&vec![b'x'; 50_000]).await
            }
            "/cut" | "/cut-500" => {
                let status = if path == "/cut" { "200 OK" } else { "500 Oops" };
                let part = format!("HTTP/1.1 {status}\r\ncontent-length: 100\r\n\r\npart");
                let _ = socket.write_all(part.as_bytes()).await;
                return;
            }
            "/stall" => {
                let part = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
                let _ = socket.write_all(part.as_bytes()).await;
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
            "/chunked" => {
                let all = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                           3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n";
                socket.write_all(all.as_bytes()).await
            }
            "/moved" => {
                let head = "HTTP/1.1 307 Moved\r\nlocation: /200\r\ncontent-length: 0\r\n\r\n";
                socket.write_all(head.as_bytes()).await
            }
            "/later" | "/at" | "/200-later" => {
                let (status, wait) = match path.as_str() {
                    "/later" => ("429 Slow Down", "120"),
                    "/at" => ("503 Busy", "Sun, 06 Nov 1994 08:49:37 GMT"),
                    _ => ("200 OK", "120"),
                };
                let head = format!("HTTP/1.1 {status}\r\nretry-after: {wait}\r\ncontent-length: 0\r\n\r\n");
                socket.write_all(head.as_bytes()).await
            }
            status => {
                let status = &status[1..];
                let all = format!("HTTP/1.1 {status} Because\r\ncontent-length: 5\r\n\r\nhello");
                socket.write_all(all.as_bytes()).await
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
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
    let mut seen = Seen { connection, head, body: Vec::new() };
    let length = seen.header("content-length")?.parse().ok()?;
    seen.body.resize(length, 0);
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

fn request(url: &str) -> AttemptRequest {
    AttemptRequest { timeout: Duration::from_secs(10), ..support::request(url) }
}

/// What a test looks at: outcome, status, error, wait.
type Gist = (Outcome, Option<u16>, Option<ErrorCode>, Option<u64>);

fn gist(report: &AttemptReport) -> Gist {
    (report.outcome, report.status, report.error, report.retry_after_ms)
}

#[tokio::test]
async fn answers_become_outcomes() {
    use ErrorCode as Error;
    use Outcome::{Delivered, Gone, Refused, Retry};
    let receiver = Receiver::start().await;
    let transport = transport();
    let permanent = Arc::new(PermanentStatuses::new([422]).expect("valid"));
    let cases: &[(&str, Gist)] = &[
        ("/200", (Delivered, Some(200), None, None)),
        ("/204", (Delivered, Some(204), None, None)),
        ("/500", (Retry, Some(500), None, None)),
        ("/404", (Retry, Some(404), None, None)),
        ("/410", (Gone, Some(410), None, None)),
        ("/422", (Refused, Some(422), None, None)),
        ("/moved", (Retry, Some(307), None, None)),
        ("/later", (Retry, Some(429), None, Some(120_000))),
        ("/at", (Retry, Some(503), None, Some(60_000))),
        ("/200-later", (Delivered, Some(200), None, None)),
        ("/chunked", (Delivered, Some(200), None, None)),
        ("/large", (Delivered, Some(200), None, None)),
        ("/huge", (Delivered, Some(200), None, None)),
        ("/cut", (Retry, Some(200), Some(Error::Body), None)),
        ("/cut-500", (Retry, Some(500), Some(Error::Body), None)),
        ("/hang-up", (Retry, None, Some(Error::Closed), None)),
        ("/garbage", (Retry, None, Some(Error::Protocol), None)),
        ("/endless-head", (Retry, None, Some(Error::Protocol), None)),
    ];
    for (path, expected) in cases {
        let mut request = request(&receiver.url(path));
        request.permanent_statuses = Arc::clone(&permanent);
        let report = transport.attempt(request).await;
        assert_eq!(gist(&report), *expected, "{path}: {report:?}");
    }
    // One request each: nothing was followed, nothing repeated.
    assert_eq!(receiver.seen().len(), cases.len());
}

#[tokio::test]
async fn the_time_out_covers_head_and_body() {
    let receiver = Receiver::start().await;
    let transport = transport();
    for (path, status) in [("/hang", None), ("/stall", Some(200))] {
        let mut request = request(&receiver.url(path));
        request.timeout = Duration::from_millis(100);
        let report = transport.attempt(request).await;
        let expected = (Outcome::Retry, status, Some(ErrorCode::Timeout), None);
        assert_eq!(gist(&report), expected, "{path}");
        assert_eq!(report.status_class(), "error", "{path}");
    }
}

#[tokio::test]
async fn a_snippet_of_the_body_is_kept() {
    let receiver = Receiver::start().await;
    let transport = transport();
    let cases: &[(&str, &[u8])] = &[
        ("/500", b"hello"),
        ("/chunked", b"abcde"),
        ("/cut", b"part"),
        ("/large", &[b'x'; SNIPPET_BYTES_MAX]),
        ("/huge", &[b'x'; SNIPPET_BYTES_MAX]),
        ("/moved", b""),
    ];
    for (path, expected) in cases {
        let report = transport.attempt(request(&receiver.url(path))).await;
        assert_eq!(report.response_snippet, *expected, "{path}");
    }
}

#[tokio::test]
async fn connections_are_used_again_unless_the_answer_was_too_long() {
    let receiver = Receiver::start().await;
    let transport = transport();
    for path in ["/200", "/500", "/large", "/chunked", "/huge", "/200"] {
        transport.attempt(request(&receiver.url(path))).await;
    }
    let connections: Vec<usize> = receiver.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn the_request_is_what_the_contract_says() {
    let receiver = Receiver::start().await;
    let secret = Secret::from_bytes(&[3; 32]).expect("32 bytes");
    let auth = Arc::new(Auth::from(BasicAuth::new("me", "s3cret").expect("valid")));
    let mut request = request(&receiver.url("/200?token=1"));
    request.headers = StaticHeaders::new([("X-Api-Key", "k")], Some(&*auth)).expect("valid");
    request.auth = Some(auth);
    request.signature = Some(signature::sign("msg_1", NOW_UNIX_S, BODY, &[&secret]));
    request.attempt = 3;
    let shown = format!("{request:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "secrets are not shown: {shown}");

    let report = transport().attempt(request).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");

    let seen = receiver.seen().remove(0);
    assert_eq!(seen.body, BODY);
    assert_eq!(seen.head[0], "POST /200?token=1 HTTP/1.1");
    let host = receiver.address.to_string();
    let signature = seen.header("webhook-signature").expect("signed");
    let version = concat!("Punchline/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("host", host.as_str()),
        ("content-type", "application/json"),
        ("content-length", "36"),
        ("user-agent", version),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "784111717"),
        ("webhook-signature", signature),
        ("punchline-attempt", "3"),
        ("punchline-sequence", "7"),
        ("x-api-key", "k"),
        ("authorization", "Basic bWU6czNjcmV0"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.head.len(), 1 + 11, "{:?}", seen.head);
    let verified = signature::verify("msg_1", NOW_UNIX_S, &seen.body, signature, &[&secret], NOW_UNIX_S, 300);
    assert_eq!(verified, Ok(()));
}

#[tokio::test]
async fn forbidden_addresses_are_never_called() {
    let receiver = Receiver::start().await;
    let strict = EndpointPolicy { allow_http: true, allow_private: Vec::new() };
    let strict = Transport::new(strict, &TransportLimits::default());
    let port = receiver.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/200"), // a literal: hyper asks no resolver
        format!("http://localhost:{port}/200"), // a name: the resolver refuses
    ] {
        let report = strict.attempt(request(&url)).await;
        let expected = (Outcome::Refused, None, Some(ErrorCode::AddressRefused), None);
        assert_eq!(gist(&report), expected, "{url}");
        let detail = report.error_detail.expect("says why");
        assert!(detail.contains("loopback"), "{detail}");
    }
    let https_only = Transport::new(EndpointPolicy::default(), &TransportLimits::default());
    let report = https_only.attempt(request("http://example.com/")).await;
    assert_eq!(report.error, Some(ErrorCode::AddressRefused));
    assert!(receiver.seen().is_empty());

    let report = transport().attempt(request(&format!("http://localhost:{port}/200"))).await;
    assert_eq!(report.outcome, Outcome::Delivered, "{report:?}");
}

#[tokio::test]
async fn failures_before_the_request_are_told_apart() {
    let receiver = Receiver::start().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        listener.local_addr().expect("bound")
    };
    let transport = transport();
    let port = receiver.address.port();
    let cases = [
        (format!("http://{closed}/"), ErrorCode::Connect),
        (format!("http://nowhere.invalid:{port}/"), ErrorCode::Dns),
        (format!("https://127.0.0.1:{}/", tls_refuser().await), ErrorCode::Tls),
    ];
    for (url, expected) in cases {
        let mut request = request(&url);
        // A machine without a name server takes its time to say that there is no such name.
        request.timeout = Duration::from_secs(60);
        let report = transport.attempt(request).await;
        assert_eq!(report.error, Some(expected), "{url}: {report:?}");
        assert_eq!(report.outcome, Outcome::Retry, "{url}");
    }
    let mut unwritable = request(&receiver.url("/200"));
    unwritable.webhook_id = "msg\r\nhost: elsewhere".to_owned();
    let report = transport.attempt(unwritable).await;
    let expected = (Outcome::Refused, None, Some(ErrorCode::Request), None);
    assert_eq!(gist(&report), expected);
    assert!(receiver.seen().is_empty());
}

/// Answers a TLS hello in plain text.
async fn tls_refuser() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut hello = [0; 512];
        let _ = stream.read(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    port
}

#[tokio::test(start_paused = true)]
async fn the_script_answers_hangs_and_remembers() {
    let scripted = Arc::new(ScriptedCourier::new());
    let courier: Arc<dyn Courier> = scripted.clone();
    let (a, b) = ("http://a.example/", "http://b.example/");
    let gate = Gate::closed();
    let wait = Step::RetryAfter { status: 429, retry_after_ms: 5 };
    let hang = Step::Hang(gate.clone(), Box::new(Step::Status(204)));
    scripted.next(a, [Step::Status(500), wait, Step::Fail(ErrorCode::Connect)]);
    scripted.always(b, hang);

    let mut gists = Vec::new();
    for url in [a, a, a, a, b] {
        gists.push(gist(&courier.attempt(request(url)).await));
    }
    let expected = [
        (Outcome::Retry, Some(500), None, None),
        (Outcome::Retry, Some(429), None, Some(5)),
        (Outcome::Retry, None, Some(ErrorCode::Connect), None),
        (Outcome::Delivered, Some(200), None, None),
        (Outcome::Retry, None, Some(ErrorCode::Timeout), None),
    ];
    assert_eq!(gists, expected);

    let waiting = tokio::spawn({
        let courier = Arc::clone(&courier);
        async move { courier.attempt(request(b)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(scripted.in_flight(), 1);
    gate.open();
    assert_eq!(waiting.await.expect("no panic").status, Some(204));
    assert_eq!((scripted.in_flight(), scripted.in_flight_most()), (0, 1));
    assert_eq!(scripted.received_count(), 6);
    assert_eq!(scripted.received()[0].endpoint.to_string(), a);
}
