//! What is configured (campaigns, fact types, keys, subscriptions), and what is known about a person.

use std::collections::BTreeSet;

use punchline_engine::dispatch::subscription::{BasicAuth, ClientCertificate, OAuth2};
use punchline_engine::dispatch::{Auth, BreakerPolicy, DialectChoice, EventSelection, RetrySchedule, Subscription};
use punchline_engine::expression::{Expression, RULE_NAMES};
use punchline_engine::loyalty::campaign::{
    Campaign, Cap, DynamicEvent, EarningRule, ExternalReward, Punchcard, SkuSelector, StampReward,
};
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::member::{Identifier, IdentifierKind, Profile};
use punchline_engine::loyalty::tenant::{Credential, Scope, SealedSecret};
use punchline_engine::quantity::{Coins, Points};
use punchline_engine::time::{Period, UnixMillis};
use punchline_proto::journal as wire;
use wire::earning_rule::Skus;

use super::CodecError;
use super::word::{
    Kind, each, id, json_or_default, json_unless_default, or_default, status, subscription_id, unless_default,
    uuid_bytes, validity,
};

pub(super) fn campaign_to_wire(campaign: &Campaign) -> wire::Campaign {
    wire::Campaign {
        id: campaign.id.as_str().into(),
        name: campaign.name.clone(),
        starts_at_ms: campaign.validity.starts_at.map(|t| t.0),
        ends_at_ms: campaign.validity.ends_at.map(|t| t.0),
        rules: campaign.rules.iter().map(rule_to_wire).collect(),
        punchcards: campaign.punchcards.iter().map(punchcard_to_wire).collect(),
        dynamic_events: (campaign.dynamic_events.iter())
            .map(|d| wire::DynamicEvent { sku: d.sku.clone(), name: d.name.clone() })
            .collect(),
        version: campaign.version,
        programme: json_unless_default(&campaign.programme),
    }
}

pub(super) fn campaign_from_wire(campaign: wire::Campaign) -> Result<Campaign, CodecError> {
    Ok(Campaign {
        id: id("id", &campaign.id)?,
        name: campaign.name,
        validity: validity(campaign.starts_at_ms, campaign.ends_at_ms),
        rules: each("rules", campaign.rules, rule_from_wire)?,
        punchcards: each("punchcards", campaign.punchcards, punchcard_from_wire)?,
        dynamic_events: (campaign.dynamic_events.into_iter())
            .map(|wire::DynamicEvent { sku, name }| DynamicEvent { sku, name })
            .collect(),
        programme: json_or_default("programme", &campaign.programme)?,
        version: campaign.version,
    })
}

fn rule_to_wire(rule: &EarningRule) -> wire::EarningRule {
    let skus = match &rule.skus {
        SkuSelector::Exact(sku) => Skus::SkuExact(sku.clone()),
        SkuSelector::Prefix(prefix) => Skus::SkuPrefix(prefix.clone()),
        SkuSelector::List(skus) => Skus::SkuList(wire::SkuList { skus: skus.iter().cloned().collect() }),
    };
    let stamps = (rule.stamps.as_ref())
        .map(|s| wire::StampReward { punchcard_id: s.punchcard_id.as_str().into(), per_unit: s.per_unit });
    wire::EarningRule {
        id: rule.id.as_str().into(),
        skus: Some(skus),
        points: rule.points.0,
        coins: rule.coins.0,
        stamps,
        caps: (rule.caps.iter())
            .map(|cap| wire::Cap { period: cap.period.wire_number(), units_max: cap.units_max })
            .collect(),
        starts_at_ms: rule.validity.starts_at.map(|t| t.0),
        ends_at_ms: rule.validity.ends_at.map(|t| t.0),
        condition: rule.condition.as_ref().map(|condition| condition.as_str().into()),
        coupon_book_id: rule.coupon_book.as_ref().map(|id| id.as_str().into()),
        external: rule.external.as_ref().map(|external| wire::ExternalReward {
            reward_id: external.reward_id.as_str().into(),
            reward_name: external.reward_name.clone(),
            amount: external.amount,
        }),
    }
}

fn rule_from_wire(rule: wire::EarningRule) -> Result<EarningRule, CodecError> {
    let skus = match rule.skus.ok_or_else(|| CodecError::missing("skus"))? {
        Skus::SkuExact(sku) => SkuSelector::Exact(sku),
        Skus::SkuPrefix(prefix) => SkuSelector::Prefix(prefix),
        Skus::SkuList(list) => SkuSelector::List(BTreeSet::from_iter(list.skus)),
    };
    let stamps = |s: wire::StampReward| {
        let punchcard_id = id("stamps.punchcard_id", &s.punchcard_id)?;
        Ok(StampReward { punchcard_id, per_unit: s.per_unit })
    };
    let condition = |text: String| {
        Expression::parse("condition", &text, RULE_NAMES).map_err(|why| CodecError::invalid("condition", why))
    };
    let external = |e: wire::ExternalReward| {
        let reward_id = id("external.reward_id", &e.reward_id)?;
        Ok(ExternalReward { reward_id, reward_name: e.reward_name, amount: e.amount })
    };
    let cap = |cap: wire::Cap| Ok(Cap { period: Period::of("period", cap.period)?, units_max: cap.units_max });
    Ok(EarningRule {
        id: id("id", &rule.id)?,
        skus,
        points: Points(rule.points),
        coins: Coins(rule.coins),
        stamps: rule.stamps.map(stamps).transpose()?,
        caps: each("caps", rule.caps, cap)?,
        validity: validity(rule.starts_at_ms, rule.ends_at_ms),
        condition: rule.condition.map(condition).transpose()?,
        coupon_book: rule.coupon_book_id.map(|book| id("coupon_book_id", &book)).transpose()?,
        external: rule.external.map(external).transpose()?,
    })
}

