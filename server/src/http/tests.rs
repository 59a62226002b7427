//! The door as callers see it: through the router, and over sockets where bytes matter.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::*;
use crate::config::{Config, Sources};
use crate::dev;
use crate::serve::{self, Running};

const AUTHORIZE: &str = "/staging-usermanagement/api/advertiser/v1/authorize";
const CONSUMPTION: &str = "/staging-campaigns/api/advertiser-integration/v1/consumption";
const PATCH_JSON: &str = "application/json-patch+json";

pub(super) struct Server {
    pub(super) running: Running,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(super) async fn start(flags: &[(&str, &str)]) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let any = "127.0.0.1:0".to_owned();
        let mut all: Vec<(String, String)> =
            ["server.grpc_bind", "server.http_bind", "server.metrics_bind"].map(|key| (key.into(), any.clone())).into();
        let path = directory.path().join("data").display().to_string();
        all.push(("storage.data_dir".into(), path));
        all.extend(flags.iter().map(|(key, value)| ((*key).into(), (*value).into())));
        let sources = Sources { dev: true, flags: all, ..Sources::default() };
        let running = serve::start(Config::load(&sources).expect("valid")).await.expect("starts");
        dev::load(&running.node).await.expect("loads");
        Server { running, _directory: directory }
    }

    pub(super) fn router(&self, per_minute: u32) -> Router {
        router(Http::new(self.running.state.clone(), per_minute))
    }

    pub(super) fn token(&self, environment: Environment) -> String {
        let auth = &self.running.state.auth;
        let token = auth.authorize(dev::API_KEY, dev::API_SECRET, environment, None).expect("known");
        format!("Bearer {}", token.token)
    }
}

pub(super) async fn ask(router: &Router, request: Request<Body>) -> (u16, HeaderMap, Value) {
    let response = router.clone().oneshot(request).await.expect("answers");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).expect("JSON, whatever the status");
    (parts.status.as_u16(), parts.headers, body)
}

pub(super) fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

fn consumption(id: &str) -> String {
    json!({
        "consumptionId": id,
        "consumptionDate": "20250425T12:34:00Z",
        "identifiers": [{"key": "phoneNumber", "value": dev::PHONE}],
        "consumptionLines": [{"sku": "velo_pk_poll_strength", "quantity": 1}],
    })
    .to_string()
}

