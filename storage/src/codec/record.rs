//! A record and its events.
//!
//! What the record says once ([`Around`]) is left out of its events where it is equal, and put back.

use prost::Message;
use punchline_engine::dispatch::{BreakerState, DeliveryProgress, JobKind, PutBack, SubscriptionState};
use punchline_engine::event::*;
use punchline_engine::id::{AdvertiserId, KeySlot, MemberId, MultiplierId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::consumption::Line;
use punchline_engine::loyalty::tenant::SealedSecret;
use punchline_engine::quantity::{Coins, Points, Quantity, Stamps};
use punchline_engine::time::UnixMillis;
use punchline_proto::journal as wire;
use wire::event::Kind as W;

use super::CodecError;
use super::config::*;
use super::person::{Personal, fact_from_wire, fact_to_wire, person_from_wire, person_to_wire};
use super::rows::{
    breaker_from_wire, breaker_to_wire, cap_use_from_wire, cap_use_to_wire, delivery_row_from_wire,
    delivery_row_to_wire, job_from_wire, job_to_wire,
};
use super::word::{Kind, each, from_json, id, job_id, json, member_id, required, subscription_id, tenant, uuid_bytes};
use crate::member_keys::{KeysError, MemberKeys};

/// Number of `events` in the record's message.
const EVENTS_TAG: u32 = 7;
const ROOM: &str = "a Vec has room for as much as memory holds";

/// What an event need not repeat.
#[derive(Clone, Copy)]
struct Around<'a> {
    member: Option<MemberId>,
    consumption_id: Option<&'a str>,
    /// Source and id.
    fact: Option<(&'a str, &'a str)>,
    /// The lines of the first event, where it is `consumption.recorded`.
    lines: &'a [Line],
}

impl<'a> Around<'a> {
    fn new(member: Option<MemberId>, key: Option<&'a CommandKey>, events: &'a [Event]) -> Around<'a> {
        let consumption_id = match key {
            Some(CommandKey::Consumption(id)) => Some(id.as_str()),
            Some(CommandKey::Request(_) | CommandKey::Fact { .. } | CommandKey::Job { .. }) | None => None,
        };
        let lines = match events.first() {
            Some(Event::ConsumptionRecorded(recorded)) => recorded.lines.as_slice(),
            _ => &[],
        };
        let fact = match key {
            Some(CommandKey::Fact { source, fact_id }) => Some((source.as_str(), fact_id.as_str())),
            _ => None,
        };
        Around { member, consumption_id, fact, lines }
    }

    fn line_sku(&self, line: u32) -> Option<&'a str> {
        self.lines.get(line as usize).map(|l| l.sku.as_str())
    }

    fn omit_member(&self, member: MemberId) -> Option<Vec<u8>> {
        if self.member == Some(member) { None } else { Some(uuid_bytes(&member.0)) }
    }

    fn omit_consumption(&self, id: &str) -> Option<String> {
        if self.consumption_id == Some(id) { None } else { Some(id.into()) }
    }

    fn omit_sku(&self, line: u32, sku: &str) -> Option<String> {
        if self.line_sku(line) == Some(sku) { None } else { Some(sku.into()) }
    }

    fn origin_to_wire(&self, origin: &Origin) -> Option<wire::Origin> {
        let kind = match origin {
            Origin::Consumption { consumption_id, line, sku, rule_id, multipliers } => {
                let multiplier = |(id, percent): &(MultiplierId, u32)| wire::MultiplierUse {
                    multiplier_id: id.as_str().into(),
                    percent: *percent,
                };
                wire::origin::Kind::Consumption(wire::ConsumptionOrigin {
                    consumption_id: self.omit_consumption(consumption_id),
                    line: *line,
                    sku: self.omit_sku(*line, sku),
                    rule_id: rule_id.as_str().into(),
                    multipliers: multipliers.iter().map(multiplier).collect(),
                })
            }
            Origin::Adjustment { reason } => {
                wire::origin::Kind::Adjustment(wire::AdjustmentOrigin { reason: reason.clone() })
            }
            other => wire::origin::Kind::Other(json(other)),
        };
        Some(wire::Origin { kind: Some(kind) })
    }

    fn member(&self, given: Option<Vec<u8>>) -> Result<MemberId, CodecError> {
        match (given, self.member) {
            (Some(bytes), _) => member_id("member_id", &bytes),
            (None, Some(member)) => Ok(member),
            (None, None) => Err(CodecError::missing("member_id")),
        }
    }

    fn consumption(&self, given: Option<String>) -> Result<String, CodecError> {
        let known = || self.consumption_id.map(String::from);
        given.or_else(known).ok_or_else(|| CodecError::missing("consumption_id"))
    }

    fn sku(&self, line: u32, given: Option<String>) -> Result<String, CodecError> {
        let known = || self.line_sku(line).map(String::from);
        given.or_else(known).ok_or_else(|| CodecError::missing("sku"))
    }

    fn origin(&self, origin: Option<wire::Origin>) -> Result<Origin, CodecError> {
        match required("origin", origin.and_then(|o| o.kind))? {
            wire::origin::Kind::Consumption(o) => {
                let within = |e: CodecError| e.within("origin.consumption");
                let multiplier = |m: wire::MultiplierUse| Ok((id("multiplier_id", &m.multiplier_id)?, m.percent));
                Ok(Origin::Consumption {
                    consumption_id: self.consumption(o.consumption_id).map_err(within)?,
                    line: o.line,
                    sku: self.sku(o.line, o.sku).map_err(within)?,
                    rule_id: id("rule_id", &o.rule_id).map_err(within)?,
                    multipliers: each("multipliers", o.multipliers, multiplier).map_err(within)?,
                })
            }
            wire::origin::Kind::Adjustment(o) => Ok(Origin::Adjustment { reason: o.reason }),
            wire::origin::Kind::Other(text) => from_json("origin.other", &text),
        }
    }
}

