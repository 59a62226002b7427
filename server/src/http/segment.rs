//! Segment's HTTP tracking API as a way in, so that Segment's clients change only host and write key.
//!
//! ```text
//! POST /v1/track, /v1/identify, …    one message   ┐
//! POST /v1/batch                     a list        ┴─▶ key ▶ limits ▶ rate ▶ commands ▶ on disk ▶ answer
//! ```
//!
//! # Invariants
//!
//! - Nothing of a request is taken in before all of it is within the limits.
//! - Messages are carried out in their order, so that an `identify` is known to the `track` behind it.
//! - A message is taken in once, by its `messageId`: sending all of a request again is always safe.
//! - A batch is answered 200 only if nothing in it is worth sending again, since its clients send the whole
//!   of it again or none. What was refused for good is counted and logged, without personal data.
//!
//! # What is absent on purpose
//!
//! - CORS: a write key earns points to whoever has it, so it belongs on servers, not in pages.
//! - Content types: Segment's own clients name `application/json` and `text/plain` for the same body.
//!
//! # Sources
//!
//! segment.com/docs, "HTTP Tracking API Source"; what `@segment/analytics-node` 3.1.0 and
//! `segment-analytics-python` 2.4.0 send: `/v1/batch` only, Basic and `writeKey` both, gzip if asked for.

