//! The courier over HTTP/1.1: one pooled client for all subscribers, and one more for each client
//! certificate.
//!
//! ```text
//! guard ▶ headers ▶ token ▶ pooled connection, or crate::connect ▶ request ▶ head ▶ body
//! └─────────────────────────── one time-out over all of it ───────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - No byte is sent to an address that [`EndpointPolicy`] does not allow: literal addresses are
//!   checked before each attempt, names by the [`GuardedResolver`] at each connect. A pooled
//!   connection was checked when it was made, under the same policy. What a proxy changes about this
//!   is said in `crate::connect`.
//! - A connection carries the requests of one client certificate, or of none: pools know origins only,
//!   so each certificate has a pool and TLS sessions of its own.
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::auth::Auth;
use crate::bounded::Lru;
use crate::connect::{Connector, Dial};
use crate::courier::{AttemptFuture, AttemptRequest, Courier};
use crate::digest::Digest;
use crate::endpoint::{Endpoint, EndpointPolicy};
use crate::headers::{self, StaticHeaders};
use crate::identity::ClientIdentity;
use crate::oauth2::{self, OAuth2Client, OAuth2Token, TokenError};
use crate::outcome::{AttemptReport, DeliveryControl, ErrorCode, Outcome, PermanentStatuses, SNIPPET_BYTES_MAX};
use crate::proxy::{EgressProxy, ProxyError};
use crate::resolver::{GuardedResolver, Lookup, ResolveError, SystemLookup};
use crate::retry_after;
use crate::tokens::{Issued, TokenCache};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const PUNCHLINE_ATTEMPT: HeaderName = HeaderName::from_static("punchline-attempt");
const PUNCHLINE_SEQUENCE: HeaderName = HeaderName::from_static("punchline-sequence");
const PRODUCT: HeaderValue = HeaderValue::from_static(concat!("Punchline/", env!("CARGO_PKG_VERSION")));
/// Ours, and the `host` that the client adds.
const OWN_HEADERS: usize = 8;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The most bytes of a token endpoint's answer: a token, its scopes, and room.
const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;

type HttpClient = Client<Connector, Full<Bytes>>;

/// The limits of a [`Transport`].
#[derive(Clone, Debug)]
pub struct TransportLimits {
    /// How long a TCP connect may take, over all addresses of the name. Shorter than an attempt's
    /// time-out, so that a dead host holds its place for less.
    pub connect_timeout: Duration,
    /// How many unused connections are kept per origin: at least what one subscription has in
    /// flight (64), or connections are made anew under load, at a fifth of the throughput.
    pub pool_idle_per_host: usize,
    /// How many connections may be open in all, in use or not. Beyond that the unused ones are closed:
    /// with many origins they would use up the descriptors that files are opened with.
    pub connections_max: usize,
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
    /// How long making a connection may take in all, TLS included, also after the attempt that wanted
    /// it is over. Above the half minute that a dead name server takes to be given up.
    pub connection_timeout: Duration,
    /// How many client certificates have a pool of connections at a time. Beyond that the one that was
    /// not used for longest is closed, and its next attempt connects anew.
    pub identities_max: usize,
    /// How many OAuth2 clients' tokens are kept; a forgotten one is fetched again.
    pub tokens_max: usize,
    /// How long fetching a token may take; an attempt waits no longer than its own time-out.
    pub token_timeout: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            pool_idle_per_host: 256,
            connections_max: 8_192,
            pool_idle_timeout: Duration::from_secs(30),
            response_head_bytes_max: 64 * 1024,
            response_drain_bytes_max: 64 * 1024,
            dns_lookups_max: 128,
            connection_timeout: Duration::from_secs(60),
            identities_max: 64,
            tokens_max: 1024,
            token_timeout: Duration::from_secs(10),
        }
    }
}

/// All that a [`Transport`] is made of.
#[derive(Debug)]
pub struct TransportConfig {
    /// Which endpoints may be called.
    pub policy: EndpointPolicy,
    /// Its limits.
    pub limits: TransportLimits,
    /// The authorities that receivers' certificates may come from.
    pub roots: RootCertStore,
    /// The proxy that every connection goes through, if there is one.
    pub proxy: Option<EgressProxy>,
    /// Who knows the addresses of names.
    pub lookup: Arc<dyn Lookup>,
}

