//! The codec: what was written is read again, by this version and by every later one.
//!
//! `golden/records-v1.txt` holds one record of each kind as it was first written. After a new kind of
//! event was added: `PUNCHLINE_GOLDEN=append cargo test -p punchline-storage --test codec` adds its
//! line; lines that stand there are never changed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use punchline_engine::decide;
use punchline_engine::dispatch::subscription::{BasicAuth, ClientCertificate, OAuth2, SignatureScheme};
use punchline_engine::dispatch::{
    AttemptLog, Auth, BreakerPolicy, BreakerState, DeliveryJob, DeliveryProgress, DeliveryRow, DeliveryState,
    DialectChoice, EventSelection, JobKind, JobState, OnDeadLetter, Ordering, PutBack, RetrySchedule, RowState as Row,
    Subscription,
};
use punchline_engine::event::*;
use punchline_engine::id::{
    AdvertiserId, CampaignId, Environment, JobId, MemberId, PunchcardId, RuleId, Sequence, SubscriptionId, Tenant,
};
use punchline_engine::loyalty::campaign::*;
use punchline_engine::loyalty::consumption::Line;
use punchline_engine::loyalty::ledger::{Currency, House, HouseAccount};
use punchline_engine::loyalty::member::{CapUse, Card, Identifier, IdentifierKind, Member, Profile, PunchcardProgress};
use punchline_engine::loyalty::tenant::{Credential, Scope, SealedSecret};
use punchline_engine::quantity::{Coins, Points, Quantity, Stamps};
use punchline_engine::time::{Period, UnixMillis};
use punchline_storage::block::RECORD_BYTES_MAX;
use punchline_storage::codec::*;
use uuid::Uuid;

const NOW: UnixMillis = UnixMillis(1_795_237_952_123);
const TENANT: Tenant = Tenant { advertiser: AdvertiserId::FIRST, environment: Environment::Staging };

fn member(n: u128) -> MemberId {
    MemberId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + n))
}

fn subscription_id() -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(0x0193_ffff_0000_7000_8000_0000_0000_0007))
}

fn origin() -> Origin {
    Origin::Consumption {
        consumption_id: "cons-1".into(),
        line: 1,
        sku: "SKU-2".into(),
        rule_id: "double".parse().unwrap(),
    }
}

fn profile() -> Profile {
    Profile {
        first_name: "Ana".into(),
        last_name: "Ionescu".into(),
        birth_date: "1990-02-28".into(),
        locale: "ro-RO".into(),
        marketing_consent: Some(false),
        attributes: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "".into())]),
    }
}

fn identifiers() -> Vec<Identifier> {
    vec![
        Identifier { kind: IdentifierKind::PhoneNumber, value: "40720005123".into() },
        Identifier { kind: IdentifierKind::Email, value: "ana@example.com".into() },
    ]
}

fn campaign() -> Campaign {
    let rule = |id: &str, skus| EarningRule {
        id: id.parse().unwrap(),
        skus,
        points: Points(10),
        coins: Coins(1),
        stamps: None,
        caps: vec![],
        validity: Validity::default(),
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
        version: 3,
    }
}

