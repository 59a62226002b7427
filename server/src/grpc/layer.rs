//! Around every call: whether its caller is known, what is counted about it, and an `ErrorInfo` where the
//! framework refused it.
//!
//! # Invariants
//!
//! - Labels come from the descriptors, so their number is bounded whatever paths are asked for.
//! - A call is counted once, when it has ended: a unary one with its answer, a streaming one with its
//!   trailers, one that was given up with CANCELLED.
//! - The framework reads and decodes a message before its handler is called; so who calls is asked here,
//!   of the headers, and the time that a single message may take is bounded here.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::{Counter, Histogram};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use prost::Message;
use prost_types::FileDescriptorSet;
use punchline_engine::command::Actor;
use punchline_engine::id::{CredentialId, Tenant};
use punchline_runtime::actor::asked_by;
use punchline_runtime::clock::Stopwatch;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::ingest;
use crate::otel::{self, traced};
use crate::refuse::Refused;
use crate::state::State;

/// Codes of gRPC, in their order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What begins the path of a call that must say who calls; health and reflection need not.
const OWN_PATHS: &str = "/punchline.v1.";
/// How the names of calls begin that change nothing.
const READ_VERBS: [&str; 6] = ["Explain", "Get", "List", "Lookup", "Read", "Simulate"];
/// Longest that a single message may take to arrive: the largest one at 140 KB/s.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(30);
const GRPC_STATUS: &str = "grpc-status";
const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// What is counted about one method.
struct Method {
    service: String,
    name: String,
    /// Whether what it refuses is counted as consumptions refused.
    takes_consumptions: bool,
    /// Whether it is written down who asked: not of what is taken in, which is known by its key, nor of what is read.
    is_written_down: bool,
    /// Whether it answers with a stream.
    streams: bool,
    /// Whether it is sent a stream: then nobody knows how long that takes.
    is_sent_stream: bool,
    duration: Histogram,
    /// Made when first needed: 17 series a method would be mostly zeros.
    requests: [OnceLock<Counter>; CODES.len()],
}

impl Method {
    fn new(service: &str, name: &str, streams: bool, is_sent_stream: bool) -> Method {
        let labels = [("service", service.to_owned()), ("method", name.to_owned())];
        let duration = metrics::histogram!("punchline_grpc_request_duration_seconds", &labels);
        let requests = [const { OnceLock::new() }; CODES.len()];
        let takes_consumptions = service == "IngestService" && name.contains("Consumption");
        Method {
            service: service.into(),
            name: name.into(),
            takes_consumptions,
            is_written_down: service != "IngestService" && !READ_VERBS.iter().any(|verb| name.starts_with(verb)),
            streams,
            is_sent_stream,
            duration,
            requests,
        }
    }

    fn count(&self, code: Code, watch: &Stopwatch) {
        self.duration.record(watch.seconds());
        let at = code as usize;
        let counter = self.requests[at].get_or_init(|| {
            let (service, method) = (self.service.clone(), self.name.clone());
            let labels = [("service", service), ("method", method), ("code", CODES[at].to_owned())];
            metrics::counter!("punchline_grpc_requests_total", &labels)
        });
        counter.increment(1);
    }
}

/// All methods, by path.
struct Methods {
    known: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

impl Methods {
    fn of(descriptors: &[&[u8]]) -> Methods {
        let mut known = HashMap::new();
        for encoded in descriptors {
            let files = FileDescriptorSet::decode(*encoded).expect("descriptors are compiled in").file;
            for file in files {
                for service in &file.service {
                    let full_name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let (streams, is_sent_stream) = (method.server_streaming(), method.client_streaming());
                        let counted = Method::new(service.name(), method.name(), streams, is_sent_stream);
                        known.insert(format!("/{full_name}/{}", method.name()), Arc::new(counted));
                    }
                }
            }
        }
        Methods { known, unknown: Arc::new(Method::new("unknown", "unknown", false, false)) }
    }

    fn at(&self, path: &str) -> Arc<Method> {
        self.known.get(path).unwrap_or(&self.unknown).clone()
    }
}

