//! `SubscriptionService`.

use std::ops::Bound;

use punchline_delivery::dialect::file::Setting;
use punchline_delivery::dialect::{Dialect, STANDARD_NAME, catalogue, examples};
use punchline_delivery::signature::SigningKey;
use punchline_engine::command::Action;
use punchline_engine::dispatch::subscription::{SignatureScheme, bit};
use punchline_engine::dispatch::{Subscription, SubscriptionState};
use punchline_engine::event::{Event, EventType, Recorded};
use punchline_engine::id::{KeySlot, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::tenant::{Scope, SubscriptionEntry};
use punchline_proto::v1;
use punchline_proto::v1::subscription_service_server::SubscriptionService;
use punchline_runtime::dispatch::target::{self, SIGNING_SECRET};
use punchline_runtime::ids;
use tonic::{Request, Response};

use super::{Answer, Api, change};
use crate::convert::page::{self, List};
use crate::convert::subscription::{secret, subscription, to_wire};
use crate::convert::{id, required, timestamp};
use crate::refuse::Refused;

/// How long the old secret signs too, where nothing is said.
const OVERLAP_S_DEFAULT: u64 = 24 * 3_600;
/// Longest that it may: a secret that leaked must end.
const OVERLAP_S_MAX: u64 = 30 * 24 * 3_600;
/// Position of an example: no event has it.
const EXAMPLE_SEQUENCE: Sequence = Sequence(0);

impl Api {
    fn subscription_to_wire(&self, entry: &SubscriptionEntry) -> v1::Subscription {
        let node = &self.state.node;
        let stats = node.dispatcher().stats(entry.definition.id);
        let mut wire = to_wire(entry, stats.as_deref(), self.head());
        wire.oldest_pending_at = node.dispatcher().oldest_pending_at(entry.definition.id).map(timestamp);
        if entry.definition.signature == SignatureScheme::V1a {
            let keys = target::signing_keys(entry, node.sealer()).unwrap_or_default();
            let now = node.clock().now();
            let valid = keys.iter().filter(|(_, until)| until.is_none_or(|until| now < until));
            wire.public_keys = valid.filter_map(|(key, _)| public_key(key)).collect();
        }
        wire
    }

    /// The subscription as it is after a command on it.
    fn subscription_now(&self, tenant: Tenant, id: SubscriptionId) -> Result<Option<v1::Subscription>, Refused> {
        let entry = self.subscription(tenant, &id.to_string())?;
        Ok(Some(self.subscription_to_wire(&entry)))
    }

    /// A subscription that was given, sealed and checked as far as it can be before it is written.
    fn checked_subscription(
        &self,
        id: SubscriptionId,
        given: v1::Subscription,
        current: Option<&Subscription>,
    ) -> Result<Subscription, Refused> {
        let node = &self.state.node;
        let subscription = subscription(id, given, current, node.sealer())?;
        target::check(&subscription, &node.rulebook())?;
        Ok(subscription)
    }

    async fn set_state(
        &self,
        tenant: Tenant,
        subscription_id: &str,
        state: SubscriptionState,
        reason: String,
    ) -> Result<Option<v1::Subscription>, Refused> {
        let subscription_id = id("subscription_id", subscription_id)?;
        self.submit(tenant, "", Action::SetSubscriptionState { subscription_id, state, reason }).await?;
        self.subscription_now(tenant, subscription_id)
    }

    async fn replace(&self, tenant: Tenant, given: &v1::Subscription) -> Result<Option<v1::Subscription>, Refused> {
        let current = self.subscription(tenant, &given.subscription_id)?.definition;
        // Secrets are taken over from what was read, so that must still be there when it is written.
        let etag = if given.etag.is_empty() { current.version.to_string() } else { given.etag.clone() };
        let subscription = self.checked_subscription(current.id, given.clone(), Some(&current))?;
        self.submit(tenant, "", Action::UpdateSubscription { subscription, etag: Some(etag) }).await?;
        self.subscription_now(tenant, current.id)
    }

    fn example<'a>(&self, tenant: Tenant, event: &'a Event) -> Recorded<'a> {
        let time = self.state.node.clock().now();
        let (sequence, member, key_slot, quiet) = (EXAMPLE_SEQUENCE, None, KeySlot::NONE, false);
        Recorded { sequence, cause: sequence, time, tenant, member, key_slot, quiet, event }
    }
}

/// What a receiver verifies by, where it need not know the secret.
fn public_key(key: &SigningKey) -> Option<String> {
    match key {
        SigningKey::Symmetric(_) => None,
        SigningKey::Ed25519(key) => Some(key.public_key().to_string()),
    }
}