fn subscription() -> Subscription {
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

fn job() -> DeliveryJob {
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

fn delivery_rows() -> Vec<DeliveryRow> {
    let log = vec![
        AttemptLog { number: 1, at: NOW, latency_ms: 20, status: Some(503), error: "".into(), response: vec![0, 255] },
        AttemptLog { number: 2, at: NOW, latency_ms: 9, status: None, error: "timeout".into(), response: vec![] },
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

fn recorded() -> Event {
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

/// A record whose last event is of the kind. The match makes a new kind fail to compile until it has one.
fn sample(kind: EventType) -> Record {
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
        EventType::CampaignCreated => CampaignCreated { campaign: campaign() }.into(),
        EventType::CampaignUpdated => {
            let (rules, punchcards, dynamic_events) = (vec![], vec![], vec![]);
            CampaignUpdated { campaign: Campaign { rules, punchcards, dynamic_events, ..campaign() } }.into()
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
            origin: origin(),
        }
        .into(),
        EventType::PointsDebited => PointsDebited {
            member_id,
            campaign_id,
            amount: Points(150),
            previous_balance: Points(150),
            new_balance: Points(0),
            origin: Origin::Adjustment { reason },
        }
        .into(),
        EventType::CoinsChanged => CoinsChanged {
            member_id,
            amount: Coins(-5),
            previous_balance: Coins(7),
            new_balance: Coins(2),
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
            SubscriptionCreated { subscription: subscription(), secret, owed_after }.into()
        }
        EventType::SubscriptionUpdated => {
            let subscription = Subscription { auth: Auth::None, headers: vec![], ..subscription() };
            SubscriptionUpdated { subscription }.into()
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
    Record { tenant: TENANT, time: NOW, member: about_member.then_some(member_id), key, events }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn every_setting_of_a_subscription_comes_back() {
    let oauth2 = OAuth2 {
        token_url: "https://auth.example.com/token".into(),
        client_id: "punchline".into(),
        client_secret: SealedSecret(vec![1]),
        scopes: vec!["write".into()],
        audience: "crm".into(),
    };
    let full = Subscription {
        client_certificate: Some(ClientCertificate { chain_pem: "PEM".into(), key_pem: SealedSecret(vec![2]) }),
        signature: SignatureScheme::V1a,
        dialect: DialectChoice {
            name: "jericommerce".into(),
            settings: BTreeMap::from([("signature_encoding".into(), "hex".into())]),
        },
        filter: "event.type == 'points.credited'".into(),
        ordering: Ordering::Strict,
        on_dead_letter: OnDeadLetter::Hold,
        rate_per_second: 100,
        breaker: BreakerPolicy { failures: 5, open_ms: 1_000, disable_after_ms: 60_000 },
        consumer: "crm-sync".into(),
        ..subscription()
    };
    let auths = [
        Auth::None,
        Auth::Bearer { token: SealedSecret(vec![3]) },
        Auth::WriteKey { key: SealedSecret(vec![4]) },
        Auth::OAuth2(oauth2),
    ];
    for auth in auths {
        let subscription = Subscription { auth, ..full.clone() };
        let events = vec![SubscriptionUpdated { subscription }.into()];
        let record = Record { tenant: TENANT, time: NOW, member: None, key: None, events };
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
}

#[test]
fn every_kind_comes_back() {
    for &kind in EventType::ALL {
        let record = sample(kind);
        assert_eq!(record.events.last().unwrap().event_type(), kind);
        let bytes = encode_record(&record);
        assert_eq!(decode_record(&bytes).as_ref(), Ok(&record), "{}", kind.as_str());
        let mut buffer = vec![0xee];
        encode_record_into(&record, &mut buffer);
        assert_eq!(buffer[0], 0xee);
        assert_eq!(buffer[1..], bytes, "{}", kind.as_str());
        // The same without anything around: nothing can be left out, and all of it comes back.
        let events = vec![record.events.last().unwrap().clone()];
        let alone = Record { member: None, key: None, events, ..record };
        assert_eq!(decode_record(&encode_record(&alone)), Ok(alone), "{} alone", kind.as_str());
    }
}

#[test]
fn old_records_are_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/records-v1.txt");
    let mut golden = std::fs::read_to_string(&path).unwrap_or_default();
    let append = std::env::var("PUNCHLINE_GOLDEN").as_deref() == Ok("append");
    for &kind in EventType::ALL {
        let record = sample(kind);
        let known = golden.lines().find_map(|line| line.strip_prefix(kind.as_str())?.strip_prefix(' '));
        match known {
            Some(known) => {
                assert_eq!(decode_record(&unhex(known)).as_ref(), Ok(&record), "{} is read", kind.as_str());
                assert_eq!(hex(&encode_record(&record)), known, "{} is written", kind.as_str());
            }
            None => {
                assert!(append, "{} has no line: see the head of this file", kind.as_str());
                writeln!(golden, "{} {}", kind.as_str(), hex(&encode_record(&record))).unwrap();
            }
        }
    }
    if append {
        std::fs::write(&path, golden).unwrap();
    }
}

#[test]
fn a_write_key_is_read_as_one() {
    let mut record = sample(EventType::CredentialIssued);
    let Event::CredentialIssued(issued) = &mut record.events[0] else { panic!("another kind") };
    issued.credential.write_key = true;
    assert_eq!(decode_record(&encode_record(&record)), Ok(record));
}

fn sample_member() -> Member {
    let card = |id: &str, punchcards, cap_uses| Card {
        campaign_id: id.parse().unwrap(),
        joined_at: NOW,
        points: Points(-4),
        consumptions: 3,
        punchcards,
        cap_uses,
    };
    let progress =
        |id: &str| PunchcardProgress { punchcard_id: id.parse().unwrap(), stamps: Stamps(9), rows_completed: 1 };
    let used = CapUse { rule_id: "double".parse().unwrap(), period: Period::Day, number: 20_000, units: 5 };
    Member {
        id: member(1),
        tenant: TENANT,
        identifiers: identifiers(),
        profile: profile(),
        blocked: Some(String::new()),
        coins: Coins(i64::MAX),
        cards: vec![card("a", vec![progress("tea"), progress("coffee")], vec![used]), card("b", vec![], vec![])],
        created_at: UnixMillis(0),
        updated_at: NOW,
        entries: 70,
        entries_tail: [1_000, 1_003, 2_000, 5, u64::MAX].map(Sequence).into(),
        as_of: Sequence(2_001),
    }
}

fn sample_house() -> House {
    let points = |id: &str| Currency::Points(id.parse().unwrap());
    let account = |house, members| HouseAccount { house, members };
    let accounts = BTreeMap::from([
        (Currency::Coins, account(i64::MIN, 7)),
        (points("a"), account(-5, 5)),
        (points("b"), account(0, 0)),
    ]);
    House { accounts, members: 3, consumptions: 9, as_of: Sequence(44) }
}

fn sample_delivery_state() -> DeliveryState {
    let finished = [900, 4, 5, u64::MAX, 0].map(Sequence).into();
    let breaker = BreakerState::Open { failing_since: UnixMillis(1), until: NOW, round: 2 };
    DeliveryState { cursor: Sequence(1_000), finished, breaker, jobs: vec![job()], as_of: Sequence(1_002) }
}

#[test]
fn rows_come_back() {
    let plain =
        Member { blocked: None, cards: vec![], profile: Profile::default(), entries_tail: vec![], ..sample_member() };
    for member in [sample_member(), plain] {
        assert_eq!(decode_member(&encode_member(&member)), Ok(member));
    }
    for house in [sample_house(), House::default()] {
        assert_eq!(decode_house(&encode_house(&house)), Ok(house));
    }
    for state in [sample_delivery_state(), DeliveryState::default()] {
        assert_eq!(decode_delivery_state(&encode_delivery_state(&state)), Ok(state));
    }
    for row in delivery_rows() {
        assert_eq!(decode_delivery_row(&encode_delivery_row(&row)), Ok(row));
    }
}

#[test]
fn errors_name_the_field() {
    let said = |error: CodecError| error.to_string();
    assert_eq!(said(decode_record(&[0xff]).unwrap_err()), "bytes are no Record");
    assert_eq!(said(decode_record(&[]).unwrap_err()), "environment is missing");
    assert_eq!(said(decode_record(&[0x10, 3]).unwrap_err()), "environment is not valid: 3 is not known");
    assert_eq!(said(decode_record(&[0x10, 1]).unwrap_err()), "events is missing");
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 0]).unwrap_err()), "events[0].kind is missing");
    // consumption.counted without its campaign; points.credited without a member.
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 2, 0x22, 0]).unwrap_err()), "events[0].campaign_id is missing");
    assert_eq!(said(decode_record(&[0x10, 1, 0x3a, 2, 0x32, 0]).unwrap_err()), "events[0].member_id is missing");
    assert_eq!(said(decode_member(&[]).unwrap_err()), "id is missing");
    assert_eq!(said(decode_delivery_row(&[]).unwrap_err()), "state is missing");
    assert_eq!(said(decode_house(&[0x0a, 0, 0x0a, 0]).unwrap_err()), "accounts is not valid: a currency stands twice");
}

