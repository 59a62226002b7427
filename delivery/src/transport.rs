//! The courier over HTTP/1.1: one pooled client for all subscribers.
//!
//! ```text
//! guard ▶ headers ▶ pooled connection, or resolve ▶ check ▶ connect ▶ TLS ▶ request ▶ head ▶ body
//! └──────────────────────────────── one time-out over all of it ────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - No byte is sent to an address that [`EndpointPolicy`] does not allow: literal addresses are
//!   checked before each attempt, names by the [`GuardedResolver`] at each connect. A pooled
//!   connection was checked when it was made, under the same policy.
//! - The body that is sent is the body that was signed.
//! - A connection is used again only if its last answer was read to the end.
//!
//! # What is absent on purpose
//!
//! - No redirect is followed: it would be signed for another receiver and skip the guard.
//! - No proxy from the environment, no cookies, no decompression, no HTTP/2.
//! - No limit of connections: the dispatcher bounds what is in flight.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::courier::{AttemptFuture, AttemptRequest, Courier};
use crate::endpoint::EndpointPolicy;
use crate::outcome::{AttemptReport, ErrorCode, Outcome, SNIPPET_BYTES_MAX};
use crate::resolver::{GuardedResolver, ResolveError};
use crate::retry_after;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const PUNCHLINE_ATTEMPT: HeaderName = HeaderName::from_static("punchline-attempt");
const PUNCHLINE_SEQUENCE: HeaderName = HeaderName::from_static("punchline-sequence");
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("Punchline/", env!("CARGO_PKG_VERSION")));
/// Ours, and the `host` that the client adds.
const OWN_HEADERS: usize = 8;

type Connector = HttpsConnector<HttpConnector<GuardedResolver>>;

/// The limits of a [`Transport`].
#[derive(Clone, Debug)]
pub struct TransportLimits {
    /// How long a TCP connect may take, over all addresses of the name. Shorter than an attempt's
    /// time-out, so that a dead host holds its place for less.
    pub connect_timeout: Duration,
    /// How many unused connections are kept per origin: at least what one subscription has in
    /// flight (64), or connections are made anew under load, at a fifth of the throughput.
    pub pool_idle_per_host: usize,
    /// How long an unused connection is kept; below the 60 s after which common servers close.
    pub pool_idle_timeout: Duration,
    /// How large the head of an answer may be; also the size of a connection's read buffer.
    pub response_head_bytes_max: usize,
    /// How much of an answer's body is read so that its connection can be used again. The rest of a
    /// longer body is not waited for, and the connection is closed.
    pub response_drain_bytes_max: usize,
    /// How many names are looked up at a time. Each occupies a thread of the blocking pool (512),
    /// a dead name server's for up to half a minute.
    pub dns_lookups_max: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            pool_idle_per_host: 256,
            pool_idle_timeout: Duration::from_secs(30),
            response_head_bytes_max: 64 * 1024,
            response_drain_bytes_max: 64 * 1024,
            dns_lookups_max: 128,
        }
    }
}

/// One shared client. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    policy: Arc<EndpointPolicy>,
    client: Client<Connector, Full<Bytes>>,
    response_drain_bytes_max: usize,
}

impl Transport {
    /// A transport that trusts the roots of Mozilla's programme, compiled in (`webpki-roots`).
    #[must_use]
    pub fn new(policy: EndpointPolicy, limits: &TransportLimits) -> Self {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self::with_roots(policy, limits, roots)
    }

    /// A transport that trusts `roots`, for receivers behind a private authority.
    #[must_use]
    pub fn with_roots(policy: EndpointPolicy, limits: &TransportLimits, roots: rustls::RootCertStore) -> Self {
        // The provider is named: `ClientConfig::builder` would ask a process-wide default for it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the protocol versions that rustls defaults to")
            .with_root_certificates(roots)
            .with_no_client_auth();

        let policy = Arc::new(policy);
        let resolver = GuardedResolver::new(Arc::clone(&policy), limits.dns_lookups_max);
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false); // https comes through here as well, to be wrapped
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http() // http is refused by the guard, which knows the policy
            .enable_http1()
            .wrap_connector(tcp);

        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.pool_idle_timeout)
            .pool_max_idle_per_host(limits.pool_idle_per_host)
            // hyper panics below 8 KiB
            .http1_max_buf_size(limits.response_head_bytes_max.max(8192))
            .build(connector);
        Self { policy, client, response_drain_bytes_max: limits.response_drain_bytes_max }
    }

    /// Makes one attempt. See [`Courier::attempt`], which boxes this.
    pub async fn attempt(&self, request: AttemptRequest) -> AttemptReport {
        if let Err(refused) = request.endpoint.check(&self.policy) {
            return AttemptReport::failed(ErrorCode::AddressRefused, refused.to_string());
        }
        let http = match http_request(&request) {
            Ok(http) => http,
            Err(invalid) => return AttemptReport::failed(ErrorCode::Request, invalid.to_string()),
        };
        let mut answer = Answer::default();
        let exchange = self.exchange(http, &mut answer);
        let error = match tokio::time::timeout(request.timeout, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => {
                let limit_ms = request.timeout.as_millis();
                let detail = format!("no complete answer within {limit_ms} ms");
                Some((ErrorCode::Timeout, detail))
            }
        };
        report(&request, answer, error)
    }

    /// Sends `request` and reads what comes into `answer`, which outlives this future when the time
    /// is up.
    async fn exchange(&self, request: Request<Full<Bytes>>, answer: &mut Answer) -> Result<(), (ErrorCode, String)> {
        let response = self.client.request(request).await.map_err(|error| (code_of(&error), chain_of(&error)))?;
        let (head, body) = Response::into_parts(response);
        answer.status = Some(head.status);
        answer.retry_after = head.headers.get(RETRY_AFTER).cloned();
        self.read_body(body, &mut answer.snippet).await.map_err(|error| (ErrorCode::Body, chain_of(&error)))
    }

    /// Keeps the beginning of `body` and reads on to its end, or to the limit, at which it is
    /// dropped and the connection with it.
    async fn read_body(&self, mut body: Incoming, snippet: &mut BytesMut) -> Result<(), hyper::Error> {
        let mut read_bytes = 0_usize;
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else {
                break;
            };
            let Ok(data) = frame?.into_data() else {
                continue; // trailers
            };
            let room = SNIPPET_BYTES_MAX - snippet.len();
            snippet.extend_from_slice(&data[..room.min(data.len())]);
            read_bytes += data.len();
            if read_bytes > self.response_drain_bytes_max {
                break;
            }
        }
        Ok(())
    }
}