fn punchcard_to_wire(punchcard: &Punchcard) -> wire::Punchcard {
    wire::Punchcard {
        id: punchcard.id.as_str().into(),
        name: punchcard.name.clone(),
        row_length: punchcard.row_length,
        steps: punchcard.steps.clone(),
        overflow: punchcard.overflow.wire_number(),
        repeatable: punchcard.repeatable,
    }
}

fn punchcard_from_wire(punchcard: wire::Punchcard) -> Result<Punchcard, CodecError> {
    Ok(Punchcard {
        id: id("id", &punchcard.id)?,
        overflow: Kind::of("overflow", punchcard.overflow)?,
        name: punchcard.name,
        row_length: punchcard.row_length,
        steps: punchcard.steps,
        repeatable: punchcard.repeatable,
    })
}

pub(super) fn fact_type_to_wire(fact_type: &FactType) -> wire::FactType {
    let FactType { name, description, schema, version } = fact_type.clone();
    wire::FactType { name, description, schema, version }
}

pub(super) fn fact_type_from_wire(fact_type: wire::FactType) -> FactType {
    let wire::FactType { name, description, schema, version } = fact_type;
    FactType { name, description, schema, version }
}

pub(super) fn credential_to_wire(credential: &Credential) -> wire::Credential {
    wire::Credential {
        id: credential.id.as_str().into(),
        secret_hash: credential.secret_hash.to_vec(),
        scopes: credential.scopes.iter().map(|s| s.wire_number()).collect(),
        description: credential.description.clone(),
        created_at_ms: credential.created_at.0,
        revoked_at_ms: credential.revoked_at.map(|t| t.0),
        write_key: credential.write_key,
    }
}

pub(super) fn credential_from_wire(credential: wire::Credential) -> Result<Credential, CodecError> {
    let hash = <[u8; 32]>::try_from(credential.secret_hash.as_slice());
    Ok(Credential {
        id: id("id", &credential.id)?,
        secret_hash: hash.map_err(|_| CodecError::invalid("secret_hash", "must be 32 bytes"))?,
        scopes: each("scopes", credential.scopes, |s| Scope::of("number", s))?,
        description: credential.description,
        created_at: UnixMillis(credential.created_at_ms),
        revoked_at: credential.revoked_at_ms.map(UnixMillis),
        write_key: credential.write_key,
    })
}

/// What subscriptions had before there were breakers.
const NEVER: BreakerPolicy = BreakerPolicy { failures: 0, open_ms: 30_000, disable_after_ms: 0 };

pub(super) fn subscription_to_wire(subscription: &Subscription) -> wire::Subscription {
    let header = |(name, value): &(String, SealedSecret)| {
        let (name, sealed_value) = (name.clone(), value.0.clone());
        wire::Header { name, sealed_value }
    };
    let mut wire = wire::Subscription {
        id: uuid_bytes(&subscription.id.0),
        description: subscription.description.clone(),
        url: subscription.url.clone(),
        event_types: subscription.event_types.patterns().to_vec(),
        headers: subscription.headers.iter().map(header).collect(),
        delays_ms: subscription.schedule.delays_ms.clone(),
        timeout_ms: subscription.timeout_ms,
        max_in_flight: subscription.max_in_flight,
        permanent_statuses: subscription.permanent_statuses.iter().map(|s| u32::from(*s)).collect(),
        version: subscription.version,
        client_certificate: (subscription.client_certificate.as_ref())
            .map(|c| wire::ClientCertificate { chain_pem: c.chain_pem.clone(), sealed_key_pem: c.key_pem.0.clone() }),
        signature: unless_default(subscription.signature),
        dialect: if subscription.dialect == DialectChoice::default() {
            String::new()
        } else {
            subscription.dialect.name.clone()
        },
        dialect_settings: subscription.dialect.settings.clone(),
        filter: subscription.filter.clone(),
        ordering: unless_default(subscription.ordering),
        on_dead_letter: unless_default(subscription.on_dead_letter),
        rate_per_second: subscription.rate_per_second,
        breaker: (subscription.breaker != NEVER).then_some(wire::BreakerPolicy {
            failures: subscription.breaker.failures,
            open_ms: subscription.breaker.open_ms,
            disable_after_ms: subscription.breaker.disable_after_ms,
        }),
        consumer: subscription.consumer.clone(),
        ..wire::Subscription::default()
    };
    match &subscription.auth {
        Auth::None => {}
        Auth::Basic(b) => {
            let (username, sealed_password) = (b.username.clone(), b.password.0.clone());
            wire.basic_auth = Some(wire::BasicAuth { username, sealed_password });
        }
        Auth::Bearer { token } => wire.sealed_bearer_token = Some(token.0.clone()),
        Auth::OAuth2(o) => {
            wire.oauth2 = Some(wire::OAuth2 {
                token_url: o.token_url.clone(),
                client_id: o.client_id.clone(),
                sealed_client_secret: o.client_secret.0.clone(),
                scopes: o.scopes.clone(),
                audience: o.audience.clone(),
            });
        }
        Auth::WriteKey { key } => wire.sealed_write_key = Some(key.0.clone()),
    }
    wire
}

