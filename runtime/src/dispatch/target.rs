//! A subscription made ready to be sent to: parsed, unsealed, checked, once per change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use punchline_delivery::auth::{Auth as Credentials, BasicAuth, BearerToken};
use punchline_delivery::courier::{APPLICATION_JSON, AttemptRequest};
use punchline_delivery::dialect::message::{Message, Rendered};
use punchline_delivery::dialect::{Dialect, Dialects, STANDARD_NAME, Settings, catalogue, standard};
use punchline_delivery::endpoint::{Endpoint, EndpointPolicy, origin_of};
use punchline_delivery::headers::StaticHeaders;
use punchline_delivery::identity::ClientIdentity;
use punchline_delivery::oauth2::{OAuth2Client, OAuth2Params};
use punchline_delivery::outcome::{AttemptReport, ErrorCode, PermanentStatuses};
use punchline_delivery::segment::{self, Subject, Track};
use punchline_delivery::signature::{Secret, SigningKey, ed25519, sign};
use punchline_engine::dispatch::subscription::SignatureScheme;
use punchline_engine::dispatch::{Auth, RetrySchedule, Subscription, TypeMask};
use punchline_engine::event::Recorded;
use punchline_engine::filter::Filter;
use punchline_engine::id::SubscriptionId;
use punchline_engine::loyalty::tenant::SubscriptionEntry;
use punchline_engine::planted::{Bug, is_planted};
use punchline_engine::rejection::InvalidField;
use punchline_engine::time::UnixMillis;

use crate::feed::Feed;
use crate::seal::{Sealer, Unreadable};

/// What the sealed signing secret is bound to.
pub const SIGNING_SECRET: &str = "signing secret";
/// What a sealed header value is bound to.
pub const HEADER_VALUE: &str = "header value";
/// What a sealed password is bound to, or a client's secret.
pub const PASSWORD: &str = "password";
/// What a sealed token or write key is bound to.
pub const TOKEN: &str = "token";
/// What the sealed key of a client certificate is bound to.
pub const PRIVATE_KEY: &str = "private key";

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

/// The dialect whose events go to Segment in batches.
pub const SEGMENT: &str = "segment";

/// The way an attempt takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A request of its own.
    Http,
    /// A batch to Segment.
    Segment,
    /// A connection of a named consumer.
    Consumer,
}

/// What only `delivery` knows the rules of.
#[derive(Clone)]
pub struct Checked {
    endpoint: Arc<Endpoint>,
    headers: StaticHeaders,
    permanent_statuses: Arc<PermanentStatuses>,
    auth: Option<Arc<Credentials>>,
    identity: Option<Arc<ClientIdentity>>,
    filter: Option<Arc<Filter>>,
    dialect: Arc<Dialect>,
    settings: Settings,
}

/// What checking needs to know of this server.
#[derive(Clone)]
pub struct Rulebook {
    /// Opens secrets.
    pub sealer: Arc<Sealer>,
    /// Where attempts may go.
    pub policy: EndpointPolicy,
    /// In which forms events can be told.
    pub dialects: Arc<Dialects>,
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
    /// The way its attempts take.
    pub via: Via,
    definition: Arc<Subscription>,
    checked: Checked,
    timeout: Duration,
    keys: Vec<(SigningKey, Option<UnixMillis>)>,
}

impl Target {
    /// Unseals and checks.
    ///
    /// # Errors
    ///
    /// [`TargetError`], which names the field.
    pub fn new(entry: &SubscriptionEntry, rulebook: &Rulebook) -> Result<Target, TargetError> {
        let subscription = &entry.definition;
        let keys = signing_keys(entry, &rulebook.sealer)?;
        let via = match (subscription.consumer.is_empty(), subscription.dialect.name.as_str()) {
            (false, _) => Via::Consumer,
            (true, SEGMENT) => Via::Segment,
            (true, _) => Via::Http,
        };
        Ok(Target {
            id: subscription.id,
            schedule: subscription.schedule.clone(),
            max_in_flight: subscription.max_in_flight as usize,
            via,
            definition: entry.definition.clone(),
            checked: check(subscription, rulebook)?,
            timeout: Duration::from_millis(subscription.timeout_ms),
            keys,
        })
    }

    /// One bit for each type that may be wanted.
    pub fn types(&self) -> TypeMask {
        self.definition.event_types.mask()
    }

    /// Whether the subscription is told of an event of this feed.
    pub fn wants(&self, recorded: &Recorded<'_>, feed: &Feed) -> bool {
        recorded.is_told()
            && self.definition.event_types.selects(recorded.event)
            && self.checked.dialect.speaks(recorded.event.type_name())
            && self.checked.filter.as_ref().is_none_or(|filter| filter.passes_seen(&feed.seen(recorded)))
    }

