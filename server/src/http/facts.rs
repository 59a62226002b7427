//! `POST /v1/facts`: the twin of `PublishFact` and `BatchPublishFacts`.
//!
//! ```text
//! {"source", "factId", "type", …}   ──▶ {"receipt"} | {"error"}, as Wecheer's routes answer
//! [{…}, {…}]                        ──▶ {"results": [{"receipt"} | {"error"}, …]}, one for each
//! ```
//!
//! The sender is known by an access token, or by an operator token with the headers `punchline-advertiser`
//! and `punchline-environment`, before anything of the body is read.
//!
//! # Invariants
//!
//! - A word that is not known is refused: it would be lost without a sound.
//! - A list is answered 200 where it was looked at, whatever became of its facts.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, Request};
use axum::response::{IntoResponse, Response};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::fact::{FactReceipt, RawFact};
use punchline_engine::loyalty::tenant::Scope;
use punchline_engine::rejection::{InvalidField, Rejection};
use punchline_runtime::committer::Refusal;
use serde_json::{Value, json};

use super::body::{self, Fields, Json as RawJson};
use super::wecheer::{check_content_type, discard, read, tell};
use super::{Http, answer};
use crate::facts::{self, BATCH_MAX};
use crate::ingest;
use crate::limits::Allowance;
use crate::refuse::Refused;

/// Longest body; a fact has 64 KiB of properties at most.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What a fact consists of.
const FIELDS: &[&str] = &["source", "factId", "type", "identifiers", "occurredAt", "properties"];

/// `POST /v1/facts`.
pub(super) async fn publish(Extract(http): Extract<Arc<Http>>, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    let mut allowance = None;
    let mut response = match take_in(&http, &parts.headers, &mut body, &mut allowance).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refused) => {
            discard(body).await;
            refused.into_response()
        }
    };
    if let Some(allowance) = &allowance {
        tell(allowance, response.headers_mut());
    }
    response
}

/// Everything from the token to the disk. `told` is set once a sender is known whose rate is limited.
async fn take_in(
    http: &Http,
    headers: &HeaderMap,
    body: &mut Body,
    told: &mut Option<Allowance>,
) -> Result<Value, Refused> {
    let state = &http.state;
    let tenant = state.auth.caller_by(headers).and_then(|caller| caller.require(Scope::Ingest)).map_err(counted)?;
    if http.limiter.closed_for_ms(tenant, state.node.clock().now()).is_some() {
        // Who has nothing left is not read.
        limited(http, tenant, 1, told)?;
    }
    check_content_type(headers).map_err(counted)?;
    let (bytes, _place) = read(http, headers, body, BODY_BYTES_MAX).await.map_err(counted)?;
    let given = parse(&bytes).or_else(|refused| {
        // What is no body counts as one fact.
        limited(http, tenant, 1, told)?;
        Err(counted(refused))
    })?;
    let items = match given {
        Given::One(fact) => {
            limited(http, tenant, 1, told)?;
            let raw = fact.map_err(|invalid| counted(invalid.into()))?;
            let published = facts::publish(state, tenant, raw).await.map_err(named)?;
            return Ok(json!({"receipt": receipt(&published)}));
        }
        Given::List(items) => items,
    };
    limited(http, tenant, items.len(), told)?;
    let results = facts::publish_all(state, tenant, items).await;
    if let Some(why) = ingest::all_unavailable(&results) {
        return Err(why.into());
    }
    let shown = |result: Result<FactReceipt, Refusal>| match result {
        Ok(published) => json!({"receipt": receipt(&published)}),
        Err(refusal) => json!({"error": answer::error(&named(refusal))}),
    };
    Ok(json!({"results": results.into_iter().map(shown).collect::<Vec<_>>()}))
}

fn counted(refused: Refused) -> Refused {
    ingest::count_rejection(refused.reason);
    refused
}

fn limited(http: &Http, tenant: Tenant, count: usize, told: &mut Option<Allowance>) -> Result<(), Refused> {
    let calls = u32::try_from(count).unwrap_or(u32::MAX);
    *told = http.limiter.take(tenant, calls, http.state.node.clock().now());
    let Some(ms) = told.and_then(|allowance| allowance.retry_after_ms) else { return Ok(()) };
    Err(counted(Refused::batch_rate_limited(ms, count, http.limiter.per_minute())))
}

/// A refusal with the fields' names as they are here: the engine knows those of the proto files.
fn named(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Rejected(Rejection::Invalid(mut invalid)) => {
            match invalid.field.as_str() {
                "fact_id" => invalid.field = "factId".into(),
                "occurred_at" => invalid.field = "occurredAt".into(),
                _ => {}
            }
            invalid.into()
        }
        other => other.into(),
    }
}

fn receipt(receipt: &FactReceipt) -> Value {
    json!({"sequence": receipt.sequence.0, "recordedAt": receipt.time, "memberId": receipt.member_id})
}

type Parsed = Result<RawFact, InvalidField>;

enum Given {
    One(Parsed),
    List(Vec<Parsed>),
}

fn parse(bytes: &[u8]) -> Result<Given, Refused> {
    let text = body::document(bytes)?;
    if !text.trim_ascii_start().starts_with('[') {
        return Ok(Given::One(fact("body", text)));
    }
    let items: Vec<RawJson<'_>> =
        serde_json::from_str(text).map_err(|_| Refused::field("body", text, "must be a fact, or an array of them"))?;
    if !(1..=BATCH_MAX).contains(&items.len()) {
        let rule = format!("must be 1 to {BATCH_MAX} facts");
        return Err(Refused::field("body", items.len().to_string(), rule));
    }
    Ok(Given::List(items.iter().enumerate().map(|(i, item)| fact(&format!("[{i}]"), item.get())).collect()))
}

/// Reads the fact at `at`.
fn fact(at: &str, text: &str) -> Parsed {
    let fields = Fields::of(text, FIELDS);
    let fields = fields.ok_or_else(|| InvalidField::new(at, text, "must be a JSON object"))?;
    if let Some(unknown) = fields.unknown() {
        let rule = "is no field of a fact: these are source, factId, type, identifiers, occurredAt and properties";
        return Err(InvalidField::new(unknown, "", rule));
    }
    let text = |name: &str| fields.text(name, |value, rule| InvalidField::new(name, value, rule));
    let identifiers = body::list(&fields, "identifiers", "INVALID_IDENTIFIER")?;
    Ok(RawFact {
        source: text("source")?,
        fact_id: text("factId")?,
        fact_type: text("type")?,
        identifiers: identifiers
            .iter()
            .enumerate()
            .map(|(i, json)| body::raw_identifier(i, json))
            .collect::<Result<_, _>>()?,
        occurred_at: text("occurredAt")?,
        properties: fields.get("properties").map(|json| json.get().to_owned()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
