//! A record of each kind, with every field set.

mod plain;

use std::collections::{BTreeMap, BTreeSet};

use punchline_engine::dispatch::subscription::BasicAuth;
use punchline_engine::dispatch::{
    AttemptLog, Auth, BreakerPolicy, BreakerState, DeliveryJob, DeliveryProgress, DeliveryRow, EventSelection, JobKind,
    JobState, PutBack, RetrySchedule, RowState as Row, Subscription,
};
use punchline_engine::event::*;
use punchline_engine::id::{AdvertiserId, Environment, JobId, KeySlot, MemberId, Sequence, SubscriptionId, Tenant};
use punchline_engine::loyalty::campaign::*;
use punchline_engine::loyalty::consumption::Line;
use punchline_engine::loyalty::fact_type::FactType;
use punchline_engine::loyalty::member::{CapUse, Identifier, IdentifierKind, Profile};
use punchline_engine::loyalty::programme::Programme;
use punchline_engine::loyalty::tenant::{Credential, Scope, SealedSecret};
use punchline_engine::quantity::{Coins, Points, Quantity, Stamps};
use punchline_engine::time::{Period, UnixMillis};
use uuid::Uuid;

pub const NOW: UnixMillis = UnixMillis(1_795_237_952_123);
pub const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Staging };

pub fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + n))
}

pub fn subscription_id() -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(0x0193_ffff_0000_7000_8000_0000_0000_0007))
}

pub fn origin() -> Origin {
    Origin::Consumption {
        consumption_id: "cons-1".into(),
        line: 1,
        sku: "SKU-2".into(),
        rule_id: "double".parse().unwrap(),
        multipliers: vec![],
    }
}

pub fn profile() -> Profile {
    Profile {
        first_name: "Ana".into(),
        last_name: "Ionescu".into(),
        birth_date: "1990-02-28".into(),
        locale: "ro-RO".into(),
        marketing_consent: Some(false),
        attributes: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "".into())]),
    }
}

pub fn identifiers() -> Vec<Identifier> {
    vec![
        Identifier { kind: IdentifierKind::PhoneNumber, value: "40720005123".into() },
        Identifier { kind: IdentifierKind::Email, value: "ana@example.com".into() },
    ]
}

pub fn campaign() -> Campaign {
    let rule = |id: &str, skus| EarningRule {
        id: id.parse().unwrap(),
        skus,
        points: Points(10),
        coins: Coins(1),
        stamps: None,
        caps: vec![],
        validity: Validity::default(),
        condition: None,
        coupon_book: None,
        external: None,
    };
    let caps = [Period::Day, Period::Week, Period::Month, Period::Campaign];
    let stamped = EarningRule {
        stamps: Some(StampReward { punchcard_id: "coffee".parse().unwrap(), per_unit: 2 }),
        caps: caps.iter().map(|&period| Cap { period, units_max: 300 }).collect(),
        validity: Validity { starts_at: Some(UnixMillis(-1)), ends_at: Some(NOW) },
        ..rule("prefix", SkuSelector::Prefix("COFFEE-".into()))
    };
    let punchcard = |id: &str, overflow, repeatable| Punchcard {
        id: id.parse().unwrap(),
        name: "Coffee".into(),
        row_length: 10,
        steps: vec![3, 5],
        overflow,
        repeatable,
    };
    Campaign {
        id: "summer-2026".parse().unwrap(),
        name: "Summer ☀".into(),
        validity: Validity { starts_at: Some(UnixMillis(0)), ends_at: None },
        rules: vec![
            rule("exact", SkuSelector::Exact("SKU-1".into())),
            stamped,
            rule("list", SkuSelector::List(BTreeSet::from(["B".into(), "A".into()]))),
        ],
        punchcards: vec![punchcard("coffee", Overflow::CarryOver, true), punchcard("tea", Overflow::Discard, false)],
        dynamic_events: vec![DynamicEvent { sku: "VISIT".into(), name: "Visit".into() }],
        programme: Programme::default(),
        version: 3,
    }
}