/// The balance before, where it is not the `derived` one.
fn omit_previous(previous: i64, derived: Option<i64>) -> Option<i64> {
    if derived == Some(previous) { None } else { Some(previous) }
}

fn previous(given: Option<i64>, derived: Option<i64>) -> Result<i64, CodecError> {
    let overflow = || CodecError::invalid("previous_balance", "overflows");
    given.or(derived).ok_or_else(overflow)
}

/// Appends the bytes of a record. Its events are written one by one: a list of messages, each as large as the
/// largest of all kinds, would cost more than the rest of the work.
pub(super) fn encode(record: &Record, keys: &MemberKeys, out: &mut Vec<u8>) -> Result<(), KeysError> {
    let Record { tenant, time, member, key_slot, key, quiet, events } = record;
    assert!(!events.is_empty(), "a record has at least one event");
    let around = Around::new(*member, key.as_ref(), events);
    let head = wire::Record {
        advertiser_id: tenant.advertiser.0,
        environment: tenant.environment.wire_number(),
        time_ms: time.0,
        member_id: member.map(|MemberId(id)| uuid_bytes(&id)),
        key: key.as_ref().map(|key| match key {
            CommandKey::Consumption(id) => wire::record::Key::ConsumptionId(id.clone()),
            CommandKey::Request(id) => wire::record::Key::RequestId(id.clone()),
            CommandKey::Fact { source, fact_id } => {
                wire::record::Key::Fact(wire::FactKey { source: source.clone(), fact_id: fact_id.clone() })
            }
            CommandKey::Job { job, subject, period } => {
                let (job, subject, period) = (job.clone(), subject.clone(), *period);
                wire::record::Key::Job(wire::JobKey { job, subject, period })
            }
        }),
        ..wire::Record::default()
    };
    let tail = wire::Record { quiet: *quiet, key_slot: key_slot.0, ..wire::Record::default() };
    head.encode(out).expect(ROOM);
    for event in events {
        let event = wire::Event { kind: Some(event_to_wire(&around, event, *key_slot, keys)?) };
        prost::encoding::message::encode(EVENTS_TAG, &event, out);
    }
    tail.encode(out).expect(ROOM);
    Ok(())
}