/// Counts calls. To be made after the metrics recorder is installed.
#[derive(Clone)]
pub(super) struct Counting {
    methods: Arc<Methods>,
    state: Arc<State>,
}

impl Counting {
    pub(super) fn new(descriptors: &[&[u8]], state: Arc<State>) -> Counting {
        Counting { methods: Arc::new(Methods::of(descriptors)), state }
    }
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, methods: self.methods.clone(), state: self.state.clone() }
    }
}

#[derive(Clone)]
pub(super) struct Counted<S> {
    inner: S,
    methods: Arc<Methods>,
    state: Arc<State>,
}

/// A call under way; counted when dropped.
struct Call {
    method: Arc<Method>,
    watch: Stopwatch,
    code: Code,
    /// Its span, where there is one.
    span: Option<Context>,
}

impl Call {
    fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.count(self.code, &self.watch);
        if let Some(context) = &self.span {
            let span = context.span();
            span.set_attribute(KeyValue::new("rpc.grpc.status_code", self.code as i64));
            span.end();
        }
    }
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = self.methods.at(request.uri().path());
        let mut call = Call { method, watch: Stopwatch::start(), code: Code::Cancelled, span: None };
        let is_own = request.uri().path().starts_with(OWN_PATHS);
        let caller = is_own.then(|| self.state.auth.caller_by(request.headers())).transpose();
        let caller = match caller {
            Ok(caller) => caller,
            Err(refused) => {
                call.ended(refused.code);
                if call.method.takes_consumptions {
                    // How many there were is not known: nobody has read them.
                    ingest::count_refused(refused.reason, 1);
                }
                return Box::pin(async { Ok(refused.into_status().into_http()) });
            }
        };
        if let Some(caller) = caller {
            // For the handler, which need not ask again.
            request.extensions_mut().insert(caller);
        }
        let request = match call.method.is_sent_stream {
            true => request,
            false => request.map(|inner| Body::new(TimedBody { inner, time_max: MESSAGE_TIME_MAX, late: None })),
        };
        if caller.is_some() {
            let name = || format!("punchline.v1.{}/{}", call.method.service, call.method.name);
            call.span = otel::call(name, request.headers());
        }
        let tenant = caller.and_then(|caller| caller.tenant);
        let actor = caller.filter(|_| call.method.is_written_down).map(|_| Actor {
            credential: self.state.auth.credential_by(request.headers()),
            method: format!("{}/{}", call.method.service, call.method.name),
        });
        let answered = traced(call.span.clone(), self.inner.call(request));
        Box::pin(async move {
            let mut response = match actor {
                Some(actor) => {
                    let response = asked_by(actor.clone(), answered).await?;
                    log_refusal(&actor, tenant, response.headers());
                    response
                }
                None => answered.await?,
            };
            explain(response.headers_mut());
            match code_of(response.headers()) {
                Some(code) => call.ended(code),
                None if call.method.streams => {
                    return Ok(response.map(|inner| Body::new(CountedBody { inner, call })));
                }
                None => call.ended(Code::Ok),
            }
            Ok(response)
        })
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// What was refused is in no record: the log says who asked for it.
fn log_refusal(actor: &Actor, tenant: Option<Tenant>, headers: &HeaderMap) {
    let Some(code) = code_of(headers).filter(|code| *code != Code::Ok) else { return };
    let by = actor.credential.as_ref().map_or("operator", CredentialId::as_str);
    let tenant = tenant.map(|tenant| tenant.to_string());
    tracing::info!(actor = by, method = actor.method, tenant, code = CODES[code as usize], "a change was refused");
}

/// Gives an error of the framework's own an `ErrorInfo`, and the code that a client expects.
fn explain(headers: &mut HeaderMap) {
    if headers.contains_key(STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) else { return };
    let refused = framework_refusal(&status);
    // What cannot be written as a header leaves the error as it was.
    if refused.into_status().add_header(headers).is_err() {
        tracing::warn!(code = ?status.code(), "an error of the framework could not be explained");
    }
}