    /// Longest that one attempt may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The request of one attempt.
    ///
    /// # Errors
    ///
    /// The report of an attempt that is not made: the event cannot be told in the dialect, or the dialect has
    /// nothing to say of it.
    pub fn request(
        &self,
        recorded: &Recorded<'_>,
        attempt: u32,
        now: UnixMillis,
    ) -> Result<AttemptRequest, Box<AttemptReport>> {
        let mut webhook_id = standard::webhook_id(self.id, recorded.sequence);
        if is_planted(Bug::NewIdEachAttempt) {
            webhook_id = format!("{webhook_id}_{attempt}");
        }
        let timestamp_unix_s = now.0.div_euclid(1_000);
        let refused = |error: String| Box::new(AttemptReport::failed(ErrorCode::Dialect, error));
        let Checked { dialect, settings, .. } = &self.checked;
        let rendered = match self.via {
            Via::Segment => {
                let body = track(recorded, &webhook_id).map_err(|error| refused(error.to_string()))?;
                Rendered { headers: Vec::new(), content_type: APPLICATION_JSON, body }
            }
            Via::Http | Via::Consumer => {
                let rendered = dialect.render(settings, &Message::of(recorded, &webhook_id));
                // What it has no word for is owed to nobody.
                rendered
                    .map_err(|error| refused(error.to_string()))?
                    .ok_or_else(|| Box::new(AttemptReport::accepted()))?
            }
        };
        let Rendered { headers: mut extra_headers, content_type, body } = rendered;
        let valid = |until: &Option<UnixMillis>| until.is_none_or(|until| now < until);
        let keys: Vec<&SigningKey> = self.keys.iter().filter(|(_, until)| valid(until)).map(|(k, _)| k).collect();
        let signature = (self.via == Via::Http).then(|| sign(&webhook_id, timestamp_unix_s, &body, &keys));
        if let Some(newest) = keys.first() {
            extra_headers.extend(dialect.signature(settings, &newest.to_key_string(), &body));
        }
        Ok(AttemptRequest {
            endpoint: self.checked.endpoint.clone(),
            headers: self.checked.headers.clone(),
            extra_headers,
            auth: self.checked.auth.clone(),
            identity: self.checked.identity.clone(),
            permanent_statuses: self.checked.permanent_statuses.clone(),
            webhook_id,
            timestamp_unix_s,
            signature,
            attempt,
            sequence: recorded.sequence.0,
            content_type,
            body,
            timeout: self.timeout,
        })
    }
}

fn track(recorded: &Recorded<'_>, message_id: &str) -> Result<Bytes, segment::TrackError> {
    let member = recorded.member.map(|id| id.to_string());
    let advertiser = recorded.tenant.advertiser.to_string();
    segment::track(&Track {
        message_id,
        event: recorded.event.type_name(),
        // What is about nobody is about the whole tenant.
        subject: member.as_deref().map_or(Subject::Anonymous(&advertiser), Subject::User),
        time: recorded.time,
        properties: standard::Data::of(recorded),
    })
}

/// An example of the item that Segment is sent for a type.
pub fn segment_example(event_type: &str) -> Option<Bytes> {
    let data = catalogue::example_data(event_type)?;
    let member = data.get("member_id").and_then(|id| id.as_str());
    let message = Track {
        message_id: "msg_1042_01966cf23c4070008000000000000002",
        event: event_type,
        subject: member.map_or(Subject::Anonymous("1000000001"), Subject::User),
        time: catalogue::example_time(),
        properties: &data,
    };
    segment::track(&message).ok()
}

/// The keys that sign for a subscription, the newest first, each with the instant up to which it signs.
///
/// # Errors
///
/// [`Unreadable`] where one does not open.
pub fn signing_keys(
    entry: &SubscriptionEntry,
    sealer: &Sealer,
) -> Result<Vec<(SigningKey, Option<UnixMillis>)>, Unreadable> {
    let unreadable = || Unreadable { purpose: SIGNING_SECRET };
    let key = |(sealed, until): &(_, Option<UnixMillis>)| {
        let bytes = sealer.open(SIGNING_SECRET, sealed)?;
        let key = match entry.definition.signature {
            SignatureScheme::V1 => SigningKey::Symmetric(Secret::from_bytes(&bytes).map_err(|_| unreadable())?),
            SignatureScheme::V1a => {
                let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
                SigningKey::Ed25519(ed25519::PrivateKey::parse(&text).map_err(|_| unreadable())?)
            }
        };
        Ok((key, *until))
    };
    entry.secrets.iter().map(key).collect()
}

