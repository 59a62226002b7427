//! Subscriptions. Secrets come in and are sealed; none goes out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use punchline_delivery::signature::Secret;
use punchline_engine::dispatch::subscription::BasicAuth;
use punchline_engine::dispatch::{EventSelection, RetrySchedule, Subscription, SubscriptionState};
use punchline_engine::id::{Sequence, SubscriptionId};
use punchline_engine::loyalty::tenant::{SealedSecret, SubscriptionEntry};
use punchline_engine::rejection::InvalidField;
use punchline_proto::v1;
use punchline_runtime::dispatch::dispatcher::WorkerStats;
use punchline_runtime::dispatch::target::{HEADER_VALUE, PASSWORD};
use punchline_runtime::ids;
use punchline_runtime::seal::Sealer;

use super::timestamp;
use crate::refuse::Refused;

/// Longest that one attempt may take, where nothing is said.
const TIMEOUT_MS_DEFAULT: u64 = 15_000;
/// Attempts under way at once, where nothing is said.
const IN_FLIGHT_DEFAULT: u32 = 64;
/// Bytes of a secret that is made here.
const SECRET_BYTES: usize = 32;

/// A subscription as it came in, sealed; what stands empty in `given` and is secret is `current`'s.
///
/// # Errors
///
/// `INVALID_FIELD`, with the field.
pub fn subscription(
    id: SubscriptionId,
    given: v1::Subscription,
    current: Option<&Subscription>,
    sealer: &Sealer,
) -> Result<Subscription, Refused> {
    let patterns = if given.event_types.is_empty() { vec!["*".to_owned()] } else { given.event_types };
    let schedule = match (given.no_retries, given.retry_delays_ms.is_empty()) {
        (true, true) => RetrySchedule { delays_ms: Vec::new() },
        (true, false) => return Err(Refused::field("no_retries", "true", "contradicts retry_delays_ms")),
        (false, true) => RetrySchedule::default(),
        (false, false) => RetrySchedule { delays_ms: given.retry_delays_ms },
    };
    let status = |status: u32| {
        u16::try_from(status)
            .map_err(|_| InvalidField::new("permanent_statuses", status.to_string(), "must be from 300 to 599"))
    };
    Ok(Subscription {
        id,
        description: given.description,
        url: given.url,
        event_types: EventSelection::parse("event_types", patterns)?,
        headers: headers(given.headers, current, sealer)?,
        basic_auth: given.basic_auth.map(|auth| basic_auth(auth, current, sealer)),
        schedule,
        timeout_ms: if given.timeout_ms == 0 { TIMEOUT_MS_DEFAULT } else { given.timeout_ms },
        max_in_flight: if given.max_in_flight == 0 { IN_FLIGHT_DEFAULT } else { given.max_in_flight },
        permanent_statuses: given.permanent_statuses.into_iter().map(status).collect::<Result<_, _>>()?,
        version: 0,
    })
}

fn headers(
    given: BTreeMap<String, String>,
    current: Option<&Subscription>,
    sealer: &Sealer,
) -> Result<Vec<(String, SealedSecret)>, Refused> {
    let seal = |(name, value): (String, String)| {
        let name = name.to_ascii_lowercase();
        if !value.is_empty() {
            return Ok((name, sealer.seal(HEADER_VALUE, value.as_bytes())));
        }
        let kept = current.and_then(|c| c.headers.iter().find(|(known, _)| *known == name));
        kept.cloned().ok_or_else(|| Refused::field(format!("headers[{name}]"), "", "must have a value"))
    };
    given.into_iter().map(seal).collect()
}

fn basic_auth(given: v1::BasicAuth, current: Option<&Subscription>, sealer: &Sealer) -> BasicAuth {
    let kept = current.and_then(|c| c.basic_auth.as_ref()).filter(|_| given.password.is_empty());
    let password = match kept {
        Some(kept) => kept.password.clone(),
        None => sealer.seal(PASSWORD, given.password.as_bytes()),
    };
    BasicAuth { username: given.username, password }
}

/// The signing secret that was given, or a new one.
///
/// # Errors
///
/// `INVALID_FIELD`, without the secret.
pub fn secret(given: &str) -> Result<Secret, Refused> {
    if given.is_empty() {
        return Ok(Secret::from_bytes(&ids::random_bytes::<SECRET_BYTES>()).expect("24 to 64 bytes"));
    }
    Secret::parse(given).map_err(|error| Refused::field("secret", "***", format!("is refused: {error}")))
}

/// A subscription, for the wire. `stats` are its worker's; `head` is the journal's.
///
/// Pending is what the worker has loaded. Where it is stopped, it loads nothing, and what lies between
/// its cursor and the head is the estimate: never too small, and too large by what it does not select.
pub fn to_wire(entry: &SubscriptionEntry, stats: Option<&WorkerStats>, head: Sequence) -> v1::Subscription {
    let definition = &entry.definition;
    let (mut cursor, mut pending, mut dead_letters) = (entry.owed_after.0, 0, 0);
    if let Some(stats) = stats {
        cursor = stats.cursor.load(Relaxed).max(cursor);
        (pending, dead_letters) = (stats.pending.load(Relaxed), stats.dead.load(Relaxed));
    }
    if entry.state != SubscriptionState::Active {
        pending = pending.max(head.0.saturating_sub(cursor));
    }
    let state = match entry.state {
        SubscriptionState::Active => v1::SubscriptionState::Active,
        SubscriptionState::Paused => v1::SubscriptionState::Paused,
        SubscriptionState::Disabled => v1::SubscriptionState::Disabled,
    };
    let auth = |auth: &BasicAuth| v1::BasicAuth { username: auth.username.clone(), password: String::new() };
    v1::Subscription {
        subscription_id: definition.id.to_string(),
        description: definition.description.clone(),
        url: definition.url.clone(),
        event_types: definition.event_types.patterns().to_vec(),
        headers: definition.headers.iter().map(|(name, _)| (name.clone(), String::new())).collect(),
        basic_auth: definition.basic_auth.as_ref().map(auth),
        retry_delays_ms: definition.schedule.delays_ms.clone(),
        no_retries: definition.schedule.delays_ms.is_empty(),
        timeout_ms: definition.timeout_ms,
        max_in_flight: definition.max_in_flight,
        permanent_statuses: definition.permanent_statuses.iter().map(|status| u32::from(*status)).collect(),
        state: state.into(),
        state_reason: entry.state_reason.clone(),
        created_at: Some(timestamp(entry.created_at)),
        cursor,
        pending,
        dead_letters,
        etag: definition.version.to_string(),
    }
}