/// What an error says, if it has the one error body.
pub(super) fn error(body: &Value) -> (&str, &str) {
    let error = &body["error"];
    assert!(error["details"].is_object(), "{body}");
    (error["code"].as_str().expect("a code"), error["message"].as_str().expect("a message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract() {
    let server = Server::start(&[]).await;
    let router = server.router(0);
    let keys = [("apiKey", "dev-key"), ("apiSecret", "dev-secret"), ("content-type", PATCH_JSON)];
    let own = r#"{"advertiserId":"1000000001"}"#;
    for (_, environment) in PREFIXES {
        let prefixes = PREFIXES.iter().filter(|(_, of)| *of == environment);
        for (prefix, _) in prefixes {
            let path = format!("{prefix}/api/advertiser/v1/authorize");
            let (status, _, body) = ask(&router, post(&path, &keys, own)).await;
            assert_eq!((status, &body["advertiserId"]), (200, &json!("1000000001")), "{path}");
            let token = format!("Bearer {}", body["accessToken"].as_str().expect("a token"));
            let path = format!("{prefix}/api/advertiser-integration/v1/consumption");
            let headers = [("authorization", token.as_str()), ("content-type", PATCH_JSON)];
            let id = format!("{prefix}{environment}");
            let (status, _, body) = ask(&router, post(&path, &headers, consumption(&id))).await;
            let done = status == 200 && body["message"] == "Event successfully published";
            // The second round over the same prefixes repeats the first.
            assert!(done || error(&body).0 == "CONSUMPTION_EXISTS", "{path}: {body}");
        }
    }
    let missing = ("CREDENTIALS_MISSING", "Missing AdvertiserId or ApiKey");
    let wrong = ("INVALID_CREDENTIALS", "Client not authorized");
    for (headers, body, status, expected) in [
        (&keys[1..], own, 400, missing),
        (&keys[..1], own, 400, missing),
        (&keys[..], "", 400, missing),
        (&keys[..], "{}", 400, missing),
        (&keys[..], r#"{"advertiserId":""}"#, 400, missing),
        (&keys[..], r#"{"advertiserId":"1000000002"}"#, 401, wrong),
        (&keys[..], r#"{"advertiserId":"x"}"#, 401, wrong),
        (&[("apiKey", ""), ("apiSecret", "x")], own, 400, missing),
        (&[("apiKey", "dev-key"), ("apiSecret", "x")], own, 401, wrong),
        (&[("apiKey", "nobody"), ("apiSecret", "dev-secret")], own, 401, wrong),
        (&[("apiKey", "dev-key"), ("apiSecret", "schlüssel")], own, 401, wrong),
    ] {
        let (got, _, answer) = ask(&router, post(AUTHORIZE, headers, body)).await;
        assert_eq!((got, error(&answer)), (status, expected), "{headers:?} {body}");
    }
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_cannot_be_guessed() {
    let server = Server::start(&[]).await;
    let router = server.router(0);
    let own = r#"{"advertiserId":"1000000001"}"#;
    let attempt = |key: &'static str, secret: &'static str| {
        let request = post(AUTHORIZE, &[("apiKey", key), ("apiSecret", secret)], own);
        ask(&router, request)
    };
    for i in 0..31 {
        assert_eq!(attempt("nobody", "x").await.0, 401, "a key that is none locks nobody out");
        let (status, headers, body) = attempt("dev-key", "x").await;
        let expected = if i < 30 { (401, "INVALID_CREDENTIALS") } else { (429, "RATE_LIMIT_EXCEEDED") };
        assert_eq!((status, error(&body).0), expected, "{i}");
        assert_eq!(headers.contains_key("retry-after"), i == 30);
    }
    assert_eq!(attempt("dev-key", "dev-secret").await.0, 429, "not even the right one is looked at");
    server.token(Environment::Production);
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumptions_are_checked_in_order() {
    let server = Server::start(&[]).await;
    let router = server.router(0);
    let (token, production) = (server.token(Environment::Staging), server.token(Environment::Production));
    let good = consumption("I1");
    let stranger = consumption("I2").replace(dev::PHONE, "40799999999");
    let other_date = good.replace("12:34", "12:35");
    let huge = format!("{{\"x\":\"{}\"}}", "a".repeat(1024 * 1024));
    let deep = format!("{{\"consumptionId\":{}", "[".repeat(500_000));
    for (authorization, content_type, body, status, code) in [
        (None, PATCH_JSON, "nonsense", 400, "CREDENTIALS_MISSING"),
        (Some("Bearer x"), PATCH_JSON, "nonsense", 401, "INVALID_CREDENTIALS"),
        (Some("Basic eDp5"), PATCH_JSON, "nonsense", 401, "INVALID_CREDENTIALS"),
        (Some(""), PATCH_JSON, "nonsense", 401, "INVALID_CREDENTIALS"),
        (Some(&*production), PATCH_JSON, &good, 401, "INVALID_CREDENTIALS"),
        (Some("Bearer dev-operator"), PATCH_JSON, &good, 400, "ADVERTISER_REQUIRED"),
        (Some(&*token), "text/plain", &good, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (Some(&*token), "application/jsonp", &good, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (Some(&*token), PATCH_JSON, &huge, 413, "REQUEST_TOO_LARGE"),
        (Some(&*token), PATCH_JSON, "", 400, "REQUEST_BODY_REQUIRED"),
        (Some(&*token), PATCH_JSON, "null", 400, "REQUEST_BODY_REQUIRED"),
        (Some(&*token), PATCH_JSON, "{", 400, "INVALID_JSON"),
        (Some(&*token), PATCH_JSON, &deep, 400, "INVALID_JSON"),
        (Some(&*token), PATCH_JSON, "{}", 400, "CONSUMPTION_ID_REQUIRED"),
        (Some(&*token), PATCH_JSON, &stranger, 404, "ACCOUNT_NOT_FOUND"),
        (Some(&*token), PATCH_JSON, &good, 200, ""),
        (Some(&*token), "application/json; charset=utf-8", &good, 409, "CONSUMPTION_EXISTS"),
        (Some(&*token), "", &other_date, 409, "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT"),
    ] {
        let mut headers = vec![("content-type", content_type)];
        headers.retain(|(_, value)| !value.is_empty());
        headers.extend(authorization.map(|value| ("authorization", value)));
        let (got, _, answer) = ask(&router, post(CONSUMPTION, &headers, body.to_owned())).await;
        let told = if got == 200 { "" } else { error(&answer).0 };
        assert_eq!((got, told), (status, code), "{answer}");
        if got == 409 {
            let details = &answer["error"]["details"];
            assert_eq!(details["receipt"]["points"], 100, "{answer}");
            assert!(details["receipt"]["sequence"].is_u64(), "{answer}");
            let field = (code == "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT").then(|| json!("consumptionDate"));
            assert_eq!(details.get("field"), field.as_ref());
        }
    }
    for (method, path, status, code) in [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/api", 404, "NOT_FOUND"),
        ("GET", CONSUMPTION, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/healthz", 405, "METHOD_NOT_ALLOWED"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let (got, _, answer) = ask(&router, request).await;
        assert_eq!((got, error(&answer).0), (status, code), "{method} {path}");
    }
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_told_and_held() {
    let server = Server::start(&[]).await;
    let router = server.router(3);
    let token = server.token(Environment::Staging);
    let headers = [("authorization", token.as_str())];
    let number = |headers: &HeaderMap, name: &str| -> Option<i64> { headers.get(name)?.to_str().ok()?.parse().ok() };
    for (body, status, remaining) in [
        (consumption("I1"), 200, 2),
        (consumption("I1"), 409, 1),
        ("nonsense".into(), 400, 0),
        (consumption("I2"), 429, 0),
        ("nonsense".into(), 429, 0),
    ] {
        let (got, answer, _) = ask(&router, post(CONSUMPTION, &headers, body)).await;
        let told = ["x-ratelimit-limit", "x-ratelimit-remaining"].map(|name| number(&answer, name));
        assert_eq!((got, told), (status, [Some(3), Some(remaining)]));
        let reset_in =
            number(&answer, "x-ratelimit-reset").expect("told") - server.running.node.clock().now().0 / 1_000;
        assert!((55..=61).contains(&reset_in), "{reset_in}");
        let retry_after = number(&answer, "retry-after");
        assert_eq!(retry_after.is_some_and(|seconds| (55..=60).contains(&seconds)), status == 429, "{retry_after:?}");
    }
    let production = server.token(Environment::Production);
    let path = "/api/advertiser-integration/v1/consumption";
    let other = ask(&router, post(path, &[("authorization", &production)], consumption("I1"))).await;
    assert_eq!(other.0, 200, "another tenant has its own limit");
    let unknown = ask(&router, post(CONSUMPTION, &[("authorization", "Bearer x")], "")).await;
    assert!(unknown.1.get("x-ratelimit-limit").is_none(), "nobody's limit is told to nobody");
    server.running.shutdown().await;
}

/// Writes what fits, then reads an answer's head and body.
async fn exchange(stream: &mut TcpStream, parts: &[&[u8]]) -> String {
    for part in parts {
        // A server that answers early may stop reading: its answer counts.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(read) = stream.read(&mut buffer).await {
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let length = text.split_once("content-length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let length: Option<usize> = length.and_then(|(length, _)| length.parse().ok());
        let complete = text.split_once("\r\n\r\n").is_some_and(|(_, body)| Some(body.len()) == length);
        if read == 0 || complete {
            break;
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_answered_and_connections_kept() {
    let server = Server::start(&[]).await;
    let token = server.token(Environment::Staging);
    let head = |token: &str, length: &str| {
        format!("POST {CONSUMPTION} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n{length}\r\n\r\n").into_bytes()
    };
    let connect = || async { TcpStream::connect(server.running.http_addr).await.expect("connects") };
    let megabyte = vec![b' '; 1024 * 1024];
    let ten: Vec<&[u8]> = vec![&megabyte; 10];
    let announced = head(&token, &format!("content-length: {}", 10 * megabyte.len()));
    let answer = exchange(&mut connect().await, &[&[&announced[..]], &ten[..]].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("REQUEST_TOO_LARGE"), "{answer}");

    let stranger = head("Bearer x", &format!("content-length: {}", 10 * megabyte.len()));
    let answer = exchange(&mut connect().await, &[&[&stranger[..]], &ten[..]].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");

    let chunk = [format!("{:x}\r\n", megabyte.len()).as_bytes(), &megabyte, b"\r\n"].concat();
    let chunked = head(&token, "transfer-encoding: chunked");
    let parts: Vec<&[u8]> =
        [&chunked[..]].into_iter().chain(std::iter::repeat_n(&chunk[..], 10)).chain([&b"0\r\n\r\n"[..]]).collect();
    let answer = exchange(&mut connect().await, &parts).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let bad_utf8 = head(&token, "content-length: 4");
    let mut kept = connect().await;
    let answer = exchange(&mut kept, &[&bad_utf8, b"\"\xff\xfe\""]).await;
    assert!(answer.contains("INVALID_JSON") && answer.contains("not UTF-8: byte 1"), "{answer}");
    let body = consumption("I1");
    let good = head(&token, &format!("content-length: {}", body.len()));
    let answer = exchange(&mut kept, &[&good, body.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the connection is kept: {answer}");

    // A body that ends early changes nothing.
    let mut broken = connect().await;
    let early = consumption("I2");
    broken.write_all(&head(&token, &format!("content-length: {}", early.len() + 1))).await.expect("written");
    broken.write_all(early.as_bytes()).await.expect("written");
    drop(broken);
    let answer =
        exchange(&mut kept, &[&head(&token, &format!("content-length: {}", early.len())), early.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_before_the_server() {
    let server = Server::start(&[]).await;
    let http = Http::new(server.running.state.clone(), 0);
    let router = router(http.clone());
    let probe = |path: &str| Request::get(path).body(Body::empty()).expect("a request");
    assert_eq!(ask(&router, probe("/readyz")).await.0, 200);
    server.running.state.announce_shutdown();
    let (status, headers, body) = ask(&router, probe("/readyz")).await;
    assert_eq!((status, error(&body).0), (503, "SHUTTING_DOWN"));
    assert!(headers.contains_key("retry-after"));
    assert_eq!(ask(&router, probe("/healthz")).await.0, 200);
    let address = server.running.http_addr;
    assert_eq!(server.running.shutdown().await, None);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_loop_is_told_by_name() {
    let server = Server::start(&[("server.stuck_after_ms", "1000")]).await;
    let router = server.router(0);
    let probe = async |path: &str, wanted: u16| {
        let asked = async || ask(&router, Request::get(path).body(Body::empty()).expect("a request")).await;
        let mut answer = asked().await;
        // Far longer than it takes: machines are shared.
        for _ in 0..3_000 {
            if answer.0 == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = asked().await;
        }
        assert_eq!(answer.0, wanted, "{path}: {}", answer.2);
        answer.2
    };
    probe("/healthz", 200).await;
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let submitter = server.running.node.submitter().clone();
    let read = tokio::spawn(async move { submitter.read(move |_| _ = closed.recv()).await });
    for path in ["/healthz", "/readyz"] {
        let body = probe(path, 503).await;
        let (code, message) = error(&body);
        assert_eq!((code, message), ("LOOP_STUCK", "no progress for 1 s: sequencer"), "{path}");
    }
    drop(open);
    read.await.expect("ends").expect("is served");
    probe("/healthz", 200).await;
    probe("/readyz", 200).await;
    server.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_by_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, issued.cert.pem()).expect("written");
    std::fs::write(&key, issued.signing_key.serialize_pem()).expect("written");
    let path = |path: &std::path::Path| path.display().to_string();
    let flags = [("server.tls.cert_file", path(&cert)), ("server.tls.key_file", path(&key))];
    let server = Server::start(&flags.each_ref().map(|(key, value)| (*key, value.as_str()))).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).expect("trusted");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(server.running.http_addr).await.expect("connects");
    let name = "localhost".try_into().expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("a handshake");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("written");
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer).await);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.running.shutdown().await;
}
