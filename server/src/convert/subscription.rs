//! Subscriptions. Secrets come in and are sealed; none goes out.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use punchline_delivery::signature::{Secret, ed25519};
use punchline_engine::dispatch::schedule::ATTEMPTS_MAX;
use punchline_engine::dispatch::subscription::{
    BasicAuth, ClientCertificate, IN_FLIGHT_DEFAULT, OAuth2, SignatureScheme, TIMEOUT_MS_DEFAULT,
};
use punchline_engine::dispatch::{
    Auth, BreakerPolicy, DialectChoice, EventSelection, OnDeadLetter, Ordering, RetrySchedule, Subscription,
    SubscriptionState,
};
use punchline_engine::id::{Sequence, SubscriptionId};
use punchline_engine::loyalty::tenant::{SealedSecret, SubscriptionEntry};
use punchline_engine::rejection::InvalidField;
use punchline_proto::v1;
use punchline_runtime::dispatch::dispatcher::WorkerStats;
use punchline_runtime::dispatch::target::{HEADER_VALUE, PASSWORD, PRIVATE_KEY, TOKEN};
use punchline_runtime::ids;
use punchline_runtime::seal::Sealer;

use super::timestamp;
use crate::refuse::Refused;

/// Attempts under way at once to Segment, where nothing is said: so many go into one batch.
const IN_FLIGHT_SEGMENT: u32 = 1_000;
/// The dialect whose events go to Segment in batches.
const SEGMENT: &str = "segment";
/// What stands for a secret that is not answered.
const HIDDEN: &str = "***";
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
    let patterns = if given.event_types.is_empty() { vec!["*".to_owned()] } else { given.event_types.clone() };
    let schedule = match (given.no_retries, given.retry_delays_ms.is_empty()) {
        (true, true) => RetrySchedule { delays_ms: Vec::new() },
        (true, false) => return Err(Refused::field("no_retries", "true", "contradicts retry_delays_ms")),
        (false, true) => attempts(given.max_attempts)?,
        (false, false) => RetrySchedule { delays_ms: given.retry_delays_ms.clone() },
    };
    let signature = signature(given.signature_scheme, current)?;
    let auth = auth(&given, current, sealer)?;
    let is_segment = given.dialect == SEGMENT;
    let wants_key = matches!(auth, Auth::WriteKey { .. });
    if is_segment != wants_key {
        let rule = "goes with the dialect segment, and that needs it";
        return Err(Refused::field("segment_write_key", "", rule));
    }
    let in_flight_default = if is_segment { IN_FLIGHT_SEGMENT } else { IN_FLIGHT_DEFAULT };
    let dialect = match given.dialect.as_str() {
        "" => DialectChoice::default().name,
        name => name.to_owned(),
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
        auth,
        client_certificate: given.client_certificate.map(|c| certificate(c, current, sealer)).transpose()?,
        signature,
        dialect: DialectChoice { name: dialect, settings: given.dialect_settings },
        filter: given.filter,
        ordering: match v1::Ordering::try_from(given.ordering) {
            Ok(v1::Ordering::Unspecified | v1::Ordering::PerMember) => Ordering::PerMember,
            Ok(v1::Ordering::Strict) => Ordering::Strict,
            Ok(v1::Ordering::None) => Ordering::None,
            Err(_) => return Err(Refused::field("ordering", given.ordering.to_string(), "is not known")),
        },
        on_dead_letter: match v1::OnDeadLetter::try_from(given.on_dead_letter) {
            Ok(v1::OnDeadLetter::Unspecified | v1::OnDeadLetter::GoOn) => OnDeadLetter::GoOn,
            Ok(v1::OnDeadLetter::Hold) => OnDeadLetter::Hold,
            Err(_) => return Err(Refused::field("on_dead_letter", given.on_dead_letter.to_string(), "is not known")),
        },
        rate_per_second: given.rate_per_second,
        breaker: breaker(given.no_breaker, given.breaker_failures, given.breaker_open_ms, given.disable_after_ms)?,
        consumer: current.map(|c| c.consumer.clone()).unwrap_or_default(),
        schedule,
        timeout_ms: if given.timeout_ms == 0 { TIMEOUT_MS_DEFAULT } else { given.timeout_ms },
        max_in_flight: if given.max_in_flight == 0 { in_flight_default } else { given.max_in_flight },
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

/// The default schedule, with other than ten attempts.
fn attempts(max: u32) -> Result<RetrySchedule, Refused> {
    let mut schedule = RetrySchedule::default();
    if max as usize > ATTEMPTS_MAX {
        return Err(Refused::field("max_attempts", max.to_string(), "must be at most 50"));
    }
    if max > 0 {
        let last = *schedule.delays_ms.last().expect("there are nine");
        schedule.delays_ms.resize(max as usize - 1, last);
    }
    Ok(schedule)
}

fn breaker(never: bool, failures: u32, open_ms: u64, disable_after_ms: u64) -> Result<BreakerPolicy, Refused> {
    let default = BreakerPolicy::default();
    if never && failures > 0 {
        return Err(Refused::field("no_breaker", "true", "contradicts breaker_failures"));
    }
    Ok(BreakerPolicy {
        failures: match (never, failures) {
            (true, _) => 0,
            (false, 0) => default.failures,
            (false, failures) => failures,
        },
        open_ms: if open_ms == 0 { default.open_ms } else { open_ms },
        disable_after_ms,
    })
}

/// Keys of one scheme do not become keys of another.
fn signature(given: i32, current: Option<&Subscription>) -> Result<SignatureScheme, Refused> {
    let wanted = match v1::SignatureScheme::try_from(given) {
        Ok(v1::SignatureScheme::Unspecified) => return Ok(current.map(|c| c.signature).unwrap_or_default()),
        Ok(v1::SignatureScheme::V1) => SignatureScheme::V1,
        Ok(v1::SignatureScheme::V1a) => SignatureScheme::V1a,
        Err(_) => return Err(Refused::field("signature_scheme", given.to_string(), "is not known")),
    };
    if current.is_some_and(|c| c.signature != wanted) {
        let rule = "cannot be changed: its keys are of another kind. Create another subscription";
        return Err(Refused::field("signature_scheme", given.to_string(), rule));
    }
    Ok(wanted)
}

fn auth(given: &v1::Subscription, current: Option<&Subscription>, sealer: &Sealer) -> Result<Auth, Refused> {
    let kinds = [
        given.basic_auth.is_some(),
        !given.bearer_token.is_empty(),
        given.oauth2.is_some(),
        !given.segment_write_key.is_empty(),
    ];
    if kinds.iter().filter(|given| **given).count() > 1 {
        let rule = "must be at most one of basic_auth, bearer_token, oauth2 and segment_write_key";
        return Err(Refused::field("auth", "", rule));
    }
    let kept = current.map(|c| &c.auth);
    if let Some(basic) = &given.basic_auth {
        let password = match kept {
            Some(Auth::Basic(kept)) if basic.password.is_empty() => kept.password.clone(),
            _ => sealer.seal(PASSWORD, basic.password.as_bytes()),
        };
        return Ok(Auth::Basic(BasicAuth { username: basic.username.clone(), password }));
    }
    if let Some(oauth2) = &given.oauth2 {
        let client_secret = match kept {
            Some(Auth::OAuth2(kept)) if oauth2.client_secret.is_empty() => kept.client_secret.clone(),
            _ => sealer.seal(PASSWORD, oauth2.client_secret.as_bytes()),
        };
        return Ok(Auth::OAuth2(OAuth2 {
            token_url: oauth2.token_url.clone(),
            client_id: oauth2.client_id.clone(),
            client_secret,
            scopes: oauth2.scopes.clone(),
            audience: oauth2.audience.clone(),
        }));
    }
    // What stands for a secret comes back where a subscription is read, changed and written.
    match (given.bearer_token.as_str(), given.segment_write_key.as_str(), kept) {
        ("", "", _) => Ok(Auth::None),
        (HIDDEN, "", Some(kept @ Auth::Bearer { .. })) | ("", HIDDEN, Some(kept @ Auth::WriteKey { .. })) => {
            Ok(kept.clone())
        }
        (HIDDEN, "", _) => Err(Refused::field("bearer_token", HIDDEN, "stands for a token, and there is none")),
        ("", HIDDEN, _) => Err(Refused::field("segment_write_key", HIDDEN, "stands for a key, and there is none")),
        (token, "", _) => Ok(Auth::Bearer { token: sealer.seal(TOKEN, token.as_bytes()) }),
        (_, key, _) => Ok(Auth::WriteKey { key: sealer.seal(TOKEN, key.as_bytes()) }),
    }
}

fn certificate(
    given: v1::ClientCertificate,
    current: Option<&Subscription>,
    sealer: &Sealer,
) -> Result<ClientCertificate, Refused> {
    let key_pem = if given.key_pem.is_empty() {
        let kept = current.and_then(|c| c.client_certificate.as_ref()).map(|c| c.key_pem.clone());
        kept.ok_or_else(|| Refused::field("client_certificate.key_pem", "", "is required"))?
    } else {
        sealer.seal(PRIVATE_KEY, given.key_pem.as_bytes())
    };
    Ok(ClientCertificate { chain_pem: given.certificate_pem, key_pem })
}

/// The signing key that was given, or a new one: what is shown once, and what is sealed.
///
/// # Errors
///
/// `INVALID_FIELD`, without the secret.
pub fn secret(scheme: SignatureScheme, given: &str) -> Result<(String, Vec<u8>), Refused> {
    let refused = |error: String| Refused::field("secret", HIDDEN, format!("is refused: {error}"));
    match scheme {
        SignatureScheme::V1 => {
            let secret = match given {
                "" => Secret::from_bytes(&ids::random_bytes::<SECRET_BYTES>()).expect("24 to 64 bytes"),
                given => Secret::parse(given).map_err(|error| refused(error.to_string()))?,
            };
            Ok((secret.to_whsec_string(), secret.as_bytes().to_vec()))
        }
        SignatureScheme::V1a => {
            let key = match given {
                "" => ed25519::PrivateKey::from_seed(&ids::random_bytes::<SECRET_BYTES>()),
                given => ed25519::PrivateKey::parse(given).map_err(|error| refused(error.to_string()))?,
            };
            let text = key.to_whsk_string();
            Ok((text.clone(), text.into_bytes()))
        }
    }
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
    let (mut basic_auth, mut oauth2, mut bearer_token, mut segment_write_key) =
        (None, None, String::new(), String::new());
    match &definition.auth {
        Auth::None => {}
        Auth::Basic(auth) => {
            basic_auth = Some(v1::BasicAuth { username: auth.username.clone(), password: String::new() });
        }
        Auth::Bearer { .. } => bearer_token = HIDDEN.into(),
        Auth::WriteKey { .. } => segment_write_key = HIDDEN.into(),
        Auth::OAuth2(auth) => {
            oauth2 = Some(v1::OAuth2 {
                token_url: auth.token_url.clone(),
                client_id: auth.client_id.clone(),
                client_secret: String::new(),
                scopes: auth.scopes.clone(),
                audience: auth.audience.clone(),
            });
        }
    }
    let certificate =
        |c: &ClientCertificate| v1::ClientCertificate { certificate_pem: c.chain_pem.clone(), key_pem: String::new() };
    let breaker = match stats.map_or("closed", WorkerStats::breaker) {
        "open" => v1::BreakerState::Open,
        "half_open" => v1::BreakerState::HalfOpen,
        _ => v1::BreakerState::Closed,
    };
    let open_until = stats.and_then(WorkerStats::breaker_open_until);
    v1::Subscription {
        subscription_id: definition.id.to_string(),
        description: definition.description.clone(),
        url: definition.url.clone(),
        event_types: definition.event_types.patterns().to_vec(),
        headers: definition.headers.iter().map(|(name, _)| (name.clone(), String::new())).collect(),
        basic_auth,
        bearer_token,
        oauth2,
        segment_write_key,
        client_certificate: definition.client_certificate.as_ref().map(certificate),
        signature_scheme: match definition.signature {
            SignatureScheme::V1 => v1::SignatureScheme::V1,
            SignatureScheme::V1a => v1::SignatureScheme::V1a,
        }
        .into(),
        public_keys: Vec::new(),
        dialect: definition.dialect.name.clone(),
        dialect_settings: definition.dialect.settings.clone(),
        filter: definition.filter.clone(),
        ordering: match definition.ordering {
            Ordering::PerMember => v1::Ordering::PerMember,
            Ordering::Strict => v1::Ordering::Strict,
            Ordering::None => v1::Ordering::None,
        }
        .into(),
        on_dead_letter: match definition.on_dead_letter {
            OnDeadLetter::GoOn => v1::OnDeadLetter::GoOn,
            OnDeadLetter::Hold => v1::OnDeadLetter::Hold,
        }
        .into(),
        rate_per_second: definition.rate_per_second,
        breaker_failures: definition.breaker.failures,
        no_breaker: definition.breaker.failures == 0,
        breaker_open_ms: definition.breaker.open_ms,
        disable_after_ms: definition.breaker.disable_after_ms,
        breaker: breaker.into(),
        breaker_open_until: open_until.map(timestamp),
        // Only the journal knows.
        oldest_pending_at: None,
        max_attempts: definition.schedule.attempts_max(),
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