impl Courier for Transport {
    fn attempt(&self, request: AttemptRequest) -> AttemptFuture<'_> {
        Box::pin(Self::attempt(self, request))
    }
}

/// What has come so far.
#[derive(Default)]
struct Answer {
    status: Option<StatusCode>,
    retry_after: Option<HeaderValue>,
    snippet: BytesMut,
}

fn report(request: &AttemptRequest, answer: Answer, error: Option<(ErrorCode, String)>) -> AttemptReport {
    let mut report = match (answer.status, error) {
        (None, Some((code, detail))) => AttemptReport::failed(code, detail),
        (Some(status), None) => AttemptReport::answered(status, &request.permanent_statuses),
        (Some(status), Some((code, detail))) => {
            let mut report = AttemptReport::answered(status, &request.permanent_statuses);
            if report.outcome == Outcome::Delivered {
                // The receiver began to say yes and never finished: see the module `outcome`.
                report.outcome = code.outcome();
            }
            report.error = Some(code);
            report.error_detail = Some(detail.into());
            report
        }
        (None, None) => unreachable!("an exchange ends with a status or an error"),
    };
    if report.outcome == Outcome::Retry {
        report.retry_after_ms =
            answer.retry_after.and_then(|value| retry_after::parse_ms(&value, request.timestamp_unix_s));
    }
    report.response_snippet = answer.snippet.freeze();
    report
}

fn http_request(request: &AttemptRequest) -> Result<Request<Full<Bytes>>, http::Error> {
    let own = request.headers.as_map();
    let mut headers = HeaderMap::with_capacity(own.len() + OWN_HEADERS);
    for (name, value) in own {
        headers.append(name, value.clone());
    }
    // Inserted after the subscription's, so that ours would win if the deny-list ever missed one.
    headers.insert(USER_AGENT, PRODUCT);
    headers.insert(CONTENT_TYPE, request.content_type.clone());
    headers.insert(WEBHOOK_ID, request.webhook_id.as_str().try_into()?);
    headers.insert(WEBHOOK_TIMESTAMP, request.timestamp_unix_s.into());
    if let Some(signature) = &request.signature {
        headers.insert(WEBHOOK_SIGNATURE, signature.as_str().try_into()?);
    }
    headers.insert(PUNCHLINE_ATTEMPT, request.attempt.into());
    headers.insert(PUNCHLINE_SEQUENCE, request.sequence.into());

    let mut http = Request::new(Full::new(request.body.clone()));
    *http.method_mut() = Method::POST;
    *http.uri_mut() = request.endpoint.uri().clone();
    *http.headers_mut() = headers;
    Ok(http)
}

/// Finds out what failed by the types in the error's chain, never by its text.
fn code_of(error: &hyper_util::client::legacy::Error) -> ErrorCode {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(found) = cause {
        if let Some(code) = code_of_cause(found) {
            return code;
        }
        cause = found.source();
    }
    if error.is_connect() { ErrorCode::Connect } else { ErrorCode::Closed }
}

fn code_of_cause(cause: &(dyn StdError + 'static)) -> Option<ErrorCode> {
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        // The source of an `io::Error` is the source of what it wraps, not what it wraps.
        return io.get_ref().and_then(|inner| code_of_cause(inner));
    }
    if let Some(resolve) = cause.downcast_ref::<ResolveError>() {
        return Some(match resolve {
            ResolveError::Forbidden { .. } => ErrorCode::AddressRefused,
            ResolveError::Lookup { .. } | ResolveError::Empty { .. } => ErrorCode::Dns,
        });
    }
    if cause.is::<rustls::Error>() || cause.is::<rustls::pki_types::InvalidDnsNameError>() {
        return Some(ErrorCode::Tls);
    }
    let http = cause.downcast_ref::<hyper::Error>()?;
    http.is_parse().then_some(ErrorCode::Protocol)
}

/// The whole chain in one line: `a: b: c`.
fn chain_of(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let next = found.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = found.source();
    }
    text
}