mod message;

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING};
use axum::http::{HeaderMap, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use punchline_engine::command::{Action, Command};
use punchline_engine::id::Tenant;
use punchline_engine::loyalty::fact::Fact;
use punchline_engine::rejection::Rejection;
use punchline_runtime::committer::{Answer, Refusal};
use serde_json::json;
use tokio::sync::SemaphorePermit;
use tonic::Code;

use self::message::{Kind, Message, Prepared};
use super::Http;
use super::answer::refuse;
use super::body::{self, Fields, Json as RawJson};
use super::wecheer::{discard, large_place, read, tell};
use crate::ingest;
use crate::limits::Allowance;
use crate::refuse::Refused;

/// Longest message. As Segment has it, like the two below.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Longest batch.
const BATCH_BYTES_MAX: usize = 500 * 1024;
/// Most messages of a batch.
const BATCH_MESSAGES_MAX: usize = 2_500;
/// Longest base64 of a Basic `authorization` that is looked at.
const BASIC_BYTES_MAX: usize = 1_024;
/// Some clients leave the padding out.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What some editors and clients put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The paths, each with what it takes; `None` is a batch. The short ones are those of Segment's browser client.
const ROUTES: [(&str, Option<Kind>); 15] = [
    ("/v1/track", Some(Kind::Track)),
    ("/v1/t", Some(Kind::Track)),
    ("/v1/identify", Some(Kind::Identify)),
    ("/v1/i", Some(Kind::Identify)),
    ("/v1/page", Some(Kind::Page)),
    ("/v1/p", Some(Kind::Page)),
    ("/v1/screen", Some(Kind::Screen)),
    ("/v1/s", Some(Kind::Screen)),
    ("/v1/group", Some(Kind::Group)),
    ("/v1/g", Some(Kind::Group)),
    ("/v1/alias", Some(Kind::Alias)),
    ("/v1/a", Some(Kind::Alias)),
    ("/v1/batch", None),
    ("/v1/b", None),
    ("/v1/import", None),
];

/// With Segment's routes.
pub(super) fn routes(router: Router<Arc<Http>>) -> Router<Arc<Http>> {
    ROUTES.into_iter().fold(router, |router, (path, kind)| {
        router.route(path, post(move |Extract(http), request| answer(http, kind, request)))
    })
}

async fn answer(http: Arc<Http>, kind: Option<Kind>, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    let mut allowance = None;
    let taken = take_in(&http, kind, &parts.headers, &mut body, &mut allowance).await;
    let mut response = match taken {
        Ok(()) => Json(json!({"success": true})).into_response(),
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

/// Everything from the key to the disk. `told` is set once a sender is known whose rate is limited.
async fn take_in(
    http: &Http,
    kind: Option<Kind>,
    headers: &HeaderMap,
    body: &mut Body,
    told: &mut Option<Allowance>,
) -> Result<(), Refused> {
    let auth = &http.state.auth;
    let by_header = basic_user(headers).and_then(|key| key.map(|key| auth.reports_for(&key)).transpose());
    let by_header = by_header.map_err(counted)?;
    if let Some(tenant) = by_header
        && http.limiter.closed_for_ms(tenant, http.state.node.clock().now()).is_some()
    {
        // Who has nothing left is not read.
        limited(http, tenant, 1, told)?;
    }
    let (bytes, _place) = read_body(http, kind, headers, body).await.map_err(counted)?;
    let parsed = parse(kind, &bytes);
    let tenant = match (by_header, &parsed) {
        (Some(tenant), _) => tenant,
        (None, Ok(Parsed { write_key: Some(key), .. })) => auth.reports_for(key).map_err(counted)?,
        // What is wrong with a body is told to those only who may send one.
        (None, _) => return Err(counted(write_key_missing())),
    };
    let messages = match parsed {
        Ok(parsed) => parsed.messages,
        Err(refused) => {
            limited(http, tenant, 1, told)?;
            return Err(counted(refused));
        }
    };
    limited(http, tenant, messages.len(), told)?;
    let outcomes = carry_out(http, tenant, &messages).await;
    match kind {
        Some(_) => outcomes.into_iter().collect(),
        None => of_batch(tenant, &messages, outcomes),
    }
}

fn counted(refused: Refused) -> Refused {
    ingest::count_refused(refused.reason, 1);
    refused
}

/// Counts against the tenant's rate. A batch of more messages than fit into a whole minute takes all of one:
/// it could never be sent otherwise.
fn limited(http: &Http, tenant: Tenant, messages: usize, told: &mut Option<Allowance>) -> Result<(), Refused> {
    let wanted = u32::try_from(messages).unwrap_or(u32::MAX).min(http.limiter.per_minute());
    *told = http.limiter.take(tenant, wanted, http.state.node.clock().now());
    let Some(ms) = told.and_then(|allowance| allowance.retry_after_ms) else { return Ok(()) };
    ingest::count_refused("RATE_LIMIT_EXCEEDED", messages);
    Err(Refused::rate_limited(ms))
}

fn write_key_missing() -> Refused {
    Refused { message: "Missing write key".into(), ..Refused::credentials_missing() }
}

/// The user of a Basic `authorization`; its password must be empty, since write keys have none.
fn basic_user(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let user = || {
        let (scheme, encoded) = value.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > BASIC_BYTES_MAX {
            return None;
        }
        let decoded = String::from_utf8(LENIENT_BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        password.is_empty().then(|| user.to_owned())
    };
    user().map(Some).ok_or_else(Refused::invalid_credentials)
}

/// Reads a body, and decompresses it if it is compressed, within the limit of its route. What is large holds
/// its place until it is carried out.
async fn read_body<'a>(
    http: &'a Http,
    kind: Option<Kind>,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), Refused> {
    let (what, bytes_max) = match kind {
        Some(_) => ("message", MESSAGE_BYTES_MAX),
        None => ("batch", BATCH_BYTES_MAX),
    };
    let read = read(http, headers, body, bytes_max).await;
    let (bytes, place) = read.map_err(|refused| match refused.reason {
        "REQUEST_TOO_LARGE" => too_large(what, bytes_max),
        _ => refused,
    })?;
    let encoding = headers.get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match encoding.as_deref().map(str::trim) {
        None | Some("" | "identity") => Ok((bytes, place)),
        Some(name) if name.eq_ignore_ascii_case("gzip") => {
            // A small body may become a large one.
            let place = if place.is_none() { Some(large_place(http).await?) } else { place };
            let mut plain = Vec::new();
            let mut bounded = flate2::read::MultiGzDecoder::new(&*bytes).take(bytes_max as u64 + 1);
            bounded
                .read_to_end(&mut plain)
                .map_err(|_| refuse(400, "INVALID_BODY", "Request body is not gzip, or ended early"))?;
            if plain.len() > bytes_max { Err(too_large(what, bytes_max)) } else { Ok((plain.into(), place)) }
        }
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            let message = format!("Content-Encoding {shown:?} must be gzip or left out");
            Err(refuse(415, "UNSUPPORTED_MEDIA_TYPE", message))
        }
    }
}

/// Segment answers 400 here, at which its clients give a request up.
fn too_large(what: &str, bytes_max: usize) -> Refused {
    let message = format!("{what} is too large, at most {bytes_max} bytes are allowed");
    refuse(400, "REQUEST_TOO_LARGE", message)
}

/// A request as its messages; each has its id and is within the limits.
struct Parsed<'a> {
    write_key: Option<String>,
    messages: Vec<Message<'a>>,
}

fn parse<'a>(kind: Option<Kind>, bytes: &'a [u8]) -> Result<Parsed<'a>, Refused> {
    let text = body::document(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))?;
    if kind.is_some() {
        let message = Message::of(kind, text, "")?;
        return Ok(Parsed { write_key: message.write_key(), messages: vec![message] });
    }
    let fields = Fields::of(text, &["batch", "writeKey"]);
    let fields = fields.ok_or_else(|| Refused::field("body", text, "must be a JSON object"))?;
    let batch = fields.get("batch").ok_or_else(|| Refused::field("batch", "", "is required"))?;
    let items: Vec<RawJson<'a>> = serde_json::from_str(batch.get())
        .map_err(|_| Refused::field("batch", batch.get(), "must be an array of messages"))?;
    if items.len() > BATCH_MESSAGES_MAX {
        let rule = format!("has too many entries, at most {BATCH_MESSAGES_MAX} are allowed");
        return Err(Refused::field("batch", items.len().to_string(), rule));
    }
    let message = |(i, item): (usize, RawJson<'a>)| {
        if item.get().len() > MESSAGE_BYTES_MAX {
            return Err(too_large(&format!("batch[{i}]"), MESSAGE_BYTES_MAX));
        }
        Ok(Message::of(None, item.get(), &format!("batch[{i}]"))?)
    };
    let messages = items.into_iter().enumerate().map(message).collect::<Result<_, Refused>>()?;
    Ok(Parsed { write_key: message::write_key(&fields), messages })
}