pub fn subscription() -> Subscription {
    let patterns = vec!["points.*".to_owned(), "member.created".to_owned()];
    Subscription {
        id: subscription_id(),
        description: "CRM".into(),
        url: "https://example.com/hook".into(),
        event_types: EventSelection::parse("event_types", patterns).unwrap(),
        headers: vec![("x-b".into(), SealedSecret(vec![1, 2])), ("x-a".into(), SealedSecret(vec![]))],
        auth: Auth::Basic(BasicAuth { username: "u".into(), password: SealedSecret(vec![9]) }),
        breaker: BreakerPolicy { failures: 0, ..BreakerPolicy::default() },
        schedule: RetrySchedule { delays_ms: vec![5_000, 0, 300_000] },
        timeout_ms: 15_000,
        max_in_flight: 32,
        permanent_statuses: vec![404, 410],
        version: 2,
        ..Subscription::to(subscription_id(), "")
    }
}

pub fn job() -> DeliveryJob {
    DeliveryJob {
        id: JobId(Uuid::from_u128(0x0193_aaaa_0000_7000_8000_0000_0000_0009)),
        kind: JobKind::Replay,
        from_sequence: Sequence(5),
        to_sequence: Sequence(900),
        event_types: EventSelection::parse("event_types", vec!["points.*".into()]).unwrap(),
        members: vec![member(3)],
        sequences: vec![Sequence(7), Sequence(8), Sequence(800)],
        limit: 10,
        per_second: 100,
        started_at: NOW,
        state: JobState::Running,
        next_sequence: Sequence(6),
        put_back: 1,
    }
}

fn attempt_log(number: u32, latency_ms: u32) -> AttemptLog {
    let (error, response, key_slot) = ("timeout".into(), vec![], KeySlot::NONE);
    AttemptLog { number, at: NOW, latency_ms, status: None, error, response, key_slot }
}

pub fn delivery_rows() -> Vec<DeliveryRow> {
    let log = vec![
        AttemptLog { status: Some(503), error: "".into(), response: vec![0, 255], ..attempt_log(1, 20) },
        attempt_log(2, 9),
    ];
    let row = |sequence, state| DeliveryRow {
        sequence: Sequence(sequence),
        member: Some(member(2)),
        state,
        attempts: 2,
        log: log.clone(),
    };
    vec![
        row(100, Row::Waiting { step: 2, due: NOW }),
        row(102, Row::Held),
        row(104, Row::Dead),
        DeliveryRow { member: None, log: vec![], ..row(101, Row::Delivered) },
    ]
}

pub fn recorded() -> Event {
    let line = |sku: &str, name: Option<&str>, units| Line {
        sku: sku.into(),
        product_name: name.map(String::from),
        quantity: Quantity::new(units).unwrap(),
    };
    let event = ConsumptionRecorded {
        consumption_id: "cons-1".into(),
        member_id: member(1),
        consumed_at: UnixMillis(NOW.0 - 5_000),
        lines: vec![line("SKU-1", None, 1), line("SKU-2", Some("Two"), 10_000)],
        identifiers_digest: 0xfedc_ba98_7654_3210,
    };
    event.into()
}