pub(super) fn from_wire(record: wire::Record, keys: &MemberKeys) -> Result<Record, CodecError> {
    let key_slot = KeySlot(record.key_slot);
    let tenant: Tenant = tenant(record.advertiser_id, record.environment)?;
    let member = record.member_id.map(|bytes| member_id("member_id", &bytes)).transpose()?;
    let key = record.key.map(|key| match key {
        wire::record::Key::ConsumptionId(id) => CommandKey::Consumption(id),
        wire::record::Key::RequestId(id) => CommandKey::Request(id),
        wire::record::Key::Fact(key) => CommandKey::Fact { source: key.source, fact_id: key.fact_id },
        wire::record::Key::Job(wire::JobKey { job, subject, period }) => CommandKey::Job { job, subject, period },
    });
    if record.events.is_empty() {
        return Err(CodecError::missing("events"));
    }
    let mut events: Vec<Event> = Vec::with_capacity(record.events.len());
    for (i, event) in record.events.into_iter().enumerate() {
        let around = Around::new(member, key.as_ref(), &events);
        let decoded = required("kind", event.kind).and_then(|kind| event_from_wire(&around, kind, key_slot, keys));
        events.push(decoded.map_err(|e| e.within(format_args!("events[{i}]")))?);
    }
    let quiet = record.quiet;
    Ok(Record { tenant, time: UnixMillis(record.time_ms), member, key_slot, key, quiet, events })
}

fn line_to_wire(line: &Line) -> wire::Line {
    wire::Line {
        sku: line.sku.clone(),
        product_name: line.product_name.clone(),
        quantity: line.quantity.units() as u32,
    }
}

fn line_from_wire(line: wire::Line) -> Result<Line, CodecError> {
    let quantity = Quantity::new(u64::from(line.quantity));
    let invalid = || CodecError::invalid("quantity", format_args!("{} is not from 1 to 10000", line.quantity));
    Ok(Line { quantity: quantity.ok_or_else(invalid)?, sku: line.sku, product_name: line.product_name })
}