fn auth_from_wire(subscription: &mut wire::Subscription) -> Auth {
    if let Some(b) = subscription.basic_auth.take() {
        return Auth::Basic(BasicAuth { username: b.username, password: SealedSecret(b.sealed_password) });
    }
    if let Some(token) = subscription.sealed_bearer_token.take() {
        return Auth::Bearer { token: SealedSecret(token) };
    }
    if let Some(key) = subscription.sealed_write_key.take() {
        return Auth::WriteKey { key: SealedSecret(key) };
    }
    let Some(o) = subscription.oauth2.take() else { return Auth::None };
    Auth::OAuth2(OAuth2 {
        token_url: o.token_url,
        client_id: o.client_id,
        client_secret: SealedSecret(o.sealed_client_secret),
        scopes: o.scopes,
        audience: o.audience,
    })
}

pub(super) fn subscription_from_wire(mut subscription: wire::Subscription) -> Result<Subscription, CodecError> {
    let auth = auth_from_wire(&mut subscription);
    let event_types = EventSelection::parse("event_types", subscription.event_types);
    let certificate = |c: wire::ClientCertificate| ClientCertificate {
        chain_pem: c.chain_pem,
        key_pem: SealedSecret(c.sealed_key_pem),
    };
    let dialect = if subscription.dialect.is_empty() && subscription.dialect_settings.is_empty() {
        DialectChoice::default()
    } else {
        DialectChoice { name: subscription.dialect, settings: subscription.dialect_settings }
    };
    let breaker = subscription.breaker.map_or(NEVER, |b| BreakerPolicy {
        failures: b.failures,
        open_ms: b.open_ms,
        disable_after_ms: b.disable_after_ms,
    });
    Ok(Subscription {
        auth,
        client_certificate: subscription.client_certificate.map(certificate),
        signature: or_default("signature", subscription.signature)?,
        dialect,
        filter: subscription.filter,
        ordering: or_default("ordering", subscription.ordering)?,
        on_dead_letter: or_default("on_dead_letter", subscription.on_dead_letter)?,
        rate_per_second: subscription.rate_per_second,
        breaker,
        consumer: subscription.consumer,
        id: subscription_id("id", &subscription.id)?,
        description: subscription.description,
        url: subscription.url,
        event_types: event_types.map_err(|why| CodecError::invalid("event_types", why))?,
        headers: subscription.headers.into_iter().map(|h| (h.name, SealedSecret(h.sealed_value))).collect(),
        schedule: RetrySchedule { delays_ms: subscription.delays_ms },
        timeout_ms: subscription.timeout_ms,
        max_in_flight: subscription.max_in_flight,
        permanent_statuses: each("permanent_statuses", subscription.permanent_statuses, |s| status("number", s))?,
        version: subscription.version,
    })
}

pub(super) fn identifiers_to_wire(identifiers: &[Identifier]) -> Vec<wire::Identifier> {
    let one = |i: &Identifier| wire::Identifier { kind: i.kind.wire_number(), value: i.value.clone() };
    identifiers.iter().map(one).collect()
}

pub(super) fn identifiers_from_wire(identifiers: Vec<wire::Identifier>) -> Result<Vec<Identifier>, CodecError> {
    each("identifiers", identifiers, |i| Ok(Identifier { kind: IdentifierKind::of("kind", i.kind)?, value: i.value }))
}

pub(super) fn profile_to_wire(profile: &Profile) -> wire::Profile {
    wire::Profile {
        first_name: profile.first_name.clone(),
        last_name: profile.last_name.clone(),
        birth_date: profile.birth_date.clone(),
        locale: profile.locale.clone(),
        marketing_consent: profile.marketing_consent,
        attributes: profile.attributes.clone(),
    }
}

pub(super) fn profile_from_wire(profile: Option<wire::Profile>) -> Result<Profile, CodecError> {
    let wire::Profile { first_name, last_name, birth_date, locale, marketing_consent, attributes } =
        profile.ok_or_else(|| CodecError::missing("profile"))?;
    Ok(Profile { first_name, last_name, birth_date, locale, marketing_consent, attributes })
}