#[test]
fn nothing_is_repeated() {
    let bytes = encode_record(&sample(EventType::PointsCredited));
    for once in [member(1).0.as_bytes().as_slice(), b"cons-1", b"SKU-1", b"SKU-2"] {
        assert_eq!(bytes.windows(once.len()).filter(|w| *w == once).count(), 1, "{once:?}");
    }
}

/// What a rule can give, as small as that can be beside a consumption "c" of member 1 with one line "s".
fn smallest_earned() -> [Event; 8] {
    let (member_id, consumption_id, sku) = (member(1), String::from("c"), String::from("s"));
    let (campaign_id, rule_id, punchcard_id) = ("c".parse().unwrap(), "r".parse().unwrap(), "p".parse().unwrap());
    let origin = || Origin::Consumption {
        consumption_id: consumption_id.clone(),
        line: 0,
        sku: sku.clone(),
        rule_id: "r".parse().unwrap(),
    };
    let campaign_id = || CampaignId::clone(&campaign_id);
    let punchcard_id = || PunchcardId::clone(&punchcard_id);
    let none = RowState { stamps: Stamps(0), rows_completed: 0 };
    [
        ConsumptionMatched {
            consumption_id: consumption_id.clone(),
            member_id,
            campaign_id: campaign_id(),
            rule_id: RuleId::clone(&rule_id),
            line: 0,
            sku: sku.clone(),
            units: 1,
        }
        .into(),
        ConsumptionRejected {
            consumption_id: consumption_id.clone(),
            member_id,
            reason: Unrewarded::CapReached,
            line: 0,
            sku: sku.clone(),
            units: 1,
            campaign_id: Some(campaign_id()),
            rule_id: Some(rule_id.clone()),
        }
        .into(),
        PointsCredited {
            member_id,
            campaign_id: campaign_id(),
            amount: Points(1),
            previous_balance: Points(0),
            new_balance: Points(1),
            origin: origin(),
        }
        .into(),
        CoinsChanged {
            member_id,
            amount: Coins(1),
            previous_balance: Coins(0),
            new_balance: Coins(1),
            origin: origin(),
        }
        .into(),
        PunchcardStampsReceived {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            stamps: Stamps(1),
            row_length: 1,
            previous: none,
            new: none,
            origin: origin(),
        }
        .into(),
        PunchcardStepCompleted {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            step: 1,
            times: 1,
        }
        .into(),
        PunchcardCompleted {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            rows: 1,
            rows_completed: 1,
        }
        .into(),
        PunchcardStampsDiscarded {
            member_id,
            campaign_id: campaign_id(),
            punchcard_id: punchcard_id(),
            stamps: Stamps(1),
            origin: origin(),
        }
        .into(),
    ]
}

