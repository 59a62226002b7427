//! A subscription made ready to be sent to: parsed, unsealed, checked, once per change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use punchline_delivery::auth::BasicAuth;
use punchline_delivery::courier::{APPLICATION_JSON, AttemptRequest};
use punchline_delivery::dialect::standard;
use punchline_delivery::endpoint::{Endpoint, EndpointPolicy, origin_of};
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::outcome::PermanentStatuses;
use punchline_delivery::signature::{Secret, sign};
use punchline_engine::dispatch::{RetrySchedule, Subscription};
use punchline_engine::event::Recorded;
use punchline_engine::id::SubscriptionId;
use punchline_engine::loyalty::tenant::SubscriptionEntry;
use punchline_engine::rejection::InvalidField;
use punchline_engine::time::UnixMillis;

use crate::seal::{Sealer, Unreadable};

/// What the sealed signing secret is bound to.
pub const SIGNING_SECRET: &str = "signing secret";
/// What a sealed header value is bound to.
pub const HEADER_VALUE: &str = "header value";
/// What a sealed password is bound to.
pub const PASSWORD: &str = "password";

/// Why a subscription cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A secret does not open.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// URL, headers, credentials or statuses are not allowed (any more).
    #[error(transparent)]
    Invalid(#[from] InvalidField),
}

/// A subscription made ready.
#[derive(Clone)]
pub struct Target {
    /// Whose.
    pub id: SubscriptionId,
    /// When to try again.
    pub schedule: RetrySchedule,
    /// Attempts under way at once.
    pub max_in_flight: usize,
    endpoint: Arc<Endpoint>,
    headers: StaticHeaders,
    permanent_statuses: Arc<PermanentStatuses>,
    timeout: Duration,
    secrets: Vec<(Secret, Option<UnixMillis>)>,
}

impl Target {
    /// Unseals and checks.
    ///
    /// # Errors
    ///
    /// [`TargetError`], which names the field.
    pub fn new(entry: &SubscriptionEntry, sealer: &Sealer, policy: &EndpointPolicy) -> Result<Target, TargetError> {
        let subscription = &entry.definition;
        let secrets = (entry.secrets.iter())
            .map(|(sealed, until)| {
                let bytes = sealer.open(SIGNING_SECRET, sealed)?;
                let secret = Secret::from_bytes(&bytes).map_err(|_| Unreadable { purpose: SIGNING_SECRET })?;
                Ok((secret, *until))
            })
            .collect::<Result<_, Unreadable>>()?;
        let (endpoint, headers, permanent_statuses) = check(subscription, sealer, policy)?;
        Ok(Target {
            id: subscription.id,
            schedule: subscription.schedule.clone(),
            max_in_flight: subscription.max_in_flight as usize,
            endpoint: Arc::new(endpoint),
            headers,
            permanent_statuses: Arc::new(permanent_statuses),
            timeout: Duration::from_millis(subscription.timeout_ms),
            secrets,
        })
    }

    /// The request of one attempt.
    pub fn request(&self, recorded: &Recorded<'_>, attempt: u32, now: UnixMillis) -> AttemptRequest {
        let body: Bytes = standard::body(recorded);
        let webhook_id = standard::webhook_id(self.id, recorded.sequence);
        let timestamp_unix_s = now.0.div_euclid(1_000);
        let valid = |until: &Option<UnixMillis>| until.is_none_or(|until| now < until);
        let secrets: Vec<&Secret> = self.secrets.iter().filter(|(_, until)| valid(until)).map(|(s, _)| s).collect();
        let signature = sign(&webhook_id, timestamp_unix_s, &body, &secrets);
        AttemptRequest {
            endpoint: self.endpoint.clone(),
            headers: self.headers.clone(),
            permanent_statuses: self.permanent_statuses.clone(),
            webhook_id,
            timestamp_unix_s,
            signature: Some(signature),
            attempt,
            sequence: recorded.sequence.0,
            content_type: APPLICATION_JSON,
            body,
            timeout: self.timeout,
        }
    }
}

/// Checks what only `delivery` knows the rules of: to be called before a subscription is written.
///
/// # Errors
///
/// [`TargetError`], which names the field.
pub fn check(
    subscription: &Subscription,
    sealer: &Sealer,
    policy: &EndpointPolicy,
) -> Result<(Endpoint, StaticHeaders, PermanentStatuses), TargetError> {
    let endpoint = Endpoint::parse(&subscription.url, policy)
        .map_err(|e| InvalidField::new("url", origin_of(&subscription.url), format!("is refused: {e}")))?;
    let basic = match &subscription.basic_auth {
        None => None,
        Some(auth) => {
            let password = text(sealer.open(PASSWORD, &auth.password)?);
            let basic = BasicAuth::new(&auth.username, &password);
            Some(basic.map_err(|e| InvalidField::new("basic_auth", &auth.username, format!("is refused: {e}")))?)
        }
    };
    let mut headers = Vec::with_capacity(subscription.headers.len());
    for (name, value) in &subscription.headers {
        headers.push((name.as_str(), text(sealer.open(HEADER_VALUE, value)?)));
    }
    let pairs = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = StaticHeaders::new(pairs, basic.as_ref())
        .map_err(|e| InvalidField::new("headers", "", format!("are refused: {e}")))?;
    let statuses = PermanentStatuses::new(subscription.permanent_statuses.iter().copied())
        .map_err(|e| InvalidField::new("permanent_statuses", "", format!("are refused: {e}")))?;
    Ok((endpoint, headers, statuses))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
