//! An example of every kind of event: for the catalogue, and for the Test button.
//!
//! One small story: a member of the VELO Club writes a review, and fills a row of the coffee card.
//!
//! # Invariants
//!
//! - Examples are the same every time, and no sequence, member or subscription of theirs exists.

mod plain;

use punchline_engine::dispatch::{
    BreakerState, DeliveryJob, DeliveryProgress, EventSelection, JobKind, JobState, Subscription,
};
use punchline_engine::event::*;
use punchline_engine::id::{AdvertiserId, CampaignId, Environment, MemberId, PunchcardId, RuleId, Sequence, Tenant};
use punchline_engine::id::{CredentialId, KeySlot, SubscriptionId};
use punchline_engine::loyalty::campaign::{
    Campaign, Cap, DynamicEvent, EarningRule, Overflow, Punchcard, SkuSelector, StampReward, Validity,
};
use punchline_engine::loyalty::consumption::Line;
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::member::{Identifier, IdentifierKind, Profile};
use punchline_engine::loyalty::programme::Programme;
use punchline_engine::loyalty::tenant::{Credential, Scope, SealedSecret};
use punchline_engine::quantity::{Coins, Points, Quantity, Stamps};
use punchline_engine::time::{Period, UnixMillis};

const SKU: &str = "velo_pk_product_review";
const CONSUMPTION: &str = "I198037776491223";
const SEQUENCE: Sequence = Sequence(1_042);
const CAUSE: Sequence = Sequence(1_040);

/// What an event of this kind says, in one line.
#[must_use]
pub fn description(event_type: EventType) -> &'static str {
    use EventType as T;
    match event_type {
        T::AdvertiserCreated => "A company was taken on, with both its environments.",
        T::CredentialIssued => "A key pair was issued; its secret is never told.",
        T::CredentialRevoked => "A key pair stopped working.",
        T::CampaignCreated => "A campaign came into being.",
        T::CampaignUpdated => "A campaign was changed; what was earned stays as it was earned.",
        T::MemberCreated => "A person joined the programme.",
        T::MemberUpdated => "A member's identifiers or profile changed.",
        T::MemberErased => "A member's personal fields were erased: drop yours of that id.",
        T::MemberBlocked => "A member earns nothing until unblocked.",
        T::MemberUnblocked => "A member earns again.",
        T::MemberJoinedCampaign => "A member got a card: takes part in a campaign.",
        T::ConsumptionRecorded => "An upstream system's report was taken in: the cause of everything it earns.",
        T::ConsumptionFirst => "The member's first consumption that a rule of the campaign matched.",
        T::ConsumptionMatched => "A rule matched a line of a consumption.",
        T::ConsumptionCounted => "A consumption counted on a card.",
        T::ConsumptionRejected => "Units of a line earned nothing, and why.",
        T::PointsCredited => "Points came to a card.",
        T::PointsDebited => "Points left a card.",
        T::CoinsChanged => "A member's coins changed.",
        T::PunchcardStampsReceived => "Stamps came to a punchcard.",
        T::PunchcardStampsDiscarded => "Stamps had no place on a punchcard that does not carry over, or is done.",
        T::PunchcardStepCompleted => "A milestone in a row of a punchcard was reached.",
        T::PunchcardCompleted => "Rows of a punchcard were filled.",
        T::SubscriptionCreated => "A standing order for events was placed.",
        T::SubscriptionUpdated => "A standing order was changed.",
        T::SubscriptionDeleted => "A standing order was withdrawn.",
        T::SubscriptionPaused => "Somebody stopped a subscription; its backlog is kept.",
        T::SubscriptionResumed => "A subscription goes on where it stopped.",
        T::SubscriptionDisabled => "The server stopped a subscription; its backlog is kept.",
        T::BreakerOpened => "An endpoint failed so often in a row that it is left in peace for a while.",
        T::BreakerHalfOpened => "One event is sent, to see whether the endpoint is back.",
        T::BreakerClosed => "The endpoint is back.",
        T::DeliveryJobStarted => "A replay or a redrive was asked for.",
        T::DeliveryJobAdvanced => "A replay or a redrive has come further.",
        T::DeliveryJobEnded => "A replay or a redrive is at its end.",
        T::DeadLettersDropped => "Dead letters were given up: they are not tried again.",
        T::FactPublished => "An upstream system told of something; its type is the one that it gave.",
        T::SubscriptionSecretRotated => "A subscription signs with a new secret, and with the old one for a while.",
        T::DeliveryProgressed => "How far deliveries have come.",
        T::DeliveryDeadLettered => "The last attempt failed; the delivery is kept and can be redriven.",
        T::DeadLettersRedriven => "Dead letters were put back to be attempted again.",
        T::FactTypeRegistered => "A type of facts was registered, or registered anew.",
        other => plain::plain(other).expect("those that are packed stand above").0,
    }
}

