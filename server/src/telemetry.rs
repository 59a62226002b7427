//! What the server tells about itself: logs on stderr, metrics on a port of their own.
//!
//! # Invariants
//!
//! - Every metric has a description; every histogram has fixed buckets, so that instances can be summed.
//!
//! # What is absent on purpose
//!
//! - Summaries: quantiles of several instances cannot be put together.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use punchline_runtime::node::Node;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat};

mod series;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How often histograms take in what was recorded: between two scrapes it waits in memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// What happens within a call: 250 µs to 15 s, an attempt's time-out.
const CALL_SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];
/// What may take several attempts: 1 ms to four days.
const DELIVERY_SECONDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 36_000.0,
    86_400.0, 345_600.0,
];
/// Events in one commit.
const BATCH_EVENTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric of ours: name without the prefix, kind, unit, help.
const METRICS: &[(&str, Kind, Unit, &str)] = &[
    ("build_info", Kind::Gauge, Unit::Count, "Always 1; the labels say what runs."),
    ("grpc_requests_total", Kind::Counter, Unit::Count, "gRPC calls answered, by service, method and code."),
    ("grpc_request_duration_seconds", Kind::Histogram, Unit::Seconds, "From the call to its answer."),
    (
        "ingest_consumptions_total",
        Kind::Counter,
        Unit::Count,
        "Consumptions answered, by outcome: accepted, duplicate, rejected, unavailable.",
    ),
    ("ingest_rejections_total", Kind::Counter, Unit::Count, "Consumptions not accepted, by reason."),
    (
        "ingest_commit_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From receiving an accepted consumption to its being on disk.",
    ),
    ("log_commit_batch_events", Kind::Histogram, Unit::Count, "Events in one commit to the journal."),
    ("log_sync_duration_seconds", Kind::Histogram, Unit::Seconds, "Writing and syncing one commit."),
    ("log_head_sequence", Kind::Gauge, Unit::Count, "Position of the last event on disk."),
    ("log_appended_events_total", Kind::Counter, Unit::Count, "Events written to the journal since the start."),
    ("log_size_bytes", Kind::Gauge, Unit::Bytes, "Space that the journal takes."),
    ("disk_free_bytes", Kind::Gauge, Unit::Bytes, "Free space where the data directory is."),
    ("projection_lag_events", Kind::Gauge, Unit::Count, "Events that a projection on disk is behind the journal."),
    ("delivery_attempts_total", Kind::Counter, Unit::Count, "Attempts made, by outcome and class of the status."),
    (
        "delivery_attempt_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From the beginning of an attempt to its end.",
    ),
    (
        "delivery_first_attempt_delay_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From an event's being committed to its first attempt.",
    ),
    (
        "delivery_end_to_end_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From an event's being committed to its receiver's 2xx.",
    ),
    (
        "delivery_queue_events",
        Kind::Gauge,
        Unit::Count,
        "Deliveries taken in and not settled, by state: ready, waiting for a retry.",
    ),
    ("delivery_oldest_pending_seconds", Kind::Gauge, Unit::Seconds, "Age of the oldest delivery that is not settled."),
    (
        "delivery_log_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Attempts that the delivery log had no room for; the deliveries went on.",
    ),
    ("delivery_log_size_bytes", Kind::Gauge, Unit::Bytes, "Space that the delivery log takes."),
    ("subscriptions", Kind::Gauge, Unit::Count, "Subscriptions, by state."),
    ("dead_letters_total", Kind::Counter, Unit::Count, "Deliveries given up after their last attempt, by reason."),
    ("ready", Kind::Gauge, Unit::Count, "Whether it takes in and delivers, as /readyz says: 1 or 0."),
    (
        "job_last_success_timestamp_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "When a job of the clock last succeeded, by job.",
    ),
    (
        "loops_stuck",
        Kind::Gauge,
        Unit::Count,
        "Loops that make no progress: sequencer, committer, write-behind, dispatcher.",
    ),
    (
        "ledger_imbalance",
        Kind::Gauge,
        Unit::Count,
        "Sum over the ledger's entries and their counter-entries: anything but 0 is a bug.",
    ),
];

/// Sets up the log, if this process has none yet.
pub fn init_log(log: &Log) {
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // It would say so on stderr, and panic where nothing can be said there: a full disk must not end the server.
    let lines = lines.log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // An embedding process may have a log of its own: then that one is used.
    if tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().is_ok() {
        drop(FILTER.set(handle));
    }
}

/// From now on what `filter` lets through is logged; it was checked with the configuration.
pub fn set_filter(filter: &str) {
    if let Some(handle) = FILTER.get() {
        // The log lives as long as the process does.
        drop(handle.reload(EnvFilter::try_new(filter).unwrap_or_default()));
    }
}

/// Installs the recorder of this process, once; gives its handle.
///
/// # Errors
///
/// [`BuildError`] where another recorder is installed.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let ends_with = |suffix: &str| Matcher::Suffix(suffix.into());
    let handle = PrometheusBuilder::new()
        .set_buckets(CALL_SECONDS)?
        .set_buckets_for_metric(ends_with("_first_attempt_delay_seconds"), DELIVERY_SECONDS)?
        .set_buckets_for_metric(ends_with("_end_to_end_seconds"), DELIVERY_SECONDS)?
        .set_buckets_for_metric(ends_with("_batch_events"), BATCH_EVENTS)?
        .install_recorder()?;
    for (name, kind, unit, help) in METRICS {
        let name = format!("punchline_{name}");
        match kind {
            Kind::Counter => describe_counter!(name, *unit, *help),
            Kind::Gauge => describe_gauge!(name, *unit, *help),
            Kind::Histogram => describe_histogram!(name, *unit, *help),
        }
    }
    Collector::default().describe();
    metrics::gauge!("punchline_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    crate::ingest::begin_counting();
    Ok(RECORDER.get_or_init(|| handle).clone())
}

/// Takes recorded values into histograms, for ever.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        handle.run_upkeep();
    }
}

/// `/metrics`, and nothing else.
pub fn router(handle: PrometheusHandle, node: Arc<Node>, per_subscription: bool) -> Router {
    Router::new().route("/metrics", get(render)).with_state((handle, node, per_subscription))
}

type Shown = (PrometheusHandle, Arc<Node>, bool);

async fn render(Extract((handle, node, per_subscription)): Extract<Shown>) -> impl IntoResponse {
    node.dispatcher().measure();
    Collector::default().collect();
    let mut text = handle.render();
    let own = tokio::task::spawn_blocking(move || series::of(&node, per_subscription)).await;
    text.push_str(&own.unwrap_or_default());
    ([(CONTENT_TYPE, TEXT_FORMAT)], text)
}
