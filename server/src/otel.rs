//! Traces over OTLP, where a collector is configured: which spans there are, `runtime::trace` says.
//!
//! # Invariants
//!
//! - Nobody waits for the collector: spans wait in a bounded queue, and are dropped where it is full.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{FutureExt, TraceContextExt};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use punchline_runtime::trace;
use tonic::transport::ClientTlsConfig;

use crate::config::Tracing;

/// Longest that sending spans may take; also at the end.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);
/// The header that says whose trace a call is part of.
const TRACEPARENT: &str = "traceparent";

/// Sends spans to the collector, if there is one; to be called inside a tokio runtime. What is given back is
/// to be [`flush`]ed at the end.
///
/// # Errors
///
/// [`ExporterBuildError`], where the endpoint is none.
pub fn install(tracing: &Tracing) -> Result<Option<SdkTracerProvider>, ExporterBuildError> {
    if tracing.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let mut exporter = SpanExporter::builder().with_tonic();
    if tracing.otlp_endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.with_endpoint(&tracing.otlp_endpoint).with_timeout(EXPORT_TIME_MAX).build()?;
    // Whoever calls with a trace of its own has decided already.
    let sampler = Sampler::TraceIdRatioBased(1.0 / f64::from(tracing.sample_one_in));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(Resource::builder().with_service_name("punchline").with_attribute(version).build())
        .build();
    global::set_tracer_provider(provider.clone());
    trace::turn_on();
    Ok(Some(provider))
}

/// Sends what waits.
pub async fn flush(provider: SdkTracerProvider) {
    let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIME_MAX));
    if let Ok(Err(error)) = flushed.await {
        tracing::warn!(%error, "the last spans could not be sent");
    }
}

/// The span of a call, begun; `None` where none are made.
pub fn call(name: impl FnOnce() -> String, headers: &HeaderMap) -> Option<Context> {
    if !trace::is_on() {
        return None;
    }
    trace::server(name(), headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()))
}

/// Does what a call asks for, within its span.
pub async fn traced<F: Future>(span: Option<Context>, work: F) -> F::Output {
    match span {
        Some(span) => work.with_context(span).await,
        None => work.await,
    }
}

/// Ends the span of a call over HTTP.
pub fn answered(context: &Context, status: StatusCode) {
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    span.end();
}