/// `decide` gives up where so many events have more bytes than a record holds.
#[test]
fn no_earned_event_is_smaller_than_decide_counts_on() {
    const { assert!(RECORD_BYTES_MAX <= decide::RECORD_BYTES_MAX, "decide refuses what a record holds") };
    let recorded = ConsumptionRecorded {
        consumption_id: "c".into(),
        member_id: member(1),
        consumed_at: NOW,
        lines: vec![Line { sku: "s".into(), product_name: None, quantity: Quantity::new(1).unwrap() }],
        identifiers_digest: 1,
    };
    let bytes = |events| {
        let key = Some(CommandKey::Consumption("c".into()));
        encode_record(&Record { tenant: TENANT, time: NOW, member: Some(member(1)), key, events }).len()
    };
    let alone = bytes(vec![recorded.clone().into()]);
    for event in smallest_earned() {
        let taken = bytes(vec![recorded.clone().into(), event.clone()]) - alone;
        assert!(taken >= decide::EARNED_EVENT_BYTES_MIN, "{taken} bytes: {event:?}");
    }
}

/// Whatever these bytes are, no decoder panics, and what one accepts is stable.
fn check_decoders(bytes: &[u8]) {
    if let Ok(record) = decode_record(bytes) {
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
    if let Ok(member) = decode_member(bytes) {
        assert_eq!(decode_member(&encode_member(&member)), Ok(member));
    }
    if let Ok(house) = decode_house(bytes) {
        assert_eq!(decode_house(&encode_house(&house)), Ok(house));
    }
    if let Ok(state) = decode_delivery_state(bytes) {
        assert_eq!(decode_delivery_state(&encode_delivery_state(&state)), Ok(state));
    }
    if let Ok(row) = decode_delivery_row(bytes) {
        assert_eq!(decode_delivery_row(&encode_delivery_row(&row)), Ok(row));
    }
}

/// An event of those that leave things out, with values that may or may not be the record's.
fn derived() -> impl Strategy<Value = Event> {
    let amounts = (any::<i64>(), any::<i64>(), any::<i64>(), any::<bool>());
    (0u128..3, "[ab]?", 0u32..4, "[AB]?", amounts, 0..6).prop_map(
        |(m, consumption_id, line, sku, (amount, previous, new, holds), kind)| {
            let (member_id, campaign_id, rule_id) = (member(m), "c".parse().unwrap(), "r".parse().unwrap());
            let debits = kind == 3;
            let after = if debits { previous.checked_sub(amount) } else { previous.checked_add(amount) };
            let new = after.filter(|_| holds).unwrap_or(new);
            let units = amount.unsigned_abs();
            let from = Origin::Consumption {
                consumption_id: consumption_id.clone(),
                line,
                sku: sku.clone(),
                rule_id: "r".parse().unwrap(),
            };
            let (amount, previous_balance, new_balance) = (Points(amount), Points(previous), Points(new));
            match kind {
                0 => ConsumptionFirst { consumption_id, member_id, campaign_id }.into(),
                1 => ConsumptionMatched { consumption_id, member_id, campaign_id, rule_id, line, sku, units }.into(),
                2 => PointsCredited { member_id, campaign_id, amount, previous_balance, new_balance, origin: from }
                    .into(),
                3 => {
                    PointsDebited { member_id, campaign_id, amount, previous_balance, new_balance, origin: from }.into()
                }
                4 => ConsumptionRejected {
                    consumption_id,
                    member_id,
                    reason: Unrewarded::NoRuleMatched,
                    line,
                    sku,
                    units,
                    campaign_id: None,
                    rule_id: None,
                }
                .into(),
                _ => CoinsChanged {
                    member_id,
                    amount: Coins(amount.0),
                    previous_balance: Coins(previous),
                    new_balance: Coins(new),
                    origin: from,
                }
                .into(),
            }
        },
    )
}

fn any_record() -> impl Strategy<Value = Record> {
    let line = ("[AB]?", prop::option::of(".{0,3}"), 1u64..=10_000).prop_map(|(sku, product_name, units)| Line {
        sku,
        product_name,
        quantity: Quantity::new(units).unwrap(),
    });
    let recorded = ("[ab]?", 0u128..3, any::<i64>(), prop::collection::vec(line, 0..4), any::<u64>()).prop_map(
        |(consumption_id, m, at, lines, identifiers_digest)| {
            let (member_id, consumed_at) = (member(m), UnixMillis(at));
            Event::from(ConsumptionRecorded { consumption_id, member_id, consumed_at, lines, identifiers_digest })
        },
    );
    let event = prop_oneof![1 => recorded.clone(), 8 => derived()];
    let first = prop_oneof![4 => recorded, 1 => derived()];
    let key = prop_oneof![
        Just(None),
        "[ab]?".prop_map(|id| Some(CommandKey::Consumption(id))),
        "[ab]?".prop_map(|id| Some(CommandKey::Request(id))),
        ("[ab]?", "[ab]?").prop_map(|(source, fact_id)| Some(CommandKey::Fact { source, fact_id })),
    ];
    let around = (any::<u64>(), any::<bool>(), any::<i64>(), prop::option::of(0u128..3), key);
    (around, first, prop::collection::vec(event, 0..6)).prop_map(
        |((advertiser, production, time, m, key), first, mut events)| {
            events.insert(0, first);
            let environment = if production { Environment::Production } else { Environment::Staging };
            let tenant = Tenant { advertiser: AdvertiserId(advertiser), environment };
            Record { tenant, time: UnixMillis(time), member: m.map(member), key, events }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_record_comes_back(record in any_record()) {
        let bytes = encode_record(&record);
        prop_assert_eq!(&encode_record(&record), &bytes);
        prop_assert_eq!(decode_record(&bytes), Ok(record));
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_decoders(&bytes);
    }

    #[test]
    fn damaged_bytes_are_taken(
        which in 0..EventType::ALL.len() + 4, at: prop::sample::Index, with: u8, cut: Option<prop::sample::Index>,
    ) {
        let mut bytes = match which.checked_sub(EventType::ALL.len()) {
            None => encode_record(&sample(EventType::ALL[which])),
            Some(0) => encode_member(&sample_member()),
            Some(1) => encode_house(&sample_house()),
            Some(2) => encode_delivery_state(&sample_delivery_state()),
            Some(_) => encode_delivery_row(&delivery_rows()[0]),
        };
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_decoders(&bytes);
    }
}

/// What a consumption's record costs: `cargo test --release … -- --ignored --nocapture speed`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, clippy::disallowed_methods)]
fn speed() {
    let mut record = sample(EventType::PointsCredited);
    for kind in [EventType::ConsumptionFirst, EventType::ConsumptionMatched, EventType::ConsumptionCounted] {
        record.events.extend(sample(kind).events.pop());
    }
    let mut buffer = Vec::with_capacity(4_096);
    let times = 1_000_000;
    let began = std::time::Instant::now();
    for _ in 0..times {
        buffer.clear();
        encode_record_into(std::hint::black_box(&record), &mut buffer);
    }
    let encode = began.elapsed() / times;
    let began = std::time::Instant::now();
    for _ in 0..times {
        std::hint::black_box(decode_record(&buffer)).unwrap();
    }
    println!("{} bytes, encode {encode:?}, decode {:?}", buffer.len(), began.elapsed() / times);
}