/// Carries messages out in their order; gives what each came to, in that order. Duplicates are well.
async fn carry_out(http: &Http, tenant: Tenant, messages: &[Message<'_>]) -> Vec<Result<(), Refused>> {
    let node = &http.state.node;
    let now = node.clock().now();
    let directory = node.directory();
    let config = directory.tenant(tenant);
    let campaigns = config.into_iter().flat_map(|config| config.campaigns.values());
    let skus: HashSet<&str> = campaigns.flat_map(|c| &c.dynamic_events).map(|event| event.sku.as_str()).collect();

    let mut outcomes: Vec<Result<(), Refused>> = Vec::with_capacity(messages.len());
    let (mut places, mut commands) = (Vec::new(), Vec::new());
    for (i, message) in messages.iter().enumerate() {
        let prepared = message.prepare(now, &skus).map(|Prepared { request_id, action, is_dated }| {
            let action = match (action, config) {
                (Action::PublishFact(fact), Some(config)) => {
                    Action::PublishFact(http.state.fact_types.split(tenant, config, fact))
                }
                (action, _) => action,
            };
            let about = match &action {
                Action::PublishFact(fact) if !fact.identifiers.is_empty() => {
                    Some(Fact { identifiers: Vec::new(), ..fact.clone() })
                }
                _ => None,
            };
            places.push(Place { i, is_dated, is_consumption: message.is_consumption(&skus), about_nobody: about });
            commands.push(Command { tenant, request_id, action });
        });
        outcomes.push(prepared.map_err(|invalid| {
            let refused = Refused::from(invalid);
            count(message.is_consumption(&skus), &refused);
            refused
        }));
    }
    let answers = ingest::carry_out(node, commands, false).await;
    let (mut places_again, mut again) = (Vec::new(), Vec::new());
    for (mut place, answer) in places.into_iter().zip(answers) {
        let nobody = matches!(&answer, Err(Refusal::Rejected(why)) if is_about_whom(why));
        match place.about_nobody.take() {
            Some(fact) if nobody => {
                again.push(Command { tenant, request_id: None, action: Action::PublishFact(fact) });
                places_again.push(place);
            }
            _ => outcomes[place.i] = outcome(&place, answer),
        }
    }
    let answers = ingest::carry_out(node, again, false).await;
    for (place, answer) in places_again.into_iter().zip(answers) {
        outcomes[place.i] = outcome(&place, answer);
    }
    outcomes
}

/// A message that waits for its answer.
struct Place {
    i: usize,
    is_dated: bool,
    is_consumption: bool,
    /// The fact that it is where its identifiers do not name one member.
    about_nobody: Option<Fact>,
}

/// Whether a fact was refused for whom it is about; or was taken in before, when that was not known yet.
fn is_about_whom(why: &Rejection) -> bool {
    match why {
        Rejection::AccountNotFound | Rejection::IdentifiersConflict { .. } => true,
        Rejection::FactExistsWithDifferentContent { field, .. } => *field == "identifiers",
        _ => false,
    }
}

fn outcome(place: &Place, answer: Answer) -> Result<(), Refused> {
    let refusal = match answer {
        Ok(_)
        | Err(Refusal::Rejected(
            Rejection::ConsumptionExists { .. } | Rejection::FactExists { .. } | Rejection::UsedUp { .. },
        )) => {
            return Ok(());
        }
        // Each time it is sent it gets another date, which says nothing.
        Err(Refusal::Rejected(Rejection::ConsumptionExistsWithDifferentContent {
            field: "consumptionDate", ..
        })) if !place.is_dated => {
            return Ok(());
        }
        Err(refusal) => refusal,
    };
    let refused = Refused::from(refusal);
    if !place.is_consumption {
        // Those are counted where they are carried out.
        ingest::count_rejection(refused.reason);
    }
    Err(refused)
}

fn count(is_consumption: bool, refused: &Refused) {
    match is_consumption {
        true => ingest::count_refused(refused.reason, 1),
        false => ingest::count_rejection(refused.reason),
    }
}

/// The answer of a batch: to be sent again as long as anything of it may still be taken in.
fn of_batch(tenant: Tenant, messages: &[Message<'_>], outcomes: Vec<Result<(), Refused>>) -> Result<(), Refused> {
    let mut for_good: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    let mut unavailable = None;
    for (i, (message, outcome)) in messages.iter().zip(outcomes).enumerate() {
        let Err(refused) = outcome else { continue };
        if refused.code == Code::Unavailable {
            unavailable = Some(refused);
            continue;
        }
        let kind = message.kind.map_or("unknown", Kind::as_str);
        for_good.entry((kind, refused.reason)).or_insert((i, 0)).1 += 1;
    }
    for ((kind, reason), (first, count)) in for_good {
        let Tenant { advertiser, environment } = tenant;
        tracing::info!(%advertiser, %environment, kind, reason, count, first, "messages of a Segment batch were refused");
    }
    unavailable.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