fn event_to_wire(around: &Around<'_>, event: &Event, slot: KeySlot, keys: &MemberKeys) -> Result<W, KeysError> {
    Ok(match event {
        Event::ConsumptionRecorded(e) => W::ConsumptionRecorded(wire::ConsumptionRecorded {
            consumption_id: around.omit_consumption(&e.consumption_id),
            member_id: around.omit_member(e.member_id),
            consumed_at_ms: e.consumed_at.0,
            lines: e.lines.iter().map(line_to_wire).collect(),
            identifiers_digest: e.identifiers_digest,
        }),
        Event::ConsumptionFirst(e) => W::ConsumptionFirst(wire::ConsumptionFirst {
            consumption_id: around.omit_consumption(&e.consumption_id),
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
        }),
        Event::ConsumptionMatched(e) => W::ConsumptionMatched(wire::ConsumptionMatched {
            consumption_id: around.omit_consumption(&e.consumption_id),
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            rule_id: e.rule_id.as_str().into(),
            line: e.line,
            sku: around.omit_sku(e.line, &e.sku),
            units: e.units,
        }),
        Event::ConsumptionCounted(e) => W::ConsumptionCounted(wire::ConsumptionCounted {
            campaign_id: e.campaign_id.as_str().into(),
            cap_uses: e.cap_uses.iter().map(cap_use_to_wire).collect(),
        }),
        Event::ConsumptionRejected(e) => W::ConsumptionRejected(wire::ConsumptionRejected {
            consumption_id: around.omit_consumption(&e.consumption_id),
            member_id: around.omit_member(e.member_id),
            reason: e.reason.wire_number(),
            line: e.line,
            sku: around.omit_sku(e.line, &e.sku),
            units: e.units,
            campaign_id: e.campaign_id.as_ref().map(|id| id.as_str().into()),
            rule_id: e.rule_id.as_ref().map(|id| id.as_str().into()),
        }),
        Event::PointsCredited(e) => W::PointsCredited(wire::PointsCredited {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            amount: e.amount.0,
            new_balance: e.new_balance.0,
            previous_balance: omit_previous(e.previous_balance.0, e.new_balance.0.checked_sub(e.amount.0)),
            origin: around.origin_to_wire(&e.origin),
            expires_at_ms: e.expires_at.map(|t| t.0),
        }),
        Event::PointsDebited(e) => W::PointsDebited(wire::PointsDebited {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            amount: e.amount.0,
            new_balance: e.new_balance.0,
            previous_balance: omit_previous(e.previous_balance.0, e.new_balance.0.checked_add(e.amount.0)),
            origin: around.origin_to_wire(&e.origin),
            hold_id: e.hold_id.clone(),
        }),
        Event::CoinsChanged(e) => W::CoinsChanged(wire::CoinsChanged {
            member_id: around.omit_member(e.member_id),
            amount: e.amount.0,
            new_balance: e.new_balance.0,
            previous_balance: omit_previous(e.previous_balance.0, e.new_balance.0.checked_sub(e.amount.0)),
            origin: around.origin_to_wire(&e.origin),
            expires_at_ms: e.expires_at.map(|t| t.0),
            hold_id: e.hold_id.clone(),
        }),
        Event::PunchcardStampsReceived(e) => W::PunchcardStampsReceived(wire::PunchcardStampsReceived {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            punchcard_id: e.punchcard_id.as_str().into(),
            stamps: e.stamps.0,
            row_length: e.row_length,
            previous_stamps: e.previous.stamps.0,
            previous_rows_completed: e.previous.rows_completed,
            new_stamps: e.new.stamps.0,
            new_rows_completed: e.new.rows_completed,
            origin: around.origin_to_wire(&e.origin),
        }),
        Event::PunchcardStampsDiscarded(e) => W::PunchcardStampsDiscarded(wire::PunchcardStampsDiscarded {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            punchcard_id: e.punchcard_id.as_str().into(),
            stamps: e.stamps.0,
            origin: around.origin_to_wire(&e.origin),
        }),
        Event::PunchcardStepCompleted(e) => W::PunchcardStepCompleted(wire::PunchcardStepCompleted {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            punchcard_id: e.punchcard_id.as_str().into(),
            step: e.step,
            times: e.times,
        }),
        Event::PunchcardCompleted(e) => W::PunchcardCompleted(wire::PunchcardCompleted {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
            punchcard_id: e.punchcard_id.as_str().into(),
            rows: e.rows,
            rows_completed: e.rows_completed,
        }),
        Event::MemberCreated(e) => {
            let Personal { identifiers, profile, person } = person_to_wire(&e.identifiers, &e.profile, slot, keys)?;
            let (member_id, registration_source) = (around.omit_member(e.member_id), e.registration_source.clone());
            W::MemberCreated(wire::MemberCreated { member_id, identifiers, profile, registration_source, person })
        }
        Event::MemberUpdated(e) => {
            let Personal { identifiers, profile, person } = person_to_wire(&e.identifiers, &e.profile, slot, keys)?;
            let (member_id, changed) = (around.omit_member(e.member_id), e.changed.clone());
            W::MemberUpdated(wire::MemberUpdated { member_id, identifiers, profile, changed, person })
        }
        Event::MemberErased(e) => W::MemberErased(wire::MemberErased { member_id: around.omit_member(e.member_id) }),
        Event::MemberBlocked(e) => W::MemberBlocked(wire::MemberBlocked {
            member_id: around.omit_member(e.member_id),
            reason: e.reason.clone(),
        }),
        Event::MemberUnblocked(e) => {
            W::MemberUnblocked(wire::MemberUnblocked { member_id: around.omit_member(e.member_id) })
        }
        Event::MemberJoinedCampaign(e) => W::MemberJoinedCampaign(wire::MemberJoinedCampaign {
            member_id: around.omit_member(e.member_id),
            campaign_id: e.campaign_id.as_str().into(),
        }),
        Event::AdvertiserCreated(e) => {
            W::AdvertiserCreated(wire::AdvertiserCreated { advertiser_id: e.advertiser_id.0, name: e.name.clone() })
        }
        Event::CredentialIssued(e) => {
            W::CredentialIssued(wire::CredentialIssued { credential: Some(credential_to_wire(&e.credential)) })
        }
        Event::CredentialRevoked(e) => {
            W::CredentialRevoked(wire::CredentialRevoked { credential_id: e.credential_id.as_str().into() })
        }
        Event::CampaignCreated(e) => {
            W::CampaignCreated(wire::CampaignCreated { campaign: Some(campaign_to_wire(&e.campaign)) })
        }
        Event::CampaignUpdated(e) => {
            W::CampaignUpdated(wire::CampaignUpdated { campaign: Some(campaign_to_wire(&e.campaign)) })
        }
        Event::SubscriptionCreated(e) => W::SubscriptionCreated(Box::new(wire::SubscriptionCreated {
            subscription: Some(subscription_to_wire(&e.subscription)),
            sealed_secret: e.secret.0.clone(),
            owed_after: e.owed_after.map(|s| s.0),
        })),
        Event::SubscriptionUpdated(e) => W::SubscriptionUpdated(Box::new(wire::SubscriptionUpdated {
            subscription: Some(subscription_to_wire(&e.subscription)),
        })),
        Event::SubscriptionDeleted(e) => {
            W::SubscriptionDeleted(wire::SubscriptionDeleted { subscription_id: uuid_bytes(&e.subscription_id.0) })
        }
        Event::SubscriptionPaused(e) => state_changed(e.subscription_id, SubscriptionState::Paused, &e.reason),
        Event::SubscriptionResumed(e) => state_changed(e.subscription_id, SubscriptionState::Active, &e.reason),
        Event::SubscriptionDisabled(e) => state_changed(e.subscription_id, SubscriptionState::Disabled, &e.reason),
        Event::BreakerOpened(e) => breaker_turned(e.subscription_id, e.breaker),
        Event::BreakerHalfOpened(e) => breaker_turned(e.subscription_id, e.breaker),
        Event::BreakerClosed(e) => breaker_turned(e.subscription_id, BreakerState::Closed),
        Event::DeliveryJobStarted(e) => W::DeliveryJobStarted(wire::DeliveryJobStarted {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            job: Some(job_to_wire(&e.job)),
        }),
        Event::DeliveryJobAdvanced(e) => {
            let put_back = |p: &PutBack| wire::PutBack {
                sequence: p.sequence.0,
                member_id: p.member.map(|MemberId(id)| uuid_bytes(&id)),
            };
            W::DeliveryJobAdvanced(wire::DeliveryJobAdvanced {
                subscription_id: uuid_bytes(&e.subscription_id.0),
                job_id: uuid_bytes(&e.job_id.0),
                next_sequence: e.next_sequence.0,
                put_back: e.put_back.iter().map(put_back).collect(),
            })
        }
        Event::DeliveryJobEnded(e) => W::DeliveryJobEnded(wire::DeliveryJobEnded {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            job_id: uuid_bytes(&e.job_id.0),
            kind: e.kind.wire_number(),
            cancelled: e.cancelled,
        }),
        Event::DeadLettersDropped(e) => W::DeadLettersDropped(wire::DeadLettersDropped {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            sequences: e.sequences.iter().map(|s| s.0).collect(),
            reason: e.reason.clone(),
        }),
        Event::FactPublished(e) => {
            let known = around.fact == Some((e.source.as_str(), e.fact_id.as_str()));
            W::FactPublished(wire::FactPublished {
                source: (!known).then(|| e.source.clone()),
                fact_id: (!known).then(|| e.fact_id.clone()),
                r#type: e.fact_type.clone(),
                member_id: e.member_id.map(|MemberId(id)| uuid_bytes(&id)),
                occurred_at_ms: e.occurred_at.0,
                properties: e.properties.0.to_string(),
                personal: fact_to_wire(&e.personal, slot, keys)?,
            })
        }
        Event::SubscriptionSecretRotated(e) => W::SubscriptionSecretRotated(wire::SubscriptionSecretRotated {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            sealed_secret: e.secret.0.clone(),
            previous_until_ms: e.previous_until.0,
        }),
        Event::DeliveryProgressed(e) => W::DeliveryProgressed(wire::DeliveryProgressed {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            progress: Some(wire::DeliveryProgress {
                cursor: e.progress.cursor.0,
                rows: e.progress.rows.iter().map(delivery_row_to_wire).collect(),
            }),
        }),
        Event::DeliveryDeadLettered(e) => W::DeliveryDeadLettered(wire::DeliveryDeadLettered {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            sequence: e.sequence.0,
            event_type: e.event_type.clone(),
            attempts: e.attempts,
            reason: e.reason.clone(),
        }),
        Event::DeadLettersRedriven(e) => W::DeadLettersRedriven(wire::DeadLettersRedriven {
            subscription_id: uuid_bytes(&e.subscription_id.0),
            sequences: e.sequences.iter().map(|s| s.0).collect(),
        }),
        Event::FactTypeRegistered(e) => {
            W::FactTypeRegistered(wire::FactTypeRegistered { fact_type: Some(fact_type_to_wire(&e.fact_type)) })
        }
        plain => W::Plain(wire::PlainEvent {
            r#type: plain.event_type().as_str().into(),
            fields: plain.to_plain().expect("those that are packed stand above"),
        }),
    })
}