#[tonic::async_trait]
impl SubscriptionService for Api {
    async fn create_subscription(
        &self,
        request: Request<v1::CreateSubscriptionRequest>,
    ) -> Answer<v1::CreateSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let node = &self.state.node;
        let new_id = ids::subscription_id(node.clock().now());
        let given = required("subscription", request.subscription)?;
        let subscription = self.checked_subscription(new_id, given, None)?;
        let (shown, secret) = secret(subscription.signature, &request.secret)?;
        let owed_after = Some(request.from_sequence).filter(|sequence| *sequence > 0);
        if let Some(sequence) = owed_after.filter(|sequence| *sequence > self.head().0) {
            let rule = format!("must not be beyond the head, which is {}", self.head());
            return Err(Refused::field("from_sequence", sequence.to_string(), rule).into());
        }
        let action = Action::CreateSubscription {
            subscription,
            secret: node.sealer().seal(SIGNING_SECRET, &secret),
            owed_after: owed_after.map(Sequence),
        };
        let stored = self.create(tenant, &request.request_id, action).await?;
        let Some(Event::SubscriptionCreated(created)) = stored.record.events.first() else {
            return Err(Refused::internal("find the subscription that was created", &stored.first).into());
        };
        let id = created.subscription.id;
        // A repeat is answered as the first was, but that a secret is not answered again.
        let secret = if id == new_id { shown } else { String::new() };
        let subscription = self.subscription_now(tenant, id)?;
        Ok(Response::new(v1::CreateSubscriptionResponse { subscription, secret }))
    }

    async fn get_subscription(
        &self,
        request: Request<v1::GetSubscriptionRequest>,
    ) -> Answer<v1::GetSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let subscription = Some(self.subscription_to_wire(&entry));
        Ok(Response::new(v1::GetSubscriptionResponse { subscription }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<v1::ListSubscriptionsRequest>,
    ) -> Answer<v1::ListSubscriptionsResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let size = page::size(request.page_size)?;
        let after: Option<SubscriptionId> = page::after(List::Subscriptions, &request.page_token)?;
        let config = self.config(tenant)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        // A consumer is listed among the consumers.
        let webhooks = (config.subscriptions.range((from, Bound::Unbounded)))
            .filter(|(_, entry)| entry.definition.consumer.is_empty());
        let mut found: Vec<_> = webhooks.take(size + 1).collect();
        let next_page_token = page::cut(List::Subscriptions, &mut found, size, |(id, _)| **id);
        let subscriptions = found.into_iter().map(|(_, entry)| self.subscription_to_wire(entry)).collect();
        Ok(Response::new(v1::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn update_subscription(
        &self,
        request: Request<v1::UpdateSubscriptionRequest>,
    ) -> Answer<v1::UpdateSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let given = required("subscription", request.subscription)?;
        let subscription = change(&given.etag, || self.replace(tenant, &given)).await?;
        Ok(Response::new(v1::UpdateSubscriptionResponse { subscription }))
    }

    async fn delete_subscription(
        &self,
        request: Request<v1::DeleteSubscriptionRequest>,
    ) -> Answer<v1::DeleteSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let subscription_id = id("subscription_id", &request.subscription_id)?;
        self.submit(tenant, "", Action::DeleteSubscription { subscription_id }).await?;
        Ok(Response::new(v1::DeleteSubscriptionResponse {}))
    }

    async fn pause_subscription(
        &self,
        request: Request<v1::PauseSubscriptionRequest>,
    ) -> Answer<v1::PauseSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        if request.reason.len() > 500 {
            return Err(Refused::field("reason", request.reason, "must be at most 500 bytes").into());
        }
        let id = &request.subscription_id;
        let subscription = self.set_state(tenant, id, SubscriptionState::Paused, request.reason).await?;
        Ok(Response::new(v1::PauseSubscriptionResponse { subscription }))
    }

    async fn resume_subscription(
        &self,
        request: Request<v1::ResumeSubscriptionRequest>,
    ) -> Answer<v1::ResumeSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let id = &request.subscription_id;
        let subscription = self.set_state(tenant, id, SubscriptionState::Active, String::new()).await?;
        Ok(Response::new(v1::ResumeSubscriptionResponse { subscription }))
    }

    async fn rotate_secret(&self, request: Request<v1::RotateSecretRequest>) -> Answer<v1::RotateSecretResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let current = self.subscription(tenant, &request.subscription_id)?;
        let subscription_id = current.definition.id;
        let (shown, secret) = secret(current.definition.signature, &request.secret)?;
        let sealer = self.state.node.sealer();
        // One that does not open is not known, and is the best reason to rotate.
        let is_known = |sealed| sealer.open(SIGNING_SECRET, sealed).is_ok_and(|known| known == secret);
        if current.secrets.first().is_some_and(|(sealed, _)| is_known(sealed)) {
            return Err(Refused::field("secret", "***", "must not be the current one").into());
        }
        let overlap_s = if request.overlap_seconds == 0 { OVERLAP_S_DEFAULT } else { request.overlap_seconds };
        if overlap_s > OVERLAP_S_MAX {
            let rule = "must be at most 2592000 (30 days)";
            return Err(Refused::field("overlap_seconds", overlap_s.to_string(), rule).into());
        }
        let node = &self.state.node;
        let action = Action::RotateSecret {
            subscription_id,
            secret: node.sealer().seal(SIGNING_SECRET, &secret),
            previous_until: node.clock().now().plus_ms(overlap_s as i64 * 1_000),
        };
        self.submit(tenant, "", action).await?;
        let subscription = self.subscription_now(tenant, subscription_id)?;
        Ok(Response::new(v1::RotateSecretResponse { subscription, secret: shown }))
    }

    async fn test_subscription(
        &self,
        request: Request<v1::TestSubscriptionRequest>,
    ) -> Answer<v1::TestSubscriptionResponse> {
        let (tenant, request) = self.tenant(request, Scope::Manage)?;
        let entry = self.subscription(tenant, &request.subscription_id)?;
        let selected = |t: &&EventType| t.is_public() && entry.definition.event_types.mask() & bit(**t) != 0;
        if !entry.definition.consumer.is_empty() {
            return Err(Refused::precondition("NO_URL", "a consumer has no URL to send an example to").into());
        }
        let event_type = match request.event_type.as_str() {
            "" => EventType::ALL.iter().find(selected).copied(),
            name => EventType::parse(name).filter(|t| t.is_public()),
        };
        let unknown = || Refused::field("event_type", &request.event_type, "must be one that ListEventTypes names");
        let event = examples::example(event_type.ok_or_else(unknown)?);
        let tested = self.state.node.dispatcher().test(&entry, &self.example(tenant, &event)).await;
        let (report, latency, request_body) = tested.map_err(Refused::from)?;
        Ok(Response::new(v1::TestSubscriptionResponse {
            status: report.status.map_or(0, u32::from),
            latency_ms: latency.as_millis() as u64,
            response_body: report.response_snippet.to_vec(),
            error: report.error.map(|code| code.as_str().to_owned()).unwrap_or_default(),
            request_body: request_body.to_vec(),
        }))
    }

    async fn list_dialects(&self, request: Request<v1::ListDialectsRequest>) -> Answer<v1::ListDialectsResponse> {
        let (_, _) = self.tenant(request, Scope::Read)?;
        let types = catalogue::event_types();
        let describe = |dialect: &Dialect| v1::Dialect {
            name: dialect.name().into(),
            description: dialect.description().into(),
            settings: dialect.choices().iter().map(setting).collect(),
            event_types: types.iter().filter(|name| dialect.speaks(name)).map(|name| (*name).into()).collect(),
        };
        let dialects = self.state.node.rulebook().dialects.clone();
        let named = dialects.names().filter_map(|name| dialects.get(name));
        let segment = v1::Dialect {
            name: target::SEGMENT.into(),
            description: "Segment: track calls in batches to a write key's workspace.".into(),
            settings: Vec::new(),
            event_types: types.iter().map(|name| (*name).into()).collect(),
        };
        let dialects = named.map(|dialect| describe(&dialect)).chain([segment]).collect();
        Ok(Response::new(v1::ListDialectsResponse { dialects }))
    }

    async fn list_event_types(
        &self,
        request: Request<v1::ListEventTypesRequest>,
    ) -> Answer<v1::ListEventTypesResponse> {
        let (tenant, request) = self.tenant(request, Scope::Read)?;
        let config = self.config(tenant)?;
        let dialects = self.state.node.rulebook().dialects.clone();
        let names: Vec<&str> = match request.dialect.as_str() {
            "" => dialects.names().chain([target::SEGMENT]).collect(),
            target::SEGMENT => vec![target::SEGMENT],
            name if dialects.get(name).is_some() => vec![name],
            name => {
                let rule = "is not known: ListDialects names them";
                return Err(Refused::field("dialect", name, rule).into());
            }
        };
        let form = |dialect: &str, event_type: &str| {
            let body = match dialect {
                target::SEGMENT => target::segment_example(event_type)?,
                dialect => catalogue::example(&*dialects.get(dialect)?, event_type)?.body,
            };
            let example: serde_json::Value = serde_json::from_slice(&body).ok()?;
            Some(v1::EventTypeForm {
                dialect: dialect.into(),
                json_schema: catalogue::json_schema_of(&example).to_string(),
                example_json: example.to_string(),
            })
        };
        let describe = |event_type: &&str| {
            let forms: Vec<_> = names.iter().filter_map(|dialect| form(dialect, event_type)).collect();
            let standard = form(STANDARD_NAME, event_type).map(|form| form.example_json);
            v1::EventType {
                name: (*event_type).into(),
                description: catalogue::description(event_type).unwrap_or_default().into(),
                example_json: standard.unwrap_or_default(),
                forms,
            }
        };
        let types = catalogue::event_types();
        let told = types.iter().map(describe).filter(|event_type| !event_type.forms.is_empty());
        // Nobody gave an example of what is registered: GetFactType has its schema.
        let registered = config.fact_types.values().map(|fact_type| v1::EventType {
            name: fact_type.name.clone(),
            description: fact_type.description.clone(),
            ..v1::EventType::default()
        });
        let mut event_types: Vec<_> = told.chain(registered.filter(|_| request.dialect.is_empty())).collect();
        event_types.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(v1::ListEventTypesResponse { event_types }))
    }
}

fn setting(setting: &Setting) -> v1::DialectSetting {
    v1::DialectSetting {
        key: setting.key.clone(),
        default_value: setting.default.clone(),
        allowed_values: setting.values.clone(),
    }
}