impl TransportConfig {
    /// The defaults: the roots of Mozilla's programme, compiled in (`webpki-roots`), no proxy, the
    /// system's resolver.
    #[must_use]
    pub fn new(policy: EndpointPolicy) -> Self {
        Self {
            policy,
            limits: TransportLimits::default(),
            roots: RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            proxy: None,
            lookup: Arc::new(SystemLookup),
        }
    }
}

/// The shared clients. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

struct Shared {
    policy: Arc<EndpointPolicy>,
    limits: TransportLimits,
    roots: Arc<RootCertStore>,
    dial: Dial,
    plain: Mutex<HttpClient>,
    identified: Mutex<Lru<Digest, HttpClient>>,
    tokens: Arc<TokenCache>,
}

/// One POST: what is left of an attempt when its headers are written.
pub(crate) struct Post<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) auth: Option<&'a Auth>,
    pub(crate) identity: Option<&'a ClientIdentity>,
    pub(crate) permanent_statuses: &'a PermanentStatuses,
    pub(crate) now_unix_s: i64,
    pub(crate) timeout: Duration,
}

impl Transport {
    /// A transport that trusts the roots of Mozilla's programme, compiled in (`webpki-roots`).
    #[must_use]
    pub fn new(policy: EndpointPolicy, limits: &TransportLimits) -> Self {
        Self::from_config(TransportConfig { limits: limits.clone(), ..TransportConfig::new(policy) })
    }

    /// A transport that trusts `roots`, for receivers behind a private authority.
    #[must_use]
    pub fn with_roots(policy: EndpointPolicy, limits: &TransportLimits, roots: RootCertStore) -> Self {
        Self::from_config(TransportConfig { limits: limits.clone(), roots, ..TransportConfig::new(policy) })
    }

    /// A transport as `config` says.
    #[must_use]
    pub fn from_config(config: TransportConfig) -> Self {
        let TransportConfig { policy, limits, roots, proxy, lookup } = config;
        let (policy, roots) = (Arc::new(policy), Arc::new(roots));
        let resolver = GuardedResolver::with_lookup(Arc::clone(&policy), lookup, limits.dns_lookups_max);
        let dial = Dial::new(resolver, proxy, limits.connect_timeout);
        let plain = Mutex::new(http_client(&limits, &roots, &dial, None));
        let identified = Mutex::new(Lru::new(limits.identities_max));
        let tokens = Arc::new(TokenCache::new(limits.tokens_max));
        Self(Arc::new(Shared { policy, limits, roots, dial, plain, identified, tokens }))
    }

    /// Makes one attempt. See [`Courier::attempt`], which boxes this.
    pub async fn attempt(&self, request: AttemptRequest) -> AttemptReport {
        let headers = match headers_of(&request) {
            Ok(headers) => headers,
            Err(invalid) => return AttemptReport::failed(ErrorCode::Request, invalid.to_string()),
        };
        let post = Post {
            endpoint: &request.endpoint,
            headers,
            body: request.body,
            auth: request.auth.as_deref(),
            identity: request.identity.as_deref(),
            permanent_statuses: &request.permanent_statuses,
            now_unix_s: request.timestamp_unix_s,
            timeout: request.timeout,
        };
        self.post(post).await
    }

