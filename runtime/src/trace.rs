//! Traces: one way of a call, from the door over the commit to each attempt to deliver what came of it.
//!
//! ```text
//! traceparent ─▶ server span (door) ─▶ commit span ─▶ record (25 bytes) ─▶ a client span an attempt ─▶ traceparent
//! ```
//!
//! # Invariants
//!
//! - Off unless [`turn_on`] was called; then one load is all that it costs.
//! - What a sampled call wrote says so in its record, so attempts after a restart belong to it as well. Others
//!   have no bytes for it.
//!
//! # What is absent on purpose
//!
//! - `tracing`'s spans: these outlive the call and cross threads, and the log is to look the same with them.
//! - `tracestate`, and contexts that are not sampled: nobody would see them.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, global};
use punchline_delivery::outcome::{AttemptReport, Outcome};
use punchline_engine::id::{Sequence, SubscriptionId};
use punchline_storage::codec::TraceBytes;

/// Who makes the spans.
const NAME: &str = "punchline";
/// The only version of `traceparent` that there is.
const VERSION: &str = "00";

static IS_ON: AtomicBool = AtomicBool::new(false);

/// From now on spans are made. To be called once a tracer provider is installed.
pub fn turn_on() {
    IS_ON.store(true, Relaxed);
}

/// The span of a call, begun, with its caller's as parent; `None` where none are made.
pub fn server(name: String, traceparent: Option<&str>) -> Option<Context> {
    let parent = || traceparent.and_then(parse).map(|parent| Context::new().with_remote_span_context(parent));
    is_on().then(|| begin(name, SpanKind::Server, &parent().unwrap_or_default()))
}

/// The span from now until a command is answered, in the trace of the call under way, if that is sampled.
pub(crate) fn commit() -> Option<Context> {
    if !is_on() || !Context::map_current(|context| context.span().span_context().is_sampled()) {
        return None;
    }
    Some(begin("commit", SpanKind::Internal, &Context::current()))
}

/// What a record keeps of a span.
pub(crate) fn bytes(context: &Context) -> TraceBytes {
    let span = context.span();
    let context = span.span_context();
    let mut bytes = [0; 25];
    bytes[..16].copy_from_slice(&context.trace_id().to_bytes());
    bytes[16..24].copy_from_slice(&context.span_id().to_bytes());
    bytes[24] = context.trace_flags().to_u8();
    bytes
}

/// The span of an attempt, in the trace of what it is about, if there is one.
pub(crate) fn attempt(of: Option<&TraceBytes>, id: SubscriptionId, at: Sequence, number: u32) -> Option<Context> {
    let of = of.filter(|_| is_on())?;
    let (trace_id, rest) = of.split_at(16);
    let trace_id = TraceId::from_bytes(trace_id.try_into().expect("16 of 25 bytes"));
    let span_id = SpanId::from_bytes(rest[..8].try_into().expect("8 of 9 bytes"));
    let parent = SpanContext::new(trace_id, span_id, TraceFlags::new(rest[8]), true, TraceState::default());
    let context = begin("deliver", SpanKind::Client, &Context::new().with_remote_span_context(parent));
    context.span().set_attributes([
        KeyValue::new("punchline.subscription_id", id.to_string()),
        KeyValue::new("punchline.sequence", i64::try_from(at.0).unwrap_or(i64::MAX)),
        KeyValue::new("punchline.attempt", i64::from(number)),
    ]);
    Some(context)
}

/// Ends the span of an attempt.
pub(crate) fn attempted(context: &Context, report: &AttemptReport) {
    let span = context.span();
    if let Some(status) = report.status {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if report.outcome != Outcome::Delivered {
        let why = report.error.map_or("not delivered", |error| error.as_str());
        span.set_status(Status::error(why));
    }
    span.end();
}

/// The header that tells a receiver of a span.
pub(crate) fn traceparent(context: &Context) -> String {
    let span = context.span();
    let context = span.span_context();
    format!("{VERSION}-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Whether spans are made.
pub fn is_on() -> bool {
    IS_ON.load(Relaxed)
}

fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind, parent: &Context) -> Context {
    let tracer = global::tracer(NAME);
    let span = tracer.span_builder(name).with_kind(kind).start_with_context(&tracer, parent);
    parent.with_span(span)
}

/// What `traceparent` says, where it is one (W3C Trace Context, level 1).
fn parse(traceparent: &str) -> Option<SpanContext> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let mut parts = traceparent.split('-');
    let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_one = (version.len(), trace_id.len(), span_id.len(), flags.len()) == (2, 32, 16, 2)
        && version != "ff"
        && (version != VERSION || parts.next().is_none())
        && [version, trace_id, span_id, flags].iter().all(|part| part.bytes().all(is_digit));
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_one)?;
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace_id, span_id, flags, true, TraceState::default())).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        for (header, is_one) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-4bf9-00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            let parsed = parse(header);
            assert_eq!(parsed.is_some(), is_one, "{header}");
            if let Some(parsed) = parsed {
                let again = traceparent(&Context::new().with_remote_span_context(parsed.clone()));
                assert_eq!(again[2..55], header[2..55], "{header}");
                assert_eq!(parsed.is_sampled(), header[53..55] == *"01", "{header}");
            }
        }
    }
}
