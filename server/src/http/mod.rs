//! The HTTP door: ingress for Wecheer's clients, for Segment's and for facts, and health.
//!
//! ```text
//! listen ──▶ guard (concurrency, time, panics) ──▶ routes ──▶ ingest
//! ```
//!
//! # Invariants
//!
//! - Every answer that is an error has the one error body, from whichever layer it comes.
//! - Whatever arrives, memory is bounded: connections, requests, bodies and the large ones among them.
//!
//! # What is absent on purpose
//!
//! - The operator console: a later issue.

mod answer;
mod body;
mod facts;
pub mod listen;
mod segment;
mod wecheer;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Extract};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::FutureExt;
use punchline_engine::id::Environment;
use serde_json::json;
use tokio::sync::Semaphore;

use self::answer::refuse;
use crate::limits::RateLimiter;
use crate::otel::{self, traced};
use crate::refuse::Refused;
use crate::state::State;

/// Requests under way; further ones are refused at once. With 64 KiB of body each, 64 MiB.
const REQUESTS_MAX: usize = 1_024;
/// Large bodies being read or waited for: 64 MiB.
const LARGE_BODIES_MAX: usize = 64;
/// Longest that a request may take, its body included.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

/// The prefixes of Wecheer's hosts, and where they lead.
const PREFIXES: [(&str, Environment); 5] = [
    ("", Environment::Production),
    ("/usermanagement", Environment::Production),
    ("/campaigns", Environment::Production),
    ("/staging-usermanagement", Environment::Staging),
    ("/staging-campaigns", Environment::Staging),
];

/// What the routes share.
pub struct Http {
    state: Arc<State>,
    limiter: RateLimiter,
    requests: Semaphore,
    large_bodies: Semaphore,
}

impl Http {
    /// With so many consumptions a minute for each tenant; 0 for no limit.
    pub fn new(state: Arc<State>, consumptions_per_minute: u32) -> Arc<Http> {
        Arc::new(Http {
            state,
            limiter: RateLimiter::new(consumptions_per_minute),
            requests: Semaphore::new(REQUESTS_MAX),
            large_bodies: Semaphore::new(LARGE_BODIES_MAX),
        })
    }

    /// From now on so many consumptions a minute for each tenant.
    pub fn set_limit(&self, consumptions_per_minute: u32) {
        self.limiter.set_per_minute(consumptions_per_minute);
    }
}

/// All routes.
pub fn router(http: Arc<Http>) -> Router {
    let mut router = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    for (prefix, environment) in PREFIXES {
        let authorize = post(move |Extract(http), request| wecheer::authorize(http, environment, request));
        let consumption = post(move |Extract(http), request| wecheer::consumption(http, environment, request));
        router = router
            .route(&format!("{prefix}/api/advertiser/v1/authorize"), authorize)
            .route(&format!("{prefix}/api/advertiser-integration/v1/consumption"), consumption);
    }
    segment::routes(router.route("/v1/facts", post(facts::publish)))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(http.clone(), guard))
        .with_state(http)
}

async fn not_found(request: Request) -> Refused {
    let path: String = request.uri().path().chars().take(200).collect();
    refuse(404, "NOT_FOUND", format!("{} {path} is no route of this server", request.method()))
}

async fn method_not_allowed(method: Method, request: Request) -> Refused {
    let path: String = request.uri().path().chars().take(200).collect();
    refuse(405, "METHOD_NOT_ALLOWED", format!("{path} does not allow {method}"))
}

async fn healthz(Extract(http): Extract<Arc<Http>>) -> Result<Response, Refused> {
    no_loop_is_stuck(&http.state)?;
    Ok(Json(json!({"status": "live"})).into_response())
}

fn no_loop_is_stuck(state: &State) -> Result<(), Refused> {
    let stuck = state.stuck();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(refuse(503, "LOOP_STUCK", format!("no progress for {} s: {}", state.stuck_after.as_secs(), stuck.join(", "))))
}

async fn readyz(Extract(http): Extract<Arc<Http>>) -> Result<Response, Refused> {
    if http.state.is_closing() {
        return Err(Refused::shutting_down());
    }
    if let Some(why) = http.state.node.stopped() {
        // Without what failed, which names paths: that stands in the log and in GetStatus.
        return Err(Refused::from(why));
    }
    no_loop_is_stuck(&http.state)?;
    Ok(Json(json!({"status": "ready", "sequence": http.state.node.feed().head().0})).into_response())
}

/// Bounds every request in number and time, and answers for those that fail by a bug.
async fn guard(Extract(http): Extract<Arc<Http>>, request: Request, next: Next) -> Response {
    // Probes must tell a busy server from a dead one.
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let permit = http.requests.try_acquire().ok();
    if permit.is_none() && !probe {
        let mut refused = refuse(503, "OVERLOADED", "Too many requests are under way, try again");
        refused.retry_after_ms = Some(1_000);
        return refused.into_response();
    }
    let name = || format!("{} {}", request.method(), request.uri().path().chars().take(200).collect::<String>());
    let span = if probe { None } else { otel::call(name, request.headers()) };
    let answered = traced(span.clone(), AssertUnwindSafe(next.run(request)).catch_unwind());
    let response = match tokio::time::timeout(REQUEST_TIME_MAX, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Refused::internal("answer a request", &"a panic, which is a bug").into_response(),
        Err(_) => {
            let message = "The request took too long; whether it was carried out is not known: send it again";
            let mut refused = refuse(503, "TIMEOUT", message);
            refused.retry_after_ms = Some(1_000);
            refused.into_response()
        }
    };
    if let Some(span) = span {
        otel::answered(&span, response.status());
    }
    response
}

#[cfg(test)]
mod tests;