    /// Sends one request and reports. The guard is in here: nothing else sends for a subscriber.
    pub(crate) async fn post(&self, mut post: Post<'_>) -> AttemptReport {
        if let Err(refused) = post.endpoint.check(&self.0.policy) {
            return AttemptReport::failed(ErrorCode::AddressRefused, refused.to_string());
        }
        let (mut answer, timeout) = (Answer::default(), post.timeout);
        let exchange = self.exchange(&mut post, &mut answer);
        let error = match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(_) => {
                let limit_ms = timeout.as_millis();
                Some(if answer.awaits_token {
                    (ErrorCode::Auth, format!("no answer from the token endpoint within {limit_ms} ms"))
                } else {
                    (ErrorCode::Timeout, format!("no complete answer within {limit_ms} ms"))
                })
            }
        };
        let was_kept = self.drop_refused_token(&post, &answer);
        report(&post, answer, error, was_kept)
    }

    /// Sends `post` and reads what comes into `answer`, which outlives this future when the time is up.
    async fn exchange(&self, post: &mut Post<'_>, answer: &mut Answer) -> Result<(), (ErrorCode, String)> {
        match post.auth.map(Auth::fixed) {
            None => {}
            Some(Ok(header)) => {
                post.headers.insert(AUTHORIZATION, header);
            }
            Some(Err(client)) => {
                answer.awaits_token = true;
                let issued = self.token(client, post.now_unix_s).await;
                let issued = issued.map_err(|error| (ErrorCode::Auth, error.to_string()))?;
                answer.awaits_token = false;
                post.headers.insert(AUTHORIZATION, issued.token.bearer.header_value());
                answer.token = Some(issued);
            }
        }
        let request = http_request(post.endpoint, std::mem::take(&mut post.headers), post.body.clone());
        let client = self.client_of(post.identity);
        let response = client.request(request).await.map_err(|error| (code_of(&error), chain_of(&error)))?;
        let (head, body) = Response::into_parts(response);
        answer.status = Some(head.status);
        answer.retry_after = head.headers.get(RETRY_AFTER).cloned();
        answer.control = DeliveryControl::of(&head.headers);
        self.read_body(body, &mut answer.snippet).await.map_err(|error| (ErrorCode::Body, chain_of(&error)))
    }

    /// The client whose connections are `identity`'s and no other's.
    fn client_of(&self, identity: Option<&ClientIdentity>) -> HttpClient {
        let shared = &*self.0;
        if shared.dial.open() > shared.limits.connections_max {
            self.close_unused();
        }
        let Some(identity) = identity else {
            return shared.plain.lock().unwrap_or_else(PoisonError::into_inner).clone();
        };
        let mut clients = shared.identified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&identity.digest()) {
            return client.clone();
        }
        let client = http_client(&shared.limits, &shared.roots, &shared.dial, Some(identity));
        clients.insert(identity.digest(), client.clone());
        client
    }

    /// Closes the connections that are not in use: a client takes them with it, and those in use end with
    /// their answers.
    fn close_unused(&self) {
        let shared = &*self.0;
        let plain = http_client(&shared.limits, &shared.roots, &shared.dial, None);
        *shared.plain.lock().unwrap_or_else(PoisonError::into_inner) = plain;
        *shared.identified.lock().unwrap_or_else(PoisonError::into_inner) = Lru::new(shared.limits.identities_max);
    }

    async fn token(&self, client: &OAuth2Client, now_unix_s: i64) -> Result<Issued, TokenError> {
        let fetch = || {
            let (transport, client) = (self.clone(), client.clone());
            async move {
                let limit = transport.0.limits.token_timeout;
                let fetched = tokio::time::timeout(limit, transport.fetch_token(&client, now_unix_s)).await;
                fetched.unwrap_or_else(|_| {
                    Err(TokenError::Unreachable(format!("no complete answer within {} ms", limit.as_millis())))
                })
            }
        };
        self.0.tokens.get(client.digest(), now_unix_s, fetch).await
    }

    async fn fetch_token(&self, client: &OAuth2Client, now_unix_s: i64) -> Result<OAuth2Token, TokenError> {
        let unreachable = |error: &(dyn StdError + 'static)| TokenError::Unreachable(chain_of(error));
        client.endpoint().check(&self.0.policy).map_err(|refused| unreachable(&refused))?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, PRODUCT);
        headers.insert(CONTENT_TYPE, FORM);
        headers.insert(http::header::ACCEPT, JSON);
        if let Some(authorization) = client.authorization() {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = http_request(client.endpoint(), headers, client.form());
        let response = self.client_of(None).request(request).await.map_err(|error| unreachable(&error))?;
        let (head, body) = Response::into_parts(response);
        let body = Limited::new(body, TOKEN_ANSWER_BYTES_MAX).collect().await.map_err(|error| unreachable(&*error))?;
        oauth2::read_answer(head.status, &body.to_bytes(), now_unix_s)
    }

    /// After a 401, sees to it that the next attempt fetches a token; says whether the one that was
    /// refused was kept from before.
    fn drop_refused_token(&self, post: &Post<'_>, answer: &Answer) -> bool {
        match (post.auth, &answer.token, answer.status) {
            (Some(Auth::OAuth2(client)), Some(issued), Some(StatusCode::UNAUTHORIZED)) => {
                self.0.tokens.forget(client.digest(), &issued.token);
                !issued.is_new
            }
            _ => false,
        }
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
            if read_bytes > self.0.limits.response_drain_bytes_max {
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
    awaits_token: bool,
    token: Option<Issued>,
    status: Option<StatusCode>,
    retry_after: Option<HeaderValue>,
    control: Option<DeliveryControl>,
    snippet: BytesMut,
}

fn report(
    post: &Post<'_>,
    answer: Answer,
    error: Option<(ErrorCode, String)>,
    refused_a_kept_token: bool,
) -> AttemptReport {
    let mut report = match (answer.status, error) {
        (None, Some((code, detail))) => AttemptReport::failed(code, detail),
        (Some(status), None) => AttemptReport::answered(status, post.permanent_statuses),
        (Some(status), Some((code, detail))) => {
            let mut report = AttemptReport::answered(status, post.permanent_statuses);
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
    if refused_a_kept_token && report.outcome == Outcome::Refused {
        // The subscription lists 401; but this one is about the token, and the next is a new one.
        report.outcome = Outcome::Retry;
    }
    if let Some(control) = answer.control {
        report = report.controlled(control);
    }
    if report.outcome == Outcome::Retry {
        report.retry_after_ms = answer.retry_after.and_then(|value| retry_after::parse_ms(&value, post.now_unix_s));
    }
    report.response_snippet = answer.snippet.freeze();
    report
}

/// A client whose connections are made as `identity`.
fn http_client(
    limits: &TransportLimits,
    roots: &Arc<RootCertStore>,
    dial: &Dial,
    identity: Option<&ClientIdentity>,
) -> HttpClient {
    // The provider is named: `ClientConfig::builder` would ask a process-wide default for it. The
    // configuration is made anew each time: a clone would share the store of TLS sessions, and with it
    // who they were made as.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the protocol versions that rustls defaults to")
        .with_root_certificates(Arc::clone(roots));
    let tls = match identity {
        None => tls.with_no_client_auth(),
        Some(identity) => tls.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()))),
    };
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(limits.pool_idle_timeout)
        .pool_max_idle_per_host(limits.pool_idle_per_host)
        // hyper panics below 8 KiB
        .http1_max_buf_size(limits.response_head_bytes_max.max(8192))
        .build(Connector::new(dial.clone(), tls, limits.connection_timeout))
}

/// The headers of every kind of request for a subscription, with room for `more`.
pub(crate) fn base_headers(own: &StaticHeaders, content_type: HeaderValue, more: usize) -> HeaderMap {
    let own = own.as_map();
    let mut headers = HeaderMap::with_capacity(own.len() + more + OWN_HEADERS);
    for (name, value) in own {
        headers.append(name, value.clone());
    }
    // Inserted after the subscription's, so that ours would win if the deny-list ever missed one.
    headers.insert(USER_AGENT, PRODUCT);
    headers.insert(CONTENT_TYPE, content_type);
    headers
}

fn headers_of(request: &AttemptRequest) -> Result<HeaderMap, http::Error> {
    let extra = &request.extra_headers;
    let mut headers = base_headers(&request.headers, request.content_type.clone(), extra.len());
    for (name, value) in extra.iter().filter(|(name, _)| !headers::is_reserved(name)) {
        headers.insert(name, value.clone());
    }
    headers.insert(WEBHOOK_ID, request.webhook_id.as_str().try_into()?);
    headers.insert(WEBHOOK_TIMESTAMP, request.timestamp_unix_s.into());
    if let Some(signature) = &request.signature {
        headers.insert(WEBHOOK_SIGNATURE, signature.as_str().try_into()?);
    }
    headers.insert(PUNCHLINE_ATTEMPT, request.attempt.into());
    headers.insert(PUNCHLINE_SEQUENCE, request.sequence.into());
    Ok(headers)
}

fn http_request(endpoint: &Endpoint, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut http = Request::new(Full::new(body));
    *http.method_mut() = Method::POST;
    *http.uri_mut() = endpoint.uri().clone();
    *http.headers_mut() = headers;
    http
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
    if cause.is::<ProxyError>() {
        return Some(ErrorCode::Proxy);
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