/// Checks what only `delivery` knows the rules of: to be called before a subscription is written.
///
/// # Errors
///
/// [`TargetError`], which names the field and never holds a secret.
pub fn check(subscription: &Subscription, rulebook: &Rulebook) -> Result<Checked, TargetError> {
    let Rulebook { sealer, policy, dialects } = rulebook;
    let (dialect, settings) = dialect(subscription, dialects)?;
    // Only the origin: the rest of an URL may hold a token.
    let refused =
        |url: &str, e: &dyn std::fmt::Display| InvalidField::new("url", origin_of(url), format!("is refused: {e}"));
    let url = match subscription.consumer.is_empty() {
        true => subscription.url.as_str(),
        // Nothing is ever sent there.
        false => "https://consumer.invalid/",
    };
    let endpoint = match subscription.dialect.name.as_str() {
        SEGMENT => segment::batch_endpoint(url, policy),
        _ => Endpoint::parse(url, policy),
    };
    let endpoint = endpoint.map_err(|e| refused(url, &e))?;
    let auth = credentials(&subscription.auth, sealer, policy)?;
    let identity = match &subscription.client_certificate {
        None => None,
        Some(certificate) => {
            let key = sealer.open(PRIVATE_KEY, &certificate.key_pem)?;
            let identity = ClientIdentity::from_pem(certificate.chain_pem.as_bytes(), &key);
            Some(identity.map_err(|e| InvalidField::new("client_certificate", "", format!("is refused: {e}")))?)
        }
    };
    let mut headers = Vec::with_capacity(subscription.headers.len());
    for (name, value) in &subscription.headers {
        headers.push((name.as_str(), text(sealer.open(HEADER_VALUE, value)?)));
    }
    let pairs = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let headers = StaticHeaders::new(pairs, auth.as_ref())
        .map_err(|e| InvalidField::new("headers", "", format!("are refused: {e}")))?;
    let statuses = PermanentStatuses::new(subscription.permanent_statuses.iter().copied())
        .map_err(|e| InvalidField::new("permanent_statuses", "", format!("are refused: {e}")))?;
    Ok(Checked {
        endpoint: Arc::new(endpoint),
        headers,
        permanent_statuses: Arc::new(statuses),
        auth: auth.map(Arc::new),
        identity: identity.map(Arc::new),
        filter: Filter::parse(&subscription.filter)?.map(Arc::new),
        dialect,
        settings,
    })
}

fn dialect(subscription: &Subscription, dialects: &Dialects) -> Result<(Arc<Dialect>, Settings), InvalidField> {
    let choice = &subscription.dialect;
    // Segment has one form, which the transport makes; what it is made of is the standard one's.
    let name = if choice.name == SEGMENT { STANDARD_NAME } else { &choice.name };
    let dialect = dialects.get(name).ok_or_else(|| {
        let known: Vec<&str> = dialects.names().chain([SEGMENT]).collect();
        InvalidField::new("dialect", name, format!("is not known: it must be one of {}", known.join(", ")))
    })?;
    let settings = dialect.settings(&choice.settings);
    let settings =
        settings.map_err(|error| InvalidField::new("dialect_settings", "", format!("are refused: {error}")))?;
    Ok((dialect, settings))
}

fn credentials(auth: &Auth, sealer: &Sealer, policy: &EndpointPolicy) -> Result<Option<Credentials>, TargetError> {
    let refused = |field: &str, error: &dyn std::fmt::Display| {
        TargetError::Invalid(InvalidField::new(field, "", format!("is refused: {error}")))
    };
    Ok(Some(match auth {
        Auth::None => return Ok(None),
        Auth::Basic(basic) => {
            let password = text(sealer.open(PASSWORD, &basic.password)?);
            BasicAuth::new(&basic.username, &password).map_err(|e| refused("basic_auth", &e))?.into()
        }
        Auth::Bearer { token } => {
            let token = text(sealer.open(TOKEN, token)?);
            BearerToken::new(&token).map_err(|e| refused("bearer_token", &e))?.into()
        }
        Auth::WriteKey { key } => {
            segment::write_key(&text(sealer.open(TOKEN, key)?)).map_err(|e| refused("segment_write_key", &e))?
        }
        Auth::OAuth2(oauth2) => {
            let params = OAuth2Params {
                token_url: oauth2.token_url.clone(),
                client_id: oauth2.client_id.clone(),
                client_secret: text(sealer.open(PASSWORD, &oauth2.client_secret)?),
                scopes: oauth2.scopes.clone(),
                audience: Some(oauth2.audience.clone()).filter(|audience| !audience.is_empty()),
                ..OAuth2Params::default()
            };
            OAuth2Client::new(&params, policy).map_err(|e| refused("oauth2", &e))?.into()
        }
    }))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
