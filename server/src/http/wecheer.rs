//! The two routes of Wecheer's inbound API, so that its clients change only their host.
//!
//! ```text
//! POST [prefix]/api/advertiser/v1/authorize                  apiKey, apiSecret ──▶ accessToken
//! POST [prefix]/api/advertiser-integration/v1/consumption    Bearer ──▶ receipt
//! ```
//!
//! The checks come in the order of API.md's table: credentials, rate, body. Nothing of a body is read
//! before its sender is known and within the limit.
//!
//! # Sources
//!
//! contracts/wecheer.md; 415 and 413 stand where the body is checked, since they are about it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use punchline_engine::id::{Environment, Tenant};
use punchline_engine::loyalty::tenant::Scope;
use serde_json::json;
use tokio::sync::SemaphorePermit;

use super::answer::{receipt, refuse};
use super::{Http, body};
use crate::auth::ADVERTISER_METADATA;
use crate::limits::Allowance;
use crate::refuse::Refused;
use crate::{convert, ingest};

/// Longest body of a consumption: 200 lines of the longest fields take a tenth of it.
const CONSUMPTION_BYTES_MAX: usize = 1024 * 1024;
/// Longest body of an authorization; its sender is not known yet.
const AUTHORIZE_BYTES_MAX: usize = 16 * 1024;
/// Bodies up to this length are read at once; longer ones wait for a place, which bounds the memory.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// What is read and thrown away of a refused body, so that its sender reads the answer instead of a reset.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// `POST …/api/advertiser/v1/authorize`.
pub(super) async fn authorize(http: Arc<Http>, environment: Environment, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    match authorized(&http, environment, &parts.headers, &mut body).await {
        Ok(response) => response,
        Err(refused) => {
            discard(body).await;
            refused.into_response()
        }
    }
}

async fn authorized(
    http: &Http,
    environment: Environment,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Refused> {
    let (Some(api_key), Some(api_secret)) = (headers.get("apikey"), headers.get("apisecret")) else {
        return Err(Refused::credentials_missing());
    };
    check_content_type(headers)?;
    let (body, _place) = read(http, headers, body, AUTHORIZE_BYTES_MAX).await?;
    let advertiser_id = body::advertiser_id(&body)?;
    if api_key.is_empty() || api_secret.is_empty() || advertiser_id.trim().is_empty() {
        return Err(Refused::credentials_missing());
    }
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec());
    let (Ok(api_key), Ok(api_secret)) = (text(api_key), text(api_secret)) else {
        return Err(Refused::invalid_credentials());
    };
    let auth = &http.state.auth;
    let token = auth.authorize(&api_key, &api_secret, environment, Some(advertiser_id.trim()))?;
    Ok(Json(json!({"accessToken": token.token, "advertiserId": token.advertiser.to_string()})).into_response())
}

/// `POST …/api/advertiser-integration/v1/consumption`.
pub(super) async fn consumption(http: Arc<Http>, environment: Environment, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    let tenant = match tenant_of(&http, environment, &parts.headers) {
        Ok(tenant) => tenant,
        Err(refused) => {
            ingest::count_refused(refused.reason, 1);
            discard(body).await;
            return refused.into_response();
        }
    };
    let allowance = http.limiter.take(tenant, 1, http.state.node.clock().now());
    let taken = match allowance.and_then(|allowance| allowance.retry_after_ms) {
        Some(ms) => Err(counted(Refused::rate_limited(ms))),
        None => take_in(&http, tenant, &parts.headers, &mut body).await,
    };
    let mut response = match taken {
        Ok(receipt) => receipt,
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

fn tenant_of(http: &Http, environment: Environment, headers: &HeaderMap) -> Result<Tenant, Refused> {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let authorization = headers.get(AUTHORIZATION).map(text);
    let advertiser = headers.get(ADVERTISER_METADATA).map(text);
    let auth = &http.state.auth;
    let caller = auth.caller_of(authorization.as_deref(), advertiser.as_deref(), Some(environment.as_str()));
    let caller = caller.map_err(|refused| match refused.reason {
        // The table has one answer: a token of the other environment is none here.
        "TENANT_MISMATCH" => Refused::invalid_credentials(),
        _ => refused,
    })?;
    caller.require(Scope::Ingest)
}

async fn take_in(http: &Http, tenant: Tenant, headers: &HeaderMap, body: &mut Body) -> Result<Response, Refused> {
    let raw = async {
        check_content_type(headers)?;
        let (body, _place) = read(http, headers, body, CONSUMPTION_BYTES_MAX).await?;
        body::consumption(&body)
    };
    let raw = raw.await.map_err(counted)?;
    let recorded = ingest::record(&http.state.node, tenant, raw).await?;
    let receipt = receipt(&convert::receipt(recorded));
    Ok(Json(json!({"message": "Event successfully published", "receipt": receipt})).into_response())
}

fn counted(refused: Refused) -> Refused {
    ingest::count_refused(refused.reason, 1);
    refused
}

pub(super) fn tell(allowance: &Allowance, headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), allowance.limit.into());
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), allowance.remaining.into());
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), allowance.reset_unix_s.into());
}

/// JSON under the names that clients of Wecheer's documents give it, or no name.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim();
    if ["", "application/json", "application/json-patch+json"].iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let shown: String = given.chars().take(80).collect();
    let message = format!("Content-Type {shown:?} must be application/json or application/json-patch+json");
    Err(refuse(415, "UNSUPPORTED_MEDIA_TYPE", message))
}

/// Reads a body of at most so many bytes; a large one comes with its place, to be held as long as the body is.
///
/// # Errors
///
/// `REQUEST_TOO_LARGE`, `INVALID_BODY`.
pub(super) async fn read<'a>(
    http: &'a Http,
    headers: &HeaderMap,
    body: &mut Body,
    bytes_max: usize,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), Refused> {
    let too_large = || {
        refuse(413, "REQUEST_TOO_LARGE", format!("Request body is too large, at most {bytes_max} bytes are allowed"))
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large());
    }
    let small = announced.unwrap_or(bytes_max) <= SMALL_BODY_BYTES_MAX;
    let place = if small { None } else { Some(large_place(http).await?) };
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok((collected.to_bytes(), place)),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        // The sender went away, or its chunks are broken.
        Err(_) => Err(refuse(400, "INVALID_BODY", "Request body ended early")),
    }
}

/// A place for a large body.
///
/// # Errors
///
/// Where the server is going down.
pub(super) async fn large_place(http: &Http) -> Result<SemaphorePermit<'_>, Refused> {
    http.large_bodies.acquire().await.map_err(|_| Refused::shutting_down())
}

/// Throws the rest of a body away, up to a bound.
pub(super) async fn discard(body: Body) {
    let rest = async {
        let (mut body, mut bytes) = (body, 0);
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // Whether it ended or not, the answer goes out.
    drop(tokio::time::timeout(DISCARD_TIME_MAX, rest).await);
}