fn state_changed(id: SubscriptionId, state: SubscriptionState, reason: &str) -> W {
    W::SubscriptionStateChanged(wire::SubscriptionStateChanged {
        subscription_id: uuid_bytes(&id.0),
        state: state.wire_number(),
        reason: reason.into(),
    })
}

fn breaker_turned(id: SubscriptionId, breaker: BreakerState) -> W {
    W::BreakerTurned(wire::BreakerTurned {
        subscription_id: uuid_bytes(&id.0),
        breaker: Some(breaker_to_wire(breaker)),
    })
}

fn event_from_wire(around: &Around<'_>, kind: W, slot: KeySlot, keys: &MemberKeys) -> Result<Event, CodecError> {
    Ok(match kind {
        W::ConsumptionRecorded(e) => Event::ConsumptionRecorded(ConsumptionRecorded {
            consumption_id: around.consumption(e.consumption_id)?,
            member_id: around.member(e.member_id)?,
            consumed_at: UnixMillis(e.consumed_at_ms),
            lines: each("lines", e.lines, line_from_wire)?,
            identifiers_digest: e.identifiers_digest,
        }),
        W::ConsumptionFirst(e) => Event::ConsumptionFirst(ConsumptionFirst {
            consumption_id: around.consumption(e.consumption_id)?,
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
        }),
        W::ConsumptionMatched(e) => Event::ConsumptionMatched(ConsumptionMatched {
            consumption_id: around.consumption(e.consumption_id)?,
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            rule_id: id("rule_id", &e.rule_id)?,
            line: e.line,
            sku: around.sku(e.line, e.sku)?,
            units: e.units,
        }),
        W::ConsumptionCounted(e) => Event::ConsumptionCounted(ConsumptionCounted {
            campaign_id: id("campaign_id", &e.campaign_id)?,
            cap_uses: each("cap_uses", e.cap_uses, cap_use_from_wire)?,
        }),
        W::ConsumptionRejected(e) => Event::ConsumptionRejected(ConsumptionRejected {
            consumption_id: around.consumption(e.consumption_id)?,
            member_id: around.member(e.member_id)?,
            reason: Unrewarded::of("reason", e.reason)?,
            line: e.line,
            sku: around.sku(e.line, e.sku)?,
            units: e.units,
            campaign_id: e.campaign_id.map(|c| id("campaign_id", &c)).transpose()?,
            rule_id: e.rule_id.map(|r| id("rule_id", &r)).transpose()?,
        }),
        W::PointsCredited(e) => Event::PointsCredited(PointsCredited {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            amount: Points(e.amount),
            previous_balance: Points(previous(e.previous_balance, e.new_balance.checked_sub(e.amount))?),
            new_balance: Points(e.new_balance),
            expires_at: e.expires_at_ms.map(UnixMillis),
            origin: around.origin(e.origin)?,
        }),
        W::PointsDebited(e) => Event::PointsDebited(PointsDebited {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            amount: Points(e.amount),
            previous_balance: Points(previous(e.previous_balance, e.new_balance.checked_add(e.amount))?),
            new_balance: Points(e.new_balance),
            hold_id: e.hold_id,
            origin: around.origin(e.origin)?,
        }),
        W::CoinsChanged(e) => Event::CoinsChanged(CoinsChanged {
            member_id: around.member(e.member_id)?,
            amount: Coins(e.amount),
            previous_balance: Coins(previous(e.previous_balance, e.new_balance.checked_sub(e.amount))?),
            new_balance: Coins(e.new_balance),
            expires_at: e.expires_at_ms.map(UnixMillis),
            hold_id: e.hold_id,
            origin: around.origin(e.origin)?,
        }),
        W::PunchcardStampsReceived(e) => Event::PunchcardStampsReceived(PunchcardStampsReceived {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            punchcard_id: id("punchcard_id", &e.punchcard_id)?,
            stamps: Stamps(e.stamps),
            row_length: e.row_length,
            previous: RowState { stamps: Stamps(e.previous_stamps), rows_completed: e.previous_rows_completed },
            new: RowState { stamps: Stamps(e.new_stamps), rows_completed: e.new_rows_completed },
            origin: around.origin(e.origin)?,
        }),
        W::PunchcardStampsDiscarded(e) => Event::PunchcardStampsDiscarded(PunchcardStampsDiscarded {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            punchcard_id: id("punchcard_id", &e.punchcard_id)?,
            stamps: Stamps(e.stamps),
            origin: around.origin(e.origin)?,
        }),
        W::PunchcardStepCompleted(e) => Event::PunchcardStepCompleted(PunchcardStepCompleted {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            punchcard_id: id("punchcard_id", &e.punchcard_id)?,
            step: e.step,
            times: e.times,
        }),
        W::PunchcardCompleted(e) => Event::PunchcardCompleted(PunchcardCompleted {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
            punchcard_id: id("punchcard_id", &e.punchcard_id)?,
            rows: e.rows,
            rows_completed: e.rows_completed,
        }),
        W::MemberCreated(e) => {
            let personal = Personal { identifiers: e.identifiers, profile: e.profile, person: e.person };
            let (identifiers, profile) = person_from_wire(personal, slot, keys)?;
            let (member_id, registration_source) = (around.member(e.member_id)?, e.registration_source);
            Event::MemberCreated(MemberCreated { member_id, identifiers, profile, registration_source })
        }
        W::MemberUpdated(e) => {
            let personal = Personal { identifiers: e.identifiers, profile: e.profile, person: e.person };
            let (identifiers, profile) = person_from_wire(personal, slot, keys)?;
            let (member_id, changed) = (around.member(e.member_id)?, e.changed);
            Event::MemberUpdated(MemberUpdated { member_id, identifiers, profile, changed })
        }
        W::MemberErased(e) => Event::MemberErased(MemberErased { member_id: around.member(e.member_id)? }),
        W::MemberBlocked(e) => {
            Event::MemberBlocked(MemberBlocked { member_id: around.member(e.member_id)?, reason: e.reason })
        }
        W::MemberUnblocked(e) => Event::MemberUnblocked(MemberUnblocked { member_id: around.member(e.member_id)? }),
        W::MemberJoinedCampaign(e) => Event::MemberJoinedCampaign(MemberJoinedCampaign {
            member_id: around.member(e.member_id)?,
            campaign_id: id("campaign_id", &e.campaign_id)?,
        }),
        W::AdvertiserCreated(e) => {
            Event::AdvertiserCreated(AdvertiserCreated { advertiser_id: AdvertiserId(e.advertiser_id), name: e.name })
        }
        W::CredentialIssued(e) => {
            let credential = credential_from_wire(required("credential", e.credential)?);
            Event::CredentialIssued(CredentialIssued { credential: credential.map_err(|e| e.within("credential"))? })
        }
        W::CredentialRevoked(e) => {
            Event::CredentialRevoked(CredentialRevoked { credential_id: id("credential_id", &e.credential_id)? })
        }
        W::CampaignCreated(e) => Event::CampaignCreated(CampaignCreated { campaign: Box::new(campaign(e.campaign)?) }),
        W::CampaignUpdated(e) => Event::CampaignUpdated(CampaignUpdated { campaign: Box::new(campaign(e.campaign)?) }),
        W::SubscriptionCreated(e) => Event::SubscriptionCreated(SubscriptionCreated {
            subscription: Box::new(subscription(e.subscription)?),
            secret: SealedSecret(e.sealed_secret),
            owed_after: e.owed_after.map(Sequence),
        }),
        W::SubscriptionUpdated(e) => {
            Event::SubscriptionUpdated(SubscriptionUpdated { subscription: Box::new(subscription(e.subscription)?) })
        }
        W::SubscriptionDeleted(e) => Event::SubscriptionDeleted(SubscriptionDeleted {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
        }),
        W::SubscriptionStateChanged(e) => {
            let subscription_id = subscription_id("subscription_id", &e.subscription_id)?;
            let reason = e.reason;
            match SubscriptionState::of("state", e.state)? {
                SubscriptionState::Active => SubscriptionResumed { subscription_id, reason }.into(),
                SubscriptionState::Paused => SubscriptionPaused { subscription_id, reason }.into(),
                SubscriptionState::Disabled => SubscriptionDisabled { subscription_id, reason }.into(),
            }
        }
        W::BreakerTurned(e) => {
            let subscription_id = subscription_id("subscription_id", &e.subscription_id)?;
            match breaker_from_wire(e.breaker)? {
                BreakerState::Closed => BreakerClosed { subscription_id }.into(),
                breaker @ BreakerState::Open { .. } => BreakerOpened { subscription_id, breaker }.into(),
                breaker @ BreakerState::HalfOpen { .. } => BreakerHalfOpened { subscription_id, breaker }.into(),
            }
        }
        W::DeliveryJobStarted(e) => Event::DeliveryJobStarted(DeliveryJobStarted {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            job: job_from_wire(required("job", e.job)?).map_err(|e| e.within("job"))?,
        }),
        W::DeliveryJobAdvanced(e) => {
            let put_back = |p: wire::PutBack| {
                let member = p.member_id.map(|bytes| member_id("member_id", &bytes)).transpose()?;
                Ok(PutBack { sequence: Sequence(p.sequence), member })
            };
            Event::DeliveryJobAdvanced(DeliveryJobAdvanced {
                subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
                job_id: job_id("job_id", &e.job_id)?,
                next_sequence: Sequence(e.next_sequence),
                put_back: each("put_back", e.put_back, put_back)?,
            })
        }
        W::DeliveryJobEnded(e) => Event::DeliveryJobEnded(DeliveryJobEnded {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            job_id: job_id("job_id", &e.job_id)?,
            kind: JobKind::of("kind", e.kind)?,
            cancelled: e.cancelled,
        }),
        W::DeadLettersDropped(e) => Event::DeadLettersDropped(DeadLettersDropped {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            sequences: e.sequences.into_iter().map(Sequence).collect(),
            reason: e.reason,
        }),
        W::FactPublished(e) => {
            let known = |of: fn((&str, &str)) -> String| around.fact.map(of);
            let source = e.source.or_else(|| known(|(source, _)| source.into()));
            let fact_id = e.fact_id.or_else(|| known(|(_, id)| id.into()));
            Event::FactPublished(FactPublished {
                source: source.ok_or_else(|| CodecError::missing("source"))?,
                fact_id: fact_id.ok_or_else(|| CodecError::missing("fact_id"))?,
                fact_type: e.r#type,
                member_id: e.member_id.map(|bytes| member_id("member_id", &bytes)).transpose()?,
                occurred_at: UnixMillis(e.occurred_at_ms),
                properties: Json(e.properties.into()),
                personal: fact_from_wire(&e.personal, slot, keys)?,
            })
        }
        W::SubscriptionSecretRotated(e) => Event::SubscriptionSecretRotated(SubscriptionSecretRotated {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            secret: SealedSecret(e.sealed_secret),
            previous_until: UnixMillis(e.previous_until_ms),
        }),
        W::DeliveryProgressed(e) => {
            let progress = required("progress", e.progress)?;
            Event::DeliveryProgressed(DeliveryProgressed {
                subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
                progress: DeliveryProgress {
                    cursor: Sequence(progress.cursor),
                    rows: each("progress.rows", progress.rows, delivery_row_from_wire)?,
                },
            })
        }
        W::DeliveryDeadLettered(e) => Event::DeliveryDeadLettered(DeliveryDeadLettered {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            sequence: Sequence(e.sequence),
            event_type: e.event_type,
            attempts: e.attempts,
            reason: e.reason,
        }),
        W::DeadLettersRedriven(e) => Event::DeadLettersRedriven(DeadLettersRedriven {
            subscription_id: subscription_id("subscription_id", &e.subscription_id)?,
            sequences: e.sequences.into_iter().map(Sequence).collect(),
        }),
        W::FactTypeRegistered(e) => Event::FactTypeRegistered(FactTypeRegistered {
            fact_type: fact_type_from_wire(required("fact_type", e.fact_type)?),
        }),
        W::Plain(e) => {
            let known = Event::from_plain(&e.r#type, &e.fields);
            let known =
                known.ok_or_else(|| CodecError::invalid("type", format_args!("{:?} is not known", e.r#type)))?;
            known.map_err(|why| CodecError::invalid("fields", why))?
        }
    })
}

fn campaign(campaign: Option<wire::Campaign>) -> Result<punchline_engine::loyalty::campaign::Campaign, CodecError> {
    campaign_from_wire(required("campaign", campaign)?).map_err(|e| e.within("campaign"))
}

fn subscription(
    subscription: Option<wire::Subscription>,
) -> Result<punchline_engine::dispatch::Subscription, CodecError> {
    subscription_from_wire(required("subscription", subscription)?).map_err(|e| e.within("subscription"))
}