fn framework_refusal(status: &Status) -> Refused {
    let text = status.message();
    let (code, reason) = match status.code() {
        // A large message in a small one is neither a fault of ours nor to be tried again.
        Code::ResourceExhausted if text.contains("decompress") => (Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        Code::Internal if text.contains("decode") || text.contains("decompress") => {
            (Code::InvalidArgument, "MALFORMED_MESSAGE")
        }
        Code::OutOfRange => (Code::OutOfRange, "MESSAGE_TOO_LARGE"),
        Code::Unimplemented if text.is_empty() => {
            return Refused::new(Code::Unimplemented, 501, "METHOD_NOT_FOUND", "there is no such method");
        }
        Code::Unimplemented => (Code::Unimplemented, "UNSUPPORTED"),
        Code::Cancelled => (Code::Cancelled, "CANCELLED"),
        Code::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        Code::Unavailable => (Code::Unavailable, "UNAVAILABLE"),
        other => (other, "PROTOCOL_ERROR"),
    };
    Refused::new(code, 400, reason, text)
}

/// A single message on its way in, which must have arrived in time.
struct TimedBody {
    inner: Body,
    time_max: Duration,
    /// Made when the message is first waited for: most have arrived with their headers.
    late: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for TimedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(polled) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(polled);
        }
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.time_max)));
        late.as_mut().poll(cx).map(|()| Some(Err(Status::deadline_exceeded("the message took too long to arrive"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The messages of a streaming call, looked at for the trailers that end it.
struct CountedBody {
    inner: Body,
    call: Call,
}

impl HttpBody for CountedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let _within = self.call.span.clone().map(Context::attach);
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            explain(trailers);
            self.call.ended(code_of(trailers).unwrap_or(Code::Ok));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tonic_types::StatusExt;

    #[test]
    fn errors_of_the_framework_are_explained() {
        for (status, code, reason) in [
            (Status::internal("failed to decode Protobuf message: x"), Code::InvalidArgument, "MALFORMED_MESSAGE"),
            (Status::out_of_range("message length too large"), Code::OutOfRange, "MESSAGE_TOO_LARGE"),
            (Status::internal("Error decompressing: x"), Code::InvalidArgument, "MALFORMED_MESSAGE"),
            (Status::new(Code::Unimplemented, ""), Code::Unimplemented, "METHOD_NOT_FOUND"),
            (Status::internal("x"), Code::Internal, "PROTOCOL_ERROR"),
            (Refused::credentials_missing().into_status(), Code::Unauthenticated, "CREDENTIALS_MISSING"),
        ] {
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).expect("fits");
            explain(&mut headers);
            let explained = Status::from_header_map(&headers).expect("a status");
            let info = explained.get_details_error_info().expect("every error has one");
            assert_eq!((explained.code(), info.reason.as_str()), (code, reason));
        }
        let mut fine = HeaderMap::from_iter([(http::HeaderName::from_static(GRPC_STATUS), "0".parse().expect("ok"))]);
        explain(&mut fine);
        assert!(!fine.contains_key(STATUS_DETAILS));
    }

    #[tokio::test]
    async fn a_message_must_arrive_in_time() {
        let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        let mut body = TimedBody { inner: Body::new(silent), time_max: Duration::from_millis(10), late: None };
        let late = body.frame().await.expect("ends").expect_err("too late");
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let whole = http_body_util::Full::new(Bytes::from_static(b"x"));
        let body = TimedBody { inner: Body::new(whole), time_max: Duration::ZERO, late: None };
        assert_eq!(body.collect().await.expect("arrived").to_bytes(), "x");
    }

    #[test]
    fn methods_come_from_the_descriptors() {
        let methods = Methods::of(&[punchline_proto::v1::FILE_DESCRIPTOR_SET]);
        for (path, name, streams) in [
            ("/punchline.v1.IngestService/RecordConsumption", "RecordConsumption", false),
            ("/punchline.v1.IngestService/StreamConsumptions", "StreamConsumptions", true),
            ("/punchline.v1.EventService/Subscribe", "Subscribe", true),
            ("/punchline.v1.EventService/Nothing", "unknown", false),
            ("/", "unknown", false),
        ] {
            let method = methods.at(path);
            assert_eq!((method.name.as_str(), method.streams), (name, streams), "{path}");
        }
    }
}