/// A record whose last event is of the kind.
pub fn sample(kind: EventType) -> Record {
    let (member_id, subscription_id, campaign_id) = (member(1), subscription_id(), "summer-2026".parse().unwrap());
    let (punchcard_id, rule_id) = ("coffee".parse().unwrap(), "double".parse().unwrap());
    let (consumption_id, sku) = (String::from("cons-1"), String::from("SKU-2"));
    let secret = SealedSecret(vec![7; 40]);
    let reason = String::from("because");
    let row = |stamps, rows_completed| RowState { stamps: Stamps(stamps), rows_completed };
    let event: Event = match kind {
        EventType::AdvertiserCreated => {
            AdvertiserCreated { advertiser_id: AdvertiserId(1_000_000_002), name: "Acme".into() }.into()
        }
        EventType::CredentialIssued => CredentialIssued {
            credential: Credential {
                id: "key-1".parse().unwrap(),
                secret_hash: [0xab; 32],
                scopes: vec![Scope::Manage, Scope::Ingest, Scope::Read],
                description: "till".into(),
                created_at: NOW,
                revoked_at: Some(UnixMillis(0)),
                write_key: false,
            },
        }
        .into(),
        EventType::CredentialRevoked => CredentialRevoked { credential_id: "key-1".parse().unwrap() }.into(),
        EventType::CampaignCreated => CampaignCreated { campaign: Box::new(campaign()) }.into(),
        EventType::CampaignUpdated => {
            let (rules, punchcards, dynamic_events) = (vec![], vec![], vec![]);
            CampaignUpdated { campaign: Box::new(Campaign { rules, punchcards, dynamic_events, ..campaign() }) }.into()
        }
        EventType::MemberCreated => MemberCreated {
            member_id,
            identifiers: identifiers(),
            profile: profile(),
            registration_source: "campaign_link".into(),
        }
        .into(),
        EventType::MemberUpdated => MemberUpdated {
            member_id,
            identifiers: vec![],
            profile: Profile::default(),
            changed: vec!["identifiers".into(), "profile.locale".into()],
        }
        .into(),
        EventType::MemberErased => MemberErased { member_id }.into(),
        EventType::MemberBlocked => MemberBlocked { member_id, reason }.into(),
        EventType::MemberUnblocked => MemberUnblocked { member_id }.into(),
        EventType::MemberJoinedCampaign => MemberJoinedCampaign { member_id, campaign_id }.into(),
        EventType::ConsumptionRecorded => recorded(),
        EventType::ConsumptionFirst => ConsumptionFirst { consumption_id, member_id, campaign_id }.into(),
        EventType::ConsumptionMatched => {
            ConsumptionMatched { consumption_id, member_id, campaign_id, rule_id, line: 1, sku, units: 300 }.into()
        }
        EventType::ConsumptionCounted => ConsumptionCounted {
            campaign_id,
            cap_uses: vec![
                CapUse { rule_id, period: Period::Week, number: -2, units: 300 },
                CapUse { rule_id: "other".parse().unwrap(), period: Period::Campaign, number: 0, units: 1 },
            ],
        }
        .into(),
        EventType::ConsumptionRejected => ConsumptionRejected {
            consumption_id,
            member_id,
            reason: Unrewarded::CapReached,
            line: 1,
            sku,
            units: 9_700,
            campaign_id: Some(campaign_id),
            rule_id: Some(rule_id),
        }
        .into(),
        EventType::PointsCredited => PointsCredited {
            member_id,
            campaign_id,
            amount: Points(3_000),
            previous_balance: Points(150),
            new_balance: Points(3_150),
            expires_at: None,
            origin: origin(),
        }
        .into(),
        EventType::PointsDebited => PointsDebited {
            member_id,
            campaign_id,
            amount: Points(150),
            previous_balance: Points(150),
            new_balance: Points(0),
            hold_id: None,
            origin: Origin::Adjustment { reason },
        }
        .into(),
        EventType::CoinsChanged => CoinsChanged {
            member_id,
            amount: Coins(-5),
            previous_balance: Coins(7),
            new_balance: Coins(2),
            expires_at: None,
            hold_id: None,
            origin: Origin::Adjustment { reason },
        }
        .into(),
        EventType::PunchcardStampsReceived => PunchcardStampsReceived {
            member_id,
            campaign_id,
            punchcard_id,
            stamps: Stamps(12),
            row_length: 10,
            previous: row(9, 4),
            new: row(1, 6),
            origin: origin(),
        }
        .into(),
        EventType::PunchcardStampsDiscarded => {
            let stamps = Stamps(2);
            PunchcardStampsDiscarded { member_id, campaign_id, punchcard_id, stamps, origin: origin() }.into()
        }
        EventType::PunchcardStepCompleted => {
            PunchcardStepCompleted { member_id, campaign_id, punchcard_id, step: 5, times: 2 }.into()
        }
        EventType::PunchcardCompleted => {
            PunchcardCompleted { member_id, campaign_id, punchcard_id, rows: 2, rows_completed: 6 }.into()
        }
        EventType::SubscriptionCreated => {
            let owed_after = Some(Sequence(0));
            SubscriptionCreated { subscription: Box::new(subscription()), secret, owed_after }.into()
        }
        EventType::SubscriptionUpdated => {
            let subscription = Subscription { auth: Auth::None, headers: vec![], ..subscription() };
            SubscriptionUpdated { subscription: Box::new(subscription) }.into()
        }
        EventType::SubscriptionDeleted => SubscriptionDeleted { subscription_id }.into(),
        EventType::SubscriptionPaused => SubscriptionPaused { subscription_id, reason }.into(),
        EventType::SubscriptionResumed => SubscriptionResumed { subscription_id, reason }.into(),
        EventType::SubscriptionDisabled => SubscriptionDisabled { subscription_id, reason }.into(),
        EventType::BreakerOpened => {
            let breaker = BreakerState::Open { failing_since: UnixMillis(1), until: NOW, round: 2 };
            BreakerOpened { subscription_id, breaker }.into()
        }
        EventType::BreakerHalfOpened => {
            let breaker = BreakerState::HalfOpen { failing_since: UnixMillis(1), round: 2 };
            BreakerHalfOpened { subscription_id, breaker }.into()
        }
        EventType::BreakerClosed => BreakerClosed { subscription_id }.into(),
        EventType::DeliveryJobStarted => DeliveryJobStarted { subscription_id, job: job() }.into(),
        EventType::DeliveryJobAdvanced => {
            let put_back = vec![
                PutBack { sequence: Sequence(7), member: Some(member_id) },
                PutBack { sequence: Sequence(8), member: None },
            ];
            let next_sequence = Sequence(9);
            DeliveryJobAdvanced { subscription_id, job_id: job().id, next_sequence, put_back }.into()
        }
        EventType::DeliveryJobEnded => {
            DeliveryJobEnded { subscription_id, job_id: job().id, kind: JobKind::Redrive, cancelled: true }.into()
        }
        EventType::DeadLettersDropped => {
            DeadLettersDropped { subscription_id, sequences: vec![Sequence(104)], reason }.into()
        }
        EventType::FactPublished => FactPublished {
            source: "wallet".into(),
            fact_id: "f-1".into(),
            fact_type: "wallet_pass.installed".into(),
            member_id: Some(member_id),
            occurred_at: NOW,
            properties: Json(r#"{"n":1.5}"#.into()),
            personal: Json::empty(),
        }
        .into(),
        EventType::SubscriptionSecretRotated => {
            SubscriptionSecretRotated { subscription_id, secret, previous_until: NOW }.into()
        }
        EventType::DeliveryProgressed => {
            let progress = DeliveryProgress { cursor: Sequence(105), rows: delivery_rows() };
            DeliveryProgressed { subscription_id, progress }.into()
        }
        EventType::DeliveryDeadLettered => DeliveryDeadLettered {
            subscription_id,
            sequence: Sequence(104),
            event_type: "points.credited".into(),
            attempts: 10,
            reason: "http_500".into(),
        }
        .into(),
        EventType::DeadLettersRedriven => {
            DeadLettersRedriven { subscription_id, sequences: vec![Sequence(104), Sequence(3), Sequence(u64::MAX)] }
                .into()
        }
        EventType::FactTypeRegistered => FactTypeRegistered {
            fact_type: FactType {
                name: "fitting.booked".into(),
                description: "A fitting was booked".into(),
                schema: r#"{"type":"object"}"#.into(),
                version: 2,
            },
        }
        .into(),
        other => plain::plain(other),
    };
    let name = kind.as_str();
    let derived = matches!(name.split('.').next(), Some("consumption" | "points" | "punchcard"));
    let about_member = derived || name.starts_with("member.") || name.starts_with("coins.");
    let (key, mut events) = match derived && kind != EventType::PointsDebited {
        true => (Some(CommandKey::Consumption("cons-1".into())), vec![recorded()]),
        false => (Some(CommandKey::Request("req-1".into())), vec![]),
    };
    if kind != EventType::ConsumptionRecorded {
        events.push(event);
    }
    let member = about_member.then_some(member_id);
    Record { tenant: TENANT, time: NOW, member, key_slot: KeySlot::NONE, key, quiet: false, events }
}