/// An example with its place in a journal.
#[must_use]
pub fn recorded(event: &Event) -> Recorded<'_> {
    let tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Production };
    Recorded {
        sequence: SEQUENCE,
        cause: CAUSE,
        time: at("2025-04-25T12:34:01Z"),
        tenant,
        member: None,
        key_slot: KeySlot::NONE,
        quiet: false,
        event,
    }
}

/// An example of an event of this kind.
#[must_use]
pub fn example(event_type: EventType) -> Event {
    use EventType as T;
    let (member_id, campaign_id, punchcard_id) = (member(), campaign_id(), punchcard_id());
    let consumption_id = || CONSUMPTION.to_owned();
    match event_type {
        T::AdvertiserCreated => {
            AdvertiserCreated { advertiser_id: AdvertiserId::FIRST, name: "Velo Coffee".into() }.into()
        }
        T::CredentialIssued => CredentialIssued { credential: credential() }.into(),
        T::CredentialRevoked => CredentialRevoked { credential_id: credential().id }.into(),
        T::CampaignCreated => CampaignCreated { campaign: Box::new(campaign(1)) }.into(),
        T::CampaignUpdated => CampaignUpdated { campaign: Box::new(campaign(2)) }.into(),
        T::MemberCreated => MemberCreated {
            member_id,
            identifiers: identifiers(),
            profile: profile(),
            registration_source: "campaign_link".into(),
        }
        .into(),
        T::MemberUpdated => MemberUpdated {
            member_id,
            identifiers: identifiers(),
            profile: profile(),
            changed: vec!["profile.locale".into()],
        }
        .into(),
        T::MemberErased => MemberErased { member_id }.into(),
        T::MemberBlocked => MemberBlocked { member_id, reason: "suspected of fraud".into() }.into(),
        T::MemberUnblocked => MemberUnblocked { member_id }.into(),
        T::MemberJoinedCampaign => MemberJoinedCampaign { member_id, campaign_id }.into(),
        T::ConsumptionRecorded => ConsumptionRecorded {
            consumption_id: consumption_id(),
            member_id,
            consumed_at: at("2025-04-25T12:34:00Z"),
            lines: vec![Line {
                sku: SKU.into(),
                product_name: Some(SKU.into()),
                quantity: Quantity::new(1).expect("within bounds"),
            }],
            identifiers_digest: 0,
        }
        .into(),
        T::ConsumptionFirst => ConsumptionFirst { consumption_id: consumption_id(), member_id, campaign_id }.into(),
        T::ConsumptionMatched => ConsumptionMatched {
            consumption_id: consumption_id(),
            member_id,
            campaign_id,
            rule_id: rule_id(),
            line: 0,
            sku: SKU.into(),
            units: 1,
        }
        .into(),
        T::ConsumptionCounted => ConsumptionCounted { campaign_id, cap_uses: Vec::new() }.into(),
        T::ConsumptionRejected => ConsumptionRejected {
            consumption_id: consumption_id(),
            member_id,
            reason: Unrewarded::CapReached,
            line: 0,
            sku: SKU.into(),
            units: 1,
            campaign_id: Some(campaign_id),
            rule_id: Some(rule_id()),
        }
        .into(),
        T::PointsCredited => PointsCredited {
            member_id,
            campaign_id,
            amount: Points(150),
            previous_balance: Points(1_200),
            new_balance: Points(1_350),
            expires_at: None,
            origin: origin(),
        }
        .into(),
        T::PointsDebited => PointsDebited {
            member_id,
            campaign_id,
            amount: Points(150),
            previous_balance: Points(1_350),
            new_balance: Points(1_200),
            hold_id: None,
            origin: Origin::Adjustment { reason: "credited twice by mistake".into() },
        }
        .into(),
        T::CoinsChanged => CoinsChanged {
            member_id,
            amount: Coins(3),
            previous_balance: Coins(12),
            new_balance: Coins(15),
            expires_at: None,
            hold_id: None,
            origin: origin(),
        }
        .into(),
        T::PunchcardStampsReceived => PunchcardStampsReceived {
            member_id,
            campaign_id,
            punchcard_id,
            stamps: Stamps(1),
            row_length: 10,
            previous: RowState { stamps: Stamps(9), rows_completed: 0 },
            new: RowState { stamps: Stamps(0), rows_completed: 1 },
            origin: origin(),
        }
        .into(),
        T::PunchcardStampsDiscarded => {
            PunchcardStampsDiscarded { member_id, campaign_id, punchcard_id, stamps: Stamps(2), origin: origin() }
                .into()
        }
        T::PunchcardStepCompleted => {
            PunchcardStepCompleted { member_id, campaign_id, punchcard_id, step: 5, times: 1 }.into()
        }
        T::PunchcardCompleted => {
            PunchcardCompleted { member_id, campaign_id, punchcard_id, rows: 1, rows_completed: 1 }.into()
        }
        T::SubscriptionCreated => {
            let (subscription, secret) = (subscription(1), SealedSecret::default());
            SubscriptionCreated { subscription: Box::new(subscription), secret, owed_after: None }.into()
        }
        T::SubscriptionUpdated => SubscriptionUpdated { subscription: Box::new(subscription(2)) }.into(),
        T::SubscriptionDeleted => SubscriptionDeleted { subscription_id: subscription_id() }.into(),
        T::SubscriptionPaused => {
            SubscriptionPaused { subscription_id: subscription_id(), reason: "maintenance".into() }.into()
        }
        T::SubscriptionResumed => {
            SubscriptionResumed { subscription_id: subscription_id(), reason: "maintenance is over".into() }.into()
        }
        T::SubscriptionDisabled => {
            SubscriptionDisabled { subscription_id: subscription_id(), reason: "the receiver answered 410 Gone".into() }
                .into()
        }
        T::BreakerOpened => BreakerOpened {
            subscription_id: subscription_id(),
            breaker: BreakerState::Open {
                failing_since: at("2025-04-25T12:33:00Z"),
                until: at("2025-04-25T12:35:00Z"),
                round: 1,
            },
        }
        .into(),
        T::BreakerHalfOpened => BreakerHalfOpened {
            subscription_id: subscription_id(),
            breaker: BreakerState::HalfOpen { failing_since: at("2025-04-25T12:33:00Z"), round: 1 },
        }
        .into(),
        T::BreakerClosed => BreakerClosed { subscription_id: subscription_id() }.into(),
        T::DeliveryJobStarted => DeliveryJobStarted { subscription_id: subscription_id(), job: job() }.into(),
        T::DeliveryJobAdvanced => DeliveryJobAdvanced {
            subscription_id: subscription_id(),
            job_id: job().id,
            next_sequence: Sequence(500),
            put_back: Vec::new(),
        }
        .into(),
        T::DeliveryJobEnded => DeliveryJobEnded {
            subscription_id: subscription_id(),
            job_id: job().id,
            kind: JobKind::Replay,
            cancelled: false,
        }
        .into(),
        T::DeadLettersDropped => DeadLettersDropped {
            subscription_id: subscription_id(),
            sequences: vec![Sequence(987)],
            reason: "corrected by hand".into(),
        }
        .into(),
        T::FactPublished => FactPublished {
            source: "wallet".into(),
            fact_id: "f-1001".into(),
            fact_type: "wallet_pass.installed".into(),
            member_id: Some(member()),
            occurred_at: at("2025-04-25T12:33:58Z"),
            properties: Json(r#"{"platform":"apple"}"#.into()),
            personal: Json::empty(),
        }
        .into(),
        T::SubscriptionSecretRotated => SubscriptionSecretRotated {
            subscription_id: subscription_id(),
            secret: SealedSecret::default(),
            previous_until: at("2025-04-26T12:34:01Z"),
        }
        .into(),
        T::DeliveryProgressed => {
            DeliveryProgressed { subscription_id: subscription_id(), progress: DeliveryProgress::default() }.into()
        }
        T::DeliveryDeadLettered => DeliveryDeadLettered {
            subscription_id: subscription_id(),
            sequence: Sequence(987),
            event_type: T::PointsCredited.as_str().into(),
            attempts: 10,
            reason: "http_500".into(),
        }
        .into(),
        T::DeadLettersRedriven => {
            DeadLettersRedriven { subscription_id: subscription_id(), sequences: vec![Sequence(987)] }.into()
        }
        T::FactTypeRegistered => FactTypeRegistered {
            fact_type: FactType {
                name: "fitting.booked".into(),
                description: "A fitting was booked.".into(),
                schema: r#"{"type":"object","properties":{"shop":{"type":"string"}}}"#.into(),
                version: 1,
            },
        }
        .into(),
        other => {
            let (_, fields) = plain::plain(other).expect("those that are packed stand above");
            let event = Event::from_plain(other.as_str(), &fields).expect("those that are packed stand above");
            event.expect("the fields are those of the event, as the tests know")
        }
    }
}

fn at(text: &str) -> UnixMillis {
    UnixMillis::parse(text).expect("a date")
}

fn member() -> MemberId {
    "01966cf2-3c40-7000-8000-000000000001".parse().expect("a UUID")
}

fn subscription_id() -> SubscriptionId {
    "01966cf2-3c40-7000-8000-000000000002".parse().expect("a UUID")
}

fn campaign_id() -> CampaignId {
    "velo-club".parse().expect("a slug")
}

fn punchcard_id() -> PunchcardId {
    "coffee-card".parse().expect("a slug")
}

fn rule_id() -> RuleId {
    "review".parse().expect("a slug")
}

fn origin() -> Origin {
    Origin::Consumption {
        consumption_id: CONSUMPTION.into(),
        line: 0,
        sku: SKU.into(),
        rule_id: rule_id(),
        multipliers: Vec::new(),
    }
}

fn identifiers() -> Vec<Identifier> {
    let identifier = |kind, value: &str| Identifier { kind, value: value.into() };
    vec![identifier(IdentifierKind::PhoneNumber, "40720005123"), identifier(IdentifierKind::Email, "user@example.com")]
}

fn profile() -> Profile {
    Profile {
        first_name: "Ana".into(),
        last_name: "Ionescu".into(),
        birth_date: "1990-05-17".into(),
        locale: "ro-RO".into(),
        marketing_consent: Some(true),
        attributes: [("favourite_drink".to_owned(), "flat white".to_owned())].into(),
    }
}

fn credential() -> Credential {
    let id: CredentialId = "velo-pos".parse().expect("a slug");
    Credential {
        id,
        secret_hash: [0; 32],
        scopes: vec![Scope::Ingest],
        description: "The tills".into(),
        created_at: at("2025-01-02T08:00:00Z"),
        revoked_at: None,
        write_key: false,
    }
}

fn campaign(version: u64) -> Campaign {
    Campaign {
        id: campaign_id(),
        name: "VELO Club".into(),
        validity: Validity { starts_at: Some(at("2025-01-01T00:00:00Z")), ends_at: None },
        rules: vec![EarningRule {
            id: rule_id(),
            skus: SkuSelector::Exact(SKU.into()),
            points: Points(150),
            coins: Coins(3),
            stamps: Some(StampReward { punchcard_id: punchcard_id(), per_unit: 1 }),
            caps: vec![Cap { period: Period::Day, units_max: 3 }],
            validity: Validity::default(),
            condition: None,
            coupon_book: None,
            external: None,
        }],
        punchcards: vec![Punchcard {
            id: punchcard_id(),
            name: "Coffee card".into(),
            row_length: 10,
            steps: vec![5],
            overflow: Overflow::CarryOver,
            repeatable: true,
        }],
        dynamic_events: vec![DynamicEvent { sku: SKU.into(), name: "Product review".into() }],
        programme: Programme::default(),
        version,
    }
}

fn job() -> DeliveryJob {
    DeliveryJob {
        id: "01966cf2-3c40-7000-8000-000000000003".parse().expect("a UUID"),
        kind: JobKind::Replay,
        from_sequence: Sequence(1),
        to_sequence: Sequence(1_000),
        event_types: EventSelection::all(),
        members: Vec::new(),
        sequences: Vec::new(),
        limit: 0,
        per_second: 100,
        started_at: at("2025-04-25T12:34:00Z"),
        state: JobState::Running,
        next_sequence: Sequence(1),
        put_back: 0,
    }
}

fn subscription(version: u64) -> Subscription {
    Subscription {
        description: "Points to the CRM".into(),
        event_types: EventSelection::parse("event_types", vec!["points.*".into()]).expect("selects something"),
        headers: vec![("x-tenant".into(), SealedSecret::default())],
        version,
        ..Subscription::to(subscription_id(), "https://crm.example.com/hooks/punchline")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::standard;

    #[test]
    fn every_kind_has_an_example_of_itself() {
        for &event_type in EventType::ALL {
            let event = example(event_type);
            assert_eq!(event.event_type(), event_type);
            assert_eq!(event, example(event_type), "the same every time");
            let body: serde_json::Value = serde_json::from_slice(&standard::body(&recorded(&event))).expect("JSON");
            assert_eq!(body["type"], event.type_name());
            assert_eq!(body["data"]["sequence"], SEQUENCE.0);
            let described = description(event_type);
            assert!(described.ends_with('.') && described.len() < 100, "{described}");
        }
        assert_eq!(campaign(1).validate(), Ok(()));
        assert_eq!(subscription(1).validate(), Ok(()));
        assert_eq!(profile().validate(), Ok(()));
    }
}
